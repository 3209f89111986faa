//! SetServerPassword.

use std::sync::Arc;

use domain::access::Permission;
use domain::credential::CredentialKind;
use rpc::server::v1::{self as proto, SetServerPasswordRequest, SetServerPasswordResponse};
use secrecy::SecretString;
use store::servers::SetCredentialError;

use super::{convert, password};
use crate::context::{Call, Context};
use crate::error::Error;
use crate::{access, resource};

/// How often a password is sealed anew because the server changed in between.
const ATTEMPTS: usize = 3;

/// Sets or forgets the password of a server.
pub(super) async fn set_server_password(
    api: &Arc<Context>,
    call: Call<SetServerPasswordRequest>,
) -> Result<SetServerPasswordResponse, Error> {
    let id = resource::server("name", &call.message.name)?;
    let given = call.message.password;
    let given = (!given.is_empty()).then(|| SecretString::from(given));
    if let Some(given) = &given {
        password::check(given).map_err(|error| Error::invalid("password", error))?;
    }
    for _ in 0..ATTEMPTS {
        let server = access::server(api, &call.caller, id, Permission::ServersUpdate).await?;
        let credential = match &given {
            Some(given) => {
                let whose = (id, CredentialKind::Shared);
                let sealed = password::seal(api, whose, &server.username, &server.destination, given);
                Some(sealed.await?)
            }
            None => None,
        };
        match api
            .store
            .servers()
            .set_credential(id, credential.as_ref(), &server.etag)
            .await
        {
            Ok(server) => {
                if credential.is_some() {
                    let any = proto::CredentialKind::Unspecified;
                    api.first_looks.begin(api, &call.token, &server, any);
                }
                return Ok(SetServerPasswordResponse {
                    server: Some(convert::shown(api, &call.caller, &server).await?),
                });
            }
            // It may go elsewhere now: the password is sealed for where it goes.
            Err(SetCredentialError::EtagMismatch) => {}
            Err(SetCredentialError::NotFound) => return Err(access::no_server(id)),
            Err(SetCredentialError::Store(error)) => return Err(Error::Store(error)),
            Err(error @ SetCredentialError::SealingKeyUnknown) => {
                return Err(Error::Fault {
                    context: "storing a password",
                    source: error.into(),
                });
            }
        }
    }
    Err(Error::EtagMismatch)
}
