//! Logging in, going on, logging out, and tokens for automation. For API instances only.
//!
//! Invariant: an attempt counts before its password is looked at, and takes as long and ends in the same way
//! whether the user exists, is disabled, or has another password.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use domain::access::PermissionSet;
use domain::id::{ApiTokenId, LoginId, UserId};
use domain::name::DisplayName;
use domain::random::Random;
use domain::username::Username;
use secrecy::{ExposeSecret as _, SecretString};
use store::api_tokens::{ApiToken, CreateApiTokenError, NewApiToken, RevokeApiTokenError};
use store::login_throttles::{Attempt, ThrottlePolicy};
use store::logins::{Login, LoginOrigin, NewLogin, Refresh, StartLoginError};
use store::users::UserWithPassword;
use store::{Page, PageRequest, Store, StoreError};
use time::OffsetDateTime;
use tokio::time::Instant;

use crate::access_token::AccessToken;
use crate::error::AuthError;
use crate::login_failure::LoginFailure;
use crate::login_key_ring::LoginKeyRing;
use crate::password::{PasswordError, Passwords};
use crate::password_throttle::{PasswordAttempt, WINDOW};
use crate::secret_token::{new_api_token, new_refresh_token, refresh_token_hash};
use crate::signing_key::{KeyId, SigningKey};
use crate::standing::UserState;
use crate::verifier::StartError;

/// Longest life of an access token: well below the time revocations are remembered.
pub(crate) const MAX_ACCESS_TOKEN_LIFETIME: Duration = Duration::from_secs(60 * 60);
/// Attempts to confirm one's password, and the time they are counted in.
pub(crate) const THROTTLE: ThrottlePolicy = ThrottlePolicy {
    limit: 10,
    window: WINDOW,
};
/// How long another instance may have made a new key the one that signs before this one follows.
const KEY_AGE: Duration = Duration::from_secs(30);
/// How often a login is tried when the user changes meanwhile.
const TRIES: usize = 2;

/// How long tokens live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoginsOptions {
    /// Access tokens: from 1 second to 1 hour. Default: 10 minutes.
    pub access_token_lifetime: Duration,
    /// A refresh token that is not used. Default: 14 days.
    pub refresh_token_lifetime: Duration,
}

impl Default for LoginsOptions {
    fn default() -> Self {
        Self {
            access_token_lifetime: Duration::from_secs(10 * 60),
            refresh_token_lifetime: Duration::from_secs(14 * 24 * 60 * 60),
        }
    }
}

/// What a login yields.
#[derive(Debug, Clone)]
pub struct TokenPair {
    /// Who logged in.
    pub user: UserId,
    /// The login.
    pub login: LoginId,
    /// Sent with every call.
    pub access_token: SecretString,
    /// When the access token expires.
    pub access_token_expires: OffsetDateTime,
    /// Exchanged for the next pair, once.
    pub refresh_token: SecretString,
    /// When the refresh token expires if it is not used.
    pub refresh_token_expires: OffsetDateTime,
}

/// A new token for automation, and the only sight of it.
#[derive(Debug, Clone)]
pub struct ApiTokenGrant {
    /// The token.
    pub token: SecretString,
    /// What is kept of it.
    pub api_token: ApiToken,
}

#[derive(Debug)]
struct Signer {
    key: SigningKey,
    read_at: Instant,
}

/// Gives tokens.
#[derive(Debug)]
pub struct Logins {
    store: Store,
    random: Arc<dyn Random>,
    passwords: Passwords,
    options: LoginsOptions,
    login_key: Option<LoginKeyRing>,
    signer: ArcSwap<Signer>,
}

impl Logins {
    /// Reads the key that signs, or makes the first one. With a login key it is made sealed; one that rests in clear is used as
    /// it is, until it is replaced.
    ///
    /// # Errors
    /// Where the config database fails, its key is broken or does not open, or a lifetime is out of range.
    pub async fn start(
        store: Store,
        random: Arc<dyn Random>,
        passwords: Passwords,
        options: LoginsOptions,
        login_key: Option<LoginKeyRing>,
    ) -> Result<Self, StartError> {
        let lifetimes = Duration::from_secs(1)..=MAX_ACCESS_TOKEN_LIFETIME;
        if !lifetimes.contains(&options.access_token_lifetime) {
            return Err(StartError::Lifetime {
                limit: MAX_ACCESS_TOKEN_LIFETIME,
            });
        }
        let read_at = Instant::now();
        let key = store
            .signing_keys()
            .current_or_insert(SigningKey::generate(&*random, login_key.as_ref())?)
            .await?;
        let key = SigningKey::read(key.id, &key.private_key, &key.public_key, login_key.as_ref())?;
        let signer = ArcSwap::from_pointee(Signer { key, read_at });
        Ok(Self {
            store,
            random,
            passwords,
            options,
            login_key,
            signer,
        })
    }

