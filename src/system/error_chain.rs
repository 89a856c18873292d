//! Errors as people read them: what failed, then why, each told once.

use std::error::Error;

/// An error with its causes. Libraries repeat a cause in the text of its effect: what was said already is left out.
pub fn in_full(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let said = cause.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        source = cause.source();
    }
    text
}
