//! What bundles are installed into, and the proof that they are served.

pub mod handshake;
