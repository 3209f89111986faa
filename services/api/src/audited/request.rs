//! A request's body, looked at as it passes.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use parking_lot::Mutex;
use pin_project_lite::pin_project;
use tonic::Status;
use tonic::body::Body;

use super::reader::NameReader;

pin_project! {
    /// A body whose first message is looked at.
    #[derive(Debug)]
    pub(super) struct Tapped {
        #[pin]
        body: Body,
        // None once nothing that follows matters.
        names: Option<Arc<Mutex<NameReader>>>,
    }
}

impl Tapped {
    pub(super) fn new(body: Body, names: Arc<Mutex<NameReader>>) -> Self {
        Self {
            body,
            names: Some(names),
        }
    }
}

impl HttpBody for Tapped {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.project();
        let frame = ready!(this.body.poll_frame(context));
        if let (Some(shared), Some(Ok(frame))) = (&this.names, &frame)
            && let Some(data) = frame.data_ref()
        {
            let mut names = shared.lock();
            names.read(data);
            let is_done = names.is_done();
            drop(names);
            if is_done {
                *this.names = None;
            }
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
