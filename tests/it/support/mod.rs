//! What the tests start, and stop again by its id.

pub(crate) mod openssl;
pub mod bucket;
pub mod moto;
pub mod process;
pub mod radosgw;
pub mod s3_in_process;
pub mod s3rver;
pub mod s3s_fs;
pub mod ca_front;
pub mod http;
pub mod pebble;
#[allow(dead_code)]
pub mod process;
pub mod server;
pub mod tls;
