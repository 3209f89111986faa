//! Connecting to the config database, as every command does it.

use anyhow::Context;
use config::ConfigDatabase;
use store::{ConnectOptions, Store};

/// Connects, and refuses a schema this program cannot use. `application_name` is what `pg_stat_activity`
/// shows.
///
/// # Errors
/// When the URL is missing, the database cannot be used, or its schema is missing, too old or too new.
pub(crate) async fn connect(section: &ConfigDatabase, application_name: &str) -> anyhow::Result<Store> {
    let store = connect_unchecked(section, application_name).await?;
    store
        .check_schema()
        .await
        .context("the config database's schema cannot be used")?;
    Ok(store)
}

/// Connects to a database whose schema may be anything.
///
/// # Errors
/// When the URL is missing or the database cannot be used.
pub(crate) async fn connect_unchecked(
    section: &ConfigDatabase,
    application_name: &str,
) -> anyhow::Result<Store> {
    let options = ConnectOptions {
        url: section.require_url()?.clone(),
        max_connections: section.max_connections,
        application_name: application_name.to_owned(),
    };
    Store::connect(&options)
        .await
        .context("the config database cannot be used")
}
