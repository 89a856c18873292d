//! What the tests start, and stop again by its id.

pub mod bind9;
pub mod bucket;
pub mod ca_front;
pub mod fleet_files;
pub mod hostile_proxy;
pub mod http;
pub mod machine;
pub mod moto;
pub mod namespace;
pub mod openssl;
pub mod pebble;
pub mod private_mounts;
pub mod process;
pub mod radosgw;
pub mod s3_in_process;
pub mod s3rver;
pub mod s3s_fs;
pub mod server;
pub mod sshd;
pub mod tls;
pub mod webserver;
