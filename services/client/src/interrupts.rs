//! Ctrl-C, seen by whoever waits for it.

use tokio::sync::watch;

/// Counts interrupts. Each clone sees those that come after it was made or last looked.
#[derive(Debug, Clone)]
pub struct Interrupts(watch::Receiver<u64>);

/// Sends interrupts.
#[derive(Debug, Clone)]
pub struct Interrupter(watch::Sender<u64>);

impl Interrupter {
    /// A pair.
    #[must_use]
    pub fn new() -> (Self, Interrupts) {
        let (sender, receiver) = watch::channel(0);
        (Self(sender), Interrupts(receiver))
    }

    /// Interrupts.
    pub fn interrupt(&self) {
        self.0.send_modify(|count| *count += 1);
    }
}

impl Interrupts {
    /// The next interrupt; never where no more can come.
    pub async fn next(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Forgets interrupts that came already.
    pub fn forget(&mut self) {
        self.0.mark_unchanged();
    }
}

/// Turns the process's SIGINT into interrupts, for as long as the future is polled.
pub(crate) async fn follow_signals(interrupter: Interrupter) {
    while tokio::signal::ctrl_c().await.is_ok() {
        interrupter.interrupt();
    }
    std::future::pending::<()>().await;
}
