//! Background work that is cancelled from another instance.

use std::time::Duration;

use e2e::reason;
use harness::eventually;
use rpc::backup::v1::{GetBackupRequest, StartBackupRequest};
use rpc::errors::v1::ErrorReason;
use rpc::operation::v1::{
    CancelOperationRequest, DeleteOperationRequest, GetOperationRequest, OperationState,
    ReadOperationLogRequest,
};
use tonic::Code;

use crate::worlds::shared;

const SOON: Duration = Duration::from_secs(30);

#[tokio::test]
async fn cancel_through_another_instance_ends_program_and_backend_and_leaves_no_artifact() {
    let world = &shared().await.world;
    let caller = world.create_user().await;
    let server = world.register_target(caller.a()).await;
    let schema = harness::random::name("locked");
    let owner = &world.target().login().user;
    let database = world.target().database();
    let made = format!(
        "CREATE SCHEMA {schema} AUTHORIZATION {owner}; SET ROLE {owner}; CREATE TABLE {schema}.t (n int)"
    );
    database.execute(&made).await;
    // pg_dump waits for as long as this is held.
    let holder = database.connect().await;
    let lock = format!("BEGIN; LOCK TABLE {schema}.t IN ACCESS EXCLUSIVE MODE");
    holder.batch_execute(&lock).await.unwrap();

    let request = StartBackupRequest {
        server,
        schemas: vec![schema.clone()],
        ..StartBackupRequest::default()
    };
    let started = caller
        .a()
        .backups()
        .start_backup(request)
        .await
        .unwrap()
        .into_inner();
    let name = started.operation.unwrap().name;
    let waiting = format!(
        "SELECT count(*) FROM pg_locks AS l JOIN pg_class AS c ON c.oid = l.relation \
         JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE n.nspname = '{schema}' AND NOT l.granted"
    );
    let count = async || -> i64 { holder.query_one(&waiting, &[]).await.unwrap().get(0) };
    eventually(SOON, "pg_dump waits for the lock", async || {
        let request = GetOperationRequest { name: name.clone() };
        let operation = caller.b().operations().get_operation(request).await;
        if count().await == 1 {
            Ok(())
        } else {
            Err(format!("{operation:?}"))
        }
    })
    .await;

    // Others may not know of it.
    let other = world.create_user().await;
    let request = GetOperationRequest { name: name.clone() };
    let hidden = other.b().operations().get_operation(request).await;
    reason::expect(hidden, Code::NotFound, ErrorReason::ResourceNotFound);
    let request = DeleteOperationRequest { name: name.clone() };
    let running = caller.a().operations().delete_operation(request).await;
    reason::expect(running, Code::FailedPrecondition, ErrorReason::OperationRunning);

    let request = CancelOperationRequest { name: name.clone() };
    caller.b().operations().cancel_operation(request).await.unwrap();
    let ended = caller.a().operation_ended(&name).await.unwrap();
    assert_eq!(ended.state(), OperationState::Cancelled, "{ended:?}");
    eventually(SOON, "the backend of pg_dump is gone", async || {
        count().await == 0
    })
    .await;
    holder.batch_execute("ROLLBACK").await.unwrap();
    if !ended.backup.is_empty() {
        let request = GetBackupRequest { name: ended.backup };
        let none = caller.b().backups().get_backup(request).await;
        reason::expect(none, Code::NotFound, ErrorReason::ResourceNotFound);
    }

    let request = ReadOperationLogRequest {
        name,
        offset: 1 << 40,
        limit: 0,
    };
    let beyond = caller.b().operations().read_operation_log(request).await;
    reason::expect(beyond, Code::OutOfRange, ErrorReason::OffsetOutOfRange);
}
