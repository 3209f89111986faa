//! SetPassword.

use rpc::user::v1::{SetPasswordRequest, SetPasswordResponse};
use secrecy::SecretString;
use store::accounts::Account;

use super::create_user::password_violation;
use super::update_user::cause;
use crate::context::{Call, Context};
use crate::error::{Error, ResourceKind, Violations};
use crate::resource;

/// Sets a password: one's own with the current one, another user's as an administrator.
pub(super) async fn set_password(
    api: &Context,
    call: Call<SetPasswordRequest>,
) -> Result<SetPasswordResponse, Error> {
    let request = call.message;
    let id = resource::user("name", &request.name, &call.caller)?;
    let own = id == call.caller.user;
    if !own && !call.caller.administrator {
        return Err(Error::not_found(ResourceKind::User, request.name));
    }
    let accounts = api.store.accounts().of(&[id]).await?;
    if accounts.get(&id) == Some(&Account::ServiceAccount) {
        return Err(Error::invalid(
            "name",
            "is a service account, which has no password",
        ));
    }
    if own {
        // Throttled as a login is: a stolen token must not be a way to try passwords out.
        api.logins
            .confirm_password(id, &SecretString::from(request.current_password))
            .await?;
    }
    let hash = match api
        .passwords
        .hash(&SecretString::from(request.new_password))
        .await
    {
        Ok(hash) => hash,
        Err(error) => {
            let mut violations = Violations::default();
            password_violation(&mut violations, "new_password", error)?;
            return Err(violations.into_error());
        }
    };
    api.store
        .users()
        .set_password(id, &hash)
        .await
        .map_err(|error| cause(error, request.name))?;
    Ok(SetPasswordResponse {})
}
