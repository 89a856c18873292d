//! Paths and names as the configuration writes them.

use std::path::{Component, Path, PathBuf};

/// What relative paths and `~/` start from.
#[derive(Debug)]
pub(super) struct Base {
    pub(super) directory: PathBuf,
    pub(super) home: Option<PathBuf>,
}

impl Base {
    /// The whole path that a text stands for.
    pub(super) fn resolve(&self, text: &str) -> Result<PathBuf, &'static str> {
        if text.contains('\0') {
            return Err("a path cannot hold a NUL character");
        }
        let path = match text.strip_prefix('~') {
            None => self.directory.join(text),
            Some("") => self.home()?.to_path_buf(),
            Some(rest) => match rest.strip_prefix('/') {
                Some(rest) => self.home()?.join(rest.trim_start_matches('/')),
                None => return Err("of the paths with ~ only ~/ is understood"),
            },
        };
        Ok(without_dots(&path))
    }

    fn home(&self) -> Result<&Path, &'static str> {
        self.home.as_deref().ok_or("it begins with ~/, but HOME is not set")
    }
}

/// Drops `.` segments, which only make messages longer. `..` stays: behind a symlink it means something else than it seems to.
fn without_dots(path: &Path) -> PathBuf {
    path.components().filter(|component| *component != Component::CurDir).collect()
}

/// Whether a text can be one segment of a path and of an object's key.
pub(super) fn is_segment(text: &str) -> bool {
    let dots = text == "." || text == "..";
    let plain = |c: char| !c.is_control() && c != '/' && c != '\\';
    !text.is_empty() && !dots && text.len() <= 255 && text.trim() == text && text.chars().all(plain)
}

/// Whether a text is a name that people give to things: letters, digits, `-`, `_` and inner dots.
pub(super) fn is_name(text: &str) -> bool {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_');
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    text.len() <= 255 && edge(text.chars().next()) && edge(text.chars().last()) && text.chars().all(plain)
}
