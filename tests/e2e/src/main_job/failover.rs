//! Step 6: an instance dies.

use anyhow::ensure;
use rpc::query::v1::{BeginTransactionRequest, CommitTransactionRequest};

use super::MainJob;

pub(super) async fn kill_in_transaction(job: &mut MainJob) -> anyhow::Result<String> {
    let (a, balanced, server) = (job.a()?, job.balanced()?, job.registered()?);
    let session = a.open_session(&server).await?;
    let request = BeginTransactionRequest {
        session: session.name.clone(),
        ..BeginTransactionRequest::default()
    };
    a.query().begin_transaction(request).await?;
    let insert = "INSERT INTO sales.pgbench_history (tid, bid, aid, delta, mtime) VALUES (2, 1, 1, 200, now()) \
                  RETURNING pg_current_xact_id()";
    let inserted = a.execute(&session.name, insert).await?;
    job.world.apis_mut()[0].kill9().await;

    let read = "SELECT pg_current_xact_id(), count(*) FROM sales.pgbench_history WHERE tid = 2";
    let seen = balanced.execute(&session.name, read).await?;
    ensure!(
        seen.value() == inserted.value(),
        "it was transaction {}, it is {}",
        inserted.value(),
        seen.value()
    );
    ensure!(
        seen.rows[0][1].as_deref() == Some("1"),
        "the row is gone: {seen:?}"
    );
    let request = CommitTransactionRequest {
        session: session.name.clone(),
    };
    let committed = balanced.query().commit_transaction(request).await?.into_inner();
    ensure!(committed.error.is_none(), "COMMIT: {:?}", committed.error);
    balanced.close_session(&session).await?;

    job.world.apis_mut()[0].start_again().await;
    Ok(format!(
        "the next call through nginx was in transaction {}, and committed it; A is back",
        seen.value()
    ))
}
