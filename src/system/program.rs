//! Whether a program could be started.

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// Where a program is that is named by a path, or to be looked for in `PATH`; `None` where there is none that can be run.
pub fn find(name: &str) -> Option<PathBuf> {
    if name.contains('/') {
        return Some(PathBuf::from(name)).filter(|path| is_runnable(path));
    }
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).map(|directory| directory.join(name)).find(|path| is_runnable(path))
}

fn is_runnable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_as_the_system_finds_them() {
        assert!(find("sh").is_some_and(|path| path.ends_with("sh")) && find("/bin/sh").is_some());
        for missing in ["no-such-program-anywhere", "/no/such/program", "/etc/passwd", "/etc"] {
            assert_eq!(find(missing), None, "{missing}");
        }
    }
}
