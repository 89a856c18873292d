//! Small things shared by everything that touches the machine.

pub mod clock;
pub mod command;
pub mod directories;
pub mod error_chain;
pub mod files;
pub mod listener;
pub mod lock;
pub mod memory;
pub mod owner;
pub mod program;
pub mod provider;
pub mod random;
pub mod ssh;
pub mod steps;
pub mod text;
pub mod witness;
