//! An answer's body, watched to its trailers.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::time::{Sleep, sleep};
use tonic::Status;
use tonic::body::Body;

use super::call::OpenCall;

/// A stream that is open for longer has a record of its own, before the one at its end.
const LONG: Duration = Duration::from_secs(10);

pin_project! {
    /// The body of an answer whose end is recorded.
    #[derive(Debug)]
    pub(super) struct Watched {
        #[pin]
        body: Body,
        // Recorded as given up where it is dropped.
        call: Option<Box<OpenCall>>,
        #[pin]
        long: Option<Sleep>,
    }
}

impl Watched {
    pub(super) fn new(body: Body, call: Box<OpenCall>) -> Self {
        let long = call.is_stream().then(|| sleep(LONG));
        Self {
            body,
            call: Some(call),
            long,
        }
    }
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let mut this = self.project();
        if let (Some(call), Some(long)) = (&*this.call, this.long.as_mut().as_pin_mut())
            && long.poll(context).is_ready()
        {
            call.goes_on();
            this.long.set(None);
        }
        let frame = ready!(this.body.poll_frame(context));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(call) = this.call {
                    call.sent(frame.data_ref().map_or(0, Bytes::len));
                }
                if let Some(trailers) = frame.trailers_ref()
                    && let Some(mut call) = this.call.take()
                {
                    call.end(&Status::from_header_map(trailers).unwrap_or_else(|| Status::unknown("")));
                }
            }
            Some(Err(status)) => {
                if let Some(mut call) = this.call.take() {
                    call.end(status);
                }
            }
            // Without trailers: nobody knows.
            None => *this.call = None,
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
