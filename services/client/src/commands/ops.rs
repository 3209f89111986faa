//! `ops`: background work, and waiting for it.

use std::time::Duration;

use clap::Subcommand;
use rpc::operation::v1::{
    CancelOperationRequest, DeleteOperationRequest, GetOperationRequest, ListOperationsRequest, Operation,
    OperationState, ReadOperationLogRequest, WaitOperationRequest,
};

use super::instances::named;
use super::token::wire_duration;
use crate::connection::Call;
use crate::context::Context;
use crate::error::ClientError;
use crate::exit::Exit;
use crate::output::progress::Progress;
use crate::output::record::{Record, text, time, word};
use crate::output::table::printable;

/// How often progress is asked for.
const LOOK: Duration = Duration::from_secs(1);
/// Of a failed operation's log, so much is shown.
const LOG_TAIL_BYTES: i64 = 4096;

/// Operations. OPERATION is operations/{operation}, or its id.
#[derive(Debug, Clone, Subcommand)]
pub enum Ops {
    /// List your operations, newest first
    List {
        /// At most so many
        #[arg(long, default_value_t = 100, value_name = "N")]
        limit: usize,
    },
    /// Show an operation
    Get {
        /// operations/{operation}, or its id
        operation: String,
    },
    /// Wait for an operation's end; Ctrl-C ends the wait, not the operation
    #[command(after_help = "The exit status is 1 where the operation failed or was cancelled.")]
    Wait {
        /// operations/{operation}, or its id
        operation: String,
    },
    /// Show what an operation's program printed
    #[command(after_help = "Example:\n  pgmoor ops log operations/… --follow")]
    Log {
        /// operations/{operation}, or its id
        operation: String,
        /// Go on until the operation has ended
        #[arg(long, short)]
        follow: bool,
        /// Where to begin, in bytes
        #[arg(long, default_value_t = 0, value_name = "BYTES")]
        offset: i64,
    },
    /// Ask for an operation to be cancelled
    Cancel {
        /// operations/{operation}, or its id
        operation: String,
    },
    /// Forget an operation that has ended, with its log; what it made stays
    Delete {
        /// operations/{operation}, or its id
        operation: String,
    },
}

impl Ops {
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), ClientError> {
        match self {
            Self::Wait { operation } => {
                let operation = wait(context, &named("operations", operation), "waiting").await?;
                context.show(&operation).await?;
                report(context, &operation).await
            }
            other => {
                context
                    .interruptible(async |context| other.simple(context).await)
                    .await
            }
        }
    }

    async fn simple(self, context: &mut Context) -> Result<(), ClientError> {
        let client = context.connection()?.operations();
        match self {
            Self::List { limit } => {
                let page = async |context: &mut Context, page_size, page_token: String| {
                    let request = ListOperationsRequest {
                        page_size,
                        page_token,
                    };
                    let page = context
                        .read(async || client.clone().list_operations(request.clone()).await)
                        .await?;
                    Ok((page.operations, page.next_page_token))
                };
                let operations = context.pages(Some(limit), page).await?;
                context.show_list(&operations).await
            }
            Self::Get { operation } => {
                let operation = get(context, &named("operations", operation)).await?;
                context.show(&operation).await
            }
            Self::Log {
                operation,
                follow,
                offset,
            } => log(context, &named("operations", operation), offset, follow).await,
            Self::Cancel { operation } => {
                let request = CancelOperationRequest {
                    name: named("operations", operation),
                };
                let answer = context
                    .read(async || client.clone().cancel_operation(request.clone()).await)
                    .await?;
                context
                    .show(
                        &answer
                            .operation
                            .ok_or(ClientError::Incomplete { field: "operation" })?,
                    )
                    .await
            }
            Self::Delete { operation } => {
                let request = DeleteOperationRequest {
                    name: named("operations", operation),
                };
                context
                    .read(async || client.clone().delete_operation(request.clone()).await)
                    .await?;
                context.notes.line(&format!("forgot {}", request.name));
                Ok(())
            }
            // Carried out by `run`.
            Self::Wait { .. } => Ok(()),
        }
    }
}

async fn get(context: &mut Context, name: &str) -> Result<Operation, ClientError> {
    let client = context.connection()?.operations();
    let request = GetOperationRequest {
        name: name.to_owned(),
    };
    let answer = context
        .read(async || client.clone().get_operation(request.clone()).await)
        .await?;
    answer
        .operation
        .ok_or(ClientError::Incomplete { field: "operation" })
}

