//! `pgmoor api`: the public gRPC API. It holds no state, and no key that opens a credential.

use std::sync::Arc;

use anyhow::Context;
use api::{Api, Audit, Health, Parts};
use audit::WriterRole;
use auth::{
    Logins, LoginsOptions, Passwords, RevocationFeed, TokenVerifier, Upkeep, UpkeepOptions, VerifierOptions,
};
use config::{Config, Role};
use domain::clock::{Clock, SystemClock};
use domain::egress::EgressPolicy;
use domain::random::{Random, SystemRandom};
use sessions::Sessions;
use sessions::client::PoolerClient;
use sessions::directory::Directory;
use sessions::pools::Pools;
use store::Store;
use telemetry::Telemetry;
use telemetry::rpc::RpcSpans;
use tokio::net::TcpListener;
use tonic::transport::{Identity, ServerTlsConfig};

use super::audit::AuditFigures;
use super::metrics::{self, KnownPoolers};
use super::storage::Objects;
use super::{REVOCATION_INTERVAL, directory, egress_policy, listener, login_keys, providers, storage, trust};
use crate::database;
use crate::lifecycle::{Left, Lifecycle};

/// Passwords hashed at once: each takes a core and 19 MiB for a moment.
const PASSWORDS_AT_ONCE: usize = 2;

/// Serves until the process is asked to stop.
///
/// # Errors
/// When it cannot start, when one of its tasks dies, or when calls had to be cut off.
pub(crate) async fn run(config: &Config, telemetry: &mut Option<Telemetry>) -> anyhow::Result<()> {
    let identity = config.trust.require_identity(Role::Api)?;
    config.config_database.require_url()?;
    super::egress_rules(&config.egress)?;
    if !config.oidc.providers.is_empty() {
        config.api.require_login_key_file()?;
    }
    config.storage.require_directory()?;
    super::audit::trusted_hops(config)?;
    *telemetry = Some(super::start_telemetry(config, "pgmoor-api")?);
    let lifecycle = Lifecycle::new("pgmoor api")?;
    let listener = listener::bind("api.listen", config.api.listen).await?;
    let address = listener::address(&listener)?;
    let metrics_listener = metrics::bind(config).await?;

    let store = database::connect(&config.config_database, "pgmoor api").await?;
    let egress = egress_policy(&config.egress, &store).await?;
    let random: Arc<dyn Random> = Arc::new(SystemRandom);
    let objects = storage::open(&config.storage, &random)?;
    let poolers = Directory::default();
    let client = PoolerClient::new(
        poolers.clone(),
        Some(trust::client(&identity)?),
        telemetry::propagation::inject_metadata,
    );
    let mut figures = metrics::of_role("api");
    figures.add(KnownPoolers(poolers.clone()));
    let log = super::audit::start(config, &lifecycle, WriterRole::Api, store.clone());
    figures.add(AuditFigures(vec![("api", log.clone())]));
    let seams = Seams {
        audit: super::audit::of_api(config, log)?,
        store: store.clone(),
        sessions: Arc::new(client.clone()),
        pools: Arc::new(client),
        poolers,
        egress,
        objects,
    };
    let health = start(config, &lifecycle, listener, seams).await?;
    metrics::serve(&lifecycle, metrics_listener, figures);
    tracing::info!(%address, "pgmoor api serves");
    let leave = async {
        health.set_draining().await;
        Left::Finished
    };
    let ended = lifecycle.until_stopped(config.api.drain_timeout, leave).await;
    store.close().await;
    ended
}

/// What an API instance stands on.
pub(crate) struct Seams {
    /// Where calls are recorded.
    pub(crate) audit: Audit,
    /// The config database, as the role of the API.
    pub(crate) store: Store,
    /// Where query sessions are.
    pub(crate) sessions: Arc<dyn Sessions>,
    /// What poolers show, and where administrators command them.
    pub(crate) pools: Arc<dyn Pools>,
    /// Which poolers there are; kept fresh from here on.
    pub(crate) poolers: Directory,
    /// Where instances may be.
    pub(crate) egress: EgressPolicy,
    /// Where files and artifacts are.
    pub(crate) objects: Objects,
}

