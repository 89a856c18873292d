//! The points between which a disk changes: where a run can be killed, and a disk refuse.
//!
//! Every function of this crate that changes a file of ours calls [`before`] first. Not counted are strangers' files that are carried along,
//! what stands in for an exchange on file systems without one (but its beginning), lock files, and the removal of leftovers. Nothing watches in production. The simulator watches the
//! steps of its thread, and a debug build ends itself at the step that [`CRASH_AT`] names, as a kill or a power cut would.

use std::cell::RefCell;
use std::io;
use std::path::Path;
use std::rc::Rc;

/// The environment variable that names a step by its number, the first being 1. Release builds do not know it.
pub const CRASH_AT: &str = "CERTFLEET_CRASH_AT_STEP";

type Watch = Rc<dyn Fn(&'static str, &Path) -> io::Result<()>>;

thread_local! {
    static WATCH: RefCell<Option<Watch>> = const { RefCell::new(None) };
}

/// Says that `path` is about to be changed in the way that `step` names. An error is what the system would answer.
pub fn before(step: &'static str, path: &Path) -> io::Result<()> {
    #[cfg(debug_assertions)]
    crash::count();
    let watch = WATCH.with(|watching| watching.borrow().clone());
    watch.map_or(Ok(()), |watch| watch(step, path))
}

/// Has every step on this thread watched; what watched before does so no longer.
pub fn watch(watch: impl Fn(&'static str, &Path) -> io::Result<()> + 'static) {
    WATCH.with(|watching| *watching.borrow_mut() = Some(Rc::new(watch)));
}

#[cfg(debug_assertions)]
mod crash {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    static REACHED: AtomicU64 = AtomicU64::new(0);
    static CRASH_AT: OnceLock<Option<u64>> = OnceLock::new();

    pub(super) fn count() {
        let crash_at = CRASH_AT.get_or_init(|| std::env::var(super::CRASH_AT).ok()?.parse().ok());
        if *crash_at == Some(REACHED.fetch_add(1, Ordering::Relaxed) + 1) {
            // Nothing is unwound, written or closed: the process is gone.
            let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        }
    }
}
