//! Carries encoded events from the task that runs an execution to whoever reads it.
//!
//! Bounded by bytes: a writer looks at [`PipeWriter::has_room`] before it takes more from the server, so a slow reader
//! stops the reading of the socket. Pushing itself never waits, so the last events always find their place.
//!
//! One reads at a time. Where it was asked for, the last of what was read is kept, and another reader may go on where one
//! went away, or take its place.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use ::sessions::EventStream;
use futures::{Stream, StreamExt as _, stream};
use parking_lot::Mutex;
use rpc::events::EncodedEvents;
use tokio::sync::Notify;
use tokio::time::{Duration, Instant};
use tonic::Status;

use super::transcript::{Expired, Numbered, Transcript};
use crate::error::PoolerError;
use crate::status::internal;

/// Bytes kept of what was read, where another reader may come: more than is on its way to a client through an API instance.
/// Two HTTP/2 windows, of 256 KiB and usually 2 MiB, and two send buffers of 400 KiB.
const MEMORY: usize = 4 * 1024 * 1024;

/// What becomes of an execution when its reader goes away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Detaching {
    /// It is cancelled, unless another reader comes within that time. Until then it waits.
    Cancel { grace: Duration },
    /// It goes on.
    Continue,
}

#[derive(Debug)]
struct State {
    transcript: Transcript,
    /// How it ended; nothing while it goes on.
    end: Option<Result<(), Status>>,
    end_time: Option<Instant>,
    reader: Reader,
    /// Tells one reader from the one before.
    readers: u64,
}

#[derive(Debug)]
enum Reader {
    Attached(Option<Waker>),
    /// It went away then, and another may come.
    Detached(Instant),
    /// Nobody will come.
    Gone,
}

#[derive(Debug)]
struct Pipe {
    state: Mutex<State>,
    /// Whether what was read is kept for others.
    kept: bool,
    /// Tells the writer that there is room again or that the reader is gone.
    writer: Arc<Notify>,
    /// Rung when a reader goes away, when another comes, when there is more and when it ends: for who spools.
    changed: Notify,
}

/// A pipe whose writer is woken through `writer`. Where it is `kept`, others may read what one reader has read. Its first event
/// comes after the one of that number.
pub(crate) fn pipe(writer: Arc<Notify>, kept: bool, after: i64) -> (PipeWriter, PipeReader) {
    let state = State {
        transcript: Transcript::new(if kept { MEMORY } else { 0 }, after),
        end: None,
        end_time: None,
        reader: Reader::Attached(None),
        readers: 1,
    };
    let pipe = Arc::new(Pipe {
        state: Mutex::new(state),
        kept,
        writer,
        changed: Notify::new(),
    });
    let reader = PipeReader {
        pipe: Arc::clone(&pipe),
        number: 1,
        after: 0,
    };
    (PipeWriter(pipe), reader)
}

/// The writing end.
#[derive(Debug)]
pub(crate) struct PipeWriter(Arc<Pipe>);

impl PipeWriter {
    /// False while the reader has enough to do.
    pub(crate) fn has_room(&self) -> bool {
        let state = self.0.state.lock();
        matches!(state.reader, Reader::Gone) || state.transcript.has_room()
    }

    /// True once nobody will read any more.
    pub(crate) fn reader_gone(&self) -> bool {
        matches!(self.0.state.lock().reader, Reader::Gone)
    }

    /// Since when nobody reads, where somebody may come.
    pub(crate) fn detached_since(&self) -> Option<Instant> {
        match self.0.state.lock().reader {
            Reader::Detached(since) => Some(since),
            Reader::Attached(_) | Reader::Gone => None,
        }
    }

    /// Whether anybody reads, for others than the writer.
    pub(crate) fn audience(&self, grace: Duration) -> Audience {
        Audience {
            pipe: Arc::clone(&self.0),
            grace,
        }
    }

    /// What is kept, for others than the writer.
    pub(crate) fn recording(&self) -> Recording {
        Recording(Arc::clone(&self.0))
    }

    /// Hands a message over. `last` is the number of the last event so far.
    pub(crate) fn push(&self, message: EncodedEvents, last: i64) {
        self.tell(Some((message, last)), None);
    }

    /// Ends the stream after what was pushed and `last`. The reader learns both at once, so that they leave together.
    pub(crate) fn end(self, last: Option<(EncodedEvents, i64)>) {
        self.tell(last, Some(Ok(())));
    }

    /// Ends the stream with an error.
    pub(crate) fn fail(self, error: Status) {
        self.tell(None, Some(Err(error)));
    }

    fn tell(&self, message: Option<(EncodedEvents, i64)>, end: Option<Result<(), Status>>) {
        let mut state = self.0.state.lock();
        if let Some((message, last)) = message
            && !matches!(state.reader, Reader::Gone)
        {
            state.transcript.push(message, last);
        }
        if end.is_some() && state.end.is_none() {
            state.end = end;
            state.end_time = Some(Instant::now());
        }
        let reader = state.wake();
        drop(state);
        self.0.changed.notify_one();
        if let Some(reader) = reader {
            reader.wake();
        }
    }
}

