//! What the tests start, and stop again by its id.

pub(crate) mod openssl;
pub mod process;
pub mod s3_in_process;
pub mod server;
pub mod tls;