    /// Logs a local user in.
    ///
    /// # Errors
    /// [`AuthError::LoginFailed`], whatever was wrong; [`AuthError::LoginThrottled`].
    pub async fn login_with_password(
        &self,
        username: &str,
        password: &SecretString,
    ) -> Result<TokenPair, AuthError> {
        self.login_with_password_from(username, password, LoginOrigin::default())
            .await
    }

    /// The same, writing down with what and from where.
    ///
    /// # Errors
    /// As [`Logins::login_with_password`].
    pub async fn login_with_password_from(
        &self,
        username: &str,
        password: &SecretString,
        origin: LoginOrigin,
    ) -> Result<TokenPair, AuthError> {
        let name: Option<Username> = username.parse().ok();
        // A name no user can have counts like any other.
        let folded = name
            .as_ref()
            .map_or_else(|| username.to_lowercase(), Username::key);
        let attempt = PasswordAttempt::new(&folded, origin.address.as_deref());
        let counted = attempt.count(&self.store).await;
        allowed(counted.map_err(|error| self.store_error("counting a login", &error))?)?;
        for _ in 0..TRIES {
            let user = match &name {
                Some(name) => {
                    let found = self.store.users().find_by_username(name).await;
                    found.map_err(|error| self.store_error("reading a user", &error))?
                }
                None => None,
            };
            let user = self.check_password(user, password).await?;
            if let Some(pair) = self.begin(user, origin.clone()).await? {
                if let Err(error) = attempt.succeeded(&self.store).await {
                    tracing::warn!(%error, "the failed attempts before a login that succeeded still count");
                }
                return Ok(pair);
            }
        }
        Err(AuthError::LoginFailed)
    }

    /// Exchanges a refresh token for the next pair. Using one twice ends the login.
    ///
    /// # Errors
    /// [`AuthError::TokenInvalid`], [`AuthError::TokenExpired`], [`AuthError::TokenRevoked`].
    pub async fn refresh(&self, refresh_token: &SecretString) -> Result<TokenPair, AuthError> {
        let hash = refresh_token_hash(refresh_token.expose_secret()).ok_or(AuthError::TokenInvalid)?;
        let (next, next_hash) = new_refresh_token(&*self.random);
        let lifetime = self.options.refresh_token_lifetime;
        let refreshed = self.store.logins().refresh(&hash, &next_hash, lifetime).await;
        match refreshed.map_err(|error| self.store_error("refreshing a login", &error))? {
            Refresh::Rotated(login) => self.pair(login, next, lifetime).await,
            Refresh::Unknown => Err(AuthError::TokenInvalid),
            Refresh::Expired => Err(AuthError::TokenExpired),
            Refresh::Revoked => Err(AuthError::TokenRevoked),
            Refresh::Reused { login_id, user_id } => {
                tracing::warn!(user.id = %user_id, login.id = %login_id, "a refresh token was used twice");
                Err(AuthError::TokenRevoked)
            }
        }
    }

    /// Ends a login: its refresh token dies at once, its access tokens within seconds everywhere. Ending it
    /// again changes nothing.
    ///
    /// # Errors
    /// [`AuthError::Unavailable`].
    pub async fn logout(&self, login: LoginId) -> Result<(), AuthError> {
        let ended = self.store.logins().end(login).await;
        ended.map_err(|error| self.store_error("ending a login", &error))
    }

    /// Checks that a user who is logged in knows their password, before they change it. Attempts are counted.
    ///
    /// # Errors
    /// [`AuthError::LoginFailed`], [`AuthError::LoginThrottled`].
    pub async fn confirm_password(&self, user: UserId, password: &SecretString) -> Result<(), AuthError> {
        let key = format!("confirm:{user}");
        self.count_attempt(&key).await?;
        let found = self.store.users().get_with_password(user).await;
        let found = found.map_err(|error| self.store_error("reading a user", &error))?;
        self.check_password(found, password).await?;
        self.clear_attempts(&key).await;
        Ok(())
    }

