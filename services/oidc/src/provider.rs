//! A provider people log in with: the authorization code grant with PKCE, refreshing, revoking.
//!
//! pgmoor is a confidential client: the secret stays with the API instances, and each login has a PKCE verifier of its own all
//! the same.

use std::fmt;

use data_encoding::BASE64;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{Request, StatusCode};
use openidconnect::core::{CoreAuthenticationFlow, CoreClient, CoreClientAuthMethod, CoreTokenResponse};
use openidconnect::{
    AuthType, AuthorizationCode, ClientId, ClientSecret, CsrfToken, EndpointMaybeSet, EndpointNotSet,
    EndpointSet, Nonce, OAuth2TokenResponse as _, PkceCodeChallenge, PkceCodeVerifier, RedirectUrl,
    RefreshToken, RequestTokenError, Scope, TokenResponse as _,
};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;
use time::OffsetDateTime;
use url::form_urlencoded;

use crate::claims::Claims;
use crate::error::ProviderError;
use crate::http::HttpClient;
use crate::issuer::{Issuer, Metadata};
use crate::policy::LoginPolicy;
use crate::tokens::{Expected, Grant, ProviderToken};

/// Longest error code of a provider that is repeated.
const MAX_CODE_CHARS: usize = 60;

/// A provider as the administrator describes it.
#[derive(Clone)]
pub struct ProviderOptions {
    /// Its name in pgmoor.
    pub id: String,
    /// What people call it.
    pub display_name: String,
    /// Its issuer URL.
    pub issuer: String,
    /// What pgmoor is called there.
    pub client_id: String,
    /// The client's secret.
    pub client_secret: SecretString,
    /// Scopes beside `openid`.
    pub scopes: Vec<String>,
    /// Whether people may log in on another device (RFC 8628).
    pub device_flow: bool,
    /// Who may log in.
    pub policy: LoginPolicy,
}

impl fmt::Debug for ProviderOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProviderOptions")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// Where a browser is sent to log in, and what its return is checked with.
#[derive(Debug)]
pub struct Authorization {
    /// The address.
    pub url: String,
    /// Comes back with the browser, once.
    pub state: SecretString,
    /// Stands in the ID token.
    pub nonce: SecretString,
    /// Shown with the code.
    pub pkce_verifier: SecretString,
}

/// A provider people log in with.
#[derive(Debug)]
pub struct Provider {
    pub(crate) options: ProviderOptions,
    pub(crate) issuer: Issuer,
}

/// What a provider gave for a refresh token. Nothing of it is believed yet.
pub struct Renewed(CoreTokenResponse);

impl Renewed {
    /// What to ask with next, if the provider gave another one.
    #[must_use]
    pub fn refresh_token(&self) -> Option<ProviderToken> {
        let token = self.0.refresh_token()?;
        Some(ProviderToken(token.secret().clone().into()))
    }
}

impl fmt::Debug for Renewed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Renewed(..)")
    }
}

type Client = CoreClient<
    EndpointSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointMaybeSet,
    EndpointMaybeSet,
>;

impl Provider {
    /// A provider. Nothing is asked of it yet.
    #[must_use]
    pub fn new(options: ProviderOptions, http: HttpClient) -> Self {
        let issuer = Issuer::new(options.issuer.clone(), http);
        Self { options, issuer }
    }

