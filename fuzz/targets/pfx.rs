//! PKCS#12 archives, and whatever else is binary.

use super::{Verdict, supplied};

pub fn check(data: &[u8]) -> Verdict {
    supplied::judge(data, Some(supplied::PASSWORD), "")
}
