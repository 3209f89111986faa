//! Going on with a login that was begun with a provider, and ending it there too.
//!
//! Invariant: what the provider says of somebody is asked again with their refreshes, and while they have streams open, at most
//! once an interval. A login ends by what
//! the provider says of its person. A provider that is away, or that we cannot ask as we are configured, stops nobody who is logged
//! in, until the grace is over.

use std::sync::Arc;
use std::time::Duration;

use domain::id::LoginId;
use oidc::{Provider, ProviderToken};
use secrecy::{ExposeSecret as _, SecretString};
use store::logins::TokenHash;
use store::provider_sessions::{ProviderCheck, ProviderSession};
use tokio::time::timeout;

use super::ProviderLogins;
use crate::error::AuthError;
use crate::login_failure::LoginFailure;
use crate::logins::{Logins, TokenPair};
use crate::secret_token::refresh_token_hash;

/// A provider that did not answer is asked again after this.
const RETRY_PAUSE: Duration = Duration::from_secs(10);
/// How long a logout waits for the provider.
const REVOKE_DEADLINE: Duration = Duration::from_secs(3);

impl ProviderLogins {
    /// Exchanges a refresh token for the next pair, asking the provider first where it is time to.
    ///
    /// # Errors
    /// As [`Logins::refresh`]; [`AuthError::LoginThrottled`] where too many that nobody was given came from the address;
    /// [`LoginFailure::EndedByProvider`]; [`LoginFailure::ProviderUnavailable`] where the provider has
    /// been away for too long.
    pub async fn refresh(
        self: &Arc<Self>,
        logins: &Logins,
        refresh_token: &SecretString,
        address: Option<&str>,
    ) -> Result<TokenPair, AuthError> {
        // What cannot be one is no guess: it costs the config database nothing, and is not counted there either.
        let hash = refresh_token_hash(refresh_token.expose_secret()).ok_or(AuthError::TokenInvalid)?;
        let options = self.parts.options;
        let sessions = self.parts.store.provider_sessions();
        let check = sessions
            .take_check(&hash, options.check_interval, options.unavailable_grace)
            .await;
        match check.map_err(|error| self.store_error("reading a login", &error))? {
            ProviderCheck::NotDue => self.end_if_too_old(&hash).await?,
            ProviderCheck::Silent => return Err(LoginFailure::ProviderUnavailable.into()),
            ProviderCheck::Due(session) => self.check_to_the_end(session, false).await?,
            ProviderCheck::Overdue(session) => self.check_to_the_end(session, true).await?,
        }
        let refreshed = logins.refresh(refresh_token).await;
        if let Err(AuthError::TokenInvalid) = &refreshed {
            self.count_wrong("refresh-token", address).await?;
        }
        refreshed
    }

    /// Ends a login whose provider gave nothing to ask it with, once it is as old as such a one may become.
    async fn end_if_too_old(&self, refresh_token: &TokenHash) -> Result<(), AuthError> {
        let sessions = self.parts.store.provider_sessions();
        let after = self.parts.options.reauthenticate_after;
        let old = sessions.too_old(refresh_token, after).await;
        let Some(login) = old.map_err(|error| self.store_error("reading a login", &error))? else {
            return Ok(());
        };
        let ended = sessions.end(login).await;
        ended.map_err(|error| self.store_error("ending a login", &error))?;
        Err(LoginFailure::ReauthenticationRequired.into())
    }

    /// Ends a login, here at once and at its provider if that can be done.
    ///
    /// # Errors
    /// [`AuthError::Unavailable`].
    pub async fn logout(&self, logins: &Logins, login: LoginId) -> Result<(), AuthError> {
        logins.logout(login).await?;
        self.revoke(login).await;
        Ok(())
    }

    /// Ends at the provider what a login that has ended was good for there.
    pub async fn revoke(&self, login: LoginId) {
        let session = match self.parts.store.provider_sessions().get(login).await {
            Ok(Some(session)) => session,
            Ok(None) => return,
            Err(error) => {
                tracing::warn!(%error, "a login that ended may live on at its provider");
                return;
            }
        };
        let Ok(provider) = self.provider(&session.provider) else {
            return;
        };
        let token = session
            .provider_token
            .as_ref()
            .and_then(|sealed| self.open_token(&session.issuer, &session.subject, sealed));
        if let Some(token) = token {
            self.revoke_at(provider, &token).await;
        }
    }

