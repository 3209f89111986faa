//! The client side of a COPY that is passed on to a pooler.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::stream::BoxStream;
use futures::{FutureExt as _, Stream, StreamExt as _};
use rpc::{pooler, query};
use tokio::sync::oneshot;
use tonic::Status;

/// The messages of a COPY. A stream that breaks off must not look like one that ended, or half of the data would be
/// committed; and HTTP/2 shows a call that was given up as a stream that ends. So the end of `requests` is only told to the
/// call, through `over`, and ours comes when the call, being still there, says so through `end`.
pub(super) struct CopyMessages {
    pub(super) requests: BoxStream<'static, Result<query::v1::CopyInRequest, Status>>,
    pub(super) over: Option<oneshot::Sender<Result<(), Status>>>,
    pub(super) end: oneshot::Receiver<()>,
}

impl Stream for CopyMessages {
    type Item = pooler::v1::CopyInRequest;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.over.is_some() {
            let over = match ready!(self.requests.poll_next_unpin(cx)) {
                Some(Ok(request)) => {
                    return Poll::Ready(Some(pooler::v1::CopyInRequest {
                        request: Some(request),
                    }));
                }
                Some(Err(error)) => Err(error),
                None => Ok(()),
            };
            if let Some(sender) = self.over.take() {
                // Nobody listens where the call is given up already.
                let _ = sender.send(over);
            }
        }
        match ready!(self.end.poll_unpin(cx)) {
            Ok(()) => Poll::Ready(None),
            Err(_) => Poll::Pending,
        }
    }
}
