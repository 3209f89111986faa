//! The config database of `pgmoor up`: the configured one, or one in the private cluster.

use std::sync::Arc;

use anyhow::Context;
use config::{Config, ConfigDatabase, Environment};
use data_encoding::HEXLOWER;
use domain::random::{self, Random};
use secrecy::SecretString;
use store::{Store, migrate};

use super::cluster::Cluster;
use super::data_directory::DataDirectory;
use crate::database;

const DATABASE: &str = "pgmoor";

/// The config database as each role sees it.
#[derive(Debug)]
pub(crate) struct Stores {
    /// As the API.
    pub(crate) api: Store,
    /// As the pooler.
    pub(crate) pooler: Store,
    /// As the worker.
    pub(crate) worker: Store,
}

impl Stores {
    /// Ends all connections.
    pub(crate) async fn close(&self) {
        for store in [&self.api, &self.pooler, &self.worker] {
            store.close().await;
        }
    }
}

/// Opens the config database with its schema up to date. The cluster is there when it is ours to stop.
pub(crate) async fn open(
    config: &Config,
    directory: &DataDirectory,
    environment: &Environment,
    random: &Arc<dyn Random>,
) -> anyhow::Result<(Option<Cluster>, Stores)> {
    if let Some(url) = &config.config_database.url {
        migrate::run(url)
            .await
            .context("the config database's schema cannot be brought up to date")?;
        let stores = connect(&config.config_database, [url, url, url].map(Clone::clone)).await?;
        return Ok((None, stores));
    }
    let path = environment.get("PATH").map(ToOwned::to_owned);
    let cluster = Cluster::start(directory, path.as_ref(), random.as_ref()).await?;
    match prepare(&cluster, config, random).await {
        Ok(stores) => Ok((Some(cluster), stores)),
        Err(error) => {
            // Left behind it would be adopted, but nobody asked for a server that serves nothing.
            if let Err(stopping) = cluster.stop().await {
                tracing::error!(error = %stopping, "the private PostgreSQL was left running");
            }
            Err(error)
        }
    }
}

async fn prepare(cluster: &Cluster, config: &Config, random: &Arc<dyn Random>) -> anyhow::Result<Stores> {
    let postgres = cluster
        .connect("postgres")
        .await
        .context("the private PostgreSQL cannot be asked")?;
    let exists = postgres
        .query_one(
            "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)",
            &[&DATABASE],
        )
        .await?;
    if !exists.get::<_, bool>(0) {
        postgres
            .batch_execute(&format!("CREATE DATABASE {DATABASE}"))
            .await?;
    }
    migrate::run(&cluster.url(DATABASE))
        .await
        .context("the config database's schema cannot be brought up to date")?;
    let mut urls = Vec::new();
    for role in ["api", "pooler", "worker"] {
        let login = format!("pgmoor_up_{role}");
        // A new password at each start: there is none to keep.
        let password = SecretString::from(HEXLOWER.encode(&random::bytes::<24>(random.as_ref())));
        set_up_login(&postgres, &login, &format!("pgmoor_{role}"), &password).await?;
        urls.push(cluster.url_as(&login, &password, DATABASE));
    }
    let urls: [SecretString; 3] = urls
        .try_into()
        .map_err(|_| anyhow::anyhow!("three roles have three URLs"))?;
    connect(&config.config_database, urls).await
}

async fn set_up_login(
    postgres: &tokio_postgres::Client,
    login: &str,
    group: &str,
    password: &SecretString,
) -> anyhow::Result<()> {
    use secrecy::ExposeSecret;
    let exists = postgres
        .query_one(
            "SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)",
            &[&login],
        )
        .await?;
    if !exists.get::<_, bool>(0) {
        postgres
            .batch_execute(&format!("CREATE ROLE {login} IN ROLE {group}"))
            .await?;
    }
    // Our own names, and hexadecimal digits: nothing to quote. A failing statement would be written to the server's log.
    let statement = format!(
        "SET log_min_error_statement = panic; ALTER ROLE {login} LOGIN PASSWORD '{}'",
        password.expose_secret()
    );
    postgres.batch_execute(&statement).await?;
    Ok(())
}

async fn connect(section: &ConfigDatabase, urls: [SecretString; 3]) -> anyhow::Result<Stores> {
    let [api, pooler, worker] = urls.map(|url| ConfigDatabase {
        url: Some(url),
        ..section.clone()
    });
    Ok(Stores {
        api: database::connect(&api, "pgmoor up api").await?,
        pooler: database::connect(&pooler, "pgmoor up pooler").await?,
        worker: database::connect(&worker, "pgmoor up worker").await?,
    })
}
