//! Names that nobody else will choose, and numbers that nobody can foresee.

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

/// A number from 0 up to, but not including, 1.
pub fn fraction() -> f64 {
    // 32 bits are exact in a float.
    let digits = &name()[..8];
    f64::from(u32::from_str_radix(digits, 16).unwrap_or_default()) / (f64::from(u32::MAX) + 1.0)
}
