//! A COMMIT that was sent, what it was to commit, and what is known of its end.

use std::num::NonZeroU64;
use std::sync::Arc;

use domain::name::Identifier;
use domain::session::ExecutionName;
use rpc::query;
use rpc::query::v1::CommitOutcome;
use time::{Duration, OffsetDateTime};

use crate::history::History;
use crate::timestamp::timestamp;

/// A transaction that has written something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Transaction {
    /// Its id with the epoch.
    pub(crate) xid: NonZeroU64,
    /// Where that id means it; nothing where the role may not read it.
    pub(crate) history: Option<Arc<History>>,
    /// The database it was in, as its backend has it; nothing for the server's maintenance database.
    pub(crate) database: Option<Arc<Identifier>>,
}

impl Transaction {
    pub(crate) fn describe(&self) -> query::v1::Transaction {
        let mut described = query::v1::Transaction {
            xid: self.xid.get(),
            database: self
                .database
                .as_ref()
                .map(ToString::to_string)
                .unwrap_or_default(),
            ..query::v1::Transaction::default()
        };
        if let Some(history) = &self.history {
            described.system_identifier = history.system_identifier.to_string();
            described.timeline = history.timeline;
            let since = Duration::microseconds(history.stats_reset);
            described.stats_reset = OffsetDateTime::UNIX_EPOCH.checked_add(since).map(timestamp);
        }
        described
    }

    /// Reads one that a caller gives back; nothing where it cannot be ours.
    pub(crate) fn read(described: &query::v1::Transaction) -> Option<Self> {
        let xid = i64::try_from(described.xid).ok()?;
        let reset = described.stats_reset?;
        let nanos = u32::try_from(reset.nanos)
            .ok()
            .filter(|nanos| *nanos < 1_000_000_000)?;
        let history = History {
            system_identifier: described.system_identifier.parse().ok()?,
            timeline: described.timeline,
            stats_reset: reset
                .seconds
                .checked_mul(1_000_000)?
                .checked_add(i64::from(nanos / 1000))?,
        };
        let database = match described.database.as_str() {
            "" => None,
            database => Some(Arc::new(database.parse().ok()?)),
        };
        Some(Self {
            xid: NonZeroU64::new(u64::try_from(xid).ok()?)?,
            history: Some(Arc::new(history)),
            database,
        })
    }
}

/// How far a COMMIT is known to have come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It was sent, and is not answered.
    Sent,
    /// The transaction took effect.
    Committed,
    /// The transaction was rolled back.
    RolledBack,
}

/// A COMMIT that was sent.
#[derive(Debug, Clone)]
pub(crate) struct Commit {
    pub(crate) statement_index: i32,
    pub(crate) standing: Standing,
    /// The server said what is committed: nothing, where there is no transaction.
    pub(crate) is_told: bool,
    pub(crate) transaction: Option<Transaction>,
}

impl Commit {
    /// As clients see it, of an execution that runs or has ended.
    pub(crate) fn describe(&self, running: bool) -> query::v1::Commit {
        let (outcome, detail) = match self.standing {
            Standing::Committed => (CommitOutcome::Committed, ""),
            Standing::RolledBack => (CommitOutcome::Aborted, ""),
            Standing::Sent if running => (CommitOutcome::InProgress, ""),
            Standing::Sent if !self.is_told => (
                CommitOutcome::Unknown,
                "the role may not ask for the ids of its transactions",
            ),
            Standing::Sent if self.transaction.is_none() => (CommitOutcome::NothingWritten, ""),
            Standing::Sent => (CommitOutcome::Unknown, "the server was not asked"),
        };
        query::v1::Commit {
            statement_index: self.statement_index,
            transaction: self.transaction.as_ref().map(Transaction::describe),
            outcome: outcome.into(),
            detail: detail.to_owned(),
        }
    }

    /// True while it is not known what became of it.
    pub(crate) fn is_sent(&self) -> bool {
        self.standing == Standing::Sent
    }

