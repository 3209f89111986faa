//! Streams of the port end with the credential they were asked for with: an API instance that keeps a token reads nothing more
//! with it, 5 s after it was revoked. What becomes of the session and of what runs in it goes by the rights of its owner.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use ::sessions::UserToken;
use auth::AuthError;
use futures::future::{self, BoxFuture};
use futures::stream::{self, BoxStream};
use futures::{FutureExt as _, Stream, StreamExt as _};
use tonic::{Response, Status};

use super::PoolerGrpc;

/// A stream that ends with its caller's credential.
pub struct Credentialed<T> {
    messages: BoxStream<'static, Result<T, Status>>,
    ended: BoxFuture<'static, AuthError>,
}

impl PoolerGrpc {
    /// The stream, until the token's credential ends.
    pub(super) async fn credentialed<T>(
        &self,
        token: &UserToken,
        messages: BoxStream<'static, Result<T, Status>>,
    ) -> Result<Response<Credentialed<T>>, Status> {
        let ended = self.pooler.credential_ended(token).await?.boxed();
        Ok(Response::new(Credentialed { messages, ended }))
    }
}

impl<T> fmt::Debug for Credentialed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentialed").finish_non_exhaustive()
    }
}

impl<T: Send + 'static> Stream for Credentialed<T> {
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Poll::Ready(error) = self.ended.poll_unpin(context) {
            self.ended = future::pending().boxed();
            self.messages = stream::empty().boxed();
            return Poll::Ready(Some(Err(error.into())));
        }
        self.messages.poll_next_unpin(context)
    }
}
