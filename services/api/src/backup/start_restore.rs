//! StartRestore.

use domain::access::{Caller, Permission};
use domain::backup::RestoreRequest;
use domain::file_path::FilePath;
use domain::id::{BackupId, OperationId};
use domain::operation::OperationKind;
use rpc::backup::v1::start_restore_request::Source;
use rpc::backup::v1::{StartRestoreRequest, StartRestoreResponse};
use store::operations::NewOperation;

use super::convert;
use super::enqueue::enqueue;
use super::request_id::request_id;
use crate::context::{Call, Context};
use crate::error::{Error, Violations};
use crate::{access, operation, resource, storage};

/// Queues a restore.
pub(super) async fn start_restore(
    api: &Context,
    call: Call<StartRestoreRequest>,
) -> Result<StartRestoreResponse, Error> {
    let mut request = call.message;
    let id = std::mem::take(&mut request.request_id);
    let mut violations = Violations::default();
    let request_id = request_id(&id, "StartRestore", &request, &mut violations);
    violations.done()?;
    let server = resource::server("server", &request.server)?;
    let permission = Permission::BackupsRestore;
    let server = access::database(api, &call.caller, server, permission, &request.database).await?;
    let database = convert::database(&request.database, &server.maintenance_database)?;
    let (backup_id, file) = source(api, &call.caller, request.source.as_ref()).await?;
    let wanted = RestoreRequest {
        file,
        clean: request.clean,
        single_transaction: request.single_transaction,
    };
    let operation = enqueue(
        api,
        &NewOperation {
            id: OperationId::generate(api.random.as_ref()),
            owner_id: call.caller.user,
            kind: OperationKind::Restore,
            server_id: server.id,
            database,
            backup_id,
            request: wanted.to_json(),
            max_attempts: RestoreRequest::MAX_ATTEMPTS,
            request_id,
        },
    )
    .await?;
    Ok(StartRestoreResponse {
        operation: Some(operation::convert::operation(&operation)),
    })
}

/// What is restored: a backup or a file, which the caller may see.
async fn source(
    api: &Context,
    caller: &Caller,
    source: Option<&Source>,
) -> Result<(Option<BackupId>, Option<FilePath>), Error> {
    match source {
        Some(Source::Backup(name)) => {
            let id = resource::backup("backup", name)?;
            let backup = access::backup_contents(api, caller, id).await?;
            Ok((Some(backup.id), None))
        }
        Some(Source::File(name)) => {
            let path = storage::path("file", name, caller)?;
            let found = api.files.get(caller.user, &path).await;
            found.map_err(|error| storage::failed(error, name))?;
            Ok((None, Some(path)))
        }
        None => Err(Error::invalid("backup", "must be given, or file")),
    }
}
