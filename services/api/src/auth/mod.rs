//! Logging in and tokens: the handlers of AuthService.
//!
//! Invariant: a refused login never says what was wrong with it.

mod api_tokens;
mod convert;
mod login;
mod recognised;
mod who_am_i;

use std::sync::Arc;

use ::auth::Seen;
use rpc::auth::v1 as proto;
use rpc::auth::v1::auth_service_server::AuthService;
use tonic::{Request, Response, Status};

use crate::context::Context;
use crate::rpcs::rpcs;

/// Serves `pgmoor.auth.v1.AuthService`.
#[derive(Debug)]
pub(crate) struct AuthRpcs(pub(crate) Arc<Context>);

rpcs! {
    AuthService for AuthRpcs {
        login::logout(LogoutRequest) -> LogoutResponse;
        who_am_i::who_am_i(WhoAmIRequest) -> WhoAmIResponse;
        api_tokens::create_api_token(CreateApiTokenRequest) -> CreateApiTokenResponse;
        api_tokens::list_api_tokens(ListApiTokensRequest) -> ListApiTokensResponse;
        api_tokens::revoke_api_token(RevokeApiTokenRequest) -> RevokeApiTokenResponse;
    }

    async fn login_with_password(
        &self,
        request: Request<proto::LoginWithPasswordRequest>,
    ) -> Result<Response<proto::LoginWithPasswordResponse>, Status> {
        let seen = request.extensions().get::<Seen>().cloned();
        let answer = login::login_with_password(&self.0, request.into_inner()).await;
        let tokens = answer.as_ref().ok().and_then(|answer| answer.tokens.as_ref());
        recognised::note(&self.0, seen, tokens).await;
        self.0.answer(answer)
    }

    async fn refresh_token(
        &self,
        request: Request<proto::RefreshTokenRequest>,
    ) -> Result<Response<proto::RefreshTokenResponse>, Status> {
        let seen = request.extensions().get::<Seen>().cloned();
        let answer = login::refresh_token(&self.0, request.into_inner()).await;
        let tokens = answer.as_ref().ok().and_then(|answer| answer.tokens.as_ref());
        recognised::note(&self.0, seen, tokens).await;
        self.0.answer(answer)
    }
}
