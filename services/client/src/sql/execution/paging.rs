//! Results that are fetched in parts.

use std::time::Instant;

use rpc::events::EncodedEvents;
use rpc::query::v1::{Column, FetchMoreRequest};
use tonic::{Status, Streaming};

use super::{Ended, Execution, GRACE, Running, SILENCE, Source, cancel};
use crate::connection::{Call, Connection};
use crate::context::Context;
use crate::error::ClientError;

/// An execution that can be gone on with.
#[derive(Debug)]
pub(super) struct Suspended {
    name: String,
    sql: String,
    lines_before: usize,
    columns: Vec<Column>,
    /// The number of the last event that came.
    last_event: i64,
}

impl Suspended {
    pub(super) fn of(running: &Running<'_>) -> Self {
        Self {
            name: running.name.clone(),
            sql: running.sql.to_owned(),
            lines_before: running.lines_before,
            columns: running.columns.clone(),
            last_event: running.last_event,
        }
    }
}

impl Execution {
    /// True where a result waits to be gone on with.
    pub(in crate::sql) fn is_suspended(&self) -> bool {
        self.suspended.is_some()
    }

    /// Shows the next part of the suspended result.
    pub(in crate::sql) async fn more(&mut self, context: &mut Context) -> Result<(), ClientError> {
        let Some(suspended) = self.suspended.take() else {
            return Ok(());
        };
        let began = Instant::now();
        self.interrupts.forget();
        self.results.columns(&suspended.columns, &mut context.out).await?;
        let mut running = Running {
            name: suspended.name.clone(),
            sql: &suspended.sql,
            lines_before: suspended.lines_before,
            committing: None,
            last_event: suspended.last_event,
            in_result: true,
            columns: suspended.columns,
            finished: None,
        };
        let source = Source::Suspended(suspended.name);
        let outcome = self.follow(context, source, &mut running).await;
        let _: Ended = self.ended(context, outcome, running, began).await?;
        Ok(())
    }

    /// Does without the rest of the suspended result.
    pub(in crate::sql) async fn no_more(&mut self, context: &mut Context) {
        if let Some(suspended) = self.suspended.take()
            && let Some(complaint) = cancel(&self.connection, &suspended.name).await
        {
            context.notes.line(&complaint);
        }
    }
}

pub(super) async fn fetch_more(
    connection: &Connection,
    execution: String,
) -> Result<Streaming<EncodedEvents>, Status> {
    let request = FetchMoreRequest {
        execution,
        disconnect_grace: Some(GRACE),
        ..FetchMoreRequest::default()
    };
    let client = connection.queries();
    connection
        .call(Call::once(SILENCE), async || {
            client.clone().fetch_more(request.clone()).await
        })
        .await
}
