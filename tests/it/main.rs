//! Tests of the whole, on real servers: one binary, one module per subject.

#![allow(unreachable_pub, reason = "pub marks what the modules of this binary offer each other")]

mod acme;
mod agent;
mod challenges;
mod config;
mod crash;
mod datastore;
mod directory;
mod dns;
mod doctor;
mod faults;
mod fleet;
mod fleet_of_hosts;
mod handshake;
mod hostile;
mod local_ca;
mod main_job;
mod prune;
mod push;
mod revoke;
mod rollback;
mod rotation;
mod s3;
mod schedule;
mod secrets;
mod short_lives;
mod solver;
mod ssl_root;
mod status;
mod supplied;
mod support;
mod targets;
mod windows;
