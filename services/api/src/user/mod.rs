//! The people and workloads that use pgmoor: the handlers of UserService.

mod convert;
mod create_user;
mod read;
mod set_password;
mod update_user;

use std::sync::Arc;

use rpc::user::v1 as proto;
use rpc::user::v1::user_service_server::UserService;

pub(crate) use self::create_user::only_administrators;
use crate::context::Context;
use crate::rpcs::rpcs;

/// Serves `pgmoor.user.v1.UserService`.
#[derive(Debug)]
pub(crate) struct UserRpcs(pub(crate) Arc<Context>);

rpcs! {
    UserService for UserRpcs {
        create_user::create_user(CreateUserRequest) -> CreateUserResponse;
        read::get_user(GetUserRequest) -> GetUserResponse;
        read::list_users(ListUsersRequest) -> ListUsersResponse;
        update_user::update_user(UpdateUserRequest) -> UpdateUserResponse;
        set_password::set_password(SetPasswordRequest) -> SetPasswordResponse;
    }
}
