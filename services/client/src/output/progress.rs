//! Progress on the terminal, where there is one; silence otherwise.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How far something is.
#[derive(Debug)]
pub(crate) struct Progress(ProgressBar);

const KNOWN: &str = "{msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec}";
const UNKNOWN: &str = "{spinner} {msg} {bytes} {bytes_per_sec}";
const TICK: Duration = Duration::from_millis(120);

impl Progress {
    /// Progress in bytes; of `total` where it is known.
    pub(crate) fn bytes(terminal: bool, message: &str, total: Option<u64>) -> Self {
        let target = if terminal {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(None, target);
        bar.set_message(message.to_owned());
        let progress = Self(bar);
        progress.total(total);
        if terminal {
            progress.0.enable_steady_tick(TICK);
        }
        progress
    }

    fn total(&self, total: Option<u64>) {
        let template = if total.is_some() { KNOWN } else { UNKNOWN };
        // Both are constants; one that is wrong would only cost its looks.
        self.0.set_style(
            ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()),
        );
        if let Some(total) = total {
            self.0.set_length(total);
        }
    }

    /// Shows where it is.
    pub(crate) fn set(&self, message: String, done: u64, total: Option<u64>) {
        self.total(total);
        self.0.set_message(message);
        self.0.set_position(done);
    }

    /// So many more.
    pub(crate) fn advance(&self, bytes: u64) {
        self.0.inc(bytes);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
