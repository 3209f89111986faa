//! Who a bearer token stands for, checked in the same way by API instances and poolers.
//!
//! Invariant: no call waits for the config database unless it brings a token, a key or a user this process
//! has not seen lately. What was known when the database went away stays good until it expires. Of a user who
//! was not known, an access token's own word is taken, for it is signed; any other token or key that was not
//! known is [`AuthError::Unavailable`], never let in and never called invalid. As soon as the database
//! answers, the user's record rules again.

mod following;
mod policy;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use domain::access::{Caller, CredentialKind, DecidedBy};
use domain::clock::Clock;
use domain::id::{LoginId, UserId};
use domain::random::Random;
use ed25519_dalek::VerifyingKey;
use store::api_tokens::FoundApiToken;
use store::logins::TokenHash;
use store::users::User;
use store::{Store, StoreError};
use thiserror::Error;
use time::OffsetDateTime;
use tokio::sync::{Mutex, Semaphore, watch};
use tokio::time::{Instant, timeout};

use crate::access_token::{AccessToken, Unverified};
use crate::bearer::MAX_TOKEN_BYTES;
use crate::error::AuthError;
use crate::login_failure::LoginFailure;
use crate::open_streams::OpenStreams;
use crate::secret_token::{api_token_hash, hash, is_api_token};
use crate::signing_key::{KeyId, UnusableKey};
use crate::standing::{ApiTokenState, Known, KnownApiToken, Standing, UserState};
use crate::verifying_keys::{NoKey, VerifyingKeys};

pub use policy::HeardPolicy;

/// Questions to the config database about tokens and users at a time. Whoever is one too many waits for
/// [`LOOKUP`].
const LOOKUPS: usize = 16;
/// How long an answer of the config database is waited for, the wait for a turn included.
const LOOKUP: Duration = Duration::from_secs(3);
/// How often an open stream looks whether its credential has expired.
const TICK: Duration = Duration::from_secs(1);

/// How tokens are checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VerifierOptions {
    /// How long an open stream outlives the access token it was opened with. The login behind it goes on with
    /// other tokens; when that ends, the stream ends. Default: 24 hours.
    pub stream_grace: Duration,
    /// Most tokens and users of each kind that are kept in memory. Default: 20,000.
    pub capacity: usize,
    /// Whether this process writes down when API tokens were last used: the API does, a pooler may not.
    /// Default: false.
    pub notes_use: bool,
}

impl Default for VerifierOptions {
    fn default() -> Self {
        Self {
            stream_grace: Duration::from_secs(24 * 60 * 60),
            capacity: 20_000,
            notes_use: false,
        }
    }
}

/// Why tokens cannot be checked or given at all.
#[derive(Debug, Error)]
pub enum StartError {
    /// The config database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The key that signs is broken.
    #[error(transparent)]
    Key(#[from] UnusableKey),
    /// Access tokens would outlive the memory of their revocation.
    #[error("access tokens live for at least a second and at most {} seconds", limit.as_secs())]
    Lifetime {
        /// The longest lifetime.
        limit: Duration,
    },
}

/// Checks bearer tokens. Needs a [`crate::RevocationFeed`] to run beside it.
#[derive(Debug)]
pub struct TokenVerifier {
    store: Store,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    options: VerifierOptions,
    keys: VerifyingKeys,
    standing: Standing,
    streams: OpenStreams,
    lookups: Semaphore,
    /// The revision of the last revocation that was heard of. Held while following, so that one follows at a
    /// time.
    heard: Mutex<i64>,
    /// True while the config database does not answer.
    deaf: AtomicBool,
    /// When it answered last.
    heard_at: parking_lot::Mutex<Instant>,
    changed: watch::Sender<()>,
    policy: watch::Sender<HeardPolicy>,
}

impl TokenVerifier {
    /// Reads the keys and what was revoked.
    ///
    /// # Errors
    /// Where the config database fails.
    pub async fn start(
        store: Store,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
        options: VerifierOptions,
    ) -> Result<Arc<Self>, StartError> {
        let verifier = Self {
            keys: VerifyingKeys::read(store.clone()).await?,
            standing: Standing::new(options.capacity),
            streams: OpenStreams::default(),
            lookups: Semaphore::new(LOOKUPS),
            heard: Mutex::new(0),
            deaf: AtomicBool::new(false),
            heard_at: parking_lot::Mutex::new(Instant::now()),
            changed: watch::Sender::new(()),
            policy: watch::Sender::new(HeardPolicy::none()),
            store,
            clock,
            random,
            options,
        };
        verifier.hear().await?;
        Ok(Arc::new(verifier))
    }

