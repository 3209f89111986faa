//! How others reach an execution that is running: flags, and a bell that wakes the task behind them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::commit::Commit;

/// The flags of one backend's task.
#[derive(Debug, Default)]
pub(crate) struct Control {
    /// Rung after each change, and by readers of the pipe.
    pub(crate) bell: Arc<Notify>,
    cancel: AtomicBool,
    close: AtomicBool,
    fall: AtomicBool,
    rows: AtomicI64,
    commit: Mutex<Option<Commit>>,
}

impl Control {
    /// Forgets what was said about the last execution.
    pub(crate) fn reset(&self) {
        self.cancel.store(false, Ordering::Release);
        self.fall.store(false, Ordering::Release);
        self.rows.store(0, Ordering::Relaxed);
        self.set_commit(None);
    }

    /// Asks for the running execution to be cancelled. Call it only while that execution cannot change.
    pub(crate) fn cancel(&self) {
        self.cancel.store(true, Ordering::Release);
        self.bell.notify_one();
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancel.load(Ordering::Acquire)
    }

    /// Asks for the running execution to be cancelled because its session may only read from now on. Call it only while that
    /// execution cannot change.
    pub(crate) fn fall(&self) {
        self.fall.store(true, Ordering::Release);
        self.bell.notify_one();
    }

    pub(crate) fn is_falling(&self) -> bool {
        self.fall.load(Ordering::Acquire)
    }

    /// Asks for the backend to be closed, whatever it does.
    pub(crate) fn close(&self) {
        self.close.store(true, Ordering::Release);
        self.bell.notify_one();
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.close.load(Ordering::Acquire)
    }

    /// Rows sent so far.
    pub(crate) fn rows(&self) -> i64 {
        self.rows.load(Ordering::Relaxed)
    }

    pub(crate) fn set_rows(&self, rows: i64) {
        self.rows.store(rows, Ordering::Relaxed);
    }

    /// The last COMMIT that was announced.
    pub(crate) fn commit(&self) -> Option<Commit> {
        self.commit.lock().clone()
    }

    pub(crate) fn set_commit(&self, commit: Option<Commit>) {
        *self.commit.lock() = commit;
    }
}