/// Waits for an operation's end, showing how far it is. Ctrl-C ends the wait.
pub(crate) async fn wait(context: &mut Context, name: &str, what: &str) -> Result<Operation, ClientError> {
    let connection = context.connection()?;
    let client = connection.operations();
    let call = Call::repeatable(context.patient(LOOK));
    let progress = Progress::bytes(context.stderr_is_terminal, what, None);
    let request = WaitOperationRequest {
        name: name.to_owned(),
        timeout: Some(wire_duration(LOOK)),
    };
    let mut interrupts = context.interrupts.clone();
    loop {
        let look = connection.call(call, async || {
            client.clone().wait_operation(request.clone()).await
        });
        let answer = tokio::select! {
            biased;
            answer = look => answer?,
            () = interrupts.next() => {
                drop(progress);
                context.notes.line(&format!("the operation goes on; wait for it with: pgmoor ops wait {name}"));
                return Err(ClientError::Reported(Exit::Interrupted));
            }
        };
        let operation = answer
            .operation
            .ok_or(ClientError::Incomplete { field: "operation" })?;
        if operation.done {
            return Ok(operation);
        }
        show_progress(&progress, what, &operation);
    }
}

fn show_progress(progress: &Progress, what: &str, operation: &Operation) {
    let at = operation.progress.unwrap_or_default();
    let phase = match operation.state() {
        OperationState::Queued => Some("queued".to_owned()),
        _ => word(at.phase().as_str_name(), "OPERATION_PHASE_"),
    };
    let mut message = what.to_owned();
    for part in [phase, objects(&at)].into_iter().flatten() {
        message.push_str(", ");
        message.push_str(&part);
    }
    let bytes = |count: i64| u64::try_from(count).ok();
    let total = bytes(at.bytes_total).filter(|total| *total > 0);
    progress.set(message, bytes(at.bytes_done).unwrap_or_default(), total);
}

fn objects(at: &rpc::operation::v1::OperationProgress) -> Option<String> {
    match (at.objects_done, at.objects_total) {
        (0, 0) => None,
        (done, 0) => Some(format!("{done} objects")),
        (done, total) => Some(format!("{done} of {total} objects")),
    }
}

/// Tells how an operation ended, with the end of its log where it ended badly.
pub(crate) async fn report(context: &mut Context, operation: &Operation) -> Result<(), ClientError> {
    if operation.state() == OperationState::Succeeded {
        return Ok(());
    }
    let how = word(operation.state().as_str_name(), "OPERATION_STATE_").unwrap_or_else(|| "ended".to_owned());
    let reason = operation.error.as_ref().map(|error| {
        format!(
            ": {}{}",
            error.message,
            if error.reason.is_empty() {
                String::new()
            } else {
                format!(" [{}]", error.reason)
            }
        )
    });
    context.notes.line(&printable(&format!(
        "error: {} {how}{}",
        operation.name,
        reason.unwrap_or_default()
    )));
    let client = context.connection()?.operations();
    let offset = (operation.log_size_bytes - LOG_TAIL_BYTES).max(0);
    let request = ReadOperationLogRequest {
        name: operation.name.clone(),
        offset,
        limit: 0,
    };
    let tail = context
        .read(async || client.clone().read_operation_log(request.clone()).await)
        .await;
    // The log is a courtesy: that it cannot be had must not hide how the operation ended.
    if let Ok(tail) = tail {
        for line in tail.text.lines() {
            context.notes.line(&format!("  {}", printable(line)));
        }
    }
    Err(ClientError::Reported(Exit::Failed))
}

async fn log(context: &mut Context, name: &str, mut offset: i64, follow: bool) -> Result<(), ClientError> {
    let client = context.connection()?.operations();
    loop {
        let request = ReadOperationLogRequest {
            name: name.to_owned(),
            offset,
            limit: 0,
        };
        let piece = context
            .read(async || client.clone().read_operation_log(request.clone()).await)
            .await?;
        let more = piece.next_offset > offset;
        offset = piece.next_offset;
        context.show_text(&piece.text).await?;
        if piece.end || (!more && !follow) {
            return Ok(());
        }
        if !more {
            tokio::time::sleep(LOOK).await;
        }
    }
}

impl Record for Operation {
    const MESSAGE: &'static str = "pgmoor.operation.v1.Operation";
    const COLUMNS: &'static [&'static str] = &[
        "name",
        "kind",
        "state",
        "server",
        "database",
        "create_time",
        "end_time",
        "error",
    ];

    fn cells(&self) -> Vec<Option<String>> {
        vec![
            text(&self.name),
            word(self.kind().as_str_name(), "OPERATION_KIND_"),
            word(self.state().as_str_name(), "OPERATION_STATE_"),
            text(&self.server),
            text(&self.database),
            time(self.create_time.as_ref()),
            time(self.end_time.as_ref()),
            self.error.as_ref().and_then(|error| text(&error.message)),
        ]
    }
}
