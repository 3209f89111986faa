//! Carries encoded events from the task that runs an execution to whoever reads it.
//!
//! Bounded by bytes: a writer looks at [`PipeWriter::has_room`] before it takes more from the server, so a slow reader
//! stops the reading of the socket. Pushing itself never waits, so the last events always find their place.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use ::sessions::EventStream;
use futures::{Stream, StreamExt as _, stream};
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

    /// Whether anybody reads, for others than the writer.
    pub(crate) fn audience(&self) -> Audience {
        Audience(Arc::clone(&self.0))
    }

    /// Hands a message over.
    pub(crate) fn push(&self, message: EncodedEvents) {
        self.tell(Some(message), None);
    }

    /// Ends the stream after what was pushed and `last`. The reader learns both at once, so that they leave together.
    pub(crate) fn end(self, last: Option<EncodedEvents>) {
        self.tell(last, Some(Ok(())));
    }

    /// Ends the stream with an error.
    pub(crate) fn fail(self, error: Status) {
        self.tell(None, Some(Err(error)));
    }

    fn tell(&self, message: Option<EncodedEvents>, end: Option<Result<(), Status>>) {
        let mut state = self.0.state.lock();
        if let Some(message) = message.filter(|_| !state.reader_gone) {
            state.bytes += message.as_bytes().len();
            state.messages.push_back(message);
        }
        if let Some(end) = end {
            state.end.get_or_insert(end);
        }
        let reader = state.reader.take();
        drop(state);
        if let Some(reader) = reader {
            reader.wake();
        }
    }
}

/// Tells whether anybody reads a pipe.
#[derive(Debug)]
pub(crate) struct Audience(Arc<Pipe>);

impl Audience {
    /// True once nobody will read any more.
    pub(crate) fn is_gone(&self) -> bool {
        self.0.state.lock().reader_gone
    }
}

impl Drop for PipeWriter {
    fn drop(&mut self) {
        // A stream without `finished` must not look complete.
        let given_up = Status::aborted("the execution was given up before it ended");
        self.tell(None, Some(Err(given_up)));
    }
}

impl PipeReader {
    /// The stream, once its first message is there or it failed before. So the headers of the answer need no packet of
    /// their own; and that message comes soon, however long the statement takes.
    pub(crate) async fn begun(mut self) -> Result<EventStream, Status> {
        let first = self.next().await.transpose()?;
        Ok(stream::iter(first.map(Ok)).chain(self).boxed())
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
        writer.end(Some(message(1)));
        assert!(reader.next().await.unwrap().is_ok());
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
