//! A restore: the archive is brought here, checked, listed, and only then played back by pg_restore.

use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use domain::backup::RestoreRequest;
use domain::operation::OperationPhase;
use futures::StreamExt;
use rpc::errors::v1::ErrorReason;
use storage::{ArtifactKey, ByteStream, Fingerprint, Sha256Hex};
use target::tools::{Contents, RestoreOptions, Tool, ToolProcess, list_arguments, read_through_arguments};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;

use crate::failure::{Failure, Halt};
use crate::job::Job;
use crate::journal::Journal;
use crate::program::{self, Nowhere, Sink};
use crate::tenancy;

/// pg_restore without `-j` has one connection.
const CONNECTIONS: i32 = 1;

pub(crate) async fn run(job: &Job<'_>) -> Result<(), Halt> {
    let stop = &job.stop;
    let request = RestoreRequest::from_json(&job.operation.request)?;
    job.journal.enter(OperationPhase::Reading);
    let scratch = Scratch::new(job)?;
    stop.guard(fetch(job, &request, &scratch)).await??;
    if job.context.toolbox.tools().is_empty() {
        return Err(Failure::new(ErrorReason::ToolMissing, "no pg_restore is installed").into());
    }

    stop.guard(job.find()).await??;
    // Before anything is connected: a file that is no archive needs no server.
    let newest = job.context.toolbox.tools().first();
    let newest =
        newest.ok_or_else(|| Failure::new(ErrorReason::ToolMissing, "no pg_restore is installed"))?;
    let contents = list(job, newest, &scratch.archive).await?;
    let refusal = tenancy::refusal(&contents);
    tenancy::check(job, refusal.as_ref()).await?;
    // A backup of ours was checked against its checksum when it was brought here.
    if request.file.is_some() {
        read_through(job, newest, &scratch.archive).await?;
    }
    job.journal
        .update(|progress| progress.objects_total = Some(contents.entries()));

    job.journal.enter(OperationPhase::WaitingForSlots);
    stop.guard(job.lease(CONNECTIONS)).await??;
    // The policy may have changed in the queue.
    tenancy::check(job, refusal.as_ref()).await?;
    let facts = stop.guard(ask(job)).await??;
    let tool = choose(job, facts.major(), newest, &scratch.archive).await?;
    job.journal.line(&format!(
        "pgmoor: pg_restore {} for server {}",
        tool.version, facts.version
    ));

    job.journal.enter(OperationPhase::Writing);
    let environment = job.reach()?.environment(job.context, true)?;
    let options = RestoreOptions {
        clean: request.clean,
        single_transaction: request.single_transaction,
    };
    let arguments = options.arguments(&scratch.archive);
    let user = job.context.options.tool_user;
    let process = ToolProcess::spawn(&tool.pg_restore(), &arguments, Some(&environment), user)
        .map_err(|error| Failure::internal("pg_restore cannot be started", &error))?;
    job.program_started();
    program::run(process, &job.journal, stop, &mut Nowhere).await?;
    job.journal.enter(OperationPhase::Finishing);
    job.journal
        .update(|progress| progress.objects_done = progress.objects_total.unwrap_or_default());
    Ok(())
}

/// A private directory with the archive in it.
struct Scratch {
    archive: PathBuf,
    _directory: TempDir,
}

impl Scratch {
    fn new(job: &Job<'_>) -> Result<Self, Halt> {
        let options = &job.context.options;
        let directory = tempfile::Builder::new()
            .prefix("restore-")
            .tempdir_in(&options.scratch_directory);
        let failed = |error| Failure::internal("the scratch directory cannot be used", &error);
        let directory = directory.map_err(failed)?;
        if let Some(user) = options.tool_user {
            chown(directory.path(), Some(user.uid), Some(user.gid)).map_err(failed)?;
        }
        Ok(Self {
            archive: directory.path().join("archive"),
            _directory: directory,
        })
    }
}

/// Brings the archive here. What arrives is what was stored: size and SHA-256 are checked where they are known.
async fn fetch(job: &Job<'_>, request: &RestoreRequest, scratch: &Scratch) -> Result<(), Halt> {
    let (size, content) = match (&request.file, job.operation.backup_id) {
        (Some(path), _) => {
            let owner = job.operation.owner_id;
            let (file, content) = job.context.files.download(owner, path, 0).await?;
            (file.size, content)
        }
        (None, Some(backup)) => artifact(job, backup).await?,
        (None, None) => {
            return Err(Failure::new(ErrorReason::Internal, "the operation names nothing to restore").into());
        }
    };
    let limit = job.context.options.scratch_bytes;
    if size > limit {
        let message =
            format!("the archive has {size} bytes, more than the {limit} that a restore may take here");
        return Err(Failure::new(ErrorReason::QuotaExceeded, message).into());
    }
    job.journal.update(|progress| progress.bytes_total = Some(size));
    write(content, &scratch.archive, limit, &job.journal).await?;
    if let Some(user) = job.context.options.tool_user {
        chown(&scratch.archive, Some(user.uid), Some(user.gid))
            .map_err(|error| Failure::internal("the scratch directory cannot be used", &error))?;
    }
    Ok(())
}

