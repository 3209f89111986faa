//! The standard output, written by a thread of its own: a reader that is slow holds up neither the runtime
//! nor Ctrl-C.
//!
//! Invariant: a few blocks wait to be written, never more; who writes faster waits.

use std::io::{self, Write};
use std::thread::JoinHandle;

use tokio::sync::{mpsc, oneshot};

use crate::error::ClientError;

/// Blocks that may wait.
const QUEUE: usize = 4;
/// A block is handed over once it has so many bytes.
const BLOCK_BYTES: usize = 64 * 1024;

enum Job {
    Write(Vec<u8>),
    Flush(oneshot::Sender<()>),
}

/// The standard output.
#[derive(Debug)]
pub(crate) struct Sink {
    /// What is written next. Push to it, then call [`Sink::pass`].
    pub(crate) block: Vec<u8>,
    jobs: mpsc::Sender<Job>,
    /// Ends with the first error; it cannot be joined while somebody reads slowly and we must go.
    writer: Option<JoinHandle<io::Result<()>>>,
}

impl Sink {
    pub(crate) fn new(mut writer: Box<dyn Write + Send>) -> Self {
        let (jobs, mut queue) = mpsc::channel(QUEUE);
        let writer = std::thread::spawn(move || {
            while let Some(job) = queue.blocking_recv() {
                match job {
                    Job::Write(block) => writer.write_all(&block)?,
                    Job::Flush(done) => {
                        writer.flush()?;
                        // Whoever asked may have gone.
                        let _ = done.send(());
                    }
                }
            }
            writer.flush()
        });
        Self {
            block: Vec::new(),
            jobs,
            writer: Some(writer),
        }
    }

    /// Hands the block over if it is large enough to be worth it.
    pub(crate) async fn pass(&mut self) -> Result<(), ClientError> {
        if self.block.len() < BLOCK_BYTES {
            Ok(())
        } else {
            self.hand_over().await
        }
    }

    async fn hand_over(&mut self) -> Result<(), ClientError> {
        if self.block.is_empty() {
            return Ok(());
        }
        let block = std::mem::take(&mut self.block);
        self.job(Job::Write(block)).await
    }

    /// Returns when everything is written.
    pub(crate) async fn flush(&mut self) -> Result<(), ClientError> {
        self.hand_over().await?;
        let (done, flushed) = oneshot::channel();
        self.job(Job::Flush(done)).await?;
        match flushed.await {
            Ok(()) => Ok(()),
            Err(_) => Err(self.failure()),
        }
    }

    async fn job(&mut self, job: Job) -> Result<(), ClientError> {
        match self.jobs.send(job).await {
            Ok(()) => Ok(()),
            Err(_) => Err(self.failure()),
        }
    }

    /// Why the thread ended. It has ended: it gave up its end of the queue.
    fn failure(&mut self) -> ClientError {
        let ended = self.writer.take().map(JoinHandle::join);
        let cause = match ended {
            Some(Ok(Err(cause))) => cause,
            _ => io::ErrorKind::BrokenPipe.into(),
        };
        ClientError::Output(cause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Exit;

    struct Closed;

    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn reader_that_goes_away_is_noticed() {
        let mut sink = Sink::new(Box::new(Closed));
        sink.block.extend_from_slice(b"x");
        let error = sink.flush().await.unwrap_err();
        assert_eq!(error.exit(), Exit::OutputClosed);
    }
}
