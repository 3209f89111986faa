//! Executions that can be suspended: their one statement is sent by the extended protocol, as a portal that hands out its
//! rows in parts.
//!
//! No Sync is sent as long as the portal is to stay: it would end an implicit transaction, and the portal with it
//! (PostgreSQL manual, 55.2.3). So nothing else can be sent to the backend either, not even a look at what it holds, and
//! whatever comes next closes the portal first, unless it goes on with it.

use std::time::Duration;

use domain::access::Access;
use domain::sql::TransactionControl;
use pgconn::{Event, ServerError, TransactionStatus};
use tokio::time::Instant;

use super::commit::Question;
use super::result_set::ResultLimit;
use super::script::is_only;
use super::{Execution, Interrupt, Lost, Plan, Statement};
use crate::events::EventWriter;

/// What a plan does with a portal that is suspended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum PortalUse {
    /// It closes it and runs its script.
    #[default]
    Script,
    /// It goes on with it.
    GoOn {
        /// Most rows now: nothing for as many as before, 0 for all.
        max_rows: Option<i64>,
        /// Most bytes of values now, likewise.
        max_bytes: Option<i64>,
    },
    /// It closes it.
    Close,
}

/// A suspended execution, which its backend keeps.
#[derive(Debug)]
pub(crate) struct Suspended {
    /// The number of its next event.
    next_event: i64,
    rows: i64,
    page: usize,
    limit: ResultLimit,
    statement_timeout: Option<Duration>,
    /// What the server said of it since: it has failed, and whoever goes on with it is to hear of it.
    failure: Option<Box<ServerError>>,
}

impl Suspended {
    /// Keeps the error for whoever uses the portal next. The server heeds nothing but a Sync since.
    pub(crate) fn fail(&mut self, error: Box<ServerError>) {
        self.failure.get_or_insert(error);
    }
}

