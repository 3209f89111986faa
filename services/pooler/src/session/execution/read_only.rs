//! Executions in read-only sessions.
//!
//! Invariants: what the user wrote reaches the server as one Parse of the extended protocol, which the server refuses for more
//! than one statement; and behind a guard in the same round of messages, which the server must have answered well before it
//! looks at the rest. The guard fails in a transaction that is not read-only, and takes the snapshot after which PostgreSQL
//! lets nobody make it read-write (SQLSTATE 25001). What the text means is never asked: whether a block is open, whose it is
//! and whether it is read-only the server says. What is read from the text here only makes more of it work.

use std::iter::empty;

use domain::access::Access;
use domain::sql::{self, StatementKind, StringSyntax, TransactionControl, classify, tokens};
use pgconn::{Event, SendError, TransactionStatus};
use tokio::time::Instant;

use super::{Execution, Lost, Plan};
use crate::session::copy_source::CopySource;

/// Every name is qualified: a user may have functions and operators of their own, and set `search_path`.
const GUARD: &str = "SELECT 1 OPERATOR(pg_catalog./) CASE WHEN \
    pg_catalog.current_setting('transaction_read_only') OPERATOR(pg_catalog.=) 'on' THEN 1 ELSE 0 END";
/// What the guard fails with: `division_by_zero`.
const NOT_READ_ONLY: &str = "22012";
/// What a BEGIN inside a block warns with: `active_sql_transaction`.
const BLOCK_IS_OPEN: &str = "25001";

/// What of ours comes before a statement.
#[derive(Debug, Default)]
pub(super) struct Preamble {
    /// How many answers to it are still to come.
    pending: u8,
    /// It begins a block.
    begins: bool,
}

impl Preamble {
    /// Takes what is meant for it, and returns the rest.
    pub(super) fn hear(&mut self, event: Event) -> Result<Option<Event>, Lost> {
        match event {
            // The user's own BEGIN finds the block that stands around it.
            Event::Notice(notice) if self.begins && notice.sqlstate == BLOCK_IS_OPEN => Ok(None),
            event if self.pending == 0 => Ok(Some(event)),
            Event::CommandComplete(_) => {
                self.pending -= 1;
                Ok(None)
            }
            Event::DataRow(_) => Ok(None),
            Event::Error(error) => {
                // The server heeds nothing before the next Sync.
                self.pending = 0;
                if error.sqlstate == NOT_READ_ONLY {
                    return Err(Lost::NotReadOnly);
                }
                Ok(Some(Event::Error(error)))
            }
            event => Ok(Some(event)),
        }
    }
}

