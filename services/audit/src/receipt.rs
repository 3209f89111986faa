//! Whether a record was written, for who must do something until it is.

use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;

/// How a record stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writing {
    /// It waits.
    Pending,
    /// It is in the config database.
    Done,
    /// It will not be written: there was no room for it, or the writer has ended.
    Lost,
}

/// Says whether a record was written.
#[derive(Debug)]
pub struct Receipt {
    written: oneshot::Receiver<()>,
    writing: Writing,
}

impl Receipt {
    /// One, and who says so.
    pub(crate) fn new() -> (oneshot::Sender<()>, Self) {
        let (sender, written) = oneshot::channel();
        let receipt = Self {
            written,
            writing: Writing::Pending,
        };
        (sender, receipt)
    }

    /// How the record stands now.
    pub fn look(&mut self) -> Writing {
        if self.writing == Writing::Pending {
            self.writing = match self.written.try_recv() {
                Ok(()) => Writing::Done,
                Err(TryRecvError::Empty) => Writing::Pending,
                Err(TryRecvError::Closed) => Writing::Lost,
            };
        }
        self.writing
    }

    /// Waits until it is written or lost. The caller bounds the wait.
    pub async fn settled(&mut self) {
        if self.look() == Writing::Pending {
            self.writing = match (&mut self.written).await {
                Ok(()) => Writing::Done,
                Err(_) => Writing::Lost,
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn receipt_keeps_saying_what_became_of_its_record() {
        let (written, mut receipt) = Receipt::new();
        assert_eq!(receipt.look(), Writing::Pending);
        written.send(()).unwrap();
        receipt.settled().await;
        assert_eq!((receipt.look(), receipt.look()), (Writing::Done, Writing::Done));
        let (written, mut receipt) = Receipt::new();
        drop(written);
        receipt.settled().await;
        assert_eq!((receipt.look(), receipt.look()), (Writing::Lost, Writing::Lost));
    }
}
