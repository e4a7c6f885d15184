//! Standard error, shared by notices and the progress line.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::cli::process::say_error;

/// How often the progress line is redrawn.
pub(super) const REFRESH: Duration = Duration::from_millis(100);

/// Prints notices without breaking the progress line. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Console {
    bar: ProgressBar,
}

impl Console {
    /// Shows a progress line if standard error is a terminal. `bytes` is the length of the input, if known.
    pub(super) fn new(bytes: Option<u64>) -> Self {
        let bar = ProgressBar::with_draw_target(bytes, ProgressDrawTarget::stderr());
        let template = match bytes {
            Some(_) => "{spinner} {bar:30} {percent:>3} % {elapsed} {msg}",
            None => "{spinner} {elapsed} {msg}",
        };
        bar.set_style(ProgressStyle::with_template(template).expect("the template is right"));
        if !bar.is_hidden() {
            bar.enable_steady_tick(REFRESH);
        }
        Self { bar }
    }

    /// Whether there is a progress line.
    pub(super) fn shows_progress(&self) -> bool {
        !self.bar.is_hidden()
    }

    /// Changes the progress line. `position` is how many bytes of the input were read.
    pub(super) fn progress(&self, position: Option<u64>, message: String) {
        if let Some(position) = position {
            self.bar.set_position(position);
        }
        self.bar.set_message(message);
    }

    /// Prints a line.
    pub(super) fn say(&self, text: &str) {
        self.bar.suspend(|| say_error(format_args!("lanekeeper publish: {text}")));
    }

    /// Removes the progress line.
    pub(super) fn end_progress(&self) {
        self.bar.finish_and_clear();
    }
}
