//! Steps 4 and 7: one session through two instances.

use anyhow::{Context as _, ensure};
use rpc::query::v1::{
    BeginTransactionRequest, CancelExecutionRequest, CommitTransactionRequest, ExecutionOutcome,
    TransactionStatus,
};

use super::MainJob;

pub(super) async fn one_transaction(job: &mut MainJob) -> anyhow::Result<String> {
    let (a, b, server) = (job.a()?, job.b()?, job.registered()?);
    let outside = job.target().database().connect().await;
    let count = "SELECT count(*) FROM sales.pgbench_history";
    let counted_outside = async || -> anyhow::Result<i64> { Ok(outside.query_one(count, &[]).await?.get(0)) };

    let session = a.open_session(&server).await?;
    let request = BeginTransactionRequest {
        session: session.name.clone(),
        ..BeginTransactionRequest::default()
    };
    a.query().begin_transaction(request).await?;
    let insert =
        "INSERT INTO sales.pgbench_history (tid, bid, aid, delta, mtime) VALUES (1, 1, 1, 100, now())";
    let inserted = b.execute(&session.name, insert).await?;
    ensure!(
        inserted.tags == ["INSERT 0 1"],
        "the INSERT through B gave {inserted:?}"
    );
    let inside = a.execute(&session.name, count).await?;
    ensure!(
        inside.value() == "1",
        "A sees {} rows in the transaction",
        inside.value()
    );
    ensure!(
        inside.transaction_status() == TransactionStatus::InTransaction,
        "A is told {:?}",
        inside.transaction_status()
    );
    let before = counted_outside().await?;
    ensure!(before == 0, "{before} uncommitted rows are seen from outside");

    let request = CommitTransactionRequest {
        session: session.name.clone(),
    };
    let committed = b.query().commit_transaction(request).await?.into_inner();
    ensure!(
        committed.error.is_none(),
        "COMMIT through B: {:?}",
        committed.error
    );
    let after = counted_outside().await?;
    ensure!(after == 1, "{after} rows are seen from outside after COMMIT");
    ensure!(
        inserted.backend_pid == inside.backend_pid,
        "A and B used different backends"
    );
    a.close_session(&session).await?;
    Ok(format!(
        "BEGIN by A, INSERT by B, seen by A and not from outside, COMMIT by B: backend {}",
        inside.backend_pid
    ))
}

pub(super) async fn cancel_from_elsewhere(job: &mut MainJob) -> anyhow::Result<String> {
    let (a, b, server) = (job.a()?, job.b()?, job.registered()?);
    let session = a.open_session(&server).await?;
    let running = a.start(&session.name, "SELECT pg_sleep(600)").await?;
    let request = CancelExecutionRequest {
        name: running.name().to_owned(),
    };
    b.query().cancel_execution(request).await?;
    let ended = running.finish().await?;
    ensure!(
        ended.outcome() == ExecutionOutcome::Cancelled && ended.sqlstate() == "57014",
        "the execution ended with {ended:?}"
    );
    let next = a.execute(&session.name, "SELECT 'still here'").await;
    let next = next.context("the session did not survive the cancel")?;
    ensure!(next.value() == "still here", "the next statement gave {next:?}");
    a.close_session(&session).await?;
    Ok("started by A, cancelled by B (SQLSTATE 57014); the session goes on".to_owned())
}
