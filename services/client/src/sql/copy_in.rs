//! `COPY ... FROM STDIN`: the statement, then data from wherever it comes.

use std::io::Read;

use futures::StreamExt as _;
use rpc::query::v1::copy_in_request::Kind;
use rpc::query::v1::{CopyInRequest, CopyInStart, ExecutionOutcome};

use super::execution::{Ended, Execution};
use crate::chunks;
use crate::commands::token::wire_duration;
use crate::context::Context;
use crate::error::ClientError;

/// One COPY.
#[derive(Debug)]
pub(super) struct Copy<'a> {
    pub(super) sql: &'a str,
    pub(super) statement_timeout: Option<std::time::Duration>,
    /// Lines of the user's text before the statement.
    pub(super) lines_before: usize,
    pub(super) quiet: bool,
}

/// Feeds a COPY from a reader. Ctrl-C, and a reader that breaks, give it up: nothing is copied then.
///
/// The data may be slow to come and its check long; what ends a wait for a dead server is the connection's
/// keep-alive.
pub(super) async fn copy_in(
    context: &mut Context,
    execution: &mut Execution,
    copy: Copy<'_>,
    reader: impl Read + Send + 'static,
) -> Result<Ended, ClientError> {
    let start = CopyInStart {
        session: execution.session.name.clone(),
        sql: copy.sql.to_owned(),
        statement_timeout: copy.statement_timeout.map(wire_duration),
    };
    let (pieces, failure) = chunks::pieces(reader);
    let first = CopyInRequest {
        kind: Some(Kind::Start(start)),
    };
    let rest = pieces.map(|data| CopyInRequest {
        kind: Some(Kind::Data(data)),
    });
    let mut client = context.connection()?.queries();
    let mut interrupts = context.interrupts.clone();
    interrupts.forget();
    let answer = tokio::select! {
        biased;
        () = interrupts.next() => {
            context.notes.line("cancelled");
            execution.note_failure();
            return Ok(Ended { outcome: ExecutionOutcome::Cancelled, interrupted: true });
        }
        error = failure => return Err(ClientError::Input(error)),
        answer = client.copy_in(tokio_stream::once(first).chain(rest)) => answer?.into_inner(),
    };
    if let Some(session) = answer.session {
        execution.session = session;
    }
    let outcome = match &answer.error {
        Some(error) => {
            execution.sql_error(context, error, copy.sql, copy.lines_before);
            ExecutionOutcome::Failed
        }
        None => {
            if !copy.quiet {
                context.notes.line(&answer.command_tag);
            }
            ExecutionOutcome::Succeeded
        }
    };
    Ok(Ended {
        outcome,
        interrupted: false,
    })
}
