//! What became of a COMMIT whose answer was lost: asks the server, on a connection of its own.

use std::time::Duration;

use ::sessions::UserToken;
use domain::access::{Access, Caller, Permission};
use domain::id::ExecutionId;
use domain::session::{ExecutionName, SessionName};
use pgconn::Connection;
use rpc::query;
use rpc::query::v1::{CommitOutcome, GetTransactionOutcomeRequest, GetTransactionOutcomeResponse};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::Pooler;
use super::opening::Wish;
use crate::error::{PoolerError, TargetError};
use crate::facts::{InstanceFacts, one_row, text};
use crate::history::History;
use crate::ledger::Class;
use crate::request::invalid;
use crate::session::{Known, Transaction};
use crate::status::internal;

const QUEUE: Duration = Duration::from_secs(10);
const ANSWER: Duration = Duration::from_secs(5);
/// How long GetExecution waits for it in all.
const WITHIN: Duration = Duration::from_secs(10);

/// What the server says of a transaction's id, whichever history it is part of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Said {
    InProgress,
    Committed,
    Aborted,
    /// It was so long ago that nobody knows.
    TooOld,
    /// There was no such id yet.
    InTheFuture,
}

/// What became of a transaction; where that is unknown, why.
type Outcome = (CommitOutcome, &'static str);

impl Pooler {
    /// An execution of the caller's, or the session's last, also after the session ended.
    pub(super) async fn execution(
        &self,
        token: &UserToken,
        name: SessionName,
        asked: Option<ExecutionId>,
    ) -> Result<query::v1::Execution, PoolerError> {
        let caller = self.caller(token, Permission::SessionsUse).await?;
        let known = self.known(token, &caller, name, asked).await?;
        let mut execution = known.execution;
        if let (Some(transaction), Some(commit)) = (known.in_doubt, execution.commit.as_mut()) {
            let server = format!("servers/{}", name.server);
            let asking = self.outcome_of(&caller, &server, transaction.clone());
            let (outcome, detail) = match timeout(WITHIN, Box::pin(asking)).await {
                Ok(Ok((outcome, why))) => (outcome, why.to_owned()),
                // The rest of the answer is worth having.
                Ok(Err(error)) => (CommitOutcome::Unknown, error.to_string()),
                Err(_) => (
                    CommitOutcome::Unknown,
                    "the server did not answer in time".to_owned(),
                ),
            };
            self.0
                .registry
                .settle(known.name, caller.user, transaction.xid, outcome);
            commit.outcome = outcome.into();
            commit.detail = detail;
        }
        Ok(execution)
    }

    /// What is known of an execution, without asking the server.
    pub(super) async fn known(
        &self,
        token: &UserToken,
        caller: &Caller,
        name: SessionName,
        asked: Option<ExecutionId>,
    ) -> Result<Known, PoolerError> {
        let last = match self.session(token, name).await {
            Ok(session) => session.last_execution(),
            Err(PoolerError::StateLost(loss)) => {
                let last = self.0.registry.last_execution(name, caller.user);
                Some(last.ok_or(PoolerError::StateLost(loss))?)
            }
            Err(error) => return Err(error),
        };
        let known = last.and_then(|last| last.known(name, asked));
        known.ok_or_else(|| PoolerError::NotFound {
            resource: match asked {
                Some(execution) => ExecutionName {
                    session: name,
                    execution,
                }
                .to_string(),
                None => format!("{name}/executions/-"),
            },
        })
    }

    pub(super) async fn transaction_outcome(
        &self,
        token: &UserToken,
        request: GetTransactionOutcomeRequest,
    ) -> Result<GetTransactionOutcomeResponse, PoolerError> {
        let caller = self.caller(token, Permission::SessionsUse).await?;
        let transaction = request.transaction.as_ref().and_then(Transaction::read);
        let transaction = transaction
            .ok_or_else(|| invalid("transaction", "must be one as it was told, with every field"))?;
        let (outcome, why) = self.outcome_of(&caller, &request.server, transaction).await?;
        Ok(GetTransactionOutcomeResponse {
            outcome: outcome.into(),
            detail: why.to_owned(),
        })
    }

    /// Asks the server that the registration leads to now, in the transaction's own database: in another one the role may have
    /// nothing to do.
    async fn outcome_of(
        &self,
        caller: &Caller,
        server: &str,
        transaction: Transaction,
    ) -> Result<Outcome, PoolerError> {
        let database = transaction.database.as_deref();
        let (server, _) = self
            .admitted(caller, server, Permission::SessionsUse, database, None)
            .await?;
        let Some(history) = transaction.history else {
            return Ok((
                CommitOutcome::Unknown,
                "the role may not read the server's system identifier and timeline",
            ));
        };
        self.takes_new()?;
        // As what commits: the role may read what it could read then.
        let credential = self.login(&server, caller.user, Access::ReadWrite).await?;
        let opened = Box::pin(self.open(Wish {
            user: caller.user,
            server: &server,
            credential,
            database,
            parameters: Vec::new(),
            class: Class::Interactive,
            holder: format!("servers/{}/transaction-outcome", server.id),
            queue_timeout: QUEUE,
            insist: false,
        }))
        .await?;
        // In a task of its own: a caller who goes away must not take the goodbye along.
        let (reply, answer) = oneshot::channel();
        let mut backend = opened.backend;
        self.0.tasks.spawn(async move {
            let said = timeout(ANSWER, ask(&mut backend.connection, transaction.xid.get())).await;
            // Nobody may wait any more.
            let _ = reply.send(said);
            backend.close().await;
        });
        let said = answer.await.map_err(|error| internal(&error))?;
        let said = said.map_err(|_| TargetError::Unreachable {
            reason: "the server did not answer in time".into(),
        })??;
        Ok(judge(&history, &opened.facts, said))
    }
}

/// What the server says, whose history is to be looked at besides.
fn judge(history: &History, facts: &InstanceFacts, said: Said) -> Outcome {
    let unknown = |why| (CommitOutcome::Unknown, why);
    let Some(now) = facts.xact_facts.history.as_deref() else {
        return unknown(if facts.in_recovery {
            "the server is a standby now"
        } else {
            "the role may not read the server's system identifier and timeline"
        });
    };
    if now.system_identifier != history.system_identifier {
        return unknown("the server is another cluster now");
    }
    if now.timeline != history.timeline {
        return unknown(
            "the server is on another timeline now: a standby was promoted, or a backup restored",
        );
    }
    let crashed = now.stats_reset != history.stats_reset;
    match said {
        Said::Committed if crashed => {
            unknown("the server crashed since, and another transaction may have been given the same id")
        }
        Said::Committed => (CommitOutcome::Committed, ""),
        Said::InProgress if crashed => unknown(
            "the server crashed since, or its statistics were reset, and it may be another that is in progress",
        ),
        Said::InProgress => (CommitOutcome::InProgress, ""),
        // An id that is not given yet was lost in a crash, with all that was done under it.
        Said::Aborted | Said::InTheFuture => (CommitOutcome::Aborted, ""),
        Said::TooOld => unknown("it was too long ago: the server has forgotten"),
    }
}

/// Asks a server about an id.
async fn ask(connection: &mut Connection, xid: u64) -> Result<Said, TargetError> {
    let modern = format!("SELECT pg_catalog.pg_xact_status('{xid}'::pg_catalog.xid8)");
    let answer = match one_row(connection, &modern, drop).await {
        // Not before PostgreSQL 13, or not allowed.
        Err(TargetError::Refused { sqlstate, .. }) if ["42883", "42704", "42501"].contains(&&*sqlstate) => {
            let old = format!("SELECT pg_catalog.txid_status({xid}::pg_catalog.int8)");
            one_row(connection, &old, drop).await
        }
        answer => answer,
    };
    match answer {
        Ok(row) => Ok(match text(&row, 0) {
            "committed" => Said::Committed,
            "aborted" => Said::Aborted,
            "in progress" => Said::InProgress,
            _ => Said::TooOld,
        }),
        // "transaction ID ... is in the future".
        Err(TargetError::Refused { sqlstate, .. }) if sqlstate == "22023" => Ok(Said::InTheFuture),
        Err(error) => Err(error),
    }
}
