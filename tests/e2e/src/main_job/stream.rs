//! Step 5: a large result through the balancer.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use harness::eventually;
use rpc::query::v1::execution_event::Kind;
use rpc::query::v1::{ExecuteRequest, ExecutionOutcome, Script};

use super::MainJob;
use crate::Running;
use crate::memory::GrowthSampler;

const ROWS: u64 = 1_000_000;
/// The reader stops after so many rows until the server waits for it.
const PAUSE_AFTER: u64 = 100_000;
/// What API and pooler may grow by.
const MOST_GROWTH: u64 = 64 * 1024 * 1024;
const DEADLINE: Duration = Duration::from_secs(60);

pub(super) async fn million_rows(job: &mut MainJob) -> anyhow::Result<String> {
    let (balanced, server) = (job.balanced()?, job.registered()?);
    let session = balanced.open_session(&server).await?;
    // Once without looking, so that growth is what the stream costs and not what a first call does.
    balanced.execute(&session.name, "SELECT 1").await?;

    let watched = job.world.pids();
    let sampler = GrowthSampler::start(
        watched
            .into_iter()
            .filter(|(name, _)| !name.starts_with("worker")),
    );
    let begun = Instant::now();
    let request = ExecuteRequest {
        session: session.name.clone(),
        script: Some(Script {
            sql: "SELECT * FROM archive.pgbench_accounts".to_owned(),
            max_rows: Some(0),
            ..Script::default()
        }),
        ..ExecuteRequest::default()
    };
    let running = Running::start(&balanced, request).await?;
    let (first, mut stream) = running.into_stream();
    let (mut rows, mut bytes, mut paused, mut finished) = (first.rows.len() as u64, 0_u64, false, None);
    while let Some(message) = stream.message().await? {
        bytes += message.as_bytes().len() as u64;
        for event in message.events()? {
            match event.kind {
                Some(Kind::Rows(batch)) => rows += batch.rows.len() as u64,
                Some(Kind::Finished(end)) => finished = Some(end),
                _ => {}
            }
        }
        if rows >= PAUSE_AFTER && !paused {
            wait_for_backpressure(job, first.backend_pid).await;
            paused = true;
        }
    }
    let elapsed = begun.elapsed();
    let growth = sampler.finish().await;
    let finished = finished.context("the stream ended without `finished`")?;
    ensure!(
        finished.outcome() == ExecutionOutcome::Succeeded,
        "the execution ended with {finished:?}"
    );
    ensure!(paused, "the result was over before the reader paused");
    ensure!(
        rows == ROWS && finished.row_count == i64::try_from(ROWS)?,
        "{rows} rows came, {} were sent",
        finished.row_count
    );
    for (name, grown) in &growth {
        ensure!(*grown < MOST_GROWTH, "{name} grew by {} MiB", mebibytes(*grown));
    }
    balanced.close_session(&session).await?;
    let growth: Vec<String> = growth
        .iter()
        .map(|(name, grown)| format!("{name} +{} MiB", mebibytes(*grown)))
        .collect();
    Ok(format!(
        "{rows} rows, {} MiB in {:.1} s, PostgreSQL waited for the reader; {}",
        mebibytes(bytes),
        elapsed.as_secs_f64(),
        growth.join(", ")
    ))
}

/// Reads nothing until the backend itself waits for its client: flow control has reached PostgreSQL.
async fn wait_for_backpressure(job: &MainJob, backend_pid: i32) {
    let connection = job.target().cluster().connect().await;
    eventually(DEADLINE, "the backend waits for the reader", async || {
        let sql = "SELECT wait_event FROM pg_stat_activity WHERE pid = $1";
        let row = connection.query_one(sql, &[&backend_pid]).await;
        let event: Option<String> = row.map_err(|error| error.to_string())?.get(0);
        match event.as_deref() {
            Some("ClientWrite") => Ok(()),
            other => Err(format!("it waits for {other:?}")),
        }
    })
    .await;
}

fn mebibytes(bytes: u64) -> u64 {
    bytes / (1024 * 1024)
}
