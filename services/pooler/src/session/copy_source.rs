//! Where `COPY ... FROM STDIN` takes its data from.

use std::collections::VecDeque;
use std::fmt;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::{BoxStream, unfold};
use tokio::sync::mpsc;
use tonic::Status;

/// Pieces that may wait for the server.
const PIECES: usize = 4;

/// Data for the COPY statements of an execution.
pub(crate) enum CopySource {
    /// There is none: a COPY fails.
    None,
    /// One piece for each COPY, in their order.
    Inline(VecDeque<Bytes>),
    /// The pieces of one COPY, as they come.
    Stream(BoxStream<'static, Result<Bytes, Status>>),
}

impl CopySource {
    /// The next piece of a stream; nothing at its end. Cancel-safe. Waits for ever where there is no stream.
    pub(crate) async fn next(&mut self) -> Option<Result<Bytes, Status>> {
        match self {
            Self::Stream(stream) => stream.next().await,
            Self::None | Self::Inline(_) => std::future::pending().await,
        }
    }

    /// What to feed to a COPY that begins; nothing where it has to fail.
    pub(crate) fn begin(&mut self) -> Option<Feed> {
        match self {
            Self::None => None,
            Self::Inline(inputs) => inputs.pop_front().map(Feed::Inline),
            Self::Stream(_) => Some(Feed::Stream),
        }
    }
}

impl fmt::Debug for CopySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CopySource")
    }
}

/// Gives the data of one COPY, piece by piece.
#[derive(Debug)]
pub(crate) struct CopySender(mpsc::Sender<Option<Bytes>>);

/// A COPY's data, to be given by the sender. It is complete only if the sender says so: one that is dropped before makes
/// the COPY fail.
pub(crate) fn copy_channel() -> (CopySender, CopySource) {
    let (sender, pieces) = mpsc::channel(PIECES);
    let source = unfold(Some(pieces), |pieces| async {
        let mut pieces: mpsc::Receiver<Option<Bytes>> = pieces?;
        match pieces.recv().await {
            Some(Some(piece)) => Some((Ok(piece), Some(pieces))),
            Some(None) => None,
            None => Some((Err(Status::cancelled("the data broke off")), None)),
        }
    });
    // A second COPY in the statement asks again after the end.
    (CopySender(sender), CopySource::Stream(source.fuse().boxed()))
}

impl CopySender {
    /// Gives a piece. False where nobody takes it any more.
    pub(crate) async fn send(&self, piece: Bytes) -> bool {
        self.0.send(Some(piece)).await.is_ok()
    }

    /// Says that the data is complete.
    pub(crate) async fn end(self) {
        // Where nobody takes it the COPY is over already.
        let _ = self.0.send(None).await;
    }
}

/// What is being fed to the server at the moment.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Feed {
    /// No COPY wants data.
    Nothing,
    /// The rest of these bytes.
    Inline(Bytes),
    /// Whatever the stream brings.
    Stream,
}
