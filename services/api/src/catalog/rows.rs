//! Runs one of our fixed queries on a server and pages through its rows.

use std::time::Duration;

use domain::access::Permission;
use domain::page::{PageScope, page_size};
use futures::StreamExt as _;
use rpc::error;
use rpc::errors::v1::ErrorReason;
use rpc::pooler::v1::RunScriptRequest;
use rpc::query::v1::execution_event::Kind;
use rpc::query::v1::{
    ExecutionOutcome, OnError, Parameter, Row, Script, ScriptMode, SessionAccess, SqlError, parameter, value,
};
use tonic::{Code, Status};
use tonic_types::ErrorDetails;

use crate::context::{Call, Context};
use crate::database;
use crate::duration;
use crate::error::Error;
use crate::{access, resource};

/// A catalog query that takes longer is stuck behind a lock.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(30);
/// How long to wait for a connection within the budget.
const QUEUE_TIMEOUT_MS: i64 = 10_000;
/// Most rows in one message of the pooler.
const ROWS_PER_MESSAGE: i32 = 500;

/// A list of what is in a server: where, which page, and the query that finds it.
pub(super) struct Listing<'a> {
    /// The server, as the request names it.
    pub(super) server: &'a str,
    /// The database, as the request names it.
    pub(super) database: &'a str,
    /// Takes the arguments as `$1` and so on, then the name after which the page begins, then the most rows.
    /// Its first column is the name it is ordered by.
    pub(super) sql: &'static str,
    /// The query's own arguments.
    pub(super) arguments: &'a [&'a str],
    /// The method, for the page token.
    pub(super) method: &'static str,
    /// The page size the request wants.
    pub(super) page_size: i32,
    /// The page token of the request.
    pub(super) page_token: &'a str,
}

/// A row's values as texts; none for NULL.
pub(super) struct Texts(Vec<Option<String>>);

impl Texts {
    /// The text of a column; empty for NULL.
    pub(super) fn text(&mut self, column: usize) -> String {
        self.0.get_mut(column).and_then(Option::take).unwrap_or_default()
    }

    /// The number of a column.
    pub(super) fn number(&self, column: usize) -> Option<i64> {
        self.0.get(column)?.as_ref()?.parse().ok()
    }

    /// The yes or no of a column.
    pub(super) fn flag(&self, column: usize) -> bool {
        matches!(self.0.get(column), Some(Some(text)) if text == "t")
    }
}

impl Listing<'_> {
    /// The page's rows and the token of the next one.
    pub(super) async fn page<T>(&self, api: &Context, call: &Call<T>) -> Result<(Vec<Texts>, String), Error> {
        let id = resource::server("server", self.server)?;
        database::check(self.database)?;
        let size = page_size(self.page_size).map_err(|error| Error::invalid("page_size", error))?;
        let mut scope = PageScope::new(self.method).with(self.server).with(self.database);
        scope = self
            .arguments
            .iter()
            .fold(scope, |scope, argument| scope.with(argument));
        let after = scope.cursor(self.page_token)?.unwrap_or_default();
        let permission = Permission::SessionsUse;
        let server = access::database(api, &call.caller, id, permission, self.database).await?;
        let instance = server.instance_id;
        // One more than the page holds tells that another page follows.
        let limit = (u64::from(size) + 1).to_string();
        let parameters = self
            .arguments
            .iter()
            .copied()
            .chain([after.as_str(), limit.as_str()]);
        let run = RunScriptRequest {
            server: self.server.to_owned(),
            database: self.database.to_owned(),
            script: Some(script(self.sql, parameters)),
            queue_timeout_ms: QUEUE_TIMEOUT_MS,
            access: SessionAccess::ReadOnly.into(),
        };
        let mut events = api.sessions.run_script(&call.token, instance, run).await?;
        let mut rows = Vec::new();
        while let Some(encoded) = events.next().await {
            let fault = |source| Error::Fault {
                context: "decoding a pooler's events",
                source,
            };
            for event in encoded?.events().map_err(|error| fault(error.into()))? {
                match event.kind {
                    Some(Kind::Rows(batch)) => rows.extend(batch.rows.into_iter().map(texts)),
                    Some(Kind::SqlError(error)) => return Err(refused(&error).into()),
                    Some(Kind::Finished(finished)) if finished.outcome() != ExecutionOutcome::Succeeded => {
                        return Err(ended(finished.outcome()).into());
                    }
                    _ => {}
                }
            }
        }
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        let more = rows.len() > size;
        rows.truncate(size);
        let last = rows
            .last()
            .filter(|_| more)
            .and_then(|row| row.0.first()?.as_deref());
        let token = last.map(|name| scope.token(name)).unwrap_or_default();
        Ok((rows, token))
    }
}

fn script<'a>(sql: &str, parameters: impl Iterator<Item = &'a str>) -> Script {
    let parameter = |text: &str| Parameter {
        kind: Some(parameter::Kind::Text(text.to_owned())),
        type_oid: 0,
    };
    Script {
        sql: sql.to_owned(),
        parameters: parameters.map(parameter).collect(),
        mode: ScriptMode::Split.into(),
        on_error: OnError::Stop.into(),
        statement_timeout: Some(duration::encode(STATEMENT_TIMEOUT)),
        max_rows: Some(0),
        page_size: ROWS_PER_MESSAGE,
        ..Script::default()
    }
}

fn texts(row: Row) -> Texts {
    let text = |kind| match kind {
        Some(value::Kind::Text(text)) => Some(text),
        Some(value::Kind::Binary(bytes)) => Some(String::from_utf8_lossy(&bytes).into_owned()),
        _ => None,
    };
    Texts(row.values.into_iter().map(|value| text(value.kind)).collect())
}

fn refused(error: &SqlError) -> Status {
    let message = error.message.as_ref();
    let text = message.map_or("the server refused", |message| message.message.as_str());
    let sqlstate = message.map_or("", |message| message.sqlstate.as_str());
    error::status(
        Code::FailedPrecondition,
        ErrorReason::TargetRefused,
        text,
        [("sqlstate", sqlstate)],
        ErrorDetails::new(),
    )
}

fn ended(outcome: ExecutionOutcome) -> Status {
    match outcome {
        ExecutionOutcome::TimedOut => error::plain(
            Code::DeadlineExceeded,
            ErrorReason::DeadlineExceeded,
            "the catalog query took too long; somebody may hold a lock",
        ),
        _ => error::plain(
            Code::Unavailable,
            ErrorReason::TargetUnreachable,
            "the connection ended before the catalog was read",
        ),
    }
}
