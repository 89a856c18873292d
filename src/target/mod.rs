//! What bundles are installed into, and the proof that they are served.

pub mod handshake;
pub mod served;
pub mod server;
pub mod ssl_root;