impl Execution<'_> {
    /// Runs a script statement by statement, each in a read-only transaction.
    pub(super) async fn read_only_script(&mut self, mut plan: Plan) -> Result<(), Lost> {
        if plan.limit.suspends() {
            self.begin_statement(&plan, 0, 0);
            if self.is_over() {
                self.incomplete = true;
                return Ok(());
            }
            self.begin_block(&plan, &plan.sql)?;
            self.parse_and_bind(&plan.sql, &plan.parameters)?;
            return self.pages(plan.page, plan.statement_timeout).await;
        }
        if !plan.parameters.is_empty() {
            self.begin_statement(&plan, 0, 0);
            return self.guarded(&plan, &plan.sql).await;
        }
        if !plan.copy_input.is_empty() {
            self.copy = CopySource::Inline(std::mem::take(&mut plan.copy_input).into());
        }
        let stops = plan.stop_on_error || plan.one_message;
        let mut pieces = sql::Script::new(&plan.sql);
        let mut index = 0;
        while let Some(piece) = pieces.next_piece(self.string_syntax()) {
            if piece.statement.is_empty() {
                continue;
            }
            self.begin_statement(&plan, index, piece.chars_before);
            self.guarded(&plan, piece.statement).await?;
            if self.incomplete && stops {
                break;
            }
            index += 1;
        }
        Ok(())
    }

    /// Sends one statement of the user's and drives it to its end, unless the execution is over.
    async fn guarded(&mut self, plan: &Plan, sql: &str) -> Result<(), Lost> {
        if self.is_over() {
            self.incomplete = true;
            return Ok(());
        }
        let sent = Instant::now();
        // A COPY that takes data would swallow a Sync. Where that is not seen here, the connection is lost and nothing else.
        let takes_data = classify(sql) == StatementKind::CopyFromStdin;
        let bound = self.begin_block(plan, sql);
        let bound = bound.and_then(|()| self.parse_and_bind(sql, &plan.parameters));
        let connection = &mut self.backend.connection;
        let bound = bound.and_then(|()| connection.execute("", 0));
        if takes_data && bound.is_ok() {
            connection.flush()?;
            self.fetching = true;
        } else {
            connection.sync()?;
        }
        let ended = self.until_ready().await;
        self.fetching = false;
        bound?;
        ended?;
        self.count(sent);
        self.incomplete = self.statement.failed;
        self.failed |= self.statement.failed;
        self.end_block().await
    }

    /// Sends what comes before a statement: the beginning of a block where none is open, and the guard.
    fn begin_block(&mut self, plan: &Plan, sql: &str) -> Result<(), SendError> {
        let status = self.connection().transaction_status();
        self.preamble = Preamble::default();
        if status == TransactionStatus::Failed {
            // The server lets nothing in but the end of the block.
            return Ok(());
        }
        let begins = status == TransactionStatus::Idle;
        if begins {
            self.backend.users_block = false;
            self.send_ours(plan.begin.as_deref().unwrap_or_else(|| begin_for(sql)))?;
        } else {
            // After ROLLBACK AND CHAIN of a failed block PostgreSQL begins one that is not, with no snapshot yet.
            self.send_ours("SET TRANSACTION READ ONLY")?;
        }
        self.send_ours(GUARD)?;
        self.preamble = Preamble { pending: 2, begins };
        Ok(())
    }

    fn send_ours(&mut self, sql: &str) -> Result<(), SendError> {
        let connection = &mut self.backend.connection;
        connection.parse("", sql, &[])?;
        connection.bind("", "", empty::<Option<&[u8]>>())?;
        connection.execute("", 0)
    }

    /// Ends the block around a statement, unless it is the user's now, or a portal in it is suspended.
    pub(super) async fn end_block(&mut self) -> Result<(), Lost> {
        if self.access == Access::ReadWrite || self.suspended.is_some() {
            return Ok(());
        }
        let status = self.connection().transaction_status();
        let begun = !self.statement.failed && ["BEGIN", "START TRANSACTION"].contains(&&*self.statement.tag);
        let backend = &mut self.backend;
        backend.users_block = status != TransactionStatus::Idle && (backend.users_block || begun);
        if status == TransactionStatus::Idle || backend.users_block {
            return Ok(());
        }
        let end = if status == TransactionStatus::Failed {
            "ROLLBACK"
        } else {
            // What the statement set or listens to is to stay.
            "COMMIT"
        };
        if let Some(error) = self.ask(end).await?.error {
            // It was counted when it was complete.
            self.statement.index = (self.statement.index - 1).max(0);
            self.sql_error(&error);
            self.incomplete = true;
            self.failed = true;
        }
        if self.connection().transaction_status() == TransactionStatus::Idle {
            Ok(())
        } else {
            Err(Lost::NotReadOnly)
        }
    }
}

/// How to begin the block around a statement. One that begins a block itself may say which isolation it wants, and the server
/// accepts that only where it is what the block has already.
fn begin_for(sql: &str) -> &'static str {
    const LEVELS: [(&[&str], &str); 4] = [
        (&["SERIALIZABLE"], "BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY"),
        (
            &["REPEATABLE", "READ"],
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
        ),
        (
            &["READ", "COMMITTED"],
            "BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY",
        ),
        (
            &["READ", "UNCOMMITTED"],
            "BEGIN ISOLATION LEVEL READ UNCOMMITTED READ ONLY",
        ),
    ];
    const DEFAULT: &str = "BEGIN READ ONLY";
    if classify(sql) != StatementKind::Transaction(TransactionControl::Begin) {
        return DEFAULT;
    }
    let words: Vec<_> = tokens(sql, StringSyntax::Standard)
        .filter(|token| !token.is_blank())
        .collect();
    let says = |level: &&(&[&str], &str)| {
        words.windows(2 + level.0.len()).any(|found| {
            let wanted = ["ISOLATION", "LEVEL"].iter().chain(level.0);
            found.iter().zip(wanted).all(|(token, word)| token.is_word(word))
        })
    };
    LEVELS.iter().find(says).map_or(DEFAULT, |level| level.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn block_begins_with_the_isolation_that_its_statement_asks_for() {
        for (sql, begin) in [
            ("SELECT 'ISOLATION LEVEL SERIALIZABLE'", "BEGIN READ ONLY"),
            ("begin", "BEGIN READ ONLY"),
            ("BEGIN READ WRITE", "BEGIN READ ONLY"),
            (
                "begin /* x */ isolation level serializable, read write",
                "BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY",
            ),
            (
                "START TRANSACTION READ ONLY, ISOLATION LEVEL REPEATABLE READ",
                "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
            ),
            (
                "BEGIN ISOLATION LEVEL READ COMMITTED",
                "BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY",
            ),
        ] {
            assert_eq!(begin_for(sql), begin, "{sql}");
        }
    }
}
