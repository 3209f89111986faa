//! Carries encoded events from the task that runs an execution to whoever reads it.
//!
//! Bounded by bytes: a writer looks at [`PipeWriter::has_room`] before it takes more from the server, so a slow reader
//! stops the reading of the socket. Pushing itself never waits, so the last events always find their place.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use futures::Stream;
use parking_lot::Mutex;
use rpc::events::EncodedEvents;
use tokio::sync::Notify;
use tonic::Status;

/// Bytes that may wait for the reader before the writer stops.
const ROOM: usize = 256 * 1024;

#[derive(Debug, Default)]
struct State {
    messages: VecDeque<EncodedEvents>,
    bytes: usize,
    /// How it ended; nothing while it goes on.
    end: Option<Result<(), Status>>,
    reader_gone: bool,
    reader: Option<Waker>,
}

#[derive(Debug)]
struct Pipe {
    state: Mutex<State>,
    /// Tells the writer that there is room again or that the reader is gone.
    writer: Arc<Notify>,
}

/// A pipe whose writer is woken through `writer`.
pub(crate) fn pipe(writer: Arc<Notify>) -> (PipeWriter, PipeReader) {
    let pipe = Arc::new(Pipe {
        state: Mutex::new(State::default()),
        writer,
    });
    (PipeWriter(Arc::clone(&pipe)), PipeReader(pipe))
}

/// The writing end.
#[derive(Debug)]
pub(crate) struct PipeWriter(Arc<Pipe>);

impl PipeWriter {
    /// False while the reader has enough to do.
    pub(crate) fn has_room(&self) -> bool {
        self.0.state.lock().bytes < ROOM
    }

    /// True once nobody will read any more.
    pub(crate) fn reader_gone(&self) -> bool {
        self.0.state.lock().reader_gone
    }

    /// Hands a message over.
    pub(crate) fn push(&self, message: EncodedEvents) {
        let mut state = self.0.state.lock();
        if state.reader_gone {
            return;
        }
        state.bytes += message.as_bytes().len();
        state.messages.push_back(message);
        let reader = state.reader.take();
        drop(state);
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    /// Ends the stream after what was pushed.
    pub(crate) fn end(self) {
        self.finish(Ok(()));
    }

    /// Ends the stream with an error.
    pub(crate) fn fail(self, error: Status) {
        self.finish(Err(error));
    }

    fn finish(&self, end: Result<(), Status>) {
        let mut state = self.0.state.lock();
        state.end.get_or_insert(end);
        if let Some(reader) = state.reader.take() {
            reader.wake();
        }
    }
}

impl Drop for PipeWriter {
    fn drop(&mut self) {
        // A stream without `finished` must not look complete.
        self.finish(Err(Status::aborted("the execution was given up before it ended")));
    }
}

/// The reading end: a stream of messages. Dropping it tells the writer.
#[derive(Debug)]
pub(crate) struct PipeReader(Arc<Pipe>);

impl Stream for PipeReader {
    type Item = Result<EncodedEvents, Status>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut state = self.0.state.lock();
        if let Some(message) = state.messages.pop_front() {
            let was_full = state.bytes >= ROOM;
            state.bytes -= message.as_bytes().len();
            if was_full && state.bytes < ROOM {
                self.0.writer.notify_one();
            }
            return Poll::Ready(Some(Ok(message)));
        }
        match &mut state.end {
            None => {
                state.reader = Some(cx.waker().clone());
                Poll::Pending
            }
            Some(end) => Poll::Ready(std::mem::replace(end, Ok(())).err().map(Err)),
        }
    }
}

impl Drop for PipeReader {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.reader_gone = true;
        state.messages.clear();
        state.bytes = 0;
        drop(state);
        self.0.writer.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use futures::StreamExt as _;

    fn message(bytes: usize) -> EncodedEvents {
        EncodedEvents::from_encoded(Bytes::from(vec![0; bytes]))
    }

    #[tokio::test]
    async fn slow_reader_leaves_no_room_until_it_reads() {
        let notify = Arc::new(Notify::new());
        let (writer, mut reader) = pipe(Arc::clone(&notify));
        writer.push(message(ROOM));
        assert!(!writer.has_room());
        reader.next().await.unwrap().unwrap();
        notify.notified().await;
        assert!(writer.has_room());
    }

    #[tokio::test]
    async fn stream_ends_after_the_last_message() {
        let (writer, mut reader) = pipe(Arc::default());
        writer.push(message(1));
        writer.end();
        assert!(reader.next().await.unwrap().is_ok());
        assert!(reader.next().await.is_none());
    }

    #[tokio::test]
    async fn writer_that_vanishes_is_an_error() {
        let (writer, mut reader) = pipe(Arc::default());
        drop(writer);
        assert!(reader.next().await.unwrap().is_err());
        assert!(reader.next().await.is_none());
    }

    #[tokio::test]
    async fn writer_learns_that_the_reader_is_gone() {
        let notify = Arc::new(Notify::new());
        let (writer, reader) = pipe(Arc::clone(&notify));
        drop(reader);
        notify.notified().await;
        assert!(writer.reader_gone());
        writer.push(message(ROOM));
        assert!(writer.has_room());
    }
}