    /// Who the token stands for.
    ///
    /// # Errors
    /// [`AuthError::TokenInvalid`], [`AuthError::TokenExpired`], [`AuthError::TokenRevoked`];
    /// [`AuthError::Unavailable`] where the config database is needed and away.
    pub async fn verify(&self, bearer: &str) -> Result<Arc<Caller>, AuthError> {
        if bearer.len() > MAX_TOKEN_BYTES {
            return Err(AuthError::TokenInvalid);
        }
        if is_api_token(bearer) {
            self.verify_api_token(bearer).await
        } else {
            self.verify_access_token(bearer).await
        }
    }

    /// Ends when an open stream of the caller must end, with the reason: the user was disabled, the login or
    /// token revoked, the token expired. An access token may expire [`VerifierOptions::stream_grace`]
    /// earlier; where the provider that its login was begun with is silent for too long, it may not.
    pub fn watch(self: &Arc<Self>, caller: &Caller) -> impl Future<Output = AuthError> + Send + use<> {
        let (verifier, caller) = (Arc::clone(self), caller.clone());
        let mut changed = self.changed.subscribe();
        let open = match caller.credential {
            CredentialKind::AccessToken { login } if caller.provider.is_some() => {
                Some(self.streams.enter(login))
            }
            _ => None,
        };
        async move {
            let _open = open;
            loop {
                changed.borrow_and_update();
                if let Err(reason) = verifier.check_open(&caller) {
                    return reason;
                }
                // Woken early by a revocation; otherwise the clock is looked at.
                let _ = timeout(TICK, changed.changed()).await;
            }
        }
    }

    /// The logins begun with a provider that have streams open.
    pub(crate) fn logins_with_streams(&self) -> Vec<LoginId> {
        self.streams.logins()
    }

    /// Of each of these logins, whether the provider has said nothing for longer than it may.
    pub(crate) fn note_silent(&self, logins: &HashMap<LoginId, bool>) {
        if self.streams.note_silent(logins) {
            self.changed.send_replace(());
        }
    }

    fn check_open(&self, caller: &Caller) -> Result<(), AuthError> {
        self.standing.check_caller(caller)?;
        if matches!(caller.credential, CredentialKind::ApiToken { .. })
            && let Known::Fresh(user) | Known::Stale(user) = self.standing.user(caller.user, Instant::now())
        {
            self.check_vouched(&user)?;
        }
        let grace = match caller.credential {
            CredentialKind::AccessToken { .. } => self.options.stream_grace,
            CredentialKind::ApiToken { .. } => Duration::ZERO,
        };
        // An end beyond the calendar is none.
        let end = caller
            .expires
            .and_then(|expires| expires.checked_add(grace.try_into().ok()?));
        let now = self.clock.now();
        match caller.credential {
            _ if end.is_some_and(|end| now >= end) => Err(AuthError::TokenExpired),
            // Who would come back for another token would get none.
            CredentialKind::AccessToken { login }
                if caller.expires.is_some_and(|expires| now >= expires) && self.streams.is_silent(login) =>
            {
                Err(LoginFailure::ProviderUnavailable.into())
            }
            _ => Ok(()),
        }
    }

