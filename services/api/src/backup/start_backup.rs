//! StartBackup.

use domain::access::Permission;
use domain::backup::{BackupRequest, MAX_COMPRESSION};
use domain::id::{BackupId, OperationId};
use domain::operation::OperationKind;
use rpc::backup::v1::{StartBackupRequest, StartBackupResponse};
use store::operations::NewOperation;

use super::convert;
use super::enqueue::enqueue;
use super::request_id::request_id;
use crate::context::{Call, Context};
use crate::error::{Error, Violations};
use crate::{access, operation, resource};

/// Queues a backup.
pub(super) async fn start_backup(
    api: &Context,
    call: Call<StartBackupRequest>,
) -> Result<StartBackupResponse, Error> {
    let mut request = call.message;
    let id = std::mem::take(&mut request.request_id);
    let mut violations = Violations::default();
    let request_id = request_id(&id, "StartBackup", &request, &mut violations);
    let selection = convert::selection(&request.schemas, &request.tables, &mut violations);
    let compression = request.compression.and_then(|wish| {
        let level = u8::try_from(wish).ok().filter(|level| *level <= MAX_COMPRESSION);
        violations.check("compression", level.ok_or("must be between 0 and 9"))
    });
    let Some(selection) = selection else {
        return Err(violations.into_error());
    };
    violations.done()?;
    let server = resource::server("server", &request.server)?;
    let permission = Permission::BackupsCreate;
    let server = access::database(api, &call.caller, server, permission, &request.database).await?;
    let database = convert::database(&request.database, &server.maintenance_database)?;
    let compression = match compression {
        Some(level) => level,
        None => {
            // What was set through another instance a moment ago counts.
            api.settings.catch_up().await?;
            api.settings.of(call.caller.user).await?.backup_compression()
        }
    };
    let wanted = BackupRequest {
        selection,
        compression,
        large_objects: !request.without_large_objects,
    };
    let operation = enqueue(
        api,
        &NewOperation {
            id: OperationId::generate(api.random.as_ref()),
            owner_id: call.caller.user,
            kind: OperationKind::Backup,
            server_id: server.id,
            database,
            backup_id: Some(BackupId::generate(api.random.as_ref())),
            request: wanted.to_json(),
            max_attempts: BackupRequest::MAX_ATTEMPTS,
            request_id,
        },
    )
    .await?;
    Ok(StartBackupResponse {
        operation: Some(operation::convert::operation(&operation)),
    })
}
