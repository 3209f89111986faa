//! `pgmoor up`: every role in one process, for a laptop or a small team, with nothing to configure.
//!
//! It makes and runs a private PostgreSQL cluster for its own state, unless a config database is configured. The roles are the
//! same as in processes of their own; only the seam between API, worker and pooler is a call instead of a network.

mod binaries;
mod cluster;
mod config_database;
mod data_directory;
mod first_user;
mod os_user;

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use audit::{AuditLog, WriterRole};
use auth::LoginKey;
use clap::Args;
use config::{Config, Environment, Problem};
use domain::egress::EgressPolicy;
use domain::random::{Random, SystemRandom};
use pooler::PoolerOptions;
use sealing::{Opener, OpeningKey};
use secrecy::ExposeSecret;
use sessions::Sessions;
use sessions::directory::Directory;
use sessions::peers::Peers;
use store::Store;
use telemetry::Telemetry;
use tokio::time::Instant;

use self::config_database::Stores;
use self::data_directory::DataDirectory;
use crate::lifecycle::{Left, Lifecycle};
use crate::private_file::{self, Existing, PRIVATE};
use crate::roles;
use crate::roles::audit::AuditFigures;

/// How long the last answers may take once every session has ended.
const LAST_ANSWERS: Duration = Duration::from_secs(20);

/// Arguments of `up`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Where everything is kept [default: $XDG_DATA_HOME/pgmoor, ~/.local/share/pgmoor, as root /var/lib/pgmoor]
    #[arg(
        long,
        env = "PGMOOR_DATA_DIR",
        hide_env_values = true,
        value_name = "DIRECTORY"
    )]
    data_dir: Option<PathBuf>,
    /// Address and port of the API [default: 127.0.0.1:7700]
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
    /// A host, *.domain or network where PostgreSQL servers may be, with or without :port; may be given several times. A
    /// server on this machine needs its port: --allow 127.0.0.1:5432
    #[arg(long, value_name = "WHERE")]
    allow: Vec<String>,
    #[command(flatten)]
    first_user: first_user::FirstUserArguments,
}

/// Serves until the process is asked to stop.
///
/// # Errors
/// When something it needs is missing or taken, when one of its tasks dies, or when work had to be cut off.
pub(crate) async fn run(
    arguments: Arguments,
    mut config: Config,
    environment: &Environment,
    telemetry: &mut Option<Telemetry>,
) -> anyhow::Result<()> {
    if let Some(listen) = arguments.listen {
        config.api.listen = listen;
    }
    allow(&mut config, &arguments.allow)?;
    let root = arguments
        .data_dir
        .map_or_else(|| default_data_dir(environment), Ok)?;
    roles::audit::trusted_hops(&config)?;
    *telemetry = Some(roles::start_telemetry(&config, "pgmoor-up")?);
    let lifecycle = Lifecycle::new("pgmoor up")?;
    // What can be refused at once comes before what takes time.
    let listener = roles::listener::bind("api.listen", config.api.listen).await?;
    let address = roles::listener::address(&listener)?;
    let metrics_listener = roles::metrics::bind(&config).await?;
    let directory = DataDirectory::open(&root)?;
    let random: Arc<dyn Random> = Arc::new(SystemRandom);
    if config.storage.directory.is_none() {
        config.storage.directory = Some(directory.make("storage")?);
    }
    if config.api.login_key_file.is_none() {
        config.api.login_key_file = Some(login_key(&directory, &random)?);
    }
    let objects = || roles::storage::open(&config.storage, &random);

    let (cluster, stores) = config_database::open(&config, &directory, environment, &random).await?;
    let ring = opening_keys(&directory, &random)?;
    let sealing_keys = stores.pooler.sealing_keys();
    if sealing_keys.current().await?.is_none()
        && let Some(key) = ring.last().map(OpeningKey::sealing_key)
    {
        sealing_keys.publish(key.id().as_str(), &key.to_bytes()).await?;
    }
    let opener = Opener::new(ring);
    let first = first_user::ensure(arguments.first_user, &stores.api, &random).await?;
    let egress = roles::egress_policy(&config.egress, &stores.api).await?;

    let log = |role, store: &Store| roles::audit::start(&config, &lifecycle, role, store.clone());
    let api_log = log(WriterRole::Api, &stores.api);
    let pooler_log = log(WriterRole::Pooler, &stores.pooler);
    let options = PoolerOptions {
        audit: Some(pooler_log.clone()),
        lease: config.pooler.lease,
        // Nobody else uses a private cluster: its data directory is locked.
        peers: if cluster.is_some() {
            Peers::Alone
        } else {
            Peers::Unreachable
        },
        takeover_grace: config.pooler.takeover_grace,
        inspection_interval: config.pooler.inspection_interval,
        drain_timeout: config.pooler.drain_timeout,
        spool_directory: config.pooler.spool_directory.clone(),
        spool_bytes: config.pooler.spool_bytes,
        ..PoolerOptions::new("in-process".to_owned(), egress.clone())
    };
    let pooler = roles::pooler::start(&lifecycle, stores.pooler.clone(), opener.clone(), options).await?;
    let sessions: Arc<dyn Sessions> = Arc::new(pooler.clone());
    let seams = roles::api::Seams {
        audit: roles::audit::of_api(&config, api_log.clone())?,
        store: stores.api.clone(),
        sessions: sessions.clone(),
        pools: Arc::new(pooler.clone()),
        poolers: Directory::default(),
        egress: egress.clone(),
        objects: objects()?,
    };
    let health = roles::api::start(&config, &lifecycle, listener, seams).await?;
    let worker_log = start_worker(
        &config,
        &lifecycle,
        environment,
        &directory,
        Parts {
            stores: &stores,
            sessions,
            opener,
            egress,
            objects: objects()?,
        },
    )
    .await?;

    let mut figures = roles::metrics::of_role("up");
    figures.add(pooler.clone());
    figures.add(AuditFigures(vec![
        ("api", api_log),
        ("pooler", pooler_log),
        ("worker", worker_log),
    ]));
    roles::metrics::serve(&lifecycle, metrics_listener, figures);
    announce(address, &root, first.as_ref())?;
    tracing::info!(%address, data_directory = %root.display(), "pgmoor up serves");
    let drain_timeout = config.pooler.drain_timeout;
    let leave = async {
        health.set_draining().await;
        let deadline = Instant::now() + drain_timeout;
        Box::pin(pooler.drain(deadline)).await;
        if Instant::now() < deadline {
            Left::Finished
        } else {
            Left::CutOff
        }
    };
    let ended = lifecycle.until_stopped(LAST_ANSWERS, leave).await;
    stores.close().await;
    let stopped = match cluster {
        Some(cluster) => cluster.stop().await.context("the private PostgreSQL"),
        None => Ok(()),
    };
    ended.and(stopped)
}

