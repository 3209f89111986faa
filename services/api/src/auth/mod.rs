//! Logging in and tokens: the handlers of AuthService.
//!
//! Invariant: a refused login never says what was wrong with it.

mod api_tokens;
mod convert;
mod login;
mod logins;
mod provider_login;
mod recognised;
mod who_am_i;

use std::sync::Arc;

use ::auth::Seen;
use rpc::auth::v1 as proto;
use rpc::auth::v1::auth_service_server::AuthService;
use tonic::{Request, Response, Status};

use crate::context::Context;
use crate::origin;
use crate::rpcs::rpcs;

/// Serves `pgmoor.auth.v1.AuthService`.
#[derive(Debug)]
pub(crate) struct AuthRpcs(pub(crate) Arc<Context>);

rpcs! {
    AuthService for AuthRpcs {
        login::logout(LogoutRequest) -> LogoutResponse;
        logins::list_logins(ListLoginsRequest) -> ListLoginsResponse;
        logins::revoke_login(RevokeLoginRequest) -> RevokeLoginResponse;
        who_am_i::who_am_i(WhoAmIRequest) -> WhoAmIResponse;
        api_tokens::create_api_token(CreateApiTokenRequest) -> CreateApiTokenResponse;
        api_tokens::list_api_tokens(ListApiTokensRequest) -> ListApiTokensResponse;
        api_tokens::revoke_api_token(RevokeApiTokenRequest) -> RevokeApiTokenResponse;
    }

    async fn login_with_password(
        &self,
        request: Request<proto::LoginWithPasswordRequest>,
    ) -> Result<Response<proto::LoginWithPasswordResponse>, Status> {
        let (seen, origin) = (request.extensions().get::<Seen>().cloned(), origin::of(&request));
        let answer = login::login_with_password(&self.0, request.into_inner(), origin).await;
        let tokens = answer.as_ref().ok().and_then(|answer| answer.tokens.as_ref());
        recognised::note(&self.0, seen, tokens).await;
        self.0.answer(answer)
    }

    async fn get_login_options(
        &self,
        _: Request<proto::GetLoginOptionsRequest>,
    ) -> Result<Response<proto::GetLoginOptionsResponse>, Status> {
        self.0.answer(Ok(provider_login::get_login_options(&self.0)))
    }

    async fn start_login(
        &self,
        request: Request<proto::StartLoginRequest>,
    ) -> Result<Response<proto::StartLoginResponse>, Status> {
        let origin = origin::of(&request);
        self.0
            .answer(provider_login::start_login(&self.0, request.into_inner(), origin).await)
    }

    async fn poll_login(
        &self,
        request: Request<proto::PollLoginRequest>,
    ) -> Result<Response<proto::PollLoginResponse>, Status> {
        let (seen, origin) = (request.extensions().get::<Seen>().cloned(), origin::of(&request));
        let answer = provider_login::poll_login(&self.0, request.into_inner(), origin).await;
        let tokens = answer.as_ref().ok().and_then(|answer| answer.tokens.as_ref());
        recognised::note(&self.0, seen, tokens).await;
        self.0.answer(answer)
    }

    async fn exchange_token(
        &self,
        request: Request<proto::ExchangeTokenRequest>,
    ) -> Result<Response<proto::ExchangeTokenResponse>, Status> {
        let (seen, origin) = (request.extensions().get::<Seen>().cloned(), origin::of(&request));
        let answer = provider_login::exchange_token(&self.0, request.into_inner(), origin).await;
        let token = answer.as_ref().ok().map(|answer| answer.access_token.as_str());
        recognised::note_token(&self.0, seen, token).await;
        self.0.answer(answer)
    }

    async fn refresh_token(
        &self,
        request: Request<proto::RefreshTokenRequest>,
    ) -> Result<Response<proto::RefreshTokenResponse>, Status> {
        let (seen, origin) = (request.extensions().get::<Seen>().cloned(), origin::of(&request));
        let answer = login::refresh_token(&self.0, request.into_inner(), &origin).await;
        let tokens = answer.as_ref().ok().and_then(|answer| answer.tokens.as_ref());
        recognised::note(&self.0, seen, tokens).await;
        self.0.answer(answer)
    }
}
