//! Keeps every byte that calls answered, so that a test can look through all of it.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures::future::BoxFuture;
use http_body::{Frame, SizeHint};
use tonic::Status;
use tonic::body::Body;
use tonic::transport::Channel;
use tower::Service;

/// What calls answered, by method.
#[derive(Clone, Default)]
pub struct Recorder(Arc<Mutex<Vec<Answer>>>);

/// A piece of an answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The method, as `/package.Service/Method`.
    pub method: String,
    /// Headers and trailers, or a piece of the body.
    pub part: Part,
    /// The bytes; of headers and trailers each name and value.
    pub bytes: Vec<u8>,
}

/// Of what an answer consists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Headers and trailers: the status, its message and its details among them.
    Headers,
    /// Messages.
    Body,
}

impl Recorder {
    /// Everything so far.
    #[must_use]
    pub fn answers(&self) -> Vec<Answer> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn keep(&self, method: &str, part: Part, bytes: Vec<u8>) {
        let mut answers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        answers.push(Answer {
            method: method.to_owned(),
            part,
            bytes,
        });
    }

    fn keep_headers(&self, method: &str, headers: &http::HeaderMap) {
        let mut bytes = Vec::new();
        for (name, value) in headers {
            bytes.extend_from_slice(name.as_str().as_bytes());
            bytes.extend_from_slice(b": ");
            // Details of errors are base64 here.
            bytes.extend_from_slice(value.as_bytes());
            bytes.push(b'\n');
        }
        self.keep(method, Part::Headers, bytes);
    }
}

impl std::fmt::Debug for Recorder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recorder").finish_non_exhaustive()
    }
}

/// A connection whose answers are kept, where somebody wants them.
#[derive(Debug, Clone)]
pub struct Recorded {
    pub(crate) channel: Channel,
    pub(crate) recorder: Option<Recorder>,
}

impl Service<http::Request<Body>> for Recorded {
    type Response = http::Response<Body>;
    type Error = tonic::transport::Error;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.channel.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let recorder = self.recorder.clone();
        let method = request.uri().path().to_owned();
        let response = self.channel.call(request);
        Box::pin(async move {
            let response = response.await?;
            let Some(recorder) = recorder else {
                return Ok(response);
            };
            recorder.keep_headers(&method, response.headers());
            Ok(response.map(|body| {
                Body::new(RecordedBody {
                    body,
                    method,
                    recorder,
                })
            }))
        })
    }
}

struct RecordedBody {
    body: Body,
    method: String,
    recorder: Recorder,
}

impl http_body::Body for RecordedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(Ok(frame)) = &frame {
            if let Some(data) = frame.data_ref() {
                self.recorder.keep(&self.method, Part::Body, data.to_vec());
            }
            if let Some(trailers) = frame.trailers_ref() {
                self.recorder.keep_headers(&self.method, trailers);
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