    /// Makes a token for automation. With no `lifetime` it lives until it is revoked, and no longer than `not_after`.
    ///
    /// # Errors
    /// [`AuthError::TokenRevoked`] where the user is gone, [`AuthError::Unavailable`].
    pub async fn create_api_token(
        &self,
        user: UserId,
        display_name: DisplayName,
        lifetime: Option<Duration>,
        not_after: Option<OffsetDateTime>,
    ) -> Result<ApiTokenGrant, AuthError> {
        let (token, hash) = new_api_token(&*self.random);
        let new = NewApiToken {
            id: ApiTokenId::generate(&*self.random),
            user_id: user,
            hash,
            display_name,
            lifetime,
            not_after,
        };
        match self.store.api_tokens().create(new).await {
            Ok(api_token) => Ok(ApiTokenGrant { token, api_token }),
            Err(CreateApiTokenError::UserNotFound) => Err(AuthError::TokenRevoked),
            Err(CreateApiTokenError::Store(error)) => Err(self.store_error("making an api token", &error)),
        }
    }

    /// Lists a user's tokens, newest first.
    ///
    /// # Errors
    /// [`StoreError::InvalidCursor`] for a page token of another listing; what else the config database says.
    pub async fn list_api_tokens(
        &self,
        user: UserId,
        page: &PageRequest,
    ) -> Result<Page<ApiToken>, StoreError> {
        self.store.api_tokens().list(user, page).await
    }

    /// Revokes a token of the user; false where the user has no such token. Revoking it again changes
    /// nothing.
    ///
    /// # Errors
    /// [`AuthError::Unavailable`].
    pub async fn revoke_api_token(&self, user: UserId, token: ApiTokenId) -> Result<bool, AuthError> {
        match self.store.api_tokens().revoke(user, token).await {
            Ok(()) => Ok(true),
            Err(RevokeApiTokenError::NotFound) => Ok(false),
            Err(RevokeApiTokenError::Store(error)) => Err(self.store_error("revoking an api token", &error)),
        }
    }

    async fn count_attempt(&self, key: &str) -> Result<(), AuthError> {
        let attempt = self.store.login_throttles().attempt(key, THROTTLE).await;
        allowed(attempt.map_err(|error| self.store_error("counting a login", &error))?)
    }

    async fn clear_attempts(&self, key: &str) {
        if let Err(error) = self.store.login_throttles().clear(key).await {
            tracing::warn!(%error, "the failed attempts before a login that succeeded still count");
        }
    }

    /// The user, if there is one and the password is theirs.
    async fn check_password(
        &self,
        user: Option<UserWithPassword>,
        password: &SecretString,
    ) -> Result<UserWithPassword, AuthError> {
        let phc = user.as_ref().and_then(|user| user.password_hash.as_ref());
        let right = match self.passwords.verify(password, phc).await {
            Ok(right) => right,
            Err(PasswordError::Busy) => return Err(AuthError::Unavailable),
            Err(error) => return Err(AuthError::fault(&*self.random, "checking a password", &error)),
        };
        match user {
            Some(user) if right && !user.user.disabled => Ok(user),
            _ => Err(AuthError::LoginFailed),
        }
    }

    /// Begins a login; nothing where the user changed since the password was checked.
    async fn begin(
        &self,
        user: UserWithPassword,
        origin: LoginOrigin,
    ) -> Result<Option<TokenPair>, AuthError> {
        let (refresh_token, refresh_token_hash) = new_refresh_token(&*self.random);
        let new = NewLogin {
            id: LoginId::generate(&*self.random),
            user_id: user.user.id,
            user_etag: Some(user.user.etag),
            refresh_token_hash,
            refresh_token_lifetime: self.options.refresh_token_lifetime,
            origin,
        };
        match self.store.logins().start(new).await {
            Ok(login) => {
                let lifetime = self.options.refresh_token_lifetime;
                self.pair(login, refresh_token, lifetime).await.map(Some)
            }
            Err(StartLoginError::EtagMismatch) => Ok(None),
            Err(StartLoginError::UserNotFound | StartLoginError::UserDisabled) => Err(AuthError::LoginFailed),
            Err(StartLoginError::Store(error)) => Err(self.store_error("beginning a login", &error)),
        }
    }

    /// Begins a login of a user who proved elsewhere who they are. Returns the login name too.
    pub(crate) async fn begin_for(
        &self,
        user: UserId,
        origin: LoginOrigin,
    ) -> Result<(TokenPair, String), AuthError> {
        let lifetime = self.options.refresh_token_lifetime;
        self.begin_within(user, origin, lifetime).await
    }

