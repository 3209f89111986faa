//! The caller's tokens and their renewal: once for all calls that wait for it, and once for all processes of
//! a profile.
//!
//! Invariant: a refresh token works once, and using it twice ends the login. So a renewal, once begun, is
//! carried through and stored even when the call that needed it is given up.

use std::sync::Arc;
use std::time::Duration;

use domain::clock::Clock;
use http::HeaderValue;
use rpc::auth::v1::RefreshTokenRequest;
use rpc::auth::v1::auth_service_client::AuthServiceClient;
use rpc::errors::v1::ErrorReason;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::sync::Mutex;
use tokio_util::task::TaskTracker;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::profile::{CredentialLock, CredentialStore, Credentials, ProfileError};

/// An access token with less left than this is renewed before it is used: calls take time to arrive.
const MARGIN: Duration = Duration::from_secs(20);
const REFRESH_DEADLINE: Duration = Duration::from_secs(20);

/// Where a call's token comes from.
#[derive(Debug)]
pub(crate) struct Tokens {
    source: Source,
    renewals: TaskTracker,
}

#[derive(Debug)]
enum Source {
    Anonymous,
    Fixed(SecretString),
    Login {
        held: Arc<Mutex<Held>>,
        store: Option<CredentialStore>,
        over: Option<(Channel, Arc<dyn Clock>)>,
    },
}

#[derive(Debug)]
struct Held {
    credentials: Credentials,
    /// Counts renewals, so that a call can say which token it was refused with.
    generation: u64,
}

impl Tokens {
    pub(super) fn anonymous() -> Self {
        Self::from(Source::Anonymous)
    }

    pub(super) fn fixed(token: SecretString) -> Self {
        Self::from(Source::Fixed(token))
    }

    pub(super) fn login(credentials: Credentials, store: Option<CredentialStore>) -> Self {
        let held = Arc::new(Mutex::new(Held {
            credentials,
            generation: 0,
        }));
        Self::from(Source::Login {
            held,
            store,
            over: None,
        })
    }

    fn from(source: Source) -> Self {
        Self {
            source,
            renewals: TaskTracker::new(),
        }
    }

    /// The same tokens, renewed over this channel.
    pub(super) fn over(mut self, channel: Channel, clock: Arc<dyn Clock>) -> Self {
        if let Source::Login { over, .. } = &mut self.source {
            *over = Some((channel, clock));
        }
        self
    }

    /// The `authorization` of a call that is sent now; none for an anonymous caller.
    pub(super) async fn bearer(&self) -> Result<Option<HeaderValue>, Status> {
        let token = match &self.source {
            Source::Anonymous => return Ok(None),
            Source::Fixed(token) => token.clone(),
            Source::Login { held, over, .. } => {
                let fresh = |held: &Held| {
                    over.as_ref()
                        .is_none_or(|(_, clock)| clock.now() + MARGIN < held.credentials.access_expires_at)
                };
                let (generation, token) = {
                    let held = held.lock().await;
                    (
                        held.generation,
                        fresh(&held).then(|| held.credentials.access_token.clone()),
                    )
                };
                match token {
                    Some(token) => token,
                    None => {
                        self.renew(generation).await?;
                        held.lock().await.credentials.access_token.clone()
                    }
                }
            }
        };
        let mut value =
            HeaderValue::from_str(&format!("Bearer {}", token.expose_secret())).map_err(|_| {
                rpc::error::plain(
                    Code::Unauthenticated,
                    ErrorReason::TokenInvalid,
                    "the token has characters no token has",
                )
            })?;
        value.set_sensitive(true);
        Ok(Some(value))
    }

    /// Which tokens a call that is sent now would use.
    pub(super) async fn generation(&self) -> u64 {
        match &self.source {
            Source::Login { held, .. } => held.lock().await.generation,
            _ => 0,
        }
    }

    /// Renews the tokens of a generation, unless somebody did already. False where there is nothing to renew.
    pub(super) async fn renew(&self, generation: u64) -> Result<bool, Status> {
        let Source::Login {
            held,
            store,
            over: Some((channel, clock)),
        } = &self.source
        else {
            return Ok(false);
        };
        let (held, store) = (Arc::clone(held), store.clone());
        let (channel, clock) = (channel.clone(), Arc::clone(clock));
        let renewal = self.renewals.spawn(async move {
            let mut held = held.lock_owned().await;
            if held.generation == generation {
                held.credentials = renewed(&held.credentials, store, channel, &*clock).await?;
                held.generation += 1;
            }
            Ok::<_, Status>(true)
        });
        renewal
            .await
            .map_err(|error| Status::internal(format!("the renewal of the login failed: {error}")))?
    }

    /// Waits for renewals that are under way.
    pub(super) async fn settle(&self) {
        self.renewals.close();
        self.renewals.wait().await;
    }
}

/// The tokens that replace `old`: those another process stored meanwhile, or new ones.
async fn renewed(
    old: &Credentials,
    store: Option<CredentialStore>,
    channel: Channel,
    clock: &dyn Clock,
) -> Result<Credentials, Status> {
    let Some(store) = store else {
        return refresh(old, channel).await;
    };
    let lock: CredentialLock = store.lock().await.map_err(local)?;
    // Whoever had the lock before us has used the refresh token we know.
    let stored = match store.read().map_err(local)? {
        Some(stored) if stored.url == old.url => stored,
        _ => return Err(not_logged_in()),
    };
    let replaced = stored.refresh_token.expose_secret() != old.refresh_token.expose_secret();
    if replaced && clock.now() + MARGIN < stored.access_expires_at {
        return Ok(stored);
    }
    let fresh = refresh(&stored, channel).await?;
    store.write(&fresh, &lock).map_err(local)?;
    Ok(fresh)
}

async fn refresh(old: &Credentials, channel: Channel) -> Result<Credentials, Status> {
    let request = RefreshTokenRequest {
        refresh_token: old.refresh_token.expose_secret().to_owned(),
    };
    let mut auth = AuthServiceClient::new(channel);
    let answer = tokio::time::timeout(REFRESH_DEADLINE, auth.refresh_token(request)).await;
    let answer =
        answer.map_err(|_| Status::deadline_exceeded("the login could not be renewed in time"))??;
    let pair = answer
        .into_inner()
        .tokens
        .ok_or_else(|| Status::internal("the server's answer has no tokens"))?;
    Ok(Credentials::of(&old.url, &old.username, pair))
}

/// What a call without a login would get, said without asking.
pub(crate) fn not_logged_in() -> Status {
    rpc::error::plain(
        Code::Unauthenticated,
        ErrorReason::CredentialsMissing,
        "not logged in",
    )
}

fn local(error: ProfileError) -> Status {
    Status::failed_precondition(error.to_string())
}
