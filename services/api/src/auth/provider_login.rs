//! GetLoginOptions, StartLogin, PollLogin, ExchangeToken.

use ::auth::provider_logins::{BeginLogin, Collected, Flow, Presentation};
use domain::id::LoginAttemptId;
use rpc::auth::v1::start_login_request::Flow as WireFlow;
use rpc::auth::v1::{
    ExchangeTokenRequest, ExchangeTokenResponse, GetLoginOptionsResponse, LoginProvider, PollLoginRequest,
    PollLoginResponse, StartLoginRequest, StartLoginResponse,
};
use secrecy::{ExposeSecret as _, SecretString};
use store::logins::LoginOrigin;

use super::convert;
use crate::context::Context;
use crate::duration::{encode, timestamp};
use crate::error::Error;

/// Says which providers there are.
pub(super) fn get_login_options(api: &Context) -> GetLoginOptionsResponse {
    let providers = api.provider_logins.providers();
    GetLoginOptionsResponse {
        providers: providers
            .map(|provider| LoginProvider {
                id: provider.id().to_owned(),
                display_name: provider.display_name().to_owned(),
                device_flow: provider.has_device_flow(),
            })
            .collect(),
    }
}

/// Begins a login with a provider.
pub(super) async fn start_login(
    api: &Context,
    request: StartLoginRequest,
    origin: LoginOrigin,
) -> Result<StartLoginResponse, Error> {
    let flow = match request.flow {
        Some(WireFlow::Device(_)) => Flow::Device,
        Some(WireFlow::Browser(browser)) if !browser.redirect_uri.is_empty() => Flow::Browser {
            redirect_uri: Some(browser.redirect_uri),
        },
        Some(WireFlow::Browser(_)) | None => Flow::Browser { redirect_uri: None },
    };
    let begin = BeginLogin {
        provider: request.provider,
        code_challenge: request.code_challenge,
        flow,
        address: origin.address,
        client_name: origin.client_name,
    };
    begin
        .check()
        .map_err(|(field, problem)| Error::invalid(field, problem))?;
    let begun = api.provider_logins.begin(begin).await?;
    let mut response = StartLoginResponse {
        login_id: begun.id.to_string(),
        confirmation_code: begun.confirmation_code,
        expire_time: Some(timestamp(begun.expire_time)),
        poll_interval: Some(encode(begun.poll_interval)),
        ..StartLoginResponse::default()
    };
    match begun.presentation {
        Presentation::Browser { authorization_url } => response.authorization_url = authorization_url,
        Presentation::Device {
            verification_uri,
            user_code,
        } => {
            response.verification_uri = verification_uri;
            response.user_code = user_code;
        }
    }
    Ok(response)
}

/// Waits for a login to end and collects its tokens.
pub(super) async fn poll_login(
    api: &Context,
    request: PollLoginRequest,
    origin: LoginOrigin,
) -> Result<PollLoginResponse, Error> {
    let id: LoginAttemptId = request
        .login_id
        .parse()
        .map_err(|error| Error::invalid("login_id", error))?;
    let verifier = SecretString::from(request.code_verifier);
    let redirect_code = SecretString::from(request.redirect_code);
    let collect = api
        .provider_logins
        .collect(&api.logins, id, &verifier, &redirect_code, origin);
    let collected = tokio::select! {
        collected = collect => collected?,
        // The client asks another instance.
        () = api.drain.cancelled() => Collected::Pending,
    };
    Ok(match collected {
        Collected::Pending => PollLoginResponse::default(),
        Collected::Tokens { pair, username } => PollLoginResponse {
            tokens: Some(convert::token_pair(&pair)),
            username,
        },
    })
}

/// Exchanges a workload's token.
pub(super) async fn exchange_token(
    api: &Context,
    request: ExchangeTokenRequest,
    origin: LoginOrigin,
) -> Result<ExchangeTokenResponse, Error> {
    let token = SecretString::from(request.token);
    let exchanged = api.provider_logins.exchange(&api.logins, &token, origin).await?;
    Ok(ExchangeTokenResponse {
        access_token: exchanged.access_token.expose_secret().to_owned(),
        expire_time: Some(timestamp(exchanged.expire_time)),
        user: format!("users/{}", exchanged.user),
    })
}
