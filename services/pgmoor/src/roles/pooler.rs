//! `pgmoor pooler`: owns every connection to targets and the query sessions on them, behind mutual TLS.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use audit::WriterRole;
use auth::{RevocationFeed, TokenVerifier, VerifierOptions};
use config::{Config, Role};
use domain::clock::{Clock, SystemClock};
use domain::random::{Random, SystemRandom};
use pooler::{PeerPolicy, Pooler, PoolerOptions};
use rpc::pooler::v1::pooler_service_server::SERVICE_NAME;
use sealing::Opener;
use sessions::peers::Peers;
use store::Store;
use telemetry::Telemetry;
use telemetry::rpc::RpcSpans;
use tokio::time::Instant;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::{HealthReporter, HealthService};

use super::audit::AuditFigures;
use super::{REVOCATION_INTERVAL, egress_policy, key_ring, listener, metrics, trust};
use crate::database;
use crate::lifecycle::{Left, Lifecycle};

/// A connection without traffic is asked for a sign of life after so long, and closed when none comes.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the last answers may take once every session has ended.
const LAST_ANSWERS: Duration = Duration::from_secs(5);

/// Serves until the process is asked to stop.
///
/// # Errors
/// When it cannot start, when one of its tasks dies, or when sessions had to be cut off.
pub(crate) async fn run(config: &Config, telemetry: &mut Option<Telemetry>) -> anyhow::Result<()> {
    let identity = config.trust.require_identity(Role::Pooler)?;
    config.config_database.require_url()?;
    let opener = key_ring::open(&config.sealing)?;
    super::egress_rules(&config.egress)?;
    *telemetry = Some(super::start_telemetry(config, "pgmoor-pooler")?);
    let tls = trust::server(&identity)?;
    let peers = trust::client(&identity)?;
    let lifecycle = Lifecycle::new("pgmoor pooler")?;
    key_ring::follow(&lifecycle, &config.sealing, opener.clone());
    let listener = listener::bind("pooler.listen", config.pooler.listen).await?;
    let address = listener::address(&listener)?;
    let metrics_listener = metrics::bind(config).await?;
    let mut server = Server::builder()
        .tls_config(tls)
        .context("the certificate or the key of [trust.pooler] cannot be used")?
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .layer(RpcSpans::with_closing_lines());

    let store = database::connect(&config.config_database, "pgmoor pooler").await?;
    let egress = egress_policy(&config.egress, &store).await?;
    let advertised = config
        .pooler
        .advertise
        .clone()
        .unwrap_or_else(|| address.to_string());
    let log = super::audit::start(config, &lifecycle, WriterRole::Pooler, store.clone());
    let options = PoolerOptions {
        audit: Some(log.clone()),
        lease: config.pooler.lease,
        peers: Peers::Registered(Some(Box::new(peers))),
        takeover_grace: config.pooler.takeover_grace,
        inspection_interval: config.pooler.inspection_interval,
        drain_timeout: config.pooler.drain_timeout,
        spool_directory: config.pooler.spool_directory.clone(),
        spool_bytes: config.pooler.spool_bytes,
        ..PoolerOptions::new(advertised, egress)
    };
    let pooler = start(&lifecycle, store.clone(), opener, options).await?;
    let health = HealthReporter::new();
    health
        .set_service_status(SERVICE_NAME, ServingStatus::Serving)
        .await;
    let router = server
        .add_service(HealthServer::new(HealthService::from_health_reporter(
            health.clone(),
        )))
        .add_service(pooler::grpc::service(pooler.clone(), PeerPolicy::Certificates))
        .add_service(pooler::grpc::administration(
            pooler.clone(),
            PeerPolicy::Certificates,
        ));
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let stop = lifecycle.stopping();
    lifecycle.serve("the internal API", async move {
        Ok(router
            .serve_with_incoming_shutdown(incoming, stop.cancelled_owned())
            .await?)
    });
    let mut figures = metrics::of_role("pooler");
    figures.add(pooler.clone());
    figures.add(AuditFigures(vec![("pooler", log)]));
    metrics::serve(&lifecycle, metrics_listener, figures);
    tracing::info!(%address, pooler.id = %pooler.id(), "pgmoor pooler serves");

    // Sessions are drained while the server still answers: their owners need it to finish what they began.
    let leave = leave(pooler, health, config.pooler.drain_timeout);
    let ended = lifecycle.until_stopped(LAST_ANSWERS, leave).await;
    store.close().await;
    ended
}

/// Starts a pooler, with all the tasks it needs.
///
/// # Errors
/// When it cannot be registered.
pub(crate) async fn start(
    lifecycle: &Lifecycle,
    store: Store,
    opener: Opener,
    options: PoolerOptions,
) -> anyhow::Result<Pooler> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let random: Arc<dyn Random> = Arc::new(SystemRandom);
    let verifier = TokenVerifier::start(
        store.clone(),
        clock.clone(),
        random.clone(),
        VerifierOptions::default(),
    )
    .await?;
    let feed = RevocationFeed::new(verifier.clone(), REVOCATION_INTERVAL);
    let retire = lifecycle.retiring();
    lifecycle.background("the revocation feed", async move {
        feed.run(retire).await;
        Ok(())
    });
    Ok(Pooler::start(store, verifier, opener, clock, random, options).await?)
}

/// Takes nothing new and waits for the sessions; cuts off those that are left at the deadline.
async fn leave(pooler: Pooler, mut health: HealthReporter, drain_timeout: Duration) -> Left {
    for service in ["", SERVICE_NAME] {
        health
            .set_service_status(service, ServingStatus::NotServing)
            .await;
    }
    let deadline = Instant::now() + drain_timeout;
    Box::pin(pooler.drain(deadline)).await;
    // Forgetting a service ends its watchers' streams, which would hold the server otherwise.
    for service in ["", SERVICE_NAME] {
        health.clear_service_status(service).await;
    }
    if Instant::now() < deadline {
        Left::Finished
    } else {
        Left::CutOff
    }
}
