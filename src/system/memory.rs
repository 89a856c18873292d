//! What this process holds in memory is kept from others: private keys lie there in the clear.

use std::io;

use rustix::process::{DumpableBehavior, set_dumpable_behavior};

/// From now on the kernel writes no core file of this process, and lets nobody but root trace it or read its memory and environment,
/// not even other processes of the same user (PR_SET_DUMPABLE of prctl(2), proc(5)). Programs that this one starts are not affected:
/// execve(2) undoes it for them.
pub fn keep_to_ourselves() -> io::Result<()> {
    Ok(set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}
