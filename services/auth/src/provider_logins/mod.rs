//! Logging in with an OpenID provider. For API instances only.
//!
//! A client begins a login and keeps a secret of its own; a browser comes back, on any instance; its person says that the login
//! is theirs; the client collects the tokens with its secret, from any instance. What goes on in between is a row of the config
//! database.
//!
//! Invariant: who reads that row cannot go on with the login. The state is there as a hash, what the provider's answer is
//! checked with is sealed with the login key, and the tokens are made for whoever shows the client's secret.

mod begin;
mod callback;
mod collect;
mod confirm;
mod exchange;
mod record;
mod refresh;
mod streams;
mod throttled;

use std::sync::Arc;
use std::time::Duration;

use ::audit::AuditLog;
use domain::clock::Clock;
use domain::id::UserId;
use domain::name::DisplayName;
use domain::random::Random;
use domain::source_address::block;
use domain::username::Username;
use futures::future::BoxFuture;
use oidc::{Grant, Identity, Provider, ProviderToken, Workloads};
use secrecy::ExposeSecret as _;
use serde::{Deserialize, Serialize};
use store::identities::{IdentityUser, ProvenIdentity};
use store::login_attempts::LoginOutcome;
use store::login_throttles::{Attempt, ThrottlePolicy};
use store::{Store, StoreError};
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

pub use begin::{BeginLogin, BegunLogin, Flow, InvalidBeginning, Presentation};
pub use callback::{CallbackEnd, CallbackQuery};
pub use collect::Collected;
pub use confirm::{Confirmation, Decided, Decision};
pub use exchange::ExchangedToken;
pub use streams::StreamChecks;

use crate::error::AuthError;
use crate::login_failure::{LoginFailure, of_resolving};
use crate::login_key::Purpose;
use crate::login_key_ring::LoginKeyRing;
use throttled::Throttled;

/// Attempts from one address, and the time they are counted in. Generous, since a balancer or an office has one address.
const BY_ADDRESS: ThrottlePolicy = ThrottlePolicy {
    limit: 1000,
    window: Duration::from_secs(15 * 60),
};

/// What came from one address and is nothing we gave out: refresh tokens, states, answers. Counted when it was found out, so that
/// nobody who brings what is right is refused for what others at the address bring.
const WRONG_BY_ADDRESS: ThrottlePolicy = ThrottlePolicy {
    limit: 200,
    window: Duration::from_secs(15 * 60),
};

/// Times that one token of a workload is exchanged. The processes of a job may share one.
const BY_WORKLOAD_TOKEN: ThrottlePolicy = ThrottlePolicy {
    limit: 60,
    window: Duration::from_secs(15 * 60),
};

/// Questions for the end of logins from one address: each waits long, and others are answered at once.
const POLLS_BY_ADDRESS: ThrottlePolicy = ThrottlePolicy {
    limit: 10_000,
    window: Duration::from_secs(15 * 60),
};

/// Questions that wait for the end of a login at once: each looks into the config database twice a second.
const WAITING: usize = 256;

/// How often providers are asked, and how long they may be silent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProviderLoginsOptions {
    /// The least time between two questions about one login.
    pub check_interval: Duration,
    /// How long a login goes on while its provider does not answer.
    pub unavailable_grace: Duration,
    /// How long a login goes on whose provider cannot be asked again.
    pub reauthenticate_after: Duration,
    /// How long API tokens of somebody work after a provider vouched for them.
    pub vouch_max_age: Duration,
}

/// What logins with providers are made of.
#[derive(Debug)]
pub struct ProviderLoginsParts {
    /// The config database.
    pub store: Store,
    /// Ids and secrets.
    pub random: Arc<dyn Random>,
    /// The time that tokens of providers are compared with.
    pub clock: Arc<dyn Clock>,
    /// The providers people log in with.
    pub providers: Vec<Provider>,
    /// The rules of workloads.
    pub workloads: Workloads,
    /// The key of what rests in the config database; there where providers are.
    pub key: Option<LoginKeyRing>,
    /// Where browsers reach the HTTP port from outside, without a slash at the end; there where providers are.
    pub external_url: Option<String>,
    /// How often providers are asked.
    pub options: ProviderLoginsOptions,
    /// Where it is recorded what they say; nowhere without.
    pub audit: Option<AuditLog>,
}

/// Logs people in with providers, and workloads with their own tokens.
#[derive(Debug)]
pub struct ProviderLogins {
    parts: ProviderLoginsParts,
    /// Taken by questions that wait for the end of a login. Others are answered at once.
    waiting: Semaphore,
    /// Who brought too much that is wrong.
    throttled: Throttled,
    /// What goes on though whoever asked for it went away.
    tasks: TaskTracker,
}

/// What goes on with a login needs, sealed.
#[derive(Serialize, Deserialize)]
enum Going {
    Browser { nonce: String, pkce_verifier: String },
    Device { device_code: String },
}

