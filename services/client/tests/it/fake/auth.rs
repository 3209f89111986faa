use std::sync::atomic::Ordering;

use rpc::auth::v1::auth_service_server::AuthService;
use rpc::auth::v1::*;
use rpc::errors::v1::ErrorReason;
use tonic::{Code, Request, Response, Status, async_trait};

use super::{Service, not_offered};

#[async_trait]
impl AuthService for Service {
    async fn login_with_password(
        &self,
        request: Request<LoginWithPasswordRequest>,
    ) -> Result<Response<LoginWithPasswordResponse>, Status> {
        let request = request.into_inner();
        if (request.username.as_str(), request.password.as_str()) != ("alice", "correct horse") {
            let message = "user name or password is wrong";
            return Err(rpc::error::plain(
                Code::Unauthenticated,
                ErrorReason::LoginFailed,
                message,
            ));
        }
        Ok(Response::new(LoginWithPasswordResponse {
            tokens: Some(self.0.pair("access-0".into())),
        }))
    }

    async fn refresh_token(
        &self,
        request: Request<RefreshTokenRequest>,
    ) -> Result<Response<RefreshTokenResponse>, Status> {
        let count = self.0.counts.refresh.fetch_add(1, Ordering::SeqCst) + 1;
        {
            let mut right = self.0.refresh_token.lock();
            if request.into_inner().refresh_token != *right {
                *self.0.reused.lock() = true;
                return Err(rpc::error::plain(
                    Code::Unauthenticated,
                    ErrorReason::TokenRevoked,
                    "used twice",
                ));
            }
            *right = format!("refresh-{count}");
        }
        let held = self.0.hold_refresh.lock().clone();
        if let Some(held) = held {
            held.notified().await;
        }
        Ok(Response::new(RefreshTokenResponse {
            tokens: Some(self.0.pair(format!("access-{count}"))),
        }))
    }

    async fn logout(&self, request: Request<LogoutRequest>) -> Result<Response<LogoutResponse>, Status> {
        self.0.admit(&request)?;
        Ok(Response::new(LogoutResponse {}))
    }

    async fn who_am_i(&self, request: Request<WhoAmIRequest>) -> Result<Response<WhoAmIResponse>, Status> {
        self.0.counts.who_am_i.fetch_add(1, Ordering::SeqCst);
        self.0.admit(&request)?;
        let mut answer = WhoAmIResponse {
            user: "users/1".into(),
            username: "alice".into(),
            ..WhoAmIResponse::default()
        };
        answer.set_credential_kind(CredentialKind::AccessToken);
        Ok(Response::new(answer))
    }

    not_offered! {
        get_login_options(GetLoginOptionsRequest) -> GetLoginOptionsResponse;
        start_login(StartLoginRequest) -> StartLoginResponse;
        poll_login(PollLoginRequest) -> PollLoginResponse;
        exchange_token(ExchangeTokenRequest) -> ExchangeTokenResponse;
        list_logins(ListLoginsRequest) -> ListLoginsResponse;
        revoke_login(RevokeLoginRequest) -> RevokeLoginResponse;
        create_api_token(CreateApiTokenRequest) -> CreateApiTokenResponse;
        list_api_tokens(ListApiTokensRequest) -> ListApiTokensResponse;
        revoke_api_token(RevokeApiTokenRequest) -> RevokeApiTokenResponse;
    }
}
