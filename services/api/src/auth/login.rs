//! LoginWithPassword, RefreshToken, Logout.

use auth::AuthError;
use domain::access::CredentialKind;
use rpc::auth::v1::{
    LoginWithPasswordRequest, LoginWithPasswordResponse, LogoutRequest, LogoutResponse, RefreshTokenRequest,
    RefreshTokenResponse,
};
use secrecy::SecretString;
use store::logins::LoginOrigin;

use super::convert;
use crate::context::{Call, Context};
use crate::error::Error;

/// Logs a local user in.
pub(super) async fn login_with_password(
    api: &Context,
    request: LoginWithPasswordRequest,
    origin: LoginOrigin,
) -> Result<LoginWithPasswordResponse, Error> {
    let password = SecretString::from(request.password);
    let pair = api
        .logins
        .login_with_password_from(&request.username, &password, origin)
        .await?;
    Ok(LoginWithPasswordResponse {
        tokens: Some(convert::token_pair(&pair)),
    })
}

/// Exchanges a refresh token for the next pair.
pub(super) async fn refresh_token(
    api: &Context,
    request: RefreshTokenRequest,
    origin: &LoginOrigin,
) -> Result<RefreshTokenResponse, Error> {
    let refresh_token = SecretString::from(request.refresh_token);
    let address = origin.address.as_deref();
    let pair = api
        .provider_logins
        .refresh(&api.logins, &refresh_token, address)
        .await?;
    Ok(RefreshTokenResponse {
        tokens: Some(convert::token_pair(&pair)),
    })
}

/// Ends the login of the caller. An API token belongs to none; it is revoked, not logged out.
pub(super) async fn logout(api: &Context, call: Call<LogoutRequest>) -> Result<LogoutResponse, Error> {
    if let CredentialKind::AccessToken { login } = call.caller.credential {
        api.provider_logins.logout(&api.logins, login).await?;
    }
    Ok(LogoutResponse {})
}

impl From<AuthError> for Error {
    fn from(error: AuthError) -> Self {
        tonic::Status::from(error).into()
    }
}
