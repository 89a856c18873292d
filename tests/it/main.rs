//! Tests of the whole, on real servers: one binary, one module per subject.

mod fleet;
mod support;
