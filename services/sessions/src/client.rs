//! Sessions that are held by other processes: finds the right pooler and asks it over gRPC.
//!
//! A call on a session goes where the session's id says, or where it was found last, without asking any database; from
//! there it follows the session if that has moved. A call that opens something goes to the instance's owner, or to whoever
//! would become it. A pooler's status reaches the caller as it came; where none came, because the pooler cannot be reached,
//! the status is UNAVAILABLE `POOLER_UNAVAILABLE`, or UNKNOWN `OUTCOME_UNKNOWN` where the call may have been carried out and
//! is not one that can be repeated.

mod administration;
mod calls;
mod channels;
mod copy_messages;
mod failure;
mod found;
mod route;

use std::time::Duration;

use domain::id::InstanceId;
use domain::session::{PoolerId, SessionName};
use futures::future::BoxFuture;
use rpc::errors::v1::ErrorReason;
use rpc::pooler::v1::pooler_service_client::PoolerServiceClient;
use secrecy::ExposeSecret as _;
use tokio::time::{Instant, sleep};
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::transport::{Channel, ClientTlsConfig};
use tonic::{Request, Response, Status};
use tonic_types::StatusExt as _;

use self::channels::Channels;
use self::failure::{broken, in_doubt_still, outcome_unknown, reached_nobody, unavailable};
use self::found::Found;
pub use self::route::proposed;
use crate::directory::{Directory, PoolerEntry};
use crate::{Sessions as _, UserToken};

/// Poolers asked before giving up: the first may have become the wrong one, and so may the one it names.
const MOST_HOPS: usize = 3;
/// How long a call follows a session that moves.
const FOLLOW: Duration = Duration::from_secs(3);
/// Before a pooler is asked again that was asked already: what moves needs a moment to arrive.
const AGAIN: Duration = Duration::from_millis(50);

/// Adds the trace context of the current span to a call's metadata (W3C Trace Context).
pub type InjectTrace = fn(&mut MetadataMap);

/// Sessions held by poolers elsewhere. Clones share their channels.
#[derive(Debug, Clone)]
pub struct PoolerClient {
    directory: Directory,
    channels: Channels,
    found: Found,
    inject_trace: InjectTrace,
}

/// Whether a call may be sent again where it is not known what became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Repeating {
    /// It does the same twice as once.
    Harmless,
    /// It is carried out once however often it is sent, as long as the session goes on as it was.
    Once,
    /// It may do twice what is wanted once.
    Harmful,
}

type Client = PoolerServiceClient<Channel>;
type Call<M, T> = fn(Client, Request<M>) -> BoxFuture<'static, Result<Response<T>, Status>>;

impl PoolerClient {
    /// A client that finds poolers through `directory`. Without `tls` it speaks plain HTTP/2: only for a pooler that nobody
    /// else can reach.
    #[must_use]
    pub fn new(directory: Directory, tls: Option<ClientTlsConfig>, inject_trace: InjectTrace) -> Self {
        Self {
            directory,
            channels: Channels::new(tls),
            found: Found::default(),
            inject_trace,
        }
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        (self.inject_trace)(request.metadata_mut());
        request
    }

    fn user_request<T>(&self, token: &UserToken, message: T) -> Result<Request<T>, Status> {
        let mut request = self.request(message);
        let value = MetadataValue::try_from(format!("Bearer {}", token.0.expose_secret()));
        let mut value = value.map_err(|_| {
            rpc::error::plain(
                tonic::Code::Unauthenticated,
                ErrorReason::TokenInvalid,
                "the token is not one of ours",
            )
        })?;
        value.set_sensitive(true);
        request.metadata_mut().insert("authorization", value);
        Ok(request)
    }

