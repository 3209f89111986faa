//! The browser's return from a provider, on any instance.

use std::sync::Arc;

use domain::id::UserId;
use domain::random;
use oidc::{Provider, ProviderError};
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};
use store::login_attempts::{ClaimedLoginAttempt, LoginOutcome};

use super::{Confirmation, Going, ProviderLogins};
use crate::error::AuthError;
use crate::login_failure::LoginFailure;
use crate::login_key::Purpose;

/// Longest state or code that is looked at, in bytes.
const MAX_BYTES: usize = 4096;

/// What a provider sends a browser back with.
#[derive(Debug, Clone, Default)]
pub struct CallbackQuery {
    /// Which login it is.
    pub state: Option<String>,
    /// What the tokens are had for.
    pub code: Option<SecretString>,
    /// Whose answer it is (RFC 9207).
    pub issuer: Option<String>,
    /// Why there is no code.
    pub error: Option<String>,
    /// Where the browser is.
    pub address: String,
}

/// What the browser is shown.
#[derive(Debug, Clone)]
pub enum CallbackEnd {
    /// The person is asked whether they began this login: nobody collects it before they say so.
    Confirm(Box<Confirmation>),
    /// The login has ended well, and the browser goes on to the client, on its own machine.
    Redirect {
        /// Where the client listens.
        uri: String,
        /// What the client collects the tokens with.
        code: SecretString,
    },
    /// The login failed.
    Failed(LoginFailure),
}

impl ProviderLogins {
    /// Goes on with a login whose browser came back from `provider`. What became of it is written down for its collector.
    ///
    /// # Errors
    /// [`AuthError::Unavailable`]; [`AuthError::LoginThrottled`] where too many unknown states came from the address.
    pub async fn callback(
        self: &Arc<Self>,
        provider: &str,
        query: CallbackQuery,
    ) -> Result<CallbackEnd, AuthError> {
        let unknown = CallbackEnd::Failed(LoginFailure::Unknown);
        let state = query.state.as_deref().filter(|state| can_be_state(state));
        let (Some(state), Ok(_)) = (state, self.provider(provider)) else {
            self.record_callback(provider, &query.address, None, &unknown);
            return Ok(unknown);
        };
        let hash = Sha256::digest(state).into();
        // The state of another provider's login is none here: the code that came with it may be for somebody else's eyes.
        let claimed = self.parts.store.login_attempts().claim(provider, &hash).await;
        let Some(attempt) = claimed.map_err(|error| self.store_error("claiming a login", &error))? else {
            self.record_callback(provider, &query.address, None, &unknown);
            self.count_wrong("callback", Some(&query.address)).await?;
            return Ok(unknown);
        };
        // The code works once: a browser that goes away now must not lose what it is exchanged for.
        let logins = Arc::clone(self);
        self.to_the_end(Box::pin(async move { logins.go_on(&attempt, query).await }))
            .await
    }

    fn record_callback(&self, provider: &str, address: &str, user: Option<UserId>, end: &CallbackEnd) {
        let failure = match end {
            CallbackEnd::Failed(failure) => Some(failure),
            _ => None,
        };
        // What the address names is whatever somebody wrote.
        let named = self.provider(provider).map_or("", Provider::id);
        self.record_browser("callback", named, address, user, failure);
    }

    /// What the browser is shown.
    async fn go_on(
        &self,
        attempt: &ClaimedLoginAttempt,
        query: CallbackQuery,
    ) -> Result<CallbackEnd, AuthError> {
        let address = query.address.clone();
        let (end, user) = match self.finish(attempt, query).await {
            Ok((end, user)) => (end, Some(user)),
            Err(AuthError::Login(failure)) => {
                tracing::info!(login.attempt = %attempt.id, provider = attempt.provider, %failure, "a login failed");
                let attempts = self.parts.store.login_attempts();
                let failed = attempts.fail(attempt.id, &failure.to_stored()).await;
                failed.map_err(|error| self.store_error("writing a failed login down", &error))?;
                (CallbackEnd::Failed(failure), None)
            }
            Err(error) => return Err(error),
        };
        self.record_callback(&attempt.provider, &address, user, &end);
        Ok(end)
    }

    async fn finish(
        &self,
        attempt: &ClaimedLoginAttempt,
        query: CallbackQuery,
    ) -> Result<(CallbackEnd, UserId), AuthError> {
        let provider = self.provider(&attempt.provider)?;
        let refused = |error: ProviderError| self.refused(provider, error);
        provider
            .check_issuer(query.issuer.as_deref())
            .await
            .map_err(refused)?;
        if let Some(error) = query.error {
            let shown = error
                .chars()
                .filter(|char| char.is_ascii_alphanumeric() || *char == '_');
            let error = shown.take(60).collect();
            return Err(LoginFailure::Refused { error }.into());
        }
        let code = query
            .code
            .filter(|code| !code.expose_secret().is_empty() && code.expose_secret().len() <= MAX_BYTES)
            .ok_or(LoginFailure::TokenInvalid)?;
        let purpose = Purpose::Attempt {
            id: &attempt.id.to_string(),
            code_challenge: &attempt.code_challenge,
        };
        let Some(Going::Browser { nonce, pkce_verifier }) = self.open_going(purpose, &attempt.sealed) else {
            tracing::error!(
                "what a login goes on with does not open: do all API instances have one login key?"
            );
            return Err(LoginFailure::TokenInvalid.into());
        };
        let grant = provider
            .exchange_code(
                code.expose_secret().to_owned(),
                &self.redirect_uri(provider)?,
                &SecretString::from(pkce_verifier),
                &SecretString::from(nonce),
                self.parts.clock.now(),
            )
            .await
            .map_err(refused)?;
        let admitted = self.admit_anew(provider, &grant).await?;
        let user = admitted.user;
        let Some(uri) = attempt.redirect_uri.clone() else {
            let asked = self.ask_to_confirm(provider, attempt, admitted).await?;
            return Ok((asked, user));
        };
        let code = data_encoding::HEXLOWER.encode(&random::bytes::<32>(&*self.parts.random));
        let outcome = LoginOutcome {
            redirect_code_hash: Some(Sha256::digest(&code).into()),
            ..admitted.outcome()
        };
        let attempts = self.parts.store.login_attempts();
        let completed = attempts.complete(attempt.id, outcome).await;
        if !completed.map_err(|error| self.store_error("writing a login down", &error))? {
            return Ok((CallbackEnd::Failed(LoginFailure::Unknown), user));
        }
        let code = SecretString::from(code);
        Ok((CallbackEnd::Redirect { uri, code }, user))
    }

    /// A provider's refusal as a failure; the log has what was wrong.
    pub(super) fn refused(&self, provider: &Provider, error: ProviderError) -> AuthError {
        tracing::warn!(provider = provider.id(), %error, "a provider's answer is no login");
        AuthError::Login(error.into())
    }

    pub(super) fn open_going(&self, purpose: Purpose<'_>, sealed: &[u8]) -> Option<Going> {
        let opened = self.parts.key.as_ref()?.open(purpose, sealed)?;
        serde_json::from_str(opened.expose_secret()).ok()
    }
}

/// Whether we may have given it: states are base64url. What is none is not looked for, and not counted.
fn can_be_state(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    (1..=MAX_BYTES).contains(&text.len()) && text.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_that_cannot_be_ours_is_not_looked_for() {
        assert!(can_be_state("Zm9v-YmFy_1"));
        for wrong in ["", "a b", "a%00", "a\0", "ä", "a=", &"a".repeat(MAX_BYTES + 1)] {
            assert!(!can_be_state(wrong), "{wrong:?}");
        }
    }
}
