//! Going on with a login that was begun with a provider, and ending it there too.
//!
//! Invariant: what the provider says of somebody is asked again with their refreshes, at most once an interval. A provider that
//! is away stops nobody who is logged in, until the grace is over.

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
    /// As [`Logins::refresh`]; [`LoginFailure::EndedByProvider`]; [`LoginFailure::ProviderUnavailable`] where the provider has
    /// been away for too long.
    pub async fn refresh(
        &self,
        logins: &Logins,
        refresh_token: &SecretString,
    ) -> Result<TokenPair, AuthError> {
        if let Some(hash) = refresh_token_hash(refresh_token.expose_secret()) {
            let options = self.parts.options;
            let sessions = self.parts.store.provider_sessions();
            let check = sessions
                .take_check(&hash, options.check_interval, options.unavailable_grace)
                .await;
            match check.map_err(|error| self.store_error("reading a login", &error))? {
                ProviderCheck::NotDue => self.end_if_too_old(&hash).await?,
                ProviderCheck::Silent => return Err(LoginFailure::ProviderUnavailable.into()),
                ProviderCheck::Due(session) => self.check(&session, false).await?,
                ProviderCheck::Overdue(session) => self.check(&session, true).await?,
            }
        }
        logins.refresh(refresh_token).await
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
            Err(AuthError::Login(LoginFailure::ProviderUnavailable)) => {
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
            Err(AuthError::Login(failure)) => {
                tracing::info!(
                    login.id = %session.login_id, user.id = %session.user_id, provider = session.provider, %failure,
                    "a login ends: its provider does not vouch for it any more"
                );
                let ended = self.parts.store.provider_sessions().end(session.login_id).await;
                ended.map_err(|error| self.store_error("ending a login", &error))?;
                self.record_end(session, &failure);
                self.follow_refusal(session, &failure).await?;
                Err(LoginFailure::EndedByProvider.into())
            }
            Err(error) => Err(error),
        }
    }

    /// Where the provider itself said no, and not something on the way: API tokens of the user stop as well.
    async fn follow_refusal(
        &self,
        session: &ProviderSession,
        failure: &LoginFailure,
    ) -> Result<(), AuthError> {
        let is_no = match failure {
            LoginFailure::Refused { error } => error == "invalid_grant",
            LoginFailure::PolicyDenied => true,
            _ => false,
        };
        if !is_no {
            return Ok(());
        }
        let vouching = self.parts.store.vouching();
        let denied = vouching.deny(session.user_id, &session.provider).await;
        if denied.map_err(|error| self.store_error("stopping api tokens", &error))? {
            tracing::info!(
                user.id = %session.user_id, provider = session.provider,
                "api tokens stop: their user's provider does not vouch for them any more"
            );
        }
        Ok(())
    }

    /// Asks the provider whether all is as it was, and follows what changed.
    async fn ask(&self, session: &ProviderSession) -> Result<Option<Vec<u8>>, AuthError> {
        // A provider that was taken out of the configuration vouches for nobody.
        let provider = self.provider(&session.provider)?;
        let token = session
            .provider_token
            .as_ref()
            .and_then(|sealed| self.open_token(&session.issuer, &session.subject, sealed));
        let token = token.ok_or(LoginFailure::TokenInvalid)?;
        if provider.issuer_url() != session.issuer {
            return Err(LoginFailure::TokenInvalid.into());
        }
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
            return Err(LoginFailure::TokenInvalid.into());
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