    /// Ends at a provider what a token is good for, if that can be done.
    pub(super) async fn revoke_at(&self, provider: &Provider, token: &ProviderToken) {
        match timeout(REVOKE_DEADLINE, provider.revoke(token)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "a login that ended may live on at its provider"),
            Err(_) => tracing::warn!("a login that ended may live on at its provider: it does not answer"),
        }
    }

    /// A provider that rotates its tokens gives another one, which is kept also where the client goes away meanwhile.
    pub(super) async fn check_to_the_end(
        self: &Arc<Self>,
        session: ProviderSession,
        overdue: bool,
    ) -> Result<(), AuthError> {
        let logins = Arc::clone(self);
        self.to_the_end(Box::pin(async move { logins.check(&session, overdue).await }))
            .await
    }

    async fn check(&self, session: &ProviderSession, overdue: bool) -> Result<(), AuthError> {
        match self.ask(session).await {
            Ok(token) => {
                let confirmed = self
                    .parts
                    .store
                    .provider_sessions()
                    .confirm(session.login_id, token)
                    .await;
                confirmed.map_err(|error| self.store_error("writing a login down", &error))
            }
            Err(AuthError::Login(failure)) if ends_login(&failure) => {
                tracing::info!(
                    login.id = %session.login_id, user.id = %session.user_id, provider = session.provider, %failure,
                    "a login ends: its provider does not vouch for it any more"
                );
                self.end_as(session, &failure).await?;
                self.record_end(session, &failure);
                Err(LoginFailure::EndedByProvider.into())
            }
            Err(AuthError::Login(failure)) => {
                tracing::warn!(
                    login.id = %session.login_id, provider = session.provider, ?failure,
                    "a login is without a word of its provider: it goes on until the grace is over"
                );
                let options = self.parts.options;
                let pause = RETRY_PAUSE.min(options.check_interval);
                let sessions = self.parts.store.provider_sessions();
                let again = sessions
                    .ask_again(session.login_id, options.check_interval, pause)
                    .await;
                again.map_err(|error| self.store_error("writing a login down", &error))?;
                if overdue {
                    return Err(LoginFailure::ProviderUnavailable.into());
                }
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Ends a login. Where the provider or the policy says no to its person, and not something on the way, their API tokens stop
    /// with it.
    async fn end_as(&self, session: &ProviderSession, failure: &LoginFailure) -> Result<(), AuthError> {
        let sessions = self.parts.store.provider_sessions();
        let ended = match failure {
            LoginFailure::PolicyDenied if self.speaks_alone(&session.issuer) => {
                sessions.end_and_deny(session, None).await
            }
            // One refresh token may have lapsed where another of the same person works.
            LoginFailure::Refused { .. } | LoginFailure::PolicyDenied => {
                let lately = Some(self.parts.options.check_interval);
                sessions.end_and_deny(session, lately).await
            }
            _ => sessions.end(session.login_id).await.map(|_| false),
        };
        if ended.map_err(|error| self.store_error("ending a login", &error))? {
            Self::log_denied(session.user_id, &session.provider);
        }
        Ok(())
    }

    /// Asks the provider whether all is as it was, and follows what changed.
    async fn ask(&self, session: &ProviderSession) -> Result<Option<Vec<u8>>, AuthError> {
        // One that was taken out of the configuration vouches for nobody, but another instance may have it still.
        let provider = self.provider(&session.provider)?;
        if provider.issuer_url() != session.issuer {
            return Err(LoginFailure::ProviderUnknown.into());
        }
        let token = session
            .provider_token
            .as_ref()
            .and_then(|sealed| self.open_token(&session.issuer, &session.subject, sealed));
        let Some(token) = token else {
            tracing::error!(
                "what a provider is asked again with does not open: do all API instances have one login key?"
            );
            return Err(LoginFailure::TokenInvalid.into());
        };
        let renewed = provider.renew(&token).await.map_err(LoginFailure::from)?;
        // At once: the token we asked with may have been good for this once only, and what follows takes a while or fails.
        if let Some(next) = renewed.refresh_token() {
            self.keep_token(session, &next).await?;
        }
        let grant = provider
            .read_renewed(renewed, &session.subject, self.parts.clock.now())
            .await
            .map_err(LoginFailure::from)?;
        let admitted = self.admit(provider, &grant).await?;
        if admitted.user != session.user_id {
            // Their identity is somebody else's now.
            return Err(LoginFailure::NotInvited.into());
        }
        Ok(admitted.provider_token)
    }

    /// Keeps what the provider is asked with next.
    async fn keep_token(&self, session: &ProviderSession, token: &ProviderToken) -> Result<(), AuthError> {
        let sealed = self.seal_token(&session.issuer, &session.subject, Some(token))?;
        let Some(sealed) = sealed else { return Ok(()) };
        let kept = self
            .parts
            .store
            .provider_sessions()
            .keep_token(session.login_id, &sealed)
            .await;
        kept.map_err(|error| self.store_error("writing a login down", &error))
    }
}

/// Whether it is said of the person: by the provider, by the claims it gave, or by what they come to here. Everything else is said
/// of us, or of what is on the way: an unknown client, a secret that has changed, a token that does not open.
fn ends_login(failure: &LoginFailure) -> bool {
    match failure {
        LoginFailure::Refused { error } => error == "invalid_grant",
        LoginFailure::PolicyDenied
        | LoginFailure::GroupsOverage
        | LoginFailure::NotInvited
        | LoginFailure::UsernameInvalid
        | LoginFailure::UsernameTaken
        | LoginFailure::UserDisabled => true,
        LoginFailure::ProviderUnknown
        | LoginFailure::ProviderUnavailable
        | LoginFailure::Unknown
        | LoginFailure::TokenInvalid
        | LoginFailure::EndedByProvider
        | LoginFailure::FlowNotOffered
        | LoginFailure::WorkloadNotAllowed
        | LoginFailure::Declined
        | LoginFailure::ReauthenticationRequired => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn login_ends_by_what_is_said_of_its_person_and_not_by_what_is_wrong_with_us() {
        let refused = |error: &str| LoginFailure::Refused {
            error: error.to_owned(),
        };
        for no in [refused("invalid_grant"), LoginFailure::PolicyDenied] {
            assert!(ends_login(&no), "{no:?}");
        }
        for other in [
            refused("invalid_client"),
            refused("unauthorized_client"),
            refused(""),
            LoginFailure::ProviderUnavailable,
            LoginFailure::ProviderUnknown,
            LoginFailure::TokenInvalid,
        ] {
            assert!(!ends_login(&other), "{other:?}");
        }
    }
}