struct Parts<'a> {
    stores: &'a Stores,
    sessions: Arc<dyn Sessions>,
    opener: Opener,
    egress: EgressPolicy,
    objects: roles::storage::Objects,
}

async fn start_worker(
    config: &Config,
    lifecycle: &Lifecycle,
    environment: &Environment,
    directory: &DataDirectory,
    parts: Parts<'_>,
) -> anyhow::Result<AuditLog> {
    let seams = roles::worker::Seams {
        store: parts.stores.worker.clone(),
        sessions: parts.sessions,
        opener: parts.opener,
        egress: parts.egress,
        objects: parts.objects,
        scratch_directory: directory.make("scratch")?,
        path: environment.get("PATH").map(ToOwned::to_owned),
    };
    roles::worker::start(config, lifecycle, seams).await
}

/// `--allow` counts like `egress.allow`; an address on loopback opens its port as well, since whoever starts `up` is the
/// administrator of this machine.
fn allow(config: &mut Config, places: &[String]) -> anyhow::Result<()> {
    config.egress.allow.extend_from_slice(places);
    roles::egress_rules(&config.egress)?;
    for place in places {
        let Ok(address) = place.replace("localhost:", "127.0.0.1:").parse::<SocketAddr>() else {
            continue;
        };
        if address.ip().is_loopback() {
            config.egress.loopback_ports.push(address.port());
        }
    }
    Ok(())
}

fn default_data_dir(environment: &Environment) -> anyhow::Result<PathBuf> {
    if rustix::process::geteuid().is_root() {
        return Ok(PathBuf::from("/var/lib/pgmoor"));
    }
    let set = |name| {
        environment
            .get(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let data_home = set("XDG_DATA_HOME").or_else(|| set("HOME").map(|home| home.join(".local/share")));
    let missing = || {
        Problem::missing(
            "--data-dir",
            "name a directory: neither XDG_DATA_HOME nor HOME is set",
        )
    };
    Ok(data_home.ok_or_else(missing)?.join("pgmoor"))
}

/// The keys that open credentials, the youngest last; one is made on the first start.
fn opening_keys(directory: &DataDirectory, random: &Arc<dyn Random>) -> anyhow::Result<Vec<OpeningKey>> {
    let path = directory.path("secrets/opening-key");
    if !path.exists() {
        let key = OpeningKey::generate(random.as_ref());
        private_file::write(
            &path,
            key.to_text().expose_secret().as_bytes(),
            PRIVATE,
            Existing::Keep,
        )?;
    }
    roles::key_ring::read_file(&path)
}

/// The file of the key for logins with a provider and for what signs access tokens; made on the first start.
fn login_key(directory: &DataDirectory, random: &Arc<dyn Random>) -> anyhow::Result<PathBuf> {
    let path = directory.path("secrets/login-key");
    if !path.exists() {
        let key = LoginKey::generate(random.as_ref()).to_text();
        private_file::write(&path, key.expose_secret().as_bytes(), PRIVATE, Existing::Keep)?;
    }
    Ok(path)
}

/// Tells whoever started it how to go on. The one time a password is printed.
fn announce(
    address: SocketAddr,
    root: &std::path::Path,
    first: Option<&first_user::FirstUser>,
) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "pgmoor serves on http://{address} (data in {})",
        root.display()
    )?;
    if let Some(first) = first {
        writeln!(out, "  administrator: {}", first.username)?;
        if let Some(password) = &first.generated_password {
            writeln!(
                out,
                "  password:      {}   (shown this once)",
                password.expose_secret()
            )?;
        }
        writeln!(
            out,
            "  log in:        pgmoor --server-url http://{address} login --user {}",
            first.username
        )?;
    }
    out.flush()?;
    Ok(())
}
