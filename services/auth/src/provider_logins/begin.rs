//! Beginning a login with a provider.

use std::time::Duration;

use data_encoding::BASE64URL_NOPAD;
use domain::id::LoginAttemptId;
use domain::random::{self, Random};
use oidc::ProviderError;
use secrecy::ExposeSecret as _;
use sha2::{Digest as _, Sha256};
use store::login_attempts::{CreateLoginAttemptError, NewLoginAttempt};
use thiserror::Error;
use time::OffsetDateTime;
use url::Url;

use super::{BY_ADDRESS, Going, ProviderLogins};
use crate::error::AuthError;
use crate::login_key::Purpose;

/// How long a login may take.
const LIFETIME: Duration = Duration::from_secs(10 * 60);
/// How long a client waits between two questions: each waits long on the server already.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// Letters of a confirmation code: none that looks like another.
const ALPHABET: &[u8; 32] = b"ABCDEFGHJKLMNPQRSTUVWXYZ23456789";
/// Bytes of a SHA-256, as a challenge has them.
const CHALLENGE_BYTES: usize = 32;

/// A login to begin.
#[derive(Debug, Clone)]
pub struct BeginLogin {
    /// The provider's id.
    pub provider: String,
    /// What the collector's secret hashes to (RFC 7636, S256).
    pub code_challenge: String,
    /// How the person goes on.
    pub flow: Flow,
    /// Where the call comes from.
    pub address: Option<String>,
    /// The client, as it says itself.
    pub client_name: Option<String>,
}

/// How the person goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Flow {
    /// In a browser.
    Browser {
        /// Where the browser goes at the end, on the client's loopback. Without it the person is asked whether they began it.
        redirect_uri: Option<String>,
    },
    /// On another device.
    Device,
}

/// A login that has begun.
#[derive(Debug, Clone)]
pub struct BegunLogin {
    /// What it is called.
    pub id: LoginAttemptId,
    /// What the person does.
    pub presentation: Presentation,
    /// To be compared with what the page shows that asks for confirmation.
    pub confirmation_code: String,
    /// When it is over.
    pub expire_time: OffsetDateTime,
    /// How long to wait between two questions.
    pub poll_interval: Duration,
}

/// What the person does.
#[derive(Debug, Clone)]
pub enum Presentation {
    /// Goes there with a browser.
    Browser {
        /// The address.
        authorization_url: String,
    },
    /// Enters a code on another device.
    Device {
        /// Where.
        verification_uri: String,
        /// The code.
        user_code: String,
    },
}

/// A challenge or address that a client may not send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum InvalidBeginning {
    /// Not a challenge.
    #[error("must be BASE64URL(SHA-256(verifier)) without padding: 43 characters")]
    CodeChallenge,
    /// Not an address on the client's loopback.
    #[error("must be http://127.0.0.1:port/path, without a user, query or fragment")]
    RedirectUri,
}

impl BeginLogin {
    /// Checks what the client sends, naming the field that is wrong.
    ///
    /// # Errors
    /// The field and what is wrong with it.
    pub fn check(&self) -> Result<(), (&'static str, InvalidBeginning)> {
        let challenge = BASE64URL_NOPAD.decode(self.code_challenge.as_bytes());
        if !challenge.is_ok_and(|bytes| bytes.len() == CHALLENGE_BYTES) {
            return Err(("code_challenge", InvalidBeginning::CodeChallenge));
        }
        if let Flow::Browser {
            redirect_uri: Some(uri),
        } = &self.flow
            && !is_loopback(uri)
        {
            return Err(("browser.redirect_uri", InvalidBeginning::RedirectUri));
        }
        Ok(())
    }
}

/// Whether an address is a port of 127.0.0.1 and nothing that only looks like one: it has to be written as it is read.
fn is_loopback(uri: &str) -> bool {
    if uri.len() > 200 || !uri.starts_with("http://127.0.0.1:") {
        return false;
    }
    let Ok(url) = Url::parse(uri) else { return false };
    url.as_str() == uri
        && url.host_str() == Some("127.0.0.1")
        && url.port().is_some_and(|port| port >= 1024)
        && url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none()
}

