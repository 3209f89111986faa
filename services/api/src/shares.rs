//! What one user may hold of an API instance at a time: calls that keep room in the audit trail. So that nobody who has an
//! account takes all of it, and others' calls are refused or not recorded.

use std::collections::HashMap;
use std::future::{Ready, ready};
use std::sync::{Arc, OnceLock};
use std::task;

use domain::access::Caller;
use domain::id::UserId;
use futures::future::Either;
use http::{Extensions, Request, Response};
use parking_lot::Mutex;
use tower::{Layer, Service};

use crate::context::Context;
use crate::error::Error;

type Counts = Arc<Mutex<HashMap<UserId, usize>>>;

/// How many calls of each user are open.
#[derive(Debug)]
pub(crate) struct Shares {
    most: usize,
    counts: Counts,
}

/// In the extensions of a call that keeps room: where its place in its user's share is left, to go with the call.
#[derive(Debug, Clone, Default)]
pub(crate) struct Holding(Arc<OnceLock<Held>>);

/// A place in a user's share; dropping it gives it back.
#[derive(Debug)]
struct Held {
    user: UserId,
    counts: Counts,
}

impl Shares {
    /// Every user may have so many.
    pub(crate) fn new(most: usize) -> Self {
        Self {
            most,
            counts: Counts::default(),
        }
    }

    /// Counts a call, if it is one that keeps room, until it is over.
    pub(crate) fn admit(&self, extensions: &Extensions, user: UserId) -> Result<(), Error> {
        let Some(holding) = extensions.get::<Holding>() else {
            return Ok(());
        };
        {
            let mut counts = self.counts.lock();
            let count = counts.entry(user).or_default();
            if *count >= self.most {
                return Err(Error::TooManyCalls { most: self.most });
            }
            *count += 1;
        }
        // A call has one handler, so there was none before.
        let _ = holding.0.set(Held {
            user,
            counts: Arc::clone(&self.counts),
        });
        Ok(())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut counts = self.counts.lock();
        if let Some(count) = counts.get_mut(&self.user) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                counts.remove(&self.user);
            }
        }
    }
}

/// Counts a call as soon as it is known who calls. Its handler runs when its first message has come, which may be never.
#[derive(Debug, Clone)]
pub(crate) struct SharesLayer(pub(crate) Arc<Context>);

impl<S> Layer<S> for SharesLayer {
    type Service = Counted<S>;

    fn layer(&self, inner: S) -> Counted<S> {
        Counted {
            inner,
            api: Arc::clone(&self.0),
        }
    }
}

/// A service behind a [`SharesLayer`].
#[derive(Debug, Clone)]
pub struct Counted<S> {
    inner: S,
    api: Arc<Context>,
}

impl<S, B, R> Service<Request<B>> for Counted<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    R: Default,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = Either<S::Future, Ready<Result<Response<R>, S::Error>>>;

    fn poll_ready(&mut self, context: &mut task::Context<'_>) -> task::Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let extensions = request.extensions();
        let caller = extensions.get::<Arc<Caller>>();
        let admitted = caller.map_or(Ok(()), |caller| self.api.shares.admit(extensions, caller.user));
        match admitted {
            Ok(()) => Either::Left(self.inner.call(request)),
            Err(error) => Either::Right(ready(Ok(self.api.status(error).into_http()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use domain::random::SystemRandom;

    use super::*;

    fn call() -> Extensions {
        let mut extensions = Extensions::new();
        extensions.insert(Holding::default());
        extensions
    }

    #[test]
    fn share_is_of_one_user_and_is_given_back_with_the_call() {
        let shares = Shares::new(2);
        let (alice, bob) = (UserId::generate(&SystemRandom), UserId::generate(&SystemRandom));
        let calls = [call(), call(), call()];
        shares.admit(&calls[0], alice).unwrap();
        shares.admit(&calls[1], alice).unwrap();
        shares.admit(&calls[2], alice).unwrap_err();
        shares.admit(&Extensions::new(), alice).unwrap();
        shares.admit(&call(), bob).unwrap();
        let [first, ..] = calls;
        drop(first);
        shares.admit(&call(), alice).unwrap();
        assert_eq!(shares.counts.lock().get(&bob), None);
    }
}
