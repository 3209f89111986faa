//! Where a server may be: the administrator's egress rules, and who may bring a new instance in.

use domain::access::{Caller, Permission, allows};
use store::servers::{ImportMode, ImportServerError, NewServer};

use crate::context::Context;
use crate::error::Error;

/// Checks that pgmoor may connect to every endpoint as it is written, and that the caller may register
/// servers there. Names are checked again by the pooler, once resolved.
pub(super) async fn check(api: &Context, caller: &Caller, wanted: &NewServer) -> Result<(), Error> {
    for endpoint in wanted.destination.endpoints() {
        api.egress.check_endpoint(endpoint)?;
    }
    // Whoever may make instances needs no look whether there is one.
    if allows(caller, Permission::InstancesCreate) || leads_to_an_instance(api, wanted).await? {
        return Ok(());
    }
    Err(Error::PermissionMissing {
        action: "registering a server on a new instance",
    })
}

/// Tries the registration and keeps nothing: an instance that was made for it is gone again afterwards.
async fn leads_to_an_instance(api: &Context, wanted: &NewServer) -> Result<bool, Error> {
    let tried = api.store.servers().import(wanted, ImportMode::Validate).await;
    let instance = tried.map_err(import_failed)?.server.instance_id;
    Ok(api.store.instances().get(instance).await?.is_some())
}

/// What a failed import means, tried or carried out.
pub(super) fn import_failed(error: ImportServerError) -> Error {
    match error {
        ImportServerError::Store(error) => Error::Store(error),
        error @ ImportServerError::OwnerNotFound => Error::Fault {
            context: "importing a server",
            source: error.into(),
        },
    }
}