impl ProviderLogins {
    /// Takes the parts. Nothing is asked of a provider before somebody logs in.
    #[must_use]
    pub fn new(parts: ProviderLoginsParts) -> Self {
        Self {
            parts,
            waiting: Semaphore::const_new(WAITING),
            throttled: Throttled::default(),
            tasks: TaskTracker::new(),
        }
    }

    /// Without any provider: users have passwords.
    #[must_use]
    pub fn none(store: Store, random: Arc<dyn Random>, clock: Arc<dyn Clock>) -> Self {
        Self::new(ProviderLoginsParts {
            store,
            random,
            clock,
            providers: Vec::new(),
            workloads: Workloads::default(),
            key: None,
            external_url: None,
            options: ProviderLoginsOptions {
                check_interval: Duration::from_secs(5 * 60),
                unavailable_grace: Duration::from_secs(60 * 60),
                reauthenticate_after: Duration::from_secs(12 * 60 * 60),
                vouch_max_age: Duration::from_secs(30 * 24 * 60 * 60),
            },
            audit: None,
        })
    }

    /// Waits until what goes on with providers has its end. For a process that is to stop.
    pub async fn settled(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Runs what must not stop half-way, also where whoever asks goes away: a provider's token that was given and not kept is
    /// lost, and with it the login.
    async fn to_the_end<T: Send + 'static>(
        &self,
        work: BoxFuture<'static, Result<T, AuthError>>,
    ) -> Result<T, AuthError> {
        let done = self.tasks.spawn(work.in_current_span()).await;
        done.unwrap_or_else(|error| {
            Err(AuthError::fault(
                &*self.parts.random,
                "going on with a login",
                &error,
            ))
        })
    }

    /// The providers, in the order of the configuration.
    pub fn providers(&self) -> impl Iterator<Item = &Provider> {
        self.parts.providers.iter()
    }

    fn provider(&self, id: &str) -> Result<&Provider, AuthError> {
        let found = self.parts.providers.iter().find(|provider| provider.id() == id);
        found.ok_or(AuthError::Login(LoginFailure::ProviderUnknown))
    }

    /// The key and the address that logging in with a provider needs.
    fn key(&self) -> Result<&LoginKeyRing, AuthError> {
        let key = self.parts.key.as_ref();
        key.ok_or(AuthError::Login(LoginFailure::ProviderUnknown))
    }

    /// Where the provider sends browsers back. Each has an address of its own, so that none can pass for another (RFC 9700, 4.4).
    fn redirect_uri(&self, provider: &Provider) -> Result<String, AuthError> {
        let url = self.parts.external_url.as_ref();
        let url = url.ok_or(AuthError::Login(LoginFailure::ProviderUnknown))?;
        Ok(format!("{url}/oidc/callback/{}", provider.id()))
    }

    /// Whether browsers reach the HTTP port by TLS.
    #[must_use]
    pub fn is_external_url_secure(&self) -> bool {
        let url = self.parts.external_url.as_deref();
        url.is_some_and(|url| url.starts_with("https://"))
    }

    /// [`ProviderLogins::admit`] for somebody who logs in. Whom the login policy does not let in, though it did before, is not
    /// vouched for any more: their API tokens stop.
    async fn admit_anew(&self, provider: &Provider, grant: &Grant) -> Result<Admitted, AuthError> {
        let admitted = self.admit(provider, grant).await;
        if let Err(AuthError::Login(LoginFailure::PolicyDenied)) = &admitted
            && self.speaks_alone(provider.issuer_url())
            && let Some(subject) = grant.claims.subject()
        {
            let vouching = self.parts.store.vouching();
            let denied = vouching.deny(provider.issuer_url(), subject).await;
            if let Some(user) = denied.map_err(|error| self.store_error("stopping api tokens", &error))? {
                Self::log_denied(user, provider.id());
            }
        }
        admitted
    }

    /// Whether only one provider here is of this issuer: where there are more, the policy of each is but its own.
    fn speaks_alone(&self, issuer: &str) -> bool {
        let mut same = self.providers().filter(|other| other.issuer_url() == issuer);
        same.next().is_some() && same.next().is_none()
    }

    fn log_denied(user: UserId, provider: &str) {
        tracing::info!(
            user.id = %user, provider,
            "api tokens stop: their user's provider does not vouch for them any more"
        );
    }

