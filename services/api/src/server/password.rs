//! The password of a server, sealed before it is stored.

use std::time::Duration;

use domain::credential::CredentialKind;
use domain::endpoint::Destination;
use domain::id::{CredentialId, ServerId};
use domain::name::Identifier;
use rpc::error;
use rpc::errors::v1::ErrorReason;
use sealing::{Binding, Sealer, SealingKey};
use secrecy::{ExposeSecret as _, SecretString};
use store::servers::NewCredential;
use tonic::Code;
use tonic_types::ErrorDetails;

use crate::context::Context;
use crate::error::Error;

/// Longest password. PostgreSQL itself cuts none, but nobody types more.
const MAX_PASSWORD_BYTES: usize = 4096;
/// When a caller who came before the first pooler tries again.
const RETRY_DELAY: Duration = Duration::from_secs(5);

/// Checks that a password can be one. What is wrong is said without any of it.
pub(super) fn check(password: &SecretString) -> Result<(), &'static str> {
    let text = password.expose_secret();
    if text.contains('\0') {
        return Err("must not contain NUL");
    }
    if text.len() > MAX_PASSWORD_BYTES {
        return Err("must be at most 4096 bytes long");
    }
    Ok(())
}

/// Seals a password for this server, owner, role and destination, and for no other.
pub(super) async fn seal(
    api: &Context,
    (server, kind): (ServerId, CredentialKind),
    username: &Identifier,
    destination: &Destination,
    password: &SecretString,
) -> Result<NewCredential, Error> {
    let fault = |source: Box<dyn std::error::Error + Send + Sync>| Error::Fault {
        context: "sealing a password",
        source,
    };
    let key = api.store.sealing_keys().current().await?.ok_or_else(no_key)?;
    let key = SealingKey::from_bytes(&key.public_key).map_err(|error| fault(error.into()))?;
    let binding = Binding {
        server,
        kind,
        username: username.as_str(),
        destination,
    };
    let sealed = Sealer::new(key).seal(&binding, password, api.random.as_ref());
    let sealed = sealed.map_err(|error| fault(error.into()))?;
    Ok(NewCredential {
        id: CredentialId::generate(api.random.as_ref()),
        sealed: sealed.bytes,
        key_id: sealed.key.to_string(),
    })
}

/// Those who can open passwords say to which key they are sealed; none has come up yet.
fn no_key() -> Error {
    error::status(
        Code::Unavailable,
        ErrorReason::PoolerUnavailable,
        "no pooler has come up yet, so there is no key to seal the password to",
        std::iter::empty::<(String, String)>(),
        ErrorDetails::with_retry_info(Some(RETRY_DELAY)),
    )
    .into()
}