/// Starts to serve on `listener`, with all the tasks this needs.
///
/// # Errors
/// When something it needs is not there.
pub(crate) async fn start(
    config: &Config,
    lifecycle: &Lifecycle,
    listener: TcpListener,
    seams: Seams,
) -> anyhow::Result<Health> {
    let Seams {
        audit,
        store,
        sessions,
        pools,
        poolers,
        egress,
        objects,
    } = seams;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let random: Arc<dyn Random> = Arc::new(SystemRandom);
    let http_listener = match config.api.http_listen {
        Some(address) => Some(listener::bind("api.http_listen", address).await?),
        None => None,
    };
    let login_key = login_keys::configured(config)?;
    login_keys::follow(lifecycle, config, login_key.as_ref());
    let provider_logins = providers::logins(
        config,
        store.clone(),
        random.clone(),
        clock.clone(),
        login_key.clone(),
        audit.log.clone(),
    )?;
    let verifier =
        TokenVerifier::start(store.clone(), clock, random.clone(), VerifierOptions::default()).await?;
    let feed = RevocationFeed::new(verifier.clone(), REVOCATION_INTERVAL);
    let retire = lifecycle.retiring();
    lifecycle.background("the revocation feed", async move {
        feed.run(retire).await;
        Ok(())
    });
    let upkeep = Upkeep::new(
        store.clone(),
        random.clone(),
        UpkeepOptions::default(),
        login_key.clone(),
    )
    .with_providers(provider_logins.providers().map(|it| it.id().to_owned()).collect());
    let retire = lifecycle.retiring();
    lifecycle.background("the upkeep of logins", async move {
        upkeep.run(retire).await;
        Ok(())
    });
    let passwords = Passwords::new(random.clone(), PASSWORDS_AT_ONCE)?;
    let logins = Logins::start(
        store.clone(),
        random.clone(),
        passwords.clone(),
        LoginsOptions {
            access_token_lifetime: config.api.access_token_lifetime,
            refresh_token_lifetime: config.api.refresh_token_lifetime,
        },
        login_key,
    )
    .await?;
    directory::refresh(&store, &poolers)
        .await
        .context("the poolers cannot be looked up")?;
    let api = Api::start(Parts {
        store: store.clone(),
        verifier,
        logins,
        provider_logins,
        passwords,
        sessions,
        pools,
        egress: Arc::new(egress),
        files: objects.files,
        artifacts: objects.artifacts,
        random,
        audit,
        drain: lifecycle.stopping(),
    })
    .await?;

    let health = api.health();
    let (told, retire) = (health.clone(), lifecycle.retiring());
    lifecycle.background("the directory of poolers", async move {
        let live = |live| {
            let health = told.clone();
            async move { health.set_pooler_live(live).await }
        };
        directory::poll(store, poolers, live, retire).await;
        Ok(())
    });
    let settings = api.poll_settings(lifecycle.retiring());
    lifecycle.background("the settings", async move {
        settings.await;
        Ok(())
    });
    let elevations = api.expire_elevations(lifecycle.retiring());
    lifecycle.background("the expiry of elevations", async move {
        elevations.await;
        Ok(())
    });
    let stream_checks = api.check_streams(lifecycle.retiring());
    lifecycle.background("the checks of streams", async move {
        stream_checks.await;
        Ok(())
    });
    if let Some(listener) = http_listener {
        let http = api.serve_http(listener, lifecycle.stopping());
        lifecycle.serve("the HTTP port", async move {
            http.await;
            Ok(())
        });
    }
    let tls = tls(config)?;
    lifecycle.serve("the public API", async move {
        Ok(api.serve(listener, tls, RpcSpans::with_closing_lines()).await?)
    });
    Ok(health)
}

/// Certificate and key of the public port, where there are any.
fn tls(config: &Config) -> anyhow::Result<Option<ServerTlsConfig>> {
    let Some((certificate, key)) = config.api.tls() else {
        return Ok(None);
    };
    let read = |path: &std::path::PathBuf| {
        std::fs::read(path).with_context(|| format!("{} cannot be read", path.display()))
    };
    let identity = Identity::from_pem(read(certificate)?, read(key)?);
    Ok(Some(ServerTlsConfig::new().identity(identity)))
}
