//! What goes on after its call was let in: streams, and long waits.
//!
//! Invariant: a stream of this API is an [`Upheld`]. It is decided upon again, by the same entry as at its beginning, as soon as
//! the rules have changed, and says nothing more from 5 s after what allowed it is gone. While the config database answers nobody,
//! what was known stays good.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, Waker, ready};
use std::time::Duration;

use auth::AuthError;
use domain::access::{Caller, Permission, allows};
use domain::id::{BackupId, OperationId};
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};
use futures::task::AtomicWaker;
use futures::{FutureExt as _, Stream, StreamExt as _};
use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tonic::{Code, Status};

use crate::access;
use crate::context::{Call, Context};
use crate::deciding::Answer;
use crate::error::Error;
use crate::settings;

/// How often it is looked whether the rules changed, where nothing says so.
const TICK: Duration = Duration::from_secs(1);
/// How often what may rest on a grant is decided upon without a change: a grant expires by itself.
const EXPIRY_TICK: Duration = Duration::from_secs(3);
/// For how long a stream goes on without having been found good.
const GOOD_FOR: Duration = Duration::from_secs(4);

/// How a call was let in, beside the permission of its method.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Entry {
    /// By the permission alone.
    Permission,
    /// To the settings of `users/{user}` or `defaults`.
    Settings(String),
    /// To an operation.
    Operation(OperationId),
    /// To what is in a backup.
    BackupContents(BackupId),
}

impl Entry {
    async fn decide(&self, api: &Context, caller: &Caller, permission: Permission) -> Result<(), Error> {
        if !allows(caller, permission) {
            return Err(AuthError::PermissionMissing { permission }.into());
        }
        match self {
            Self::Permission => Ok(()),
            Self::Settings(parent) => settings::allowed(api, caller, parent).await,
            Self::Operation(id) => {
                let seen = access::operation(api, caller, *id, Permission::OperationsRead);
                Box::pin(seen).await.map(drop)
            }
            Self::BackupContents(id) => Box::pin(access::backup_contents(api, caller, *id))
                .await
                .map(drop),
        }
    }

    fn may_expire(&self) -> bool {
        matches!(self, Self::BackupContents(_))
    }
}

/// A stream of answers that ends when its caller may not have them any more.
pub(crate) struct Upheld<T> {
    messages: BoxStream<'static, Result<T, Status>>,
    over: BoxFuture<'static, Status>,
    /// Nothing where a pooler decides.
    good: Option<Arc<Good>>,
}

impl<T: Send + 'static> Upheld<T> {
    /// For what an API instance has to say.
    pub(crate) fn new<M: 'static>(
        api: &Arc<Context>,
        call: &Call<M>,
        entry: Entry,
        messages: impl Stream<Item = Result<T, Status>> + Send + 'static,
    ) -> Self {
        let good = Arc::new(Good::new());
        // In a task of its own, which ends with the stream: a stream is looked at only where its reader has room, and a question
        // in its turn must not wait for that.
        let mut deciding = JoinSet::new();
        deciding.spawn(over(api, call, entry, Some(good.clone())));
        let api = Arc::clone(api);
        let over = async move {
            let error = match deciding.join_next().await {
                Some(Ok(error)) => error,
                Some(Err(error)) => Error::Fault {
                    context: "deciding upon a stream",
                    source: error.into(),
                },
                // There is one.
                None => Error::AccessRevoked,
            };
            api.status(error)
        };
        Self {
            messages: messages.boxed(),
            over: over.boxed(),
            good: Some(good),
        }
    }

    /// For what a pooler has to say: it decides about sessions and what runs in them, by itself. Here the caller's credential
    /// is looked after, without asking any database.
    pub(crate) fn by_pooler<M>(
        api: &Context,
        call: &Call<M>,
        messages: BoxStream<'static, Result<T, Status>>,
    ) -> Self {
        Self {
            messages,
            over: api.verifier.watch(&call.caller).map(Status::from).boxed(),
            good: None,
        }
    }
}

impl<T> fmt::Debug for Upheld<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upheld").finish_non_exhaustive()
    }
}

impl<T: Send + 'static> Stream for Upheld<T> {
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut TaskContext<'_>) -> Poll<Option<Self::Item>> {
        if let Poll::Ready(status) = self.over.poll_unpin(context) {
            self.over = futures::future::pending().boxed();
            self.good = None;
            self.messages = stream::empty().boxed();
            return Poll::Ready(Some(Err(status)));
        }
        // A reader who came back after a while is told nothing before it is known that they still may.
        if self
            .good
            .as_ref()
            .is_some_and(|good| good.is_awaited(context.waker()))
        {
            return Poll::Pending;
        }
        Poll::Ready(ready!(self.messages.poll_next_unpin(context)))
    }
}