    /// Whether somebody's API tokens work: they may need the word of a provider.
    fn check_vouched(&self, user: &UserState) -> Result<(), AuthError> {
        match user.vouch_expires {
            Some(expires) if self.clock.now() >= expires => Err(AuthError::NotVouched),
            _ => Ok(()),
        }
    }

    async fn verify_access_token(&self, bearer: &str) -> Result<Arc<Caller>, AuthError> {
        let (hash, now) = (hash(bearer), self.clock.now());
        let token = match self.known_access_token(&hash, now) {
            Some(token) => token,
            None => self.read_access_token(bearer, hash, now).await?,
        };
        if let Err(error) = token.check_time(now) {
            self.standing.forget_access_token(&hash);
            return Err(error);
        }
        self.standing.check_access_token(&token)?;
        let user = self.user(token.user, token.stated.as_ref()).await?;
        let credential = CredentialKind::AccessToken { login: token.login };
        let mut caller = caller(&user, credential, token.issued, Some(token.expires));
        caller.provider = token.provider;
        self.admit(caller)
    }

    /// An access token whose signature was checked before, by a key that is still good.
    fn known_access_token(&self, hash: &TokenHash, now: OffsetDateTime) -> Option<AccessToken> {
        let (key, token) = self.standing.access_token(hash)?;
        self.keys.known(key, now).map(|_| token)
    }

    async fn read_access_token(
        &self,
        bearer: &str,
        hash: TokenHash,
        now: OffsetDateTime,
    ) -> Result<AccessToken, AuthError> {
        let unverified = Unverified::read(bearer)?;
        let key = match self.keys.known(unverified.key, now) {
            Some(key) => key,
            None => self.read_key(unverified.key, now).await?,
        };
        let token = unverified.verify(&key)?;
        self.standing
            .keep_access_token(hash, unverified.key, token.clone());
        Ok(token)
    }

    async fn read_key(&self, id: KeyId, now: OffsetDateTime) -> Result<VerifyingKey, AuthError> {
        if self.deaf.load(Ordering::Relaxed) {
            return Err(AuthError::Unavailable);
        }
        match timeout(LOOKUP, self.keys.get(id, now)).await {
            Ok(Ok(key)) => Ok(key),
            Ok(Err(NoKey::Unknown)) => Err(AuthError::TokenInvalid),
            Ok(Err(NoKey::Crowded)) | Err(_) => Err(AuthError::Unavailable),
            Ok(Err(NoKey::Store(error))) => Err(self.store_error("reading the signing keys", &error)),
        }
    }

    async fn verify_api_token(&self, bearer: &str) -> Result<Arc<Caller>, AuthError> {
        let hash = api_token_hash(bearer).ok_or(AuthError::TokenInvalid)?;
        let token = match self.standing.api_token(&hash, Instant::now()) {
            KnownApiToken::Good(token) => token,
            KnownApiToken::Refused(reason) => return Err(reason),
            KnownApiToken::Unknown => self.read_api_token(hash).await?,
        };
        if token.expires.is_some_and(|expires| self.clock.now() >= expires) {
            return Err(AuthError::TokenExpired);
        }
        self.standing.check_api_token(&token)?;
        let user = self.user(token.user, None).await?;
        self.check_vouched(&user)?;
        let credential = CredentialKind::ApiToken { id: token.id };
        self.admit(caller(&user, credential, token.created, token.expires))
    }

    /// Lets the caller in, unless a revocation was heard of while the user was looked up.
    fn admit(&self, mut caller: Caller) -> Result<Arc<Caller>, AuthError> {
        self.standing.check_caller(&caller)?;
        caller.decided_by = DecidedBy::at(self.policy.borrow().revision);
        Ok(Arc::new(caller))
    }

