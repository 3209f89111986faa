//! What every handler works with, and how a call comes in and goes out.

use std::fmt;
use std::sync::Arc;

use auth::{Bearer, Logins, Passwords, ProviderLogins, TokenVerifier};
use domain::access::{Caller, Permission};
use domain::egress::EgressPolicy;
use domain::random::Random;
use sessions::pools::Pools;
use sessions::{Sessions, UserToken};
use storage::{Artifacts, UserFiles};
use store::Store;
use telemetry::rpc::Id;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use crate::deciding::Deciding;
use crate::error::Error;
use crate::operation::Waits;
use crate::server::first_look::FirstLooks;
use crate::settings_cache::SettingsCache;
use crate::shares::Shares;
use crate::status;

/// The parts that handlers use.
pub(crate) struct Context {
    pub(crate) store: Store,
    pub(crate) verifier: Arc<TokenVerifier>,
    pub(crate) logins: Logins,
    pub(crate) provider_logins: Arc<ProviderLogins>,
    pub(crate) passwords: Passwords,
    pub(crate) sessions: Arc<dyn Sessions>,
    pub(crate) pools: Arc<dyn Pools>,
    pub(crate) egress: Arc<EgressPolicy>,
    pub(crate) settings: SettingsCache,
    pub(crate) files: UserFiles,
    pub(crate) artifacts: Artifacts,
    pub(crate) waits: Waits,
    pub(crate) random: Arc<dyn Random>,
    /// First looks at roles that go on.
    pub(crate) first_looks: FirstLooks,
    /// What each user holds of it.
    pub(crate) shares: Shares,
    /// Where streams are decided upon again.
    pub(crate) deciding: Deciding,
    /// Cancelled when this server goes away: streams end, so that their readers ask another one.
    pub(crate) drain: CancellationToken,
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").finish_non_exhaustive()
    }
}

/// A call of a known caller.
#[derive(Debug)]
pub(crate) struct Call<T> {
    /// Who calls.
    pub(crate) caller: Arc<Caller>,
    /// Their own token, for the pooler.
    pub(crate) token: UserToken,
    /// What the method asks of its callers.
    pub(crate) permission: Permission,
    /// What they ask.
    pub(crate) message: T,
}

impl Context {
    /// Takes a request whose caller the auth layer has recognised.
    pub(crate) fn call<T>(&self, request: Request<T>) -> Result<Call<T>, Status> {
        let extensions = request.extensions();
        let caller = extensions.get::<Arc<Caller>>().cloned();
        let token = extensions
            .get::<Bearer>()
            .map(|bearer| UserToken(bearer.secret().clone()));
        let permission = extensions.get::<Permission>().copied();
        match (caller, token, permission) {
            (Some(caller), Some(token), Some(permission)) => {
                // The request's own span: its closing line says who called.
                telemetry::rpc::record(Id::User, &caller.user);
                Ok(Call {
                    caller,
                    token,
                    permission,
                    message: request.into_inner(),
                })
            }
            _ => {
                let source = "the auth layer let a call through without a caller".into();
                Err(self.status(Error::Fault {
                    context: "reading the caller",
                    source,
                }))
            }
        }
    }

    /// The answer of a handler as it goes out.
    pub(crate) fn answer<T>(&self, result: Result<T, Error>) -> Result<Response<T>, Status> {
        result.map(Response::new).map_err(|error| self.status(error))
    }

    /// The status of a cause.
    pub(crate) fn status(&self, error: Error) -> Status {
        status::status(error, self.random.as_ref())
    }
}