/// When a stream was last found good.
#[derive(Debug)]
struct Good {
    found: Mutex<Instant>,
    /// Who waits for it to be found so again.
    awaited: AtomicWaker,
}

impl Good {
    fn new() -> Self {
        Self {
            found: Mutex::new(Instant::now()),
            awaited: AtomicWaker::new(),
        }
    }

    fn renew(&self) {
        *self.found.lock() = Instant::now();
        self.awaited.wake();
    }

    fn is_over(&self) -> bool {
        self.found.lock().elapsed() > GOOD_FOR
    }

    /// True where it is not known to be good any more; whoever asks is woken when it is.
    fn is_awaited(&self, waker: &Waker) -> bool {
        if !self.is_over() {
            return false;
        }
        self.awaited.register(waker);
        // It may have been found good in between.
        self.is_over()
    }
}

/// Ends when the caller may not go on with what they were let in to, with the reason.
pub(crate) fn refusal<M>(
    api: &Arc<Context>,
    call: &Call<M>,
    entry: Entry,
) -> impl Future<Output = Error> + Send + use<M> {
    over(api, call, entry, None)
}

fn over<M>(
    api: &Arc<Context>,
    call: &Call<M>,
    entry: Entry,
    good: Option<Arc<Good>>,
) -> impl Future<Output = Error> + Send + use<M> {
    let (api, caller, permission) = (Arc::clone(api), Arc::clone(&call.caller), call.permission);
    let mut policy = api.verifier.policy();
    let mut credential = api.verifier.watch(&caller).boxed();
    async move {
        // By which rules it was let in is not known, so it is decided once more at the first look.
        let (mut decided_by, mut decided) = (None, Instant::now());
        loop {
            tokio::select! {
                refusal = &mut credential => return refusal.into(),
                // The sender lives in the verifier, which `api` holds.
                _ = policy.changed() => {}
                () = sleep(TICK) => {}
            }
            let heard = *policy.borrow_and_update();
            let is_due = entry.may_expire() && decided.elapsed() >= EXPIRY_TICK;
            if decided_by != Some(heard.revision) || is_due {
                let question = async {
                    let caller = api.verifier.current(&caller, heard.since).await?;
                    entry.decide(&api, &caller, permission).await
                };
                if let Some(good) = good.as_ref().filter(|_| api.deciding.is_silent()) {
                    good.renew();
                }
                let answer = tokio::select! {
                    refusal = &mut credential => return refusal.into(),
                    answer = api.deciding.ask(|| api.verifier.heard_at(), Box::pin(question)) => answer,
                };
                match answer {
                    Answer::Given(Ok(())) => (decided_by, decided) = (Some(heard.revision), Instant::now()),
                    Answer::Given(Err(error)) if is_denial(&error) => return Error::AccessRevoked,
                    // Asked again at the next look. Until then it was not found good.
                    Answer::Given(Err(error)) => {
                        tracing::debug!(%error, "a stream could not be decided upon");
                        continue;
                    }
                    Answer::Missing => continue,
                    Answer::Silence => {}
                }
            }
            if let Some(good) = &good {
                good.renew();
            }
        }
    }
}

/// Whether somebody decided, and against it.
fn is_denial(error: &Error) -> bool {
    match error {
        Error::Status(status) => matches!(
            status.code(),
            Code::PermissionDenied | Code::NotFound | Code::Unauthenticated
        ),
        Error::NotFound { .. }
        | Error::PermissionMissing { .. }
        | Error::DatabaseNotAllowed { .. }
        | Error::PolicyForbids { .. } => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicBool);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    #[test]
    fn stream_that_was_not_known_to_be_good_goes_on_as_soon_as_it_is() {
        let good = Arc::new(Good::new());
        *good.found.lock() = Instant::now() - GOOD_FOR * 2;
        let mut upheld = Upheld {
            messages: stream::iter([Ok(7)]).boxed(),
            over: futures::future::pending().boxed(),
            good: Some(good.clone()),
        };
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(woken.clone());
        let mut context = TaskContext::from_waker(&waker);
        assert!(upheld.poll_next_unpin(&mut context).is_pending());
        assert!(!woken.0.load(Ordering::Relaxed));
        good.renew();
        assert!(woken.0.load(Ordering::Relaxed), "nobody else wakes it");
        let Poll::Ready(Some(Ok(message))) = upheld.poll_next_unpin(&mut context) else {
            panic!("it does not go on");
        };
        assert_eq!(message, 7);
    }
}
