//! A workload's own token for one of a service account.

use data_encoding::HEXLOWER;
use domain::id::UserId;
use domain::username::Username;
use oidc::ProviderError;
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};
use store::logins::LoginOrigin;
use time::OffsetDateTime;

use super::{BY_ADDRESS, BY_WORKLOAD_TOKEN, ProviderLogins};
use crate::error::AuthError;
use crate::login_failure::LoginFailure;
use crate::logins::Logins;

/// An access token of a service account.
#[derive(Debug)]
pub struct ExchangedToken {
    /// The service account.
    pub user: UserId,
    /// The token.
    pub access_token: SecretString,
    /// When it expires.
    pub expire_time: OffsetDateTime,
}

impl ProviderLogins {
    /// Exchanges a workload's token.
    ///
    /// # Errors
    /// [`LoginFailure::TokenInvalid`], whatever is wrong with it; [`LoginFailure::WorkloadNotAllowed`];
    /// [`LoginFailure::ProviderUnavailable`]; [`AuthError::LoginThrottled`].
    pub async fn exchange(
        &self,
        logins: &Logins,
        token: &SecretString,
        origin: LoginOrigin,
    ) -> Result<ExchangedToken, AuthError> {
        self.count("exchange-token", origin.address.as_deref(), BY_ADDRESS)
            .await?;
        let admitted = self
            .parts
            .workloads
            .admit(token.expose_secret(), self.parts.clock.now())
            .await;
        let rule = admitted.map_err(|error: ProviderError| {
            tracing::warn!(%error, "a workload's token is not exchanged");
            LoginFailure::from(error)
        })?;
        // Each time is a login, and the token is good for as long as its issuer says.
        self.count_under(&key_of(token), BY_WORKLOAD_TOKEN).await?;
        let username: Username = rule
            .service_account
            .parse()
            .map_err(|_| LoginFailure::WorkloadNotAllowed)?;
        let account = self.parts.store.accounts().service_account(&username).await;
        let account = account.map_err(|error| self.store_error("reading a user", &error))?;
        let user = account.ok_or(LoginFailure::WorkloadNotAllowed)?;
        // The refresh token goes nowhere: the workload comes back with a token of its own.
        let address = origin.address.clone();
        let (pair, _) = logins.begin_once(user, origin).await?;
        // What counts is what failed since: a machine with many jobs has one address.
        self.take_back("exchange-token", address.as_deref()).await;
        Ok(ExchangedToken {
            user,
            access_token: pair.access_token,
            expire_time: pair.access_token_expires,
        })
    }
}

/// What a token is counted under: what was signed of it, for a signature can be written in more than one way.
fn key_of(token: &SecretString) -> String {
    let signed = token
        .expose_secret()
        .rsplit_once('.')
        .map_or("", |(signed, _)| signed);
    format!("exchange-token-of:{}", HEXLOWER.encode(&Sha256::digest(signed)))
}
