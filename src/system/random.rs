//! Names that nobody else will choose.

use std::fmt::Write as _;

use rustix::rand::{GetRandomFlags, getrandom};

/// 128 random bits as 32 hexadecimal digits.
///
/// They come from the operating system itself: the generator of the cryptographic library first gathers entropy of its own, for longer
/// than all the rest of a run that finds nothing to do.
///
/// # Panics
/// When the operating system has no random numbers: nothing cryptographic would work then.
pub fn name() -> String {
    let mut bytes = [0_u8; 16];
    #[expect(clippy::expect_used, reason = "without random numbers there is nothing to go on with")]
    let length = getrandom(&mut bytes, GetRandomFlags::empty()).expect("the operating system has random numbers");
    // Up to 256 bytes are never given in part (getrandom(2)).
    assert_eq!(length, bytes.len(), "the operating system gives all the random numbers it is asked for");
    bytes.iter().fold(String::with_capacity(32), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
