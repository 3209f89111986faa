//! Steps 9 and 10: backup, restore, and the log of an operation.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use rpc::backup::v1::start_restore_request::Source;
use rpc::backup::v1::{GetBackupRequest, StartBackupRequest, StartRestoreRequest};
use rpc::operation::v1::{Operation, OperationState, ReadOperationLogRequest};
use rpc::query::v1::{ExecutionOutcome, RunQueryRequest, Script};

use super::MainJob;
use crate::target::SALES;
use crate::{Client, leaks};

/// Time between two looks at command lines and environments.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

pub(super) async fn round_trip(job: &mut MainJob) -> anyhow::Result<String> {
    let (a, b, server) = (job.a()?, job.b()?, job.registered()?);
    let before = job.target().checksum(SALES).await;

    let request = StartBackupRequest {
        server: server.clone(),
        schemas: vec![SALES.to_owned()],
        ..StartBackupRequest::default()
    };
    let started = a.backups().start_backup(request).await?.into_inner().operation;
    let backed_up = ended(job, &b, started).await?;
    let name = backed_up.backup.clone();
    let backup = b
        .backups()
        .get_backup(GetBackupRequest { name })
        .await?
        .into_inner();
    let backup = backup.backup.context("GetBackup answered without one")?;
    ensure!(
        backup.sha256.len() == 64,
        "the backup has no checksum: {backup:?}"
    );

    let request = RunQueryRequest {
        server: server.clone(),
        script: Some(Script {
            sql: format!("DROP SCHEMA {SALES} CASCADE"),
            ..Script::default()
        }),
        ..RunQueryRequest::default()
    };
    let dropped = b.query().run_query(request).await?.into_inner();
    ensure!(
        dropped.outcome() == ExecutionOutcome::Succeeded,
        "dropping the schema gave {dropped:?}"
    );

    let request = StartRestoreRequest {
        source: Some(Source::Backup(backup.name.clone())),
        server,
        single_transaction: true,
        ..StartRestoreRequest::default()
    };
    let started = a.backups().start_restore(request).await?.into_inner().operation;
    let restored = ended(job, &b, started).await?;
    let after = job.target().checksum(SALES).await;
    ensure!(before == after, "the rows differ: {before} before, {after} after");
    job.restore = Some(restored.name.clone());
    Ok(format!(
        "{} bytes, SHA-256 {}…; {} objects restored; the rows' checksums are the same",
        backup.size_bytes,
        &backup.sha256[..12],
        restored.progress.unwrap_or_default().objects_done
    ))
}

pub(super) async fn read_log(job: &mut MainJob) -> anyhow::Result<String> {
    let name = job.restore.clone().context("nothing was restored")?;
    let b = job.b()?;
    let (mut text, mut offset) = (String::new(), 0);
    loop {
        let request = ReadOperationLogRequest {
            name: name.clone(),
            offset,
            limit: 256,
        };
        let piece = b.operations().read_operation_log(request).await?.into_inner();
        ensure!(
            piece.next_offset > offset || piece.end,
            "the log does not go on after byte {offset}"
        );
        text.push_str(&piece.text);
        offset = piece.next_offset;
        if piece.end {
            break;
        }
    }
    ensure!(
        text.contains("pgbench_accounts"),
        "the log does not name what was restored: {text}"
    );
    let last = text.trim_end().lines().last().unwrap_or_default();
    Ok(format!(
        "started by A, read by B in pieces: {} lines, the last: {last}",
        text.lines().count()
    ))
}

/// Waits through an instance until an operation has succeeded, looking for secrets in the worker's programs
/// meanwhile.
async fn ended(job: &MainJob, client: &Client, started: Option<Operation>) -> anyhow::Result<Operation> {
    let name = started.context("no operation was started")?.name;
    let mut leaked = Vec::new();
    let watch = async {
        loop {
            leaked.extend(leaks::in_processes(job.world.secrets()));
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    };
    let operation = tokio::select! {
        operation = client.operation_ended(&name) => operation?,
        () = watch => unreachable!("it looks for ever"),
    };
    ensure!(leaked.is_empty(), "secrets are visible: {leaked:?}");
    ensure!(
        operation.state() == OperationState::Succeeded,
        "the operation ended with {operation:?}"
    );
    Ok(operation)
}
