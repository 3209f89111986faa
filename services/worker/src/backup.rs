//! A backup: pg_dump's output goes straight into an artifact, which appears when the dump is whole.

use bytes::Bytes;
use domain::backup::{BackupRequest, BackupSelection};
use domain::id::BackupId;
use domain::operation::OperationPhase;
use rpc::errors::v1::ErrorReason;
use storage::{ArtifactKey, ArtifactWriter, Fingerprint};
use store::backups::{Artifact, NewBackup, TableName};
use target::tools::{DumpOptions, ToolProcess};

use crate::failure::{Failure, Halt};
use crate::job::Job;
use crate::journal::Journal;
use crate::program::{self, Sink};

/// An artifact that was published, and the row that is to name it.
#[derive(Debug)]
pub(crate) struct Published {
    pub(crate) key: ArtifactKey,
    pub(crate) backup: NewBackup,
}

/// pg_dump without `-j` has one connection.
const CONNECTIONS: i32 = 1;

/// Makes the artifact. On any error nothing of it is left.
pub(crate) async fn run(job: &Job<'_>) -> Result<Published, Halt> {
    let stop = &job.stop;
    let missing = || Failure::new(ErrorReason::Internal, "the operation names no backup");
    let backup = job.operation.backup_id.ok_or_else(missing)?;
    let request = BackupRequest::from_json(&job.operation.request)?;
    stop.guard(job.find()).await??;
    let reach = job.reach()?;

    job.journal.enter(OperationPhase::WaitingForSlots);
    stop.guard(job.lease(CONNECTIONS)).await??;

    job.journal.enter(OperationPhase::Reading);
    let (facts, tables) = stop.guard(ask(job, &request.selection)).await??;
    job.journal
        .update(|progress| progress.objects_total = Some(tables));
    let tool = job.context.toolbox.for_dump(facts.major()).ok_or_else(|| {
        let needed = format!("no pg_dump of version {} or newer is installed", facts.major());
        Failure::new(ErrorReason::ToolMissing, needed)
    })?;
    job.journal.line(&format!(
        "pgmoor: pg_dump {} for server {}, attempt {}",
        tool.version, facts.version, job.attempt.number
    ));

    let key = ArtifactKey::new(backup, job.operation.id, job.attempt.number);
    let writer = stop.guard(job.context.artifacts.begin(&key)).await??;
    let environment = reach.environment(job.context, false)?;
    let options = DumpOptions {
        selection: request.selection.clone(),
        compression: request.compression,
        large_objects: request.large_objects,
    };
    let arguments = options.arguments(tool.version.major);
    let process = ToolProcess::spawn(
        &tool.pg_dump(),
        &arguments,
        Some(&environment),
        job.context.options.tool_user,
    )
    .map_err(|error| Failure::internal("pg_dump cannot be started", &error))?;
    job.program_started();
    let mut sink = ArtifactSink {
        writer,
        journal: &job.journal,
    };
    let dumped = program::run(process, &job.journal, stop, &mut sink).await;
    drop(environment);
    let writer = sink.writer;
    if let Err(halt) = dumped {
        writer.abort().await;
        return Err(halt);
    }

    job.journal.enter(OperationPhase::Finishing);
    let fingerprint = stop.guard(writer.finish()).await??;
    job.journal.update(|progress| {
        progress.bytes_total = Some(progress.bytes_done);
        progress.objects_total = Some(progress.objects_done);
    });
    let backup = new_backup(backup, &request.selection, &key, fingerprint);
    Ok(Published {
        key,
        backup: NewBackup {
            tool_version: tool.version.to_string(),
            server_version: facts.version,
            ..backup
        },
    })
}

/// Takes the dump down as it comes.
struct ArtifactSink<'a> {
    writer: ArtifactWriter,
    journal: &'a Journal,
}

impl Sink for ArtifactSink<'_> {
    async fn take(&mut self, bytes: Bytes) -> Result<(), Halt> {
        self.writer.write(bytes).await?;
        self.journal
            .update(|progress| progress.bytes_done = self.writer.size());
        Ok(())
    }
}

async fn ask(job: &Job<'_>, selection: &BackupSelection) -> Result<(target::ServerFacts, u64), Halt> {
    let target = job.reach()?.target()?;
    let questions = target.questions().await?;
    let facts = questions.facts().await?;
    let tables = match selection {
        BackupSelection::Schemas(schemas) => questions.count_tables(schemas).await?,
        BackupSelection::Tables(tables) => tables.len() as u64,
    };
    // Its connection is to be gone before the program's comes.
    target.close();
    Ok((facts, tables))
}

fn new_backup(
    id: BackupId,
    selection: &BackupSelection,
    key: &ArtifactKey,
    fingerprint: Fingerprint,
) -> NewBackup {
    let tables = selection.tables().iter().cloned();
    NewBackup {
        id,
        schemas: selection.schemas().to_vec(),
        tables: tables
            .map(|(schema, table)| TableName { schema, table })
            .collect(),
        artifact: Artifact {
            storage_key: key.as_str().to_owned(),
            size_bytes: fingerprint.size,
            sha256: *fingerprint.sha256.as_bytes(),
        },
        tool_version: String::new(),
        server_version: String::new(),
    }
}