    async fn read_api_token(&self, hash: TokenHash) -> Result<Arc<ApiTokenState>, AuthError> {
        let read_at = Instant::now();
        let found = self
            .look_up("reading an api token", self.store.api_tokens().find(&hash))
            .await?;
        let reason = match found {
            Some(FoundApiToken::Valid { token, user }) => {
                let user = self
                    .look_up("reading roles", Box::pin(self.state_of(user)))
                    .await?;
                let state = ApiTokenState::new(token.id, token.user_id, token.create_time, token.expire_time);
                let state = Arc::new(state);
                self.standing.keep_user(Arc::new(user), read_at);
                self.standing.keep_api_token(hash, Arc::clone(&state));
                return Ok(state);
            }
            Some(FoundApiToken::Expired) => AuthError::TokenExpired,
            Some(FoundApiToken::Revoked) => AuthError::TokenRevoked,
            None => AuthError::TokenInvalid,
        };
        self.standing
            .keep_refused_api_token(hash, reason.clone(), Instant::now());
        Err(reason)
    }

    /// The user as of a few seconds ago; while the config database is away, as last known, or else as
    /// `stated` by the token.
    async fn user(&self, id: UserId, stated: Option<&Arc<UserState>>) -> Result<Arc<UserState>, AuthError> {
        let user = match self.standing.user(id, Instant::now()) {
            Known::Fresh(user) => user,
            Known::Stale(user) => self.read_user_or(id, Some(user)).await?,
            // What is stated is not kept: a record takes its place when it can be read.
            Known::Unknown => self.read_user_or(id, stated.cloned()).await?,
        };
        if user.disabled {
            Err(AuthError::TokenRevoked)
        } else {
            Ok(user)
        }
    }

    async fn read_user_or(
        &self,
        id: UserId,
        otherwise: Option<Arc<UserState>>,
    ) -> Result<Arc<UserState>, AuthError> {
        match (self.read_user(id).await, otherwise) {
            (Err(AuthError::Unavailable), Some(user)) => Ok(user),
            (read, _) => read,
        }
    }

    async fn read_user(&self, id: UserId) -> Result<Arc<UserState>, AuthError> {
        let read_at = Instant::now();
        let read = Box::pin(async {
            match self.store.users().get(id).await? {
                Some(user) => self.state_of(user).await.map(Some),
                None => Ok(None),
            }
        });
        let Some(user) = self.look_up("reading a user", read).await? else {
            self.note_gone(id);
            return Err(AuthError::TokenRevoked);
        };
        let user = Arc::new(user);
        self.standing.keep_user(Arc::clone(&user), read_at);
        Ok(user)
    }

    /// A user with what roles let them do everywhere.
    async fn state_of(&self, user: User) -> Result<UserState, StoreError> {
        let everywhere = self.store.access().everywhere(&[user.id]).await?;
        let everywhere = everywhere.get(&user.id).copied().unwrap_or_default();
        Ok(UserState::of(user, everywhere))
    }

    /// Asks the config database in turn and with a deadline; not at all while it is known to be away, or
    /// everybody with a token that nobody knows would wait and keep others waiting.
    async fn look_up<T>(
        &self,
        doing: &'static str,
        question: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, AuthError> {
        if self.deaf.load(Ordering::Relaxed) {
            return Err(AuthError::Unavailable);
        }
        let answer = timeout(LOOKUP, async {
            let _turn = self.lookups.acquire().await;
            question.await
        });
        let answer = answer.await.map_err(|_| AuthError::Unavailable)?;
        answer.map_err(|error| self.store_error(doing, &error))
    }

    fn store_error(&self, doing: &'static str, error: &StoreError) -> AuthError {
        AuthError::of_store(&*self.random, doing, error)
    }
}

fn caller(
    user: &UserState,
    credential: CredentialKind,
    issued: OffsetDateTime,
    expires: Option<OffsetDateTime>,
) -> Caller {
    Caller {
        user: user.user,
        username: user.username.clone(),
        display_name: user.display_name.clone(),
        administrator: user.administrator,
        everywhere: user.everywhere,
        credential,
        provider: None,
        issued,
        expires,
        decided_by: DecidedBy::default(),
    }
}
