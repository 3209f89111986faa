//! How the statements of a script are sent.

use bytes::Bytes;
use domain::access::{Access, GrantLimits};
use domain::sql::{self, StatementKind, StringSyntax, TransactionControl, classify};
use pgconn::{SendError, TransactionStatus};
use rpc::query::v1::parameter::Kind;
use rpc::query::v1::{OnError, Parameter, Script, ScriptMode};
use std::time::Duration;
use tokio::time::Instant;

use super::result_set::{ResultLimit, within};
use super::{Ended, Execution, LastEvents, Lost, PortalUse, Statement};
use crate::events::EventWriter;
use crate::session::copy_source::CopySource;

/// A script in the terms of an execution.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// The SQL.
    pub(crate) sql: String,
    /// Values for `$1` and so on.
    pub(crate) parameters: Vec<Parameter>,
    /// One message, or statement by statement.
    pub(crate) one_message: bool,
    /// Whether a failed statement ends the script.
    pub(crate) stop_on_error: bool,
    /// The limit of each statement.
    pub(crate) statement_timeout: Option<Duration>,
    /// The limit of a transaction, and since when one is open.
    pub(crate) transaction_timeout: Option<Duration>,
    pub(crate) transaction_since: Option<Instant>,
    /// How much of each result set is sent.
    pub(crate) limit: ResultLimit,
    /// What is done with a suspended portal.
    pub(crate) portal: PortalUse,
    /// Most rows in a message; 0 for our choice.
    pub(crate) page: usize,
    /// How a read-only block is begun, where that is what it is for.
    pub(crate) begin: Option<String>,
    /// Data for COPY statements.
    pub(crate) copy_input: Vec<Bytes>,
}

impl Plan {
    /// Takes a script whose fields were checked.
    pub(crate) fn new(script: Script, statement_timeout: Option<Duration>) -> Self {
        Self {
            one_message: script.mode() == ScriptMode::OneMessage,
            stop_on_error: script.on_error() != OnError::Continue,
            statement_timeout,
            transaction_timeout: None,
            transaction_since: None,
            limit: ResultLimit::new(script.max_rows, script.max_bytes, script.on_limit()),
            portal: PortalUse::Script,
            page: usize::try_from(script.page_size).unwrap_or_default(),
            begin: None,
            sql: script.sql,
            parameters: script.parameters,
            copy_input: script.copy_input,
        }
    }

    /// Keeps its results within what a grant allows: each of them, or each part of one that is fetched.
    pub(crate) fn narrow(&mut self, limits: &GrantLimits) {
        self.limit.narrow(limits);
        if let PortalUse::GoOn { max_rows, max_bytes } = &mut self.portal {
            // What it says nothing of is as it was when the portal was opened.
            for (asked, allowed) in [(max_rows, limits.result_rows), (max_bytes, limits.result_bytes)] {
                if asked.is_some() && allowed.is_some() {
                    *asked = within(*asked, allowed);
                }
            }
        }
    }

    /// Something to do with a suspended portal.
    pub(crate) fn of_portal(portal: PortalUse) -> Self {
        Self {
            portal,
            ..Self::new(Script::default(), None)
        }
    }

    /// A block of the user's in a read-only session, begun as said.
    pub(crate) fn read_only_block(begin: String) -> Self {
        Self {
            begin: Some(begin),
            ..Self::statement("BEGIN".to_owned(), None)
        }
    }

    /// One statement without limits.
    pub(crate) fn statement(sql: String, statement_timeout: Option<Duration>) -> Self {
        Self::new(
            Script {
                sql,
                mode: ScriptMode::OneMessage.into(),
                ..Script::default()
            },
            statement_timeout,
        )
    }
}

