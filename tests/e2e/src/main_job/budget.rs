//! Step 8: more sessions than connections.

use anyhow::{Context as _, ensure};
use futures::future::join_all;
use prost_types::Duration;
use rpc::errors::v1::ErrorReason;
use rpc::query::v1::OpenSessionRequest;
use rpc::server::v1::{GetInstanceRequest, GetServerRequest};
use tonic::Code;
use tonic_types::StatusExt as _;

use super::MainJob;
use crate::backends::BackendSampler;
use crate::reason;

/// Sessions asked for beyond the budget.
const BEYOND: i32 = 6;

pub(super) async fn exceed(job: &mut MainJob) -> anyhow::Result<String> {
    let (balanced, server) = (job.balanced()?, job.registered()?);
    let request = GetServerRequest { name: server.clone() };
    let registered = balanced.servers().get_server(request).await?.into_inner().server;
    let name = registered
        .context("GetServer answered without a server")?
        .instance;
    let instance = balanced
        .instances()
        .get_instance(GetInstanceRequest { name })
        .await?;
    let instance = instance
        .into_inner()
        .instance
        .context("GetInstance answered without one")?;
    let budget = instance.max_connections;

    let sampler = BackendSampler::start(job.target().cluster()).await;
    let attempts = join_all((0..budget + BEYOND).map(|_| {
        let request = OpenSessionRequest {
            server: server.clone(),
            queue_timeout: Some(Duration { seconds: 2, nanos: 0 }),
            ..OpenSessionRequest::default()
        };
        let mut query = balanced.query();
        async move { query.open_session(request).await }
    }))
    .await;
    let mut sessions = Vec::new();
    let mut refused = Vec::new();
    for attempt in attempts {
        match attempt {
            Ok(response) => sessions.extend(response.into_inner().session),
            Err(status) => refused.push(status),
        }
    }
    let used = join_all(
        sessions
            .iter()
            .map(|session| balanced.execute(&session.name, "SELECT 1")),
    )
    .await;
    let counts = sampler.finish().await;
    for session in &sessions {
        balanced.close_session(session).await?;
    }
    for answer in used {
        answer.context("a session within the budget does not work")?;
    }
    ensure!(
        !sessions.is_empty(),
        "no session was opened: {:?}",
        refused.first()
    );
    ensure!(
        refused.len() >= usize::try_from(BEYOND)?,
        "only {} of {} were refused",
        refused.len(),
        budget + BEYOND
    );
    for status in &refused {
        ensure!(
            reason::of(status) == (Code::ResourceExhausted, ErrorReason::BudgetExhausted),
            "a refusal says {}",
            reason::text(status)
        );
        ensure!(
            status
                .get_error_details()
                .error_info()
                .is_some_and(|info| !info.metadata.is_empty()),
            "a refusal has no details: {}",
            reason::text(status)
        );
    }
    ensure!(
        counts.most <= i64::from(budget),
        "{} client backends were seen, {budget} are allowed",
        counts.most
    );
    Ok(format!(
        "budget {budget}: {} opened, {} refused with RESOURCE_EXHAUSTED; at most {} backends in {} looks",
        sessions.len(),
        refused.len(),
        counts.most,
        counts.looks
    ))
}
