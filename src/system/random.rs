//! Names that nobody else will choose.

use aws_lc_rs::rand;

use std::fmt::Write as _;

/// 128 random bits as 32 hexadecimal digits.
///
/// # Panics
/// When the operating system has no random numbers: nothing cryptographic would work then.
pub fn name() -> String {
    let mut bytes = [0_u8; 16];
    #[expect(clippy::expect_used, reason = "without random numbers there is nothing to go on with")]
    rand::fill(&mut bytes).expect("the operating system has random numbers");
    bytes.iter().fold(String::with_capacity(32), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
