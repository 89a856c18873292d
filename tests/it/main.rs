//! Tests of the whole, on real servers: one binary, one module per subject.

#![allow(unreachable_pub, reason = "pub marks what the modules of this binary offer each other")]

mod acme;
mod config;
mod crash;
mod datastore;
mod directory;
mod faults;
mod fleet;
mod handshake;
mod local_ca;
mod main_job;
mod s3;
mod solver;
mod supplied;
mod support;
