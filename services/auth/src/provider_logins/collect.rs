//! Collecting the tokens of a login that was begun here or on another instance.

use std::sync::Arc;
use std::time::Duration;

use data_encoding::BASE64URL_NOPAD;
use domain::id::LoginAttemptId;
use oidc::DevicePoll;
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};
use store::login_attempts::{CollectedLogin, LoginAttempt};
use store::logins::{LoginOrigin, ProviderOrigin};
use subtle::ConstantTimeEq as _;
use tokio::time::{Instant, sleep};

use super::{Going, POLLS_BY_ADDRESS, ProviderLogins};
use crate::error::AuthError;
use crate::login_failure::LoginFailure;
use crate::login_key::Purpose;
use crate::logins::{Logins, TokenPair};

/// How long a question waits for the end of the login.
const LONGEST_WAIT: Duration = Duration::from_secs(20);
/// How often it looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// Lengths a verifier may have (RFC 7636, 4.1).
const VERIFIER_BYTES: std::ops::RangeInclusive<usize> = 43..=128;

/// What a question finds.
#[derive(Debug)]
pub enum Collected {
    /// The login goes on.
    Pending,
    /// It has ended well.
    Tokens {
        /// The tokens.
        pair: Box<TokenPair>,
        /// The login name.
        username: String,
    },
}

impl ProviderLogins {
    /// Waits for a login to end and collects its tokens, for whoever has the secret it was begun with.
    ///
    /// # Errors
    /// [`LoginFailure::Unknown`] for anybody else; what became of the login.
    pub async fn collect(
        self: &Arc<Self>,
        logins: &Logins,
        id: LoginAttemptId,
        verifier: &SecretString,
        redirect_code: &SecretString,
        origin: LoginOrigin,
    ) -> Result<Collected, AuthError> {
        self.count("poll-login", origin.address.as_deref(), POLLS_BY_ADDRESS)
            .await?;
        let end = Instant::now() + LONGEST_WAIT;
        let seat = self.waiting.try_acquire().ok();
        loop {
            let attempt = self.look(id, verifier).await?;
            if let Some(failure) = &attempt.failure {
                return Err(LoginFailure::from_stored(failure).into());
            }
            if attempt.completed {
                return self.take(logins, id, &attempt, redirect_code, origin).await;
            }
            if attempt.is_device && self.ask_device(id, &attempt).await? {
                continue;
            }
            if seat.is_none() || Instant::now() + LOOK_INTERVAL >= end {
                return Ok(Collected::Pending);
            }
            sleep(LOOK_INTERVAL).await;
        }
    }

    /// How the login stands, for whoever has its secret. Others learn nothing, not even that there is one.
    async fn look(&self, id: LoginAttemptId, verifier: &SecretString) -> Result<LoginAttempt, AuthError> {
        let store = self.parts.store.login_attempts();
        let found = store.get(id).await;
        let found = found.map_err(|error| self.store_error("reading a login", &error))?;
        let verifier = verifier.expose_secret();
        let challenge = BASE64URL_NOPAD.encode(&Sha256::digest(verifier));
        let Some(attempt) = found else {
            return Err(LoginFailure::Unknown.into());
        };
        let right = attempt.code_challenge.as_bytes().ct_eq(challenge.as_bytes());
        if VERIFIER_BYTES.contains(&verifier.len()) && bool::from(right) {
            return Ok(attempt);
        }
        let counted = store.count_wrong_verifier(id).await;
        counted.map_err(|error| self.store_error("counting a login", &error))?;
        Err(LoginFailure::Unknown.into())
    }

    async fn take(
        &self,
        logins: &Logins,
        id: LoginAttemptId,
        attempt: &LoginAttempt,
        redirect_code: &SecretString,
        origin: LoginOrigin,
    ) -> Result<Collected, AuthError> {
        let store = self.parts.store.login_attempts();
        if attempt.has_redirect {
            let hash: [u8; 32] = Sha256::digest(redirect_code.expose_secret()).into();
            let wanted = attempt.redirect_code_hash.unwrap_or_default();
            if redirect_code.expose_secret().is_empty() {
                // The browser is on its way to the client with it.
                return Ok(Collected::Pending);
            }
            if !bool::from(hash.ct_eq(&wanted)) {
                let counted = store.count_wrong_verifier(id).await;
                counted.map_err(|error| self.store_error("counting a login", &error))?;
                return Err(LoginFailure::Unknown.into());
            }
        }
        let collected = store.collect(id).await;
        let collected = collected.map_err(|error| self.store_error("collecting a login", &error))?;
        let CollectedLogin {
            user_id,
            provider,
            issuer,
            subject,
            provider_token,
        } = collected.ok_or(LoginFailure::Unknown)?;
        let origin = LoginOrigin {
            provider: Some(ProviderOrigin {
                provider,
                issuer,
                subject,
                provider_token,
            }),
            ..origin
        };
        let (pair, username) = logins.begin_for(user_id, origin).await?;
        Ok(Collected::Tokens {
            pair: Box::new(pair),
            username,
        })
    }

    /// Asks the provider about a login on another device, if it is time to and nobody else does. True where it has ended.
    async fn ask_device(
        self: &Arc<Self>,
        id: LoginAttemptId,
        attempt: &LoginAttempt,
    ) -> Result<bool, AuthError> {
        let turn = self.parts.store.login_attempts().take_poll(id).await;
        if !turn.map_err(|error| self.store_error("reading a login", &error))? {
            return Ok(false);
        }
        // The device's code works once: a client that goes away now must not lose what it is exchanged for.
        let (logins, attempt) = (Arc::clone(self), attempt.clone());
        self.to_the_end(Box::pin(async move { logins.poll_device(id, &attempt).await }))
            .await
    }

    async fn poll_device(&self, id: LoginAttemptId, attempt: &LoginAttempt) -> Result<bool, AuthError> {
        let store = self.parts.store.login_attempts();
        let purpose = Purpose::Attempt {
            id: &id.to_string(),
            code_challenge: &attempt.code_challenge,
        };
        let Some(Going::Device { device_code }) = self.open_going(purpose, &attempt.sealed) else {
            return Err(LoginFailure::TokenInvalid.into());
        };
        let provider = self.provider(&attempt.provider)?;
        let granted = match provider.poll_device(&device_code, self.parts.clock.now()).await {
            Ok(DevicePoll::Pending) => return Ok(false),
            Ok(DevicePoll::SlowDown) => {
                let slowed = store.slow_down(id).await;
                slowed.map_err(|error| self.store_error("reading a login", &error))?;
                return Ok(false);
            }
            // Asked again when it is time to.
            Err(error) if !error.is_final() => return Ok(false),
            Err(error) => Err(self.refused(provider, error)),
            Ok(DevicePoll::Granted(grant)) => self.admit_anew(provider, &grant).await,
        };
        match granted {
            Ok(admitted) => {
                let completed = store.complete(id, admitted.outcome()).await;
                completed.map_err(|error| self.store_error("writing a login down", &error))
            }
            Err(AuthError::Login(failure)) => {
                let failed = store.fail(id, &failure.to_stored()).await;
                failed.map_err(|error| self.store_error("writing a failed login down", &error))?;
                Ok(true)
            }
            Err(error) => Err(error),
        }
    }
}
