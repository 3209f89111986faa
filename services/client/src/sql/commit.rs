//! What became of a COMMIT whose answer was lost.

use std::time::Duration;

use rpc::query::v1::{
    CommitOutcome, GetExecutionRequest, GetTransactionOutcomeRequest, Transaction, TransactionCommitting,
};
use tokio::time::sleep;

use crate::connection::{Call, Connection};

const DEADLINE: Duration = Duration::from_secs(10);
/// A pooler that is gone is replaced within its lease, of 15 s.
const MOST_ASKS: u32 = 12;
const BETWEEN: Duration = Duration::from_secs(2);

/// Asks until it is told, or for long enough, and says it in words.
pub(super) async fn outcome(
    connection: &Connection,
    execution: &str,
    announced: &TransactionCommitting,
) -> String {
    let Some(transaction) = &announced.transaction else {
        return "the transaction had written nothing".to_owned();
    };
    let mut why = String::new();
    for asked in 0..MOST_ASKS {
        if asked > 0 {
            sleep(BETWEEN).await;
        }
        match ask(connection, execution, transaction).await {
            Some((CommitOutcome::Committed, _)) => return "the commit took effect".to_owned(),
            Some((CommitOutcome::Aborted, _)) => return "the transaction was rolled back".to_owned(),
            Some((_, detail)) => why = detail,
            None => {}
        }
    }
    let unknown = "whether the commit took effect is unknown";
    if why.is_empty() {
        unknown.to_owned()
    } else {
        format!("{unknown}: {why}")
    }
}

/// Asks the session's pooler, and where that cannot tell any other.
async fn ask(
    connection: &Connection,
    execution: &str,
    transaction: &Transaction,
) -> Option<(CommitOutcome, String)> {
    let client = connection.queries();
    let request = GetExecutionRequest {
        name: execution.to_owned(),
    };
    let call = Call::repeatable(DEADLINE);
    let found = connection
        .call(call, async || client.clone().get_execution(request.clone()).await)
        .await;
    let commit = found.ok().and_then(|answer| answer.execution?.commit);
    let commit = commit.filter(|commit| commit.transaction.as_ref() == Some(transaction));
    if let Some(commit) = commit.filter(|commit| commit.outcome() != CommitOutcome::Unknown) {
        return Some((commit.outcome(), commit.detail));
    }
    let (server, _) = execution.split_once("/sessions/")?;
    let request = GetTransactionOutcomeRequest {
        server: server.to_owned(),
        transaction: Some(transaction.clone()),
    };
    let client = connection.queries();
    let found = connection
        .call(call, async || {
            client.clone().get_transaction_outcome(request.clone()).await
        })
        .await;
    found.ok().map(|answer| (answer.outcome(), answer.detail))
}