async fn artifact(job: &Job<'_>, backup: domain::id::BackupId) -> Result<(u64, ByteStream), Halt> {
    let gone = || Failure::new(ErrorReason::ResourceNotFound, "the backup is gone");
    let backup = job
        .context
        .patient(|store| async move { store.backups().get(backup).await })
        .await?
        .ok_or_else(gone)?;
    let unknown = || {
        Failure::new(
            ErrorReason::ArtifactInvalid,
            "the backup's artifact has no valid name",
        )
    };
    let key = ArtifactKey::from_stored(&backup.artifact.storage_key).ok_or_else(unknown)?;
    let expected = Fingerprint {
        size: backup.artifact.size_bytes,
        sha256: Sha256Hex::from_bytes(backup.artifact.sha256),
    };
    Ok((
        expected.size,
        job.context.artifacts.read(&key, expected, 0).await?,
    ))
}

async fn write(mut content: ByteStream, path: &Path, limit: u64, journal: &Journal) -> Result<(), Halt> {
    let failed = |error| Failure::internal("the scratch file cannot be written", &error);
    let mut options = tokio::fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .await
        .map_err(failed)?;
    let mut written = 0;
    while let Some(bytes) = content.next().await {
        let bytes = bytes?;
        written += bytes.len() as u64;
        if written > limit {
            return Err(
                Failure::new(ErrorReason::QuotaExceeded, "the archive grew while it was read").into(),
            );
        }
        file.write_all(&bytes).await.map_err(failed)?;
        journal.update(|progress| progress.bytes_done = written);
    }
    file.flush().await.map_err(failed).map_err(Halt::from)
}

async fn ask(job: &Job<'_>) -> Result<target::ServerFacts, Halt> {
    let target = job.reach()?.target()?;
    let facts = target.questions().await?.facts().await?;
    target.close();
    if facts.in_recovery {
        return Err(Failure::new(
            ErrorReason::TargetRefused,
            "the server is a standby, which takes no writes",
        )
        .into());
    }
    Ok(facts)
}

/// The program that suits the server best among those that can read the archive. The newest one can.
async fn choose<'a>(job: &Job<'a>, major: u32, newest: &'a Tool, archive: &Path) -> Result<&'a Tool, Halt> {
    for tool in job.context.toolbox.for_restore(major) {
        if tool == newest {
            break;
        }
        match list(job, tool, archive).await {
            Ok(_) => return Ok(tool),
            Err(Halt::Interrupted(interrupted)) => return Err(interrupted.into()),
            // Of a newer format than this program knows.
            Err(Halt::Failed(_)) => {}
        }
    }
    Ok(newest)
}

impl Sink for Contents {
    async fn take(&mut self, bytes: Bytes) -> Result<(), Halt> {
        Contents::take(self, &bytes);
        Ok(())
    }
}

/// The archive's table of contents; `ARTIFACT_INVALID` where it has none.
async fn list(job: &Job<'_>, tool: &Tool, archive: &Path) -> Result<Contents, Halt> {
    let mut contents = Contents::default();
    inspect(job, tool, &list_arguments(archive), &mut contents).await?;
    contents.end();
    Ok(contents)
}

/// Reads the whole archive; `ARTIFACT_INVALID` where it was cut off or altered within its data, which the table of contents
/// does not show.
async fn read_through(job: &Job<'_>, tool: &Tool, archive: &Path) -> Result<(), Halt> {
    inspect(job, tool, &read_through_arguments(archive), &mut Nowhere).await
}

/// Lets pg_restore look at the archive without a server.
async fn inspect(
    job: &Job<'_>,
    tool: &Tool,
    arguments: &[String],
    output: &mut impl Sink,
) -> Result<(), Halt> {
    let user = job.context.options.tool_user;
    let process = ToolProcess::spawn(&tool.pg_restore(), arguments, None, user)
        .map_err(|error| Failure::internal("pg_restore cannot be started", &error))?;
    match program::run(process, &Journal::new(0), &job.stop, output).await {
        Err(Halt::Failed(failure)) if failure.reason == crate::failure::TOOL_FAILED => {
            let message = format!(
                "not a whole archive that pg_restore can read: {}",
                failure.message
            );
            Err(Failure::new(ErrorReason::ArtifactInvalid, message).into())
        }
        ended => ended,
    }
}