    /// The same for somebody who comes back with a proof of their own: the login is over when its access token expires.
    pub(crate) async fn begin_once(
        &self,
        user: UserId,
        origin: LoginOrigin,
    ) -> Result<(TokenPair, String), AuthError> {
        let lifetime = self.options.access_token_lifetime;
        self.begin_within(user, origin, lifetime).await
    }

    async fn begin_within(
        &self,
        user: UserId,
        origin: LoginOrigin,
        refresh_token_lifetime: Duration,
    ) -> Result<(TokenPair, String), AuthError> {
        let (refresh_token, refresh_token_hash) = new_refresh_token(&*self.random);
        let new = NewLogin {
            id: LoginId::generate(&*self.random),
            user_id: user,
            user_etag: None,
            refresh_token_hash,
            refresh_token_lifetime,
            origin,
        };
        match self.store.logins().start(new).await {
            Ok(login) => {
                let username = login.user.username.to_string();
                Ok((
                    self.pair(login, refresh_token, refresh_token_lifetime).await?,
                    username,
                ))
            }
            Err(StartLoginError::UserDisabled) => Err(LoginFailure::UserDisabled.into()),
            Err(StartLoginError::EtagMismatch | StartLoginError::UserNotFound) => {
                Err(LoginFailure::Unknown.into())
            }
            Err(StartLoginError::Store(error)) => Err(self.store_error("beginning a login", &error)),
        }
    }

    async fn pair(
        &self,
        login: Login,
        refresh_token: SecretString,
        refresh_token_lifetime: Duration,
    ) -> Result<TokenPair, AuthError> {
        // When the database made the refresh token: on the clock that revocations are stamped with.
        let issued = login.refresh_token_expire_time - refresh_token_lifetime;
        let expires = issued + self.options.access_token_lifetime;
        let expires = expires.replace_nanosecond(0).unwrap_or(expires);
        let token = AccessToken {
            user: login.user.id,
            login: login.id,
            issued,
            expires,
            provider: login.provider.clone(),
            stated: Some(Arc::new(UserState::of(login.user.clone(), PermissionSet::NONE))),
        };
        let signer = self.signer(expires).await?;
        let signed = token.sign(&signer.key);
        let signed = signed.map_err(|error| AuthError::fault(&*self.random, "signing a token", &error))?;
        Ok(TokenPair {
            user: login.user.id,
            login: login.id,
            access_token: SecretString::from(signed),
            access_token_expires: expires,
            refresh_token,
            refresh_token_expires: login.refresh_token_expire_time,
        })
    }

    /// The key that signs, read anew where it is old: another instance may have made another one. Where that one does not open,
    /// the one before goes on, as long as it verifies what `expires` then.
    async fn signer(&self, expires: OffsetDateTime) -> Result<Arc<Signer>, AuthError> {
        let signer = self.signer.load_full();
        if signer.read_at.elapsed() < KEY_AGE {
            return Ok(signer);
        }
        let read_at = Instant::now();
        let key = self.store.signing_keys().current().await;
        let Some(key) = key.map_err(|error| self.store_error("reading the signing key", &error))? else {
            return Ok(signer);
        };
        let read = SigningKey::read(key.id, &key.private_key, &key.public_key, self.login_key.as_ref());
        let key = match read {
            Ok(key) => key,
            Err(error) if self.verifies_until(signer.key.id(), expires).await? => {
                tracing::error!(%error, "the key that was replaced goes on signing: the one after it cannot be used");
                signer.key.clone()
            }
            Err(error) => return Err(AuthError::fault(&*self.random, "reading the signing key", &error)),
        };
        let signer = Arc::new(Signer { key, read_at });
        self.signer.store(Arc::clone(&signer));
        Ok(signer)
    }

    /// Whether verifiers believe the key at that time still.
    async fn verifies_until(&self, id: KeyId, time: OffsetDateTime) -> Result<bool, AuthError> {
        let keys = self.store.signing_keys().verifying().await;
        let keys = keys.map_err(|error| self.store_error("reading the signing key", &error))?;
        Ok(keys
            .iter()
            .any(|key| KeyId::new(key.id) == id && key.retire_time.is_none_or(|retires| retires > time)))
    }

    fn store_error(&self, doing: &'static str, error: &StoreError) -> AuthError {
        AuthError::of_store(&*self.random, doing, error)
    }
}

fn allowed(attempt: Attempt) -> Result<(), AuthError> {
    match attempt {
        Attempt::Allowed => Ok(()),
        Attempt::Throttled { retry_after } => Err(AuthError::LoginThrottled { retry_after }),
    }
}