    /// The transaction that only the server can tell the end of.
    pub(crate) fn in_doubt(&self) -> Option<&Transaction> {
        self.transaction.as_ref().filter(|_| self.is_sent())
    }

    /// Notes what the server said of a transaction.
    pub(crate) fn settle(&mut self, xid: NonZeroU64, outcome: CommitOutcome) {
        if self.in_doubt().is_none_or(|transaction| transaction.xid != xid) {
            return;
        }
        match outcome {
            CommitOutcome::Committed => self.standing = Standing::Committed,
            CommitOutcome::Aborted => self.standing = Standing::RolledBack,
            _ => {}
        }
    }
}

/// A session's last execution, and what the server is to be asked about it.
#[derive(Debug)]
pub(crate) struct Known {
    pub(crate) name: ExecutionName,
    pub(crate) execution: query::v1::Execution,
    pub(crate) in_doubt: Option<Transaction>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transaction() -> Transaction {
        Transaction {
            xid: NonZeroU64::new(1 << 33).unwrap(),
            history: Some(Arc::new(History {
                system_identifier: i64::MIN,
                timeline: u32::MAX,
                stats_reset: 1_790_000_000_123_456,
            })),
            database: Some(Arc::new("orders".parse().unwrap())),
        }
    }

    #[test]
    fn transaction_survives_being_told_and_given_back() {
        assert_eq!(Transaction::read(&transaction().describe()), Some(transaction()));
    }

    #[test]
    fn transactions_that_were_never_told_are_refused() {
        let told = transaction().describe();
        let reset = |seconds, nanos| Some(prost_types::Timestamp { seconds, nanos });
        type Change = Box<dyn Fn(&mut query::v1::Transaction)>;
        let changes: [Change; 9] = [
            Box::new(|given| given.xid = 0),
            Box::new(|given| given.xid = u64::MAX),
            Box::new(|given| given.system_identifier = "1; SELECT 1".to_owned()),
            Box::new(|given| given.system_identifier = String::new()),
            Box::new(|given| given.database = "a\0b".to_owned()),
            Box::new(|given| given.stats_reset = None),
            Box::new(move |given| given.stats_reset = reset(i64::MAX, 0)),
            Box::new(move |given| given.stats_reset = reset(0, -1)),
            Box::new(move |given| given.stats_reset = reset(0, i32::MAX)),
        ];
        for change in changes {
            let mut given = told.clone();
            change(&mut given);
            assert_eq!(Transaction::read(&given), None, "{given:?}");
        }
    }

    #[test]
    fn lost_commit_is_in_doubt_only_where_something_was_written() {
        let commit = |is_told, transaction| Commit {
            statement_index: 0,
            standing: Standing::Sent,
            is_told,
            transaction,
        };
        let outcome = |commit: &Commit| (commit.describe(false).outcome(), commit.in_doubt().is_some());
        let nothing = commit(true, None);
        assert_eq!(outcome(&nothing), (CommitOutcome::NothingWritten, false));
        assert_eq!(outcome(&commit(false, None)), (CommitOutcome::Unknown, false));
        assert_eq!(
            outcome(&commit(true, Some(transaction()))),
            (CommitOutcome::Unknown, true)
        );
        assert_eq!(nothing.describe(true).outcome(), CommitOutcome::InProgress);
    }

    #[test]
    fn only_the_transaction_in_doubt_is_settled() {
        let mut commit = Commit {
            statement_index: 0,
            standing: Standing::Sent,
            is_told: true,
            transaction: Some(transaction()),
        };
        commit.settle(NonZeroU64::new(1).unwrap(), CommitOutcome::Aborted);
        commit.settle(transaction().xid, CommitOutcome::InProgress);
        assert_eq!(commit.standing, Standing::Sent);
        commit.settle(transaction().xid, CommitOutcome::Committed);
        commit.settle(transaction().xid, CommitOutcome::Aborted);
        assert_eq!(commit.standing, Standing::Committed);
    }
}