impl ProviderLogins {
    /// Begins a login that was checked before ([`BeginLogin::check`]).
    ///
    /// # Errors
    /// [`AuthError::Login`] by cause; [`AuthError::LoginThrottled`].
    pub async fn begin(&self, begin: BeginLogin) -> Result<BegunLogin, AuthError> {
        let provider = self.provider(&begin.provider)?;
        self.count("start-login", begin.address.as_deref(), BY_ADDRESS)
            .await?;
        let failed = |error: ProviderError| {
            tracing::warn!(provider = begin.provider, %error, "a login cannot begin");
            AuthError::Login(error.into())
        };
        let (state_hash, going, presentation, redirect_uri, lifetime, device_interval) = match begin.flow {
            Flow::Browser { redirect_uri } => {
                let authorization = provider
                    .authorize(&self.redirect_uri(provider)?)
                    .await
                    .map_err(failed)?;
                let going = Going::Browser {
                    nonce: authorization.nonce.expose_secret().to_owned(),
                    pkce_verifier: authorization.pkce_verifier.expose_secret().to_owned(),
                };
                let presentation = Presentation::Browser {
                    authorization_url: authorization.url,
                };
                let hash = Sha256::digest(authorization.state.expose_secret()).into();
                (Some(hash), going, presentation, redirect_uri, LIFETIME, None)
            }
            Flow::Device => {
                let device = provider.authorize_device().await.map_err(failed)?;
                let going = Going::Device {
                    device_code: device.device_code.expose_secret().to_owned(),
                };
                let presentation = Presentation::Device {
                    verification_uri: device.verification_uri,
                    user_code: device.user_code,
                };
                let lifetime = device.lifetime.min(LIFETIME);
                (None, going, presentation, None, lifetime, Some(device.interval))
            }
        };
        let random = &*self.parts.random;
        let id = LoginAttemptId::generate(random);
        let purpose = Purpose::Attempt {
            id: &id.to_string(),
            code_challenge: &begin.code_challenge,
        };
        let going = serde_json::to_string(&going)
            .map_err(|error| AuthError::fault(random, "writing a login down", &error))?;
        let sealed = self.key()?.seal(purpose, &going, random).unwrap_or_default();
        let confirmation_code = confirmation_code(random);
        let new = NewLoginAttempt {
            id,
            provider: provider.id().to_owned(),
            state_hash,
            code_challenge: begin.code_challenge,
            confirmation_code: confirmation_code.clone(),
            redirect_uri,
            sealed,
            lifetime,
            poll_interval: device_interval,
            client_name: begin.client_name,
            address: begin.address,
        };
        let expire_time = match self.parts.store.login_attempts().create(new).await {
            Ok(expire_time) => expire_time,
            Err(CreateLoginAttemptError::TooMany) => {
                return Err(AuthError::LoginThrottled {
                    retry_after: Duration::from_secs(60),
                });
            }
            Err(CreateLoginAttemptError::Store(error)) => {
                return Err(self.store_error("beginning a login", &error));
            }
        };
        Ok(BegunLogin {
            id,
            presentation,
            confirmation_code,
            expire_time,
            poll_interval: device_interval.unwrap_or(POLL_INTERVAL),
        })
    }
}

/// Eight letters and digits, in two groups.
fn confirmation_code(random: &dyn Random) -> String {
    let bytes: [u8; 8] = random::bytes(random);
    let letters: String = bytes
        .iter()
        .filter_map(|byte| ALPHABET.get(usize::from(byte % 32)))
        .map(|letter| char::from(*letter))
        .collect();
    let (first, second) = letters.split_at(4);
    format!("{first}-{second}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn browser_goes_to_the_loopback_of_the_client_and_nowhere_else() {
        for good in ["http://127.0.0.1:8123/", "http://127.0.0.1:65535/callback/x"] {
            assert!(is_loopback(good), "{good}");
        }
        for bad in [
            "https://127.0.0.1:8123/",
            "http://127.0.0.1/",
            "http://127.0.0.1:80/",
            "http://localhost:8123/",
            "http://127.0.0.1:8123@evil.example/",
            "http://127.0.0.1:8123.evil.example/",
            "http://127.0.0.1.evil.example:8123/",
            "http://127.0.0.1:8123/?next=https://evil.example",
            "http://127.0.0.1:8123/#x",
            "http://127.0.0.1:8123",
            "http://127.0.0.1:8123\\@evil.example/",
            "http://127.0.0.1:8123/a\nb",
            "http://127.0.0.1:8123/%0d%0a/../x",
            "//evil.example",
            "javascript:alert(1)",
            "",
        ] {
            assert!(!is_loopback(bad), "{bad}");
        }
    }

    #[test]
    fn challenge_is_a_hash() {
        let begin = |challenge: &str| BeginLogin {
            provider: "p".to_owned(),
            code_challenge: challenge.to_owned(),
            flow: Flow::Device,
            address: None,
            client_name: None,
        };
        let good = BASE64URL_NOPAD.encode(&[7; 32]);
        assert!(begin(&good).check().is_ok());
        for bad in ["", "plain", &good[1..], &format!("{good}="), &"a".repeat(10_000)] {
            assert!(begin(bad).check().is_err(), "{bad}");
        }
    }
}
