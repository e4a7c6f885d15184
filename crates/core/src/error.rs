//! How errors become text.

use std::error::Error;

/// An error with its causes, on one line. A cause that stands in the text before it already, as in errors of client
/// libraries, is not repeated.
#[must_use]
pub fn error_chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        cause = error.source();
    }
    text
}
