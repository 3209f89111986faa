//! Before a COMMIT that ends a transaction block: asks the server for the transaction's id, and tells it before the COMMIT is
//! sent. So whoever loses the answer can ask what became of it.
//!
//! The question costs a round trip. It stands in a savepoint, so that the user's transaction lives on where it is refused: the
//! role may have changed since the connection was made, or a time limit of the user's may strike.

use std::num::NonZeroU64;
use std::sync::Arc;

use domain::sql::TransactionControl;
use pgconn::{Event, ServerError, TransactionStatus};
use rpc::query::v1::TransactionCommitting;
use rpc::query::v1::execution_event::Kind;

use super::script::is_only;
use super::{Execution, Lost};
use crate::facts::XactFacts;
use crate::history::{HISTORY, History};
use crate::session::commit::{Commit, Standing, Transaction};

const SAVEPOINT: &str = "pgmoor_before_commit";

/// A question that is under way, and what was said to it.
#[derive(Debug, Default)]
pub(super) struct Question {
    rows: Vec<Vec<String>>,
    /// The savepoint is set.
    began: bool,
    pub(super) error: Option<Box<ServerError>>,
}

impl Question {
    /// Takes what is meant for it, and returns the rest.
    pub(super) fn hear(&mut self, event: Event) -> Option<Event> {
        match event {
            Event::DataRow(body) => {
                let text =
                    |bytes: Option<&[u8]>| String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned();
                let row = body.values().map(|value| value.map(text).unwrap_or_default());
                self.rows.push(row.collect());
                None
            }
            Event::CommandComplete(tag) => {
                self.began |= tag == "SAVEPOINT";
                None
            }
            Event::Error(error) => {
                self.error = Some(error);
                None
            }
            Event::RowDescription(_) => None,
            event => Some(event),
        }
    }
}

fn question(facts: &XactFacts) -> Option<String> {
    let xid = facts.xid_function?;
    let mut asked = format!("SAVEPOINT {SAVEPOINT}; SELECT pg_catalog.{xid}(); ");
    if facts.reads_history && facts.history.is_none() {
        // The connection was made to a standby, which may have been promoted since.
        asked = asked + HISTORY + "; ";
    }
    Some(asked + "RELEASE SAVEPOINT " + SAVEPOINT)
}

impl Execution<'_> {
    /// Where a COMMIT of a transaction block comes next: learns what it commits, and tells it. The statement has failed where
    /// that cost the block.
    pub(super) async fn announce_commit(&mut self, sql: &str) -> Result<(), Lost> {
        let in_block = self.connection().transaction_status() == TransactionStatus::InTransaction;
        if !in_block || !is_only(TransactionControl::Commit, sql, self.string_syntax()) || self.is_over() {
            return Ok(());
        }
        let (is_told, transaction) = match question(&self.backend.xact_facts) {
            Some(question) => self.ask_xid(&question).await?,
            None => (false, None),
        };
        if self.is_over() || self.connection().transaction_status() != TransactionStatus::InTransaction {
            return Ok(());
        }
        let committing = TransactionCommitting {
            statement_index: self.statement.index,
            transaction: transaction.as_ref().map(Transaction::describe),
        };
        self.set_commit(Commit {
            statement_index: self.statement.index,
            standing: Standing::Sent,
            is_told,
            transaction,
        });
        if is_told && self.output.is_some() {
            self.writer.event(Kind::Committing(committing));
            self.hand_over();
        }
        Ok(())
    }

    /// Asks. What the server says to it is nobody else's business.
    async fn ask_xid(&mut self, question: &str) -> Result<(bool, Option<Transaction>), Lost> {
        if let Some(listing) = self.backend.listing() {
            listing.passed(self.connection().traffic());
        }
        let answer = self.ask(question).await;
        let answer = match answer {
            Ok(answer) if answer.error.is_some() && answer.began && !self.cancel_in_doubt => {
                let back = format!("ROLLBACK TO SAVEPOINT {SAVEPOINT}; RELEASE SAVEPOINT {SAVEPOINT}");
                self.ask(&back).await.map(|_| answer)
            }
            answer => answer,
        }?;
        if let Some(listing) = self.backend.listing() {
            listing.passed_unseen(self.connection().traffic());
        }
        if let Some(error) = answer.error {
            tracing::debug!(sqlstate = %error.sqlstate, "a server does not tell the id of a transaction");
            if self.connection().transaction_status() == TransactionStatus::Failed {
                // It has cost the user's transaction: they are to see why.
                self.sql_error(&error);
            }
            return Ok((false, None));
        }
        if let Some(history) = answer.rows.get(1).and_then(|row| History::read(row)) {
            self.backend.xact_facts.history = Some(Arc::new(history));
        }
        let xid: Option<NonZeroU64> = answer.rows.first().and_then(|row| row.first()?.parse().ok());
        let history = self.backend.xact_facts.history.clone();
        Ok((
            !answer.rows.is_empty(),
            xid.map(|xid| Transaction {
                xid,
                history,
                database: self.backend.xact_facts.database.clone(),
            }),
        ))
    }

    pub(super) async fn ask(&mut self, sql: &str) -> Result<Question, Lost> {
        self.question = Some(Question::default());
        let asked = match self.backend.connection.query(sql) {
            Ok(()) => self.until_ready().await,
            Err(error) => Err(error.into()),
        };
        let question = self.question.take().unwrap_or_default();
        match (asked, &question.error) {
            (Ok(()), _) => Ok(question),
            (Err(lost), error) => {
                // Why the connection ended is said to whoever waits for the COMMIT.
                if let Some(error) = error {
                    self.sql_error(error);
                }
                Err(lost)
            }
        }
    }

    /// Hands over what was written, whether or not the reader has room: the COMMIT does not wait for it.
    fn hand_over(&mut self) {
        if let (Some(output), Some(message)) = (&self.output, self.writer.take()) {
            output.push(message, self.writer.last());
            self.limits.sent();
        }
    }

    /// The COMMIT that was announced is not sent after all.
    pub(super) fn withdraw_commit(&mut self) {
        if self.commit.as_ref().is_some_and(Commit::is_sent) {
            self.commit = None;
            self.control.set_commit(None);
        }
    }

    /// The server has answered the statement, which may have been a COMMIT that was announced.
    pub(super) fn commit_answered(&mut self) {
        let Some(mut commit) = self.commit.take() else {
            return;
        };
        if commit.is_sent() {
            let committed = !self.statement.failed && self.statement.tag == "COMMIT";
            commit.standing = if committed {
                Standing::Committed
            } else {
                Standing::RolledBack
            };
        }
        self.set_commit(commit);
    }

    fn set_commit(&mut self, commit: Commit) {
        self.control.set_commit(Some(commit.clone()));
        self.commit = Some(commit);
    }
}

#[cfg(test)]
mod tests {
    use domain::sql::StringSyntax;

    use super::*;

    #[test]
    fn only_a_commit_alone_is_asked_about() {
        for (sql, lone) in [
            ("COMMIT", true),
            ("/* x */ end work;", true),
            ("commit and chain; -- y\n", true),
            ("COMMIT; SELECT 1", false),
            ("SELECT 1; COMMIT", false),
            ("COMMIT PREPARED 'a'", false),
            ("ROLLBACK", false),
            ("", false),
        ] {
            assert_eq!(
                is_only(TransactionControl::Commit, sql, StringSyntax::Standard),
                lone,
                "{sql}"
            );
        }
    }
}
