//! Whether an operation's owner may still have it done. Whoever queued it may have said what is not so, and much may have
//! changed since.

use domain::access::{Denial, Permission, decide};
use domain::operation::OperationKind;
use rpc::errors::v1::ErrorReason;
use store::operations::Operation;
use store::{Store, StoreError};

use crate::Context;
use crate::failure::{Failure, Halt};

/// What was decided about an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Its owner may have it done.
    Allowed,
    /// They may not.
    Refused(Failure),
}

/// Refuses an operation that its owner may not have done, by the config database as it is now.
pub(crate) async fn check(context: &Context, operation: &Operation) -> Result<(), Halt> {
    let standing = context.patient(|store| standing(store, operation)).await?;
    match standing {
        Standing::Allowed => Ok(()),
        Standing::Refused(failure) => Err(failure.into()),
    }
}

/// Decides by the config database as it is now.
pub(crate) async fn standing(store: &Store, operation: &Operation) -> Result<Standing, StoreError> {
    let permission = match operation.kind {
        OperationKind::Backup => Permission::BackupsCreate,
        OperationKind::Restore => Permission::BackupsRestore,
    };
    let (owner, server) = (operation.owner_id, operation.server_id);
    let Some(facts) = store.access().server_facts(owner, server).await? else {
        let failure = Failure::new(ErrorReason::ResourceNotFound, "the server's registration is gone");
        return Ok(Standing::Refused(failure));
    };
    let decision = decide(&facts, Some(&operation.database), facts.read_time);
    let Err(denial) = decision.check(permission) else {
        return Ok(Standing::Allowed);
    };
    let failure = match denial {
        Denial::Hidden | Denial::Missing => {
            let message = format!("the owner of the operation does not have {permission} there");
            Failure::new(ErrorReason::PermissionMissing, message)
        }
        Denial::Database => {
            let message = format!(
                "the database {} may not be used on this server",
                operation.database
            );
            Failure::new(ErrorReason::DatabaseNotAllowed, message)
        }
        Denial::Policy => {
            let message = format!("the policy of the server does not allow {permission}");
            Failure::new(ErrorReason::PolicyForbids, message)
        }
    };
    Ok(Standing::Refused(failure))
}