    /// The user of somebody whom a provider vouches for, and the sealed token to ask the provider with later.
    async fn admit(&self, provider: &Provider, grant: &Grant) -> Result<Admitted, AuthError> {
        let identity = provider
            .policy()
            .admit(&grant.claims)
            .map_err(LoginFailure::from)?;
        if identity.issuer.len() > 1024 || identity.subject.len() > 1024 || identity.subject.contains('\0') {
            return Err(LoginFailure::TokenInvalid.into());
        }
        let new_user = if provider.policy().auto_create {
            self.new_user(&identity)
        } else {
            Ok(None)
        };
        let (new_user, unusable) = match new_user {
            Ok(new_user) => (new_user, None),
            // It matters only where there is no user yet.
            Err(failure) => (None, Some(failure)),
        };
        let provider_token =
            self.seal_token(&identity.issuer, &identity.subject, grant.refresh_token.as_ref())?;
        let proven = ProvenIdentity {
            provider: provider.id().to_owned(),
            issuer: identity.issuer.clone(),
            subject: identity.subject.clone(),
            email: identity.email,
            groups: identity.groups,
            administrator: identity.administrator,
            new_user,
            vouched_for: self.parts.options.vouch_max_age,
        };
        match self.parts.store.identities().resolve(proven).await {
            Ok(resolved) => {
                self.record_changes(provider.id(), resolved.user_id, &resolved.changes);
                Ok(Admitted {
                    user: resolved.user_id,
                    issuer: identity.issuer,
                    subject: identity.subject,
                    provider_token,
                })
            }
            Err(error) => Err(match (of_resolving(&error), unusable) {
                (Some(LoginFailure::NotInvited), Some(unusable)) => unusable.into(),
                (Some(failure), _) => failure.into(),
                (None, _) => match error {
                    store::identities::ResolveIdentityError::Store(error) => {
                        self.store_error("finding the user of an identity", &error)
                    }
                    _ => LoginFailure::NotInvited.into(),
                },
            }),
        }
    }

    fn new_user(&self, identity: &Identity) -> Result<Option<IdentityUser>, LoginFailure> {
        let name = identity.username.as_deref().unwrap_or_default();
        let username: Username = name.parse().map_err(|_| LoginFailure::UsernameInvalid)?;
        let shown = identity.display_name.as_deref();
        let display_name = shown
            .and_then(|shown| shown.parse::<DisplayName>().ok())
            .or_else(|| name.parse().ok())
            .ok_or(LoginFailure::UsernameInvalid)?;
        Ok(Some(IdentityUser {
            id: UserId::generate(&*self.parts.random),
            username,
            display_name,
        }))
    }

    fn seal_token(
        &self,
        issuer: &str,
        subject: &str,
        token: Option<&ProviderToken>,
    ) -> Result<Option<Vec<u8>>, AuthError> {
        let Some(token) = token else { return Ok(None) };
        let purpose = Purpose::ProviderToken { issuer, subject };
        let key = self.key()?;
        Ok(key.seal(purpose, token.0.expose_secret(), &*self.parts.random))
    }

    fn open_token(&self, issuer: &str, subject: &str, sealed: &[u8]) -> Option<ProviderToken> {
        let purpose = Purpose::ProviderToken { issuer, subject };
        let opened = self.parts.key.as_ref()?.open(purpose, sealed)?;
        Some(ProviderToken(opened))
    }

    /// Counts a call of somebody without credentials.
    async fn count(
        &self,
        what: &str,
        address: Option<&str>,
        policy: ThrottlePolicy,
    ) -> Result<(), AuthError> {
        let key = format!("{what}:{}", block(address.unwrap_or("unknown")));
        self.count_under(&key, policy).await
    }

    /// Counts what came from an address and is nothing we gave out. Once there was too much of it, the config database writes
    /// nothing down any more until the time it is counted in is over.
    async fn count_wrong(&self, what: &str, address: Option<&str>) -> Result<(), AuthError> {
        let key = format!("{what}:{}", block(address.unwrap_or("unknown")));
        if let Some(retry_after) = self.throttled.left(&key) {
            return Err(AuthError::LoginThrottled { retry_after });
        }
        let counted = self.count_under(&key, WRONG_BY_ADDRESS).await;
        if let Err(AuthError::LoginThrottled { retry_after }) = &counted {
            self.throttled.keep(key, *retry_after);
        }
        counted
    }

    async fn count_under(&self, key: &str, policy: ThrottlePolicy) -> Result<(), AuthError> {
        let attempt = self.parts.store.login_throttles().attempt(key, policy).await;
        match attempt.map_err(|error| self.store_error("counting a login", &error))? {
            Attempt::Allowed => Ok(()),
            Attempt::Throttled { retry_after } => Err(AuthError::LoginThrottled { retry_after }),
        }
    }

    /// Does not count a call that succeeded; those that failed stay counted.
    async fn take_back(&self, what: &str, address: Option<&str>) {
        let key = format!("{what}:{}", block(address.unwrap_or("unknown")));
        if let Err(error) = self.parts.store.login_throttles().take_back(&key).await {
            tracing::warn!(%error, "a call that succeeded still counts");
        }
    }

    fn store_error(&self, doing: &'static str, error: &StoreError) -> AuthError {
        AuthError::of_store(&*self.parts.random, doing, error)
    }
}

/// Somebody whom a provider vouches for.
struct Admitted {
    user: UserId,
    issuer: String,
    subject: String,
    provider_token: Option<Vec<u8>>,
}

impl Admitted {
    /// What the login came to.
    fn outcome(self) -> LoginOutcome {
        LoginOutcome {
            user_id: self.user,
            issuer: self.issuer,
            subject: self.subject,
            provider_token: self.provider_token,
            redirect_code_hash: None,
        }
    }
}