impl Execution<'_> {
    /// Runs the script.
    pub(crate) async fn run(mut self, plan: Plan) -> (Ended, Option<LastEvents>) {
        self.writer = EventWriter::new(plan.page);
        self.transaction_since = plan.transaction_since;
        self.start();
        if self.backend.hold.reads_scripts() {
            let effects = sql::effects(&plan.sql, self.string_syntax());
            self.backend.hold.runs(effects);
        }
        let mut result = self.carry_out(plan).await;
        // Before the look, which is ours.
        if let Some(listing) = self.backend.listing() {
            listing.passed(self.connection().traffic());
        }
        if result.is_ok() {
            result = self.look().await;
        }
        self.end(result)
    }

    pub(super) async fn script(&mut self, mut plan: Plan) -> Result<(), Lost> {
        if self.access == Access::ReadOnly {
            return self.read_only_script(plan).await;
        }
        if plan.limit.suspends() {
            // A COMMIT has no rows to be suspended at, and is announced where it is a message of its own.
            let commits = plan.parameters.is_empty()
                && is_only(TransactionControl::Commit, &plan.sql, self.string_syntax());
            if !commits {
                return self.open_portal(&plan).await;
            }
        }
        if !plan.parameters.is_empty() {
            return self.with_parameters(&plan).await;
        }
        if plan.one_message {
            self.begin_statement(&plan, 0, 0);
            return self.message(&plan.sql).await;
        }
        if !plan.copy_input.is_empty() {
            self.copy = CopySource::Inline(std::mem::take(&mut plan.copy_input).into());
        }
        let mut pieces = sql::Script::new(&plan.sql);
        let mut index = 0;
        while let Some(piece) = pieces.next_piece(self.string_syntax()) {
            if piece.statement.is_empty() {
                continue;
            }
            self.begin_statement(&plan, index, piece.chars_before);
            self.message(piece.statement).await?;
            if self.incomplete && plan.stop_on_error {
                break;
            }
            index += 1;
        }
        Ok(())
    }

    /// Sends one simple Query and drives it to its end, unless the execution is over.
    async fn message(&mut self, sql: &str) -> Result<(), Lost> {
        self.announce_commit(sql).await?;
        if self.is_over() || self.statement.failed {
            self.withdraw_commit();
            self.incomplete = true;
            self.failed |= self.statement.failed;
            return Ok(());
        }
        self.backend.connection.query(sql)?;
        self.finish_statement().await?;
        self.commit_answered();
        Ok(())
    }

    async fn with_parameters(&mut self, plan: &Plan) -> Result<(), Lost> {
        self.begin_statement(plan, 0, 0);
        if self.is_over() {
            self.incomplete = true;
            return Ok(());
        }
        // After a refusal here a Sync must still follow, or the connection is of no more use.
        let bound = self.parse_and_bind(&plan.sql, &plan.parameters);
        let connection = &mut self.backend.connection;
        let sent = bound.and_then(|()| connection.execute("", 0));
        connection.sync()?;
        let ended = self.finish_statement().await;
        sent?;
        ended
    }

    /// Makes a portal of a statement and asks for its columns.
    pub(super) fn parse_and_bind(&mut self, sql: &str, parameters: &[Parameter]) -> Result<(), SendError> {
        let types: Vec<u32> = parameters.iter().map(|parameter| parameter.type_oid).collect();
        let values = parameters.iter().map(|parameter| match &parameter.kind {
            Some(Kind::Text(text)) => Some(text.as_bytes()),
            Some(Kind::Null(_)) | None => None,
        });
        let connection = &mut self.backend.connection;
        connection.parse("", sql, &types)?;
        connection.bind("", "", values)?;
        connection.describe_portal("")
    }

    async fn finish_statement(&mut self) -> Result<(), Lost> {
        let sent = Instant::now();
        self.until_ready().await?;
        self.count(sent);
        self.incomplete = self.statement.failed;
        self.failed |= self.statement.failed;
        Ok(())
    }

    /// Counts a message that was answered, and the transaction where that ended with it.
    pub(super) fn count(&self, sent: Instant) {
        let Some(listing) = self.backend.listing() else {
            return;
        };
        listing.tally.answered(sent.elapsed());
        let is_over = self.connection().transaction_status() == TransactionStatus::Idle;
        if is_over && !self.connection().is_unsynced() {
            let since = self.transaction_since.unwrap_or(sent);
            listing.tally.transaction_ended(since.elapsed());
        }
    }

    pub(super) fn begin_statement(&mut self, plan: &Plan, index: i32, chars_before: usize) {
        if self.connection().transaction_status() == TransactionStatus::Idle {
            // The statement is a transaction of its own, or opens one.
            self.transaction_since = None;
        }
        self.limit_statement(plan, plan.statement_timeout);
        self.statement = Statement::new(index, chars_before, plan.limit);
    }

    /// Has the time of a statement begin, and that of its transaction unless one is open.
    pub(super) fn limit_statement(&mut self, plan: &Plan, timeout: Option<Duration>) {
        let now = Instant::now();
        let since = *self.transaction_since.get_or_insert(now);
        let left = plan
            .transaction_timeout
            .map(|whole| whole.saturating_sub(now - since));
        self.limits.statement(timeout.into_iter().chain(left).min());
    }

    pub(super) fn string_syntax(&self) -> StringSyntax {
        match self.connection().parameters().get("standard_conforming_strings") {
            Some(value) if *value == "off" => StringSyntax::Escape,
            _ => StringSyntax::Standard,
        }
    }
}

/// True where a script is this one statement with nothing else.
pub(super) fn is_only(control: TransactionControl, sql: &str, strings: StringSyntax) -> bool {
    if classify(sql) != StatementKind::Transaction(control) {
        return false;
    }
    let mut pieces = sql::Script::new(sql);
    let mut statements = 0;
    while let Some(piece) = pieces.next_piece(strings) {
        statements += usize::from(!piece.statement.is_empty());
    }
    statements == 1
}