impl Execution<'_> {
    /// Does what the plan says, with a portal that it may find.
    pub(super) async fn carry_out(&mut self, plan: Plan) -> Result<(), Lost> {
        let suspended = self.backend.suspended.take();
        match (plan.portal, suspended) {
            (PortalUse::Script, None) => self.script(plan).await,
            (PortalUse::Script, Some(_)) if self.rolls_back(&plan) => {
                self.drop_portal().await?;
                self.script(plan).await
            }
            (PortalUse::Script, Some(suspended)) => {
                self.end_portal(suspended.failure).await?;
                // The error is of what ran before. Who does not know of it must not go on as if all were well.
                if self.failed {
                    Ok(())
                } else {
                    self.script(plan).await
                }
            }
            (PortalUse::GoOn { max_rows, max_bytes }, Some(suspended)) => {
                let limit = suspended.limit;
                let limit =
                    ResultLimit::new(max_rows.or(limit.rows), max_bytes.or(limit.bytes), limit.on_limit);
                self.go_on(&plan, Suspended { limit, ..suspended }).await
            }
            (PortalUse::Close, Some(suspended)) => {
                self.rows = suspended.rows;
                // Before, so that no cancel request is sent for it.
                self.interrupt = Some(Interrupt::Cancelled);
                self.end_portal(suspended.failure).await?;
                self.incomplete = !self.failed;
                Ok(())
            }
            (PortalUse::GoOn { .. } | PortalUse::Close, None) => {
                self.incomplete = true;
                Ok(())
            }
        }
    }

    /// Sends the statement of a plan as a portal, and takes its rows up to the limit.
    pub(super) async fn open_portal(&mut self, plan: &Plan) -> Result<(), Lost> {
        self.begin_statement(plan, 0, 0);
        if self.is_over() {
            self.incomplete = true;
            return Ok(());
        }
        self.parse_and_bind(&plan.sql, &plan.parameters)?;
        self.pages(plan.page, plan.statement_timeout).await
    }

    async fn go_on(&mut self, plan: &Plan, suspended: Suspended) -> Result<(), Lost> {
        let page = if plan.page == 0 { suspended.page } else { plan.page };
        // What was written so far is `started`, which this execution has long been.
        self.writer = EventWriter::going_on(page, suspended.next_event);
        self.rows = suspended.rows;
        self.statement = Statement::new(0, 0, suspended.limit);
        let timeouts = [plan.statement_timeout, suspended.statement_timeout];
        let timeout = timeouts.into_iter().flatten().min();
        self.limit_statement(plan, timeout);
        if self.is_over() {
            self.incomplete = true;
            return self.end_portal(suspended.failure).await;
        }
        match suspended.failure {
            Some(failure) => self.fail_portal(failure).await,
            None => self.pages(page, timeout).await,
        }
    }

    /// Takes the portal's rows, up to the limit or to its end.
    pub(super) async fn pages(
        &mut self,
        page: usize,
        statement_timeout: Option<Duration>,
    ) -> Result<(), Lost> {
        let sent = Instant::now();
        loop {
            let rows = self.statement.result.next_page(page);
            self.backend.connection.execute("", rows)?;
            self.backend.connection.flush()?;
            self.fetching = true;
            self.until_ready().await?;
            if !std::mem::take(&mut self.fetching) {
                break;
            }
            if self.is_over() {
                self.incomplete = true;
                return self.close_portal().await;
            }
            if self.statement.result.is_full() {
                self.backend.hold.portal(true);
                self.suspended = Some(Suspended {
                    // Known when the last event is written.
                    next_event: 0,
                    rows: self.rows,
                    page,
                    limit: self.statement.result.limit(),
                    statement_timeout,
                    failure: None,
                });
                break;
            }
        }
        self.count(sent);
        self.incomplete = self.statement.failed;
        self.failed |= self.statement.failed;
        self.end_block().await
    }

    /// True where the plan does nothing but roll back the transaction block that the portal is in.
    fn rolls_back(&self, plan: &Plan) -> bool {
        let in_block = self.connection().transaction_status() != TransactionStatus::Idle;
        in_block
            && plan.parameters.is_empty()
            && is_only(TransactionControl::Rollback, &plan.sql, self.string_syntax())
    }

    /// Closes the portal before its block is rolled back. What it failed with, or fails with now, is rolled back with the rest: it
    /// is not told, and must not keep the ROLLBACK from being run.
    async fn drop_portal(&mut self) -> Result<(), Lost> {
        let sent = Instant::now();
        self.backend.hold.portal(false);
        // A server that has failed heeds nothing but the Sync.
        self.backend.connection.close_portal("")?;
        self.backend.connection.sync()?;
        self.question = Some(Question::default());
        let ended = self.until_ready().await;
        self.question = None;
        ended?;
        self.count(sent);
        Ok(())
    }

    async fn end_portal(&mut self, failure: Option<Box<ServerError>>) -> Result<(), Lost> {
        match failure {
            Some(failure) => self.fail_portal(failure).await,
            None => self.close_portal().await,
        }
    }

    /// Takes notice of an error that came while nobody asked for rows. The server waits for the Sync.
    async fn fail_portal(&mut self, failure: Box<ServerError>) -> Result<(), Lost> {
        let sent = Instant::now();
        self.fetching = true;
        self.step(Event::Error(failure))?;
        self.portal_ended(sent).await
    }

    /// Closes the portal, and with the Sync an implicit transaction: it is committed.
    async fn close_portal(&mut self) -> Result<(), Lost> {
        self.may_commit()?;
        let sent = Instant::now();
        self.backend.hold.portal(false);
        self.backend.connection.close_portal("")?;
        self.backend.connection.sync()?;
        self.portal_ended(sent).await
    }

    /// Waits for the answer to the Sync that ends a portal. It may fail at that: where a deferred constraint is violated.
    async fn portal_ended(&mut self, sent: Instant) -> Result<(), Lost> {
        self.until_ready().await?;
        self.count(sent);
        self.incomplete |= self.statement.failed;
        self.failed |= self.statement.failed;
        self.end_block().await
    }

    /// Whether an implicit transaction may be committed. Where what lets it write is over no Sync follows: the backend is closed,
    /// and the server rolls back.
    fn may_commit(&self) -> Result<(), Lost> {
        if self.access == Access::ReadOnly {
            return Ok(());
        }
        if self.control.is_falling() {
            return Err(Lost::ElevationEnded);
        }
        // What ends the session may be that its right to write was taken away.
        if self.control.is_closing() {
            return Err(Lost::Closing);
        }
        Ok(())
    }

    /// The portal has come to its end, or failed: what it ran is complete with the Sync.
    pub(super) fn end_fetching(&mut self) -> Result<(), Lost> {
        if std::mem::take(&mut self.fetching) {
            // What failed is not committed.
            if !self.statement.failed {
                self.may_commit()?;
            }
            self.backend.hold.portal(false);
            self.backend.connection.sync()?;
        }
        Ok(())
    }

    /// Has the backend keep what it needs to go on, once the last event of this part is written.
    pub(super) fn keep_suspended(&mut self) {
        let next_event = self.writer.next_number();
        let suspended = self.suspended.take();
        self.backend.suspended = suspended.map(|suspended| Suspended {
            next_event,
            ..suspended
        });
    }
}

#[cfg(test)]
mod tests {
    use domain::sql::StringSyntax;

    use super::*;

    #[test]
    fn only_a_rollback_of_the_whole_block_is_run_whatever_failed() {
        for (sql, lone) in [
            ("ROLLBACK", true),
            ("/* x */ abort work; -- y\n", true),
            ("rollback and chain", true),
            ("ROLLBACK; SELECT 1", false),
            ("SELECT 1; ROLLBACK", false),
            ("ROLLBACK TO a", false),
            ("ROLLBACK PREPARED 'a'", false),
            ("COMMIT", false),
            ("", false),
        ] {
            assert_eq!(
                is_only(TransactionControl::Rollback, sql, StringSyntax::Standard),
                lone,
                "{sql}"
            );
        }
    }
}