    /// Asks the pooler that holds a session, wherever it has moved to.
    async fn at_session<M: Clone, T>(
        &self,
        token: &UserToken,
        name: SessionName,
        message: M,
        repeating: Repeating,
        call: Call<M, T>,
    ) -> Result<Response<T>, Status> {
        let give_up = Instant::now() + FOLLOW;
        let mut asked: Vec<PoolerId> = Vec::new();
        // An answer was lost to a call that may have been carried out.
        let mut in_doubt = false;
        let first = self.found.holder(name.session);
        let mut to = Some(first);
        loop {
            let snapshot = self.directory.snapshot();
            let known = to.and_then(|to| snapshot.poolers.iter().find(|entry| entry.pooler == to));
            // Where nobody has that number, any other can tell where the session is, or go on with it.
            let entry = known.or_else(|| route::any(&snapshot, name, &asked));
            let entry = entry
                .or_else(|| route::any(&snapshot, name, &[]))
                .ok_or_else(unavailable)?;
            if asked.contains(&entry.pooler) {
                sleep(AGAIN).await;
            }
            asked.push(entry.pooler);
            let request = self.user_request(token, message.clone())?;
            let error = match call(self.channels.client(entry)?, request).await {
                Ok(answer) => {
                    if entry.pooler != first {
                        self.found.note(name.session, entry.pooler);
                    }
                    return Ok(answer);
                }
                Err(error) => error,
            };
            match rpc::error::reason(&error) {
                Some(ErrorReason::Moved) => to = named_owner(&error),
                // It is known there, so it was carried out.
                Some(ErrorReason::ResultExpired) => return Err(error),
                Some(_) if in_doubt => return Err(in_doubt_still()),
                Some(ErrorReason::ResourceNotFound) => {
                    self.found.forget(name.session);
                    return Err(error);
                }
                Some(_) => return Err(error),
                // The transport says so.
                None if reached_nobody(&error) => to = None,
                None if repeating == Repeating::Harmful => return Err(outcome_unknown(error)),
                None => {
                    in_doubt |= repeating == Repeating::Once;
                    to = None;
                }
            }
            if Instant::now() >= give_up {
                return Err(if in_doubt { in_doubt_still() } else { broken(error) });
            }
        }
    }

    /// The pooler that holds a session now.
    async fn holder(&self, token: &UserToken, name: SessionName) -> Result<PoolerEntry, Status> {
        self.get_session(token, name).await?;
        let holder = self.found.holder(name.session);
        let snapshot = self.directory.snapshot();
        let entry = snapshot.poolers.iter().find(|entry| entry.pooler == holder);
        entry.cloned().ok_or_else(unavailable)
    }

    /// Asks the owner of an instance, or one after the other who may become it, and goes where it is sent. What
    /// must not be repeated is asked of another only where the one before has not begun it.
    async fn at_instance<M: Clone, T>(
        &self,
        instance: InstanceId,
        token: Option<&UserToken>,
        message: M,
        repeating: Repeating,
        call: Call<M, T>,
    ) -> Result<Response<T>, Status> {
        let snapshot = self.directory.snapshot();
        let mut asked: Vec<PoolerId> = Vec::new();
        let mut next = route::first(&snapshot, instance);
        let mut last = unavailable();
        while let Some(entry) = next.filter(|_| asked.len() < MOST_HOPS) {
            asked.push(entry.pooler);
            let request = match token {
                Some(token) => self.user_request(token, message.clone())?,
                None => self.request(message.clone()),
            };
            let error = match call(self.channels.client(entry)?, request).await {
                Ok(answer) => return Ok(answer),
                // It may have been carried out, and only its answer been lost.
                Err(error)
                    if repeating == Repeating::Harmful
                        && rpc::error::reason(&error).is_none()
                        && !reached_nobody(&error) =>
                {
                    return Err(outcome_unknown(error));
                }
                Err(error) => broken(error),
            };
            next = match rpc::error::reason(&error) {
                Some(ErrorReason::Moved) => named_owner(&error)
                    .and_then(|owner| snapshot.poolers.iter().find(|entry| entry.pooler == owner))
                    .filter(|entry| !asked.contains(&entry.pooler)),
                // Nothing has reached it: another may take its place.
                Some(ErrorReason::PoolerUnavailable | ErrorReason::ShuttingDown) => {
                    route::next(&snapshot, instance, &asked)
                }
                _ => return Err(error),
            };
            last = error;
        }
        Err(last)
    }
}

fn named_owner(error: &Status) -> Option<PoolerId> {
    error
        .get_details_error_info()?
        .metadata
        .get("pooler")?
        .parse()
        .ok()
        .map(PoolerId)
}

fn whole<T>(field: Option<T>) -> Result<T, Status> {
    field.ok_or_else(|| Status::internal("the pooler's answer is incomplete"))
}