impl State {
    fn wake(&mut self) -> Option<Waker> {
        match &mut self.reader {
            Reader::Attached(waker) => waker.take(),
            Reader::Detached(_) | Reader::Gone => None,
        }
    }
}

impl Drop for PipeWriter {
    fn drop(&mut self) {
        // A stream without `finished` must not look complete.
        let given_up = Status::aborted("the execution was given up before it ended");
        self.tell(None, Some(Err(given_up)));
    }
}

/// Tells whether anybody reads a pipe.
#[derive(Debug)]
pub(crate) struct Audience {
    pipe: Arc<Pipe>,
    grace: Duration,
}

impl Audience {
    /// True once nobody reads, and nobody came in time.
    pub(crate) fn is_gone(&self) -> bool {
        matches!(self.pipe.state.lock().reader, Reader::Gone)
            || self.deadline().is_some_and(|deadline| deadline <= Instant::now())
    }

    /// Until when somebody has to come, while nobody reads.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        match self.pipe.state.lock().reader {
            Reader::Detached(since) => since.checked_add(self.grace),
            Reader::Attached(_) | Reader::Gone => None,
        }
    }
}

/// What a pipe keeps.
#[derive(Debug, Clone)]
pub(crate) struct Recording(Arc<Pipe>);

impl Recording {
    /// Reads from after the event of that number. Whoever read before reads no more.
    pub(crate) fn attach(&self, after: i64) -> Result<PipeReader, Expired> {
        let mut state = self.0.state.lock();
        state.transcript.rewind(after)?;
        let before = state.wake();
        state.readers += 1;
        state.reader = Reader::Attached(None);
        let number = state.readers;
        drop(state);
        if let Some(before) = before {
            before.wake();
        }
        // There may be room now, and time.
        self.0.writer.notify_one();
        self.0.changed.notify_one();
        Ok(PipeReader {
            pipe: Arc::clone(&self.0),
            number,
            after,
        })
    }

    /// Waits until so much waits for a reader who is away that the writer stops. False once it has ended.
    pub(crate) async fn overflows(&self) -> bool {
        loop {
            {
                let state = self.0.state.lock();
                let detached = matches!(state.reader, Reader::Detached(_));
                if detached && !state.transcript.has_room() {
                    return true;
                }
                if state.end.is_some() {
                    return false;
                }
            }
            self.0.changed.notified().await;
        }
    }

    /// What was read and is still there, from after the event of that number.
    pub(crate) fn taken(&self, after: i64) -> Vec<Numbered> {
        self.0.state.lock().transcript.taken(after)
    }

    /// Takes the next message where nobody reads.
    pub(crate) fn take(&self) -> Option<Numbered> {
        let mut state = self.0.state.lock();
        if !matches!(state.reader, Reader::Detached(_)) {
            return None;
        }
        let taken = state.transcript.take();
        drop(state);
        self.0.writer.notify_one();
        taken
    }

    /// Bytes it keeps, and since when it is complete, if it is.
    pub(crate) fn size(&self) -> (usize, Option<Instant>) {
        let state = self.0.state.lock();
        (state.transcript.bytes(), state.end_time)
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
pub(crate) struct PipeReader {
    pipe: Arc<Pipe>,
    number: u64,
    /// Events up to this number are known to whoever reads.
    after: i64,
}

impl Stream for PipeReader {
    type Item = Result<EncodedEvents, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut state = self.pipe.state.lock();
        if state.readers != self.number {
            return Poll::Ready(Some(Err(PoolerError::ReaderReplaced.into())));
        }
        let was_full = !state.transcript.has_room();
        if let Some(next) = state.transcript.take() {
            if was_full && state.transcript.has_room() {
                self.pipe.writer.notify_one();
            }
            drop(state);
            let known = std::mem::take(&mut self.after);
            return Poll::Ready(Some(next.after(known)));
        }
        match &mut state.end {
            None => {
                state.reader = Reader::Attached(Some(cx.waker().clone()));
                Poll::Pending
            }
            // Whoever comes next is to be told too.
            Some(Err(error)) if self.pipe.kept => Poll::Ready(Some(Err(error.clone()))),
            Some(end) => Poll::Ready(std::mem::replace(end, Ok(())).err().map(Err)),
        }
    }
}

impl Drop for PipeReader {
    fn drop(&mut self) {
        let mut state = self.pipe.state.lock();
        if state.readers != self.number {
            return;
        }
        if self.pipe.kept {
            state.reader = Reader::Detached(Instant::now());
        } else {
            state.reader = Reader::Gone;
            state.transcript.clear();
        }
        drop(state);
        self.pipe.writer.notify_one();
        self.pipe.changed.notify_one();
    }
}

impl Numbered {
    /// The message without the events that are known already.
    pub(crate) fn after(self, known: i64) -> Result<EncodedEvents, Status> {
        if known < self.first {
            return Ok(self.message);
        }
        let mut events = self.message.events().map_err(|error| internal(&error))?;
        events.retain(|event| event.sequence > known);
        Ok(EncodedEvents::encode(events))
    }
}

#[cfg(test)]
mod tests;