    /// Its name in pgmoor.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.options.id
    }

    /// What people call it.
    #[must_use]
    pub fn display_name(&self) -> &str {
        &self.options.display_name
    }

    /// Its issuer URL.
    #[must_use]
    pub fn issuer_url(&self) -> &str {
        self.issuer.url()
    }

    /// Who may log in.
    #[must_use]
    pub const fn policy(&self) -> &LoginPolicy {
        &self.options.policy
    }

    /// Whether people may log in on another device.
    #[must_use]
    pub const fn has_device_flow(&self) -> bool {
        self.options.device_flow
    }

    /// Begins a login in a browser that comes back to `redirect_uri`.
    ///
    /// # Errors
    /// [`ProviderError::Unavailable`].
    pub async fn authorize(&self, redirect_uri: &str) -> Result<Authorization, ProviderError> {
        let client = self
            .client()
            .await?
            .set_redirect_uri(self.redirect(redirect_uri)?);
        let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
        let request = client
            .authorize_url(
                CoreAuthenticationFlow::AuthorizationCode,
                CsrfToken::new_random,
                Nonce::new_random,
            )
            .add_scopes(self.scopes())
            .set_pkce_challenge(challenge);
        let request = if self.options.scopes.iter().any(|scope| scope == "offline_access") {
            // Without it a provider may leave the refresh token out (OpenID Connect Core, 11).
            request.add_prompt(openidconnect::core::CoreAuthPrompt::Consent)
        } else {
            request
        };
        let (url, state, nonce) = request.url();
        Ok(Authorization {
            url: url.to_string(),
            state: SecretString::from(state.secret().clone()),
            nonce: SecretString::from(nonce.secret().clone()),
            pkce_verifier: SecretString::from(verifier.secret().clone()),
        })
    }

    /// Checks the `iss` with which a browser came back (RFC 9207), where there is one or should be one.
    ///
    /// # Errors
    /// Where it is another provider's or missing.
    pub async fn check_issuer(&self, given: Option<&str>) -> Result<(), ProviderError> {
        match given {
            Some(given) if given == self.issuer.url() => Ok(()),
            Some(_) => Err(ProviderError::invalid("the answer is another provider's (iss)")),
            None => {
                let metadata = self.metadata().await?;
                if metadata
                    .additional_metadata()
                    .authorization_response_iss_parameter_supported
                {
                    return Err(ProviderError::invalid(
                        "the answer does not say whose it is (iss)",
                    ));
                }
                Ok(())
            }
        }
    }

    /// Exchanges the code of a login that began with [`Provider::authorize`].
    ///
    /// # Errors
    /// Where the provider refuses the code, or its tokens cannot be believed.
    pub async fn exchange_code(
        &self,
        code: String,
        redirect_uri: &str,
        pkce_verifier: &SecretString,
        nonce: &SecretString,
        now: OffsetDateTime,
    ) -> Result<Grant, ProviderError> {
        let client = self
            .client()
            .await?
            .set_redirect_uri(self.redirect(redirect_uri)?);
        let request = client
            .exchange_code(AuthorizationCode::new(code))
            .map_err(|error| self.issuer.unavailable(error))?
            .set_pkce_verifier(PkceCodeVerifier::new(pkce_verifier.expose_secret().to_owned()));
        let answer = request
            .request_async(self.issuer.http())
            .await
            .map_err(|error| self.token_error(error))?;
        let nonce = Nonce::new(nonce.expose_secret().to_owned());
        self.grant(answer, Some(&nonce), now).await
    }

    /// Exchanges a refresh token of somebody who logged in before. What comes of it is to be kept at once: the token may have been
    /// good for this once only.
    ///
    /// # Errors
    /// [`ProviderError::Refused`] with `invalid_grant` where the provider ended their login.
    pub async fn renew(&self, token: &ProviderToken) -> Result<Renewed, ProviderError> {
        let client = self.client().await?;
        let old = RefreshToken::new(token.0.expose_secret().to_owned());
        let answer = client
            .exchange_refresh_token(&old)
            .map_err(|error| self.issuer.unavailable(error))?
            .request_async(self.issuer.http())
            .await
            .map_err(|error| self.token_error(error))?;
        Ok(Renewed(answer))
    }

    /// What the provider says of somebody now.
    ///
    /// # Errors
    /// Where its tokens cannot be believed, or it does not answer.
    pub async fn read_renewed(
        &self,
        renewed: Renewed,
        subject: &str,
        now: OffsetDateTime,
    ) -> Result<Grant, ProviderError> {
        let grant = self.grant(renewed.0, None, now).await?;
        if grant.claims.top_text("sub") != Some(subject) {
            return Err(ProviderError::invalid("it is another subject's"));
        }
        Ok(grant)
    }

    /// Ends what a refresh token is good for (RFC 7009). Nothing where the provider does not offer it.
    ///
    /// # Errors
    /// Where the provider does not answer or refuses.
    pub async fn revoke(&self, token: &ProviderToken) -> Result<(), ProviderError> {
        let metadata = self.metadata().await?;
        let Some(endpoint) = metadata.additional_metadata().revocation_endpoint.clone() else {
            return Ok(());
        };
        let form = [
            ("token", token.0.expose_secret()),
            ("token_type_hint", "refresh_token"),
        ];
        let (status, _) = self.post(&metadata, &endpoint, &form).await?;
        if status.is_success() {
            Ok(())
        } else {
            Err(self.issuer.unavailable(format!("revoking answers {status}")))
        }
    }

    pub(crate) async fn metadata(&self) -> Result<Metadata, ProviderError> {
        self.issuer.discovered().await?.metadata(&self.options.id)
    }

    /// Makes a grant of the provider's tokens: checked, with claims from the userinfo endpoint where the ID token lacks some.
    pub(crate) async fn grant(
        &self,
        answer: CoreTokenResponse,
        nonce: Option<&Nonce>,
        now: OffsetDateTime,
    ) -> Result<Grant, ProviderError> {
        let access_token = answer.access_token();
        let claims = match answer.id_token() {
            Some(token) => {
                let expected = Expected {
                    audience: &self.options.client_id,
                    now,
                    nonce,
                    access_token: Some(access_token),
                };
                let mut claims = self.issuer.verify(token, expected).await?;
                if self.options.policy.lacks(&claims)
                    && let Some(info) = self.userinfo(access_token.secret()).await?
                {
                    if info.get("sub").and_then(Value::as_str) != claims.top_text("sub") {
                        return Err(ProviderError::invalid("the userinfo is another subject's"));
                    }
                    claims.complete_with(info);
                }
                claims
            }
            // A refresh may leave it out (OpenID Connect Core, 12.2).
            None if nonce.is_none() => {
                let info = self.userinfo(access_token.secret()).await?;
                let mut claims = Claims(serde_json::json!({ "iss": self.issuer.url() }));
                claims.complete_with(info.unwrap_or_default());
                claims
            }
            None => return Err(ProviderError::invalid("there is no ID token")),
        };
        let refresh_token = answer.refresh_token();
        Ok(Grant {
            claims,
            refresh_token: refresh_token.map(|token| ProviderToken(token.secret().clone().into())),
        })
    }

    /// What the userinfo endpoint says; nothing where there is none.
    async fn userinfo(&self, access_token: &str) -> Result<Option<Value>, ProviderError> {
        let metadata = self.metadata().await?;
        let Some(endpoint) = metadata.userinfo_endpoint() else {
            return Ok(None);
        };
        let request = Request::get(endpoint.as_str())
            .header(AUTHORIZATION, format!("Bearer {access_token}"))
            .header(ACCEPT, "application/json")
            .body(Vec::new())
            .map_err(|error| self.issuer.unavailable(error))?;
        let response = self.issuer.http().send(request).await;
        let response = response.map_err(|error| self.issuer.unavailable(error))?;
        if response.status() != StatusCode::OK {
            return Err(self
                .issuer
                .unavailable(format!("the userinfo endpoint answers {}", response.status())));
        }
        let info = serde_json::from_slice(response.body());
        info.map(Some)
            .map_err(|_| ProviderError::invalid("the userinfo is no JSON"))
    }

    pub(crate) fn scopes(&self) -> impl Iterator<Item = Scope> + '_ {
        let named = self.options.scopes.iter();
        named.filter(|scope| *scope != "openid").cloned().map(Scope::new)
    }

    async fn client(&self) -> Result<Client, ProviderError> {
        let discovered = self.issuer.discovered().await?;
        let metadata = discovered.metadata(&self.options.id)?;
        let in_body = takes_secret_in_body_only(&metadata);
        let secret = ClientSecret::new(self.options.client_secret.expose_secret().to_owned());
        let client_id = ClientId::new(self.options.client_id.clone());
        let client = CoreClient::from_provider_metadata(metadata, client_id, Some(secret));
        Ok(if in_body {
            client.set_auth_type(AuthType::RequestBody)
        } else {
            client
        })
    }

    fn redirect(&self, uri: &str) -> Result<RedirectUrl, ProviderError> {
        RedirectUrl::new(uri.to_owned()).map_err(|error| self.issuer.unavailable(error))
    }

    /// Posts a form as the client that pgmoor is at the provider.
    pub(crate) async fn post(
        &self,
        metadata: &Metadata,
        endpoint: &str,
        form: &[(&str, &str)],
    ) -> Result<(StatusCode, Vec<u8>), ProviderError> {
        let request = self.form(metadata, endpoint, form)?;
        let response = self.issuer.http().send(request).await;
        let response = response.map_err(|error| self.issuer.unavailable(error))?;
        Ok((response.status(), response.into_body()))
    }

    fn form(
        &self,
        metadata: &Metadata,
        endpoint: &str,
        form: &[(&str, &str)],
    ) -> Result<Request<Vec<u8>>, ProviderError> {
        let (id, secret) = (
            self.options.client_id.as_str(),
            self.options.client_secret.expose_secret(),
        );
        let mut body = form_urlencoded::Serializer::new(String::new());
        body.extend_pairs(form);
        let mut request = Request::post(endpoint)
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(ACCEPT, "application/json");
        if takes_secret_in_body_only(metadata) {
            body.append_pair("client_id", id)
                .append_pair("client_secret", secret);
        } else {
            // RFC 6749, 2.3.1: encoded as a form before they are put together.
            let encoded = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
            let pair = format!("{}:{}", encoded(id), encoded(secret));
            request = request.header(AUTHORIZATION, format!("Basic {}", BASE64.encode(pair.as_bytes())));
        }
        request
            .body(body.finish().into_bytes())
            .map_err(|error| self.issuer.unavailable(error))
    }

    fn token_error<E, T>(
        &self,
        error: RequestTokenError<E, openidconnect::StandardErrorResponse<T>>,
    ) -> ProviderError
    where
        E: std::error::Error + 'static,
        T: openidconnect::ErrorResponseType + fmt::Display + 'static,
    {
        match error {
            RequestTokenError::ServerResponse(refusal) => refused(&refusal.error().to_string()),
            // Causes only: the text of an answer that cannot be parsed may hold tokens.
            RequestTokenError::Request(error) => self.issuer.unavailable(error),
            RequestTokenError::Parse(..) => self.issuer.unavailable("its answer cannot be read"),
            RequestTokenError::Other(_) => self.issuer.unavailable("its answer is none"),
        }
    }
}

/// What a provider answers instead of tokens.
pub(crate) fn refused(code: &str) -> ProviderError {
    if matches!(code, "server_error" | "temporarily_unavailable") {
        return ProviderError::Unavailable {
            provider: String::new(),
            problem: code.to_owned(),
        };
    }
    let shown = code
        .chars()
        .filter(|char| char.is_ascii_alphanumeric() || *char == '_');
    ProviderError::Refused {
        code: shown.take(MAX_CODE_CHARS).collect(),
    }
}

fn takes_secret_in_body_only(metadata: &Metadata) -> bool {
    metadata
        .token_endpoint_auth_methods_supported()
        .is_some_and(|methods| {
            methods.contains(&CoreClientAuthMethod::ClientSecretPost)
                && !methods.contains(&CoreClientAuthMethod::ClientSecretBasic)
        })
}
