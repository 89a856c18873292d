//! certfleet gives every webserver of a fleet the same valid TLS certificate, with nothing shared between the machines but a bucket.
//!
//! Imports go one way: `cli → fleet → {datastore, issuer → solver, target} → domain`, with [`system`] a leaf beside them and `config → domain`.
//! `tests/tidy.rs` enforces it.

pub mod cli;
pub mod config;
pub mod datastore;
pub mod domain;
pub mod fleet;
pub mod issuer;
pub mod solver;
pub mod system;
pub mod target;
