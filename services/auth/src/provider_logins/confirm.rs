//! The question whether somebody began the login that their browser came back from.
//!
//! Invariant: a login without a redirect to the client's own machine is collected by nobody before its person says, in the
//! browser that came back, that it is theirs. Else a link to log in, sent to somebody else, would log its sender in as them.

use data_encoding::HEXLOWER;
use domain::random;
use oidc::Provider;
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};
use store::login_attempts::{ClaimedLoginAttempt, DecidedLoginAttempt, SecretHash};

use super::{Admitted, CallbackEnd, ProviderLogins};
use crate::error::AuthError;
use crate::login_failure::LoginFailure;

/// What the person is asked.
#[derive(Debug, Clone)]
pub struct Confirmation {
    /// To be compared with what the client shows.
    pub confirmation_code: String,
    /// The login name that the client would have.
    pub username: String,
    /// What people call the provider.
    pub provider: String,
    /// The client, as it says itself.
    pub client_name: Option<String>,
    /// Where it called from.
    pub address: Option<String>,
    /// What the answer brings, in the page.
    pub token: SecretString,
    /// What it brings besides, in a cookie: the browser that was asked answers, and no other.
    pub cookie: SecretString,
}

/// What the person says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// They began the login.
    Confirm,
    /// They did not.
    Decline,
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decided {
    /// The client has its tokens in a moment.
    Confirmed,
    /// It gets none.
    Declined,
    /// No such login waits for an answer of this browser.
    Unknown,
}

impl ProviderLogins {
    /// Holds a login until its person says that it is theirs.
    pub(super) async fn ask_to_confirm(
        &self,
        provider: &Provider,
        attempt: &ClaimedLoginAttempt,
        admitted: Admitted,
    ) -> Result<CallbackEnd, AuthError> {
        let user = self.parts.store.users().get(admitted.user).await;
        let user = user.map_err(|error| self.store_error("reading a user", &error))?;
        let user = user.ok_or(LoginFailure::NotInvited)?;
        let secret = || SecretString::from(HEXLOWER.encode(&random::bytes::<32>(&*self.parts.random)));
        let (token, cookie) = (secret(), secret());
        let hash = confirm_hash(&token, &cookie);
        let attempts = self.parts.store.login_attempts();
        let held = attempts.hold(attempt.id, admitted.outcome(), &hash).await;
        if !held.map_err(|error| self.store_error("writing a login down", &error))? {
            return Ok(CallbackEnd::Failed(LoginFailure::Unknown));
        }
        Ok(CallbackEnd::Confirm(Box::new(Confirmation {
            confirmation_code: attempt.confirmation_code.clone(),
            username: user.username.as_str().to_owned(),
            provider: provider.display_name().to_owned(),
            client_name: attempt.client_name.clone(),
            address: attempt.address.clone(),
            token,
            cookie,
        })))
    }

    /// Takes the answer, once.
    ///
    /// # Errors
    /// [`AuthError::Unavailable`]; [`AuthError::LoginThrottled`] where too many answers to nothing came from the address.
    pub async fn decide(
        &self,
        token: &SecretString,
        cookie: &SecretString,
        decision: Decision,
        address: &str,
    ) -> Result<Decided, AuthError> {
        let hash = confirm_hash(token, cookie);
        let attempts = self.parts.store.login_attempts();
        let (decided, outcome) = match decision {
            Decision::Confirm => (attempts.confirm(&hash).await, Decided::Confirmed),
            Decision::Decline => {
                let failure = LoginFailure::Declined.to_stored();
                (attempts.decline(&hash, &failure).await, Decided::Declined)
            }
        };
        let decided = decided.map_err(|error| self.store_error("writing a login down", &error))?;
        let Some(attempt) = decided else {
            self.record_browser("confirm", "", address, None, Some(&LoginFailure::Unknown));
            self.count_wrong("confirm", Some(address)).await?;
            return Ok(Decided::Unknown);
        };
        let failure = (outcome == Decided::Declined).then_some(&LoginFailure::Declined);
        self.record_browser(
            "confirm",
            &attempt.provider,
            address,
            Some(attempt.user_id),
            failure,
        );
        if outcome == Decided::Declined {
            tracing::warn!(
                login.attempt = %attempt.id, provider = attempt.provider, user.id = %attempt.user_id,
                "somebody was asked to confirm a login that they say they did not begin"
            );
            self.revoke_declined(&attempt).await;
        }
        Ok(outcome)
    }

    /// Ends at the provider what a login was given that nobody has.
    async fn revoke_declined(&self, attempt: &DecidedLoginAttempt) {
        let sealed = attempt.provider_token.as_deref();
        let token = sealed.and_then(|sealed| self.open_token(&attempt.issuer, &attempt.subject, sealed));
        if let (Some(token), Ok(provider)) = (token, self.provider(&attempt.provider)) {
            self.revoke_at(provider, &token).await;
        }
    }
}

/// Both are as long as they are made: a colon cannot move between them.
fn confirm_hash(token: &SecretString, cookie: &SecretString) -> SecretHash {
    let mut hash = Sha256::new();
    hash.update(token.expose_secret());
    hash.update(":");
    hash.update(cookie.expose_secret());
    hash.finalize().into()
}
