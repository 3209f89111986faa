//! The device authorization grant (RFC 8628): the person logs in on another device.

use std::time::Duration;

use http::StatusCode;
use openidconnect::core::CoreTokenResponse;
use secrecy::SecretString;
use serde::Deserialize;
use time::OffsetDateTime;

use crate::error::ProviderError;
use crate::provider::{Provider, refused};
use crate::tokens::Grant;

const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:device_code";
/// RFC 8628, 3.2: what holds where the provider does not say.
const DEFAULT_INTERVAL: u64 = 5;
/// Longest wait between two questions that a provider may ask for.
const MAX_INTERVAL: u64 = 60;

/// What a person needs to log in on another device. An address with the code in it is left out: whoever is sent one by somebody
/// else would log them in.
#[derive(Debug)]
pub struct DeviceAuthorization {
    /// What the provider knows this login by.
    pub device_code: SecretString,
    /// What the person enters there.
    pub user_code: String,
    /// Where.
    pub verification_uri: String,
    /// How long to wait between two questions.
    pub interval: Duration,
    /// How long the code is good for.
    pub lifetime: Duration,
}

/// What came of a question.
#[derive(Debug)]
pub enum DevicePoll {
    /// The person has not decided.
    Pending,
    /// The same, and we ask too often.
    SlowDown,
    /// The person logged in.
    Granted(Box<Grant>),
}

#[derive(Deserialize)]
struct Answer {
    device_code: String,
    user_code: String,
    verification_uri: String,
    expires_in: u64,
    interval: Option<u64>,
}

#[derive(Deserialize)]
struct Refusal {
    error: String,
}

impl Provider {
    /// Begins a login on another device.
    ///
    /// # Errors
    /// [`ProviderError::FlowNotOffered`] where the administrator or the provider does not offer it.
    pub async fn authorize_device(&self) -> Result<DeviceAuthorization, ProviderError> {
        if !self.has_device_flow() {
            return Err(ProviderError::FlowNotOffered);
        }
        let metadata = self.metadata().await?;
        let endpoint = metadata
            .additional_metadata()
            .device_authorization_endpoint
            .clone();
        let endpoint = endpoint.ok_or(ProviderError::FlowNotOffered)?;
        let mut scope = "openid".to_owned();
        for other in self.scopes() {
            scope.push(' ');
            scope.push_str(&other);
        }
        let form = [("scope", scope.as_str()), ("client_id", &self.options.client_id)];
        let (status, body) = self.post(&metadata, &endpoint, &form).await?;
        if status != StatusCode::OK {
            return Err(self.refusal(status, &body));
        }
        let answer: Answer = serde_json::from_slice(&body)
            .map_err(|_| self.issuer.unavailable("its answer to a device cannot be read"))?;
        let interval = answer.interval.unwrap_or(DEFAULT_INTERVAL).clamp(1, MAX_INTERVAL);
        Ok(DeviceAuthorization {
            device_code: answer.device_code.into(),
            user_code: answer.user_code,
            verification_uri: answer.verification_uri,
            interval: Duration::from_secs(interval),
            lifetime: Duration::from_secs(answer.expires_in),
        })
    }

    /// Asks whether the person has logged in.
    ///
    /// # Errors
    /// Where the person declined, the code has expired, or the tokens cannot be believed.
    pub async fn poll_device(
        &self,
        device_code: &str,
        now: OffsetDateTime,
    ) -> Result<DevicePoll, ProviderError> {
        let metadata = self.metadata().await?;
        let endpoint = metadata.token_endpoint().ok_or(ProviderError::FlowNotOffered)?;
        let form = [
            ("grant_type", GRANT_TYPE),
            ("device_code", device_code),
            ("client_id", &self.options.client_id),
        ];
        let (status, body) = self.post(&metadata, endpoint.as_str(), &form).await?;
        if status == StatusCode::OK {
            let answer: CoreTokenResponse = serde_json::from_slice(&body)
                .map_err(|_| self.issuer.unavailable("its tokens cannot be read"))?;
            let grant = self.grant(answer, None, now).await?;
            return Ok(DevicePoll::Granted(Box::new(grant)));
        }
        match serde_json::from_slice::<Refusal>(&body) {
            Ok(refusal) if refusal.error == "authorization_pending" => Ok(DevicePoll::Pending),
            Ok(refusal) if refusal.error == "slow_down" => Ok(DevicePoll::SlowDown),
            _ => Err(self.refusal(status, &body)),
        }
    }

    fn refusal(&self, status: StatusCode, body: &[u8]) -> ProviderError {
        match serde_json::from_slice::<Refusal>(body) {
            Ok(refusal) if status.is_client_error() => refused(&refusal.error),
            _ => self.issuer.unavailable(format!("it answers {status}")),
        }
    }
}
