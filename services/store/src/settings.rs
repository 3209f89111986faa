//! Settings in layers: what the administrator and each user chose. What a setting means is the domain's
//! business; here a value is JSON under a name.
//!
//! Invariant: a change of a layer is made as a whole or not at all, and has one revision. A value that was
//! taken out stays as a row without a value, so that who watches hears of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use domain::id::UserId;
use serde_json::Value;
use sqlx::{Connection as _, PgConnection};
use thiserror::Error;

use crate::Store;
use crate::counter::Counter;
use crate::error::{Inconsistency, StoreError, violated_constraint};
use crate::etag::Etag;

const DEFAULTS: &str = "defaults";

/// A layer of settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Layer {
    /// The administrator's defaults.
    Defaults,
    /// A user's own.
    User(UserId),
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Defaults => f.write_str(DEFAULTS),
            Self::User(id) => id.fmt(f),
        }
    }
}

/// What a layer holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerSettings {
    /// The values, by name.
    pub values: BTreeMap<String, LayerValue>,
    /// Changes with every change of the layer.
    pub etag: Etag,
    /// The revision this answer reflects, of all layers: watch from it.
    pub revision: i64,
}

/// A value in a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerValue {
    /// The value.
    pub value: Value,
    /// The revision of its last change.
    pub revision: i64,
}

/// A layer after a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerChanged {
    /// The names whose value changed.
    pub changed: BTreeSet<String>,
    /// The layer's etag now.
    pub etag: Etag,
    /// The revision of the change; where nothing changed, that of the layer's last change.
    pub revision: i64,
}

/// A change that a watcher sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingChange {
    /// The layer.
    pub layer: Layer,
    /// The setting's name.
    pub name: String,
    /// The value; `None` where it was taken out.
    pub value: Option<Value>,
    /// The revision of the change.
    pub revision: i64,
}

/// What changed after a revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingChanges {
    /// The last change of each setting that changed, by revision.
    pub changes: Vec<SettingChange>,
    /// Ask for what is after this next.
    pub revision: i64,
}

/// Which values a reset takes out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResetScope<'a> {
    /// All of the layer's.
    All,
    /// Those with these names.
    Names(&'a [String]),
}

/// Why a layer was not changed.
#[derive(Debug, Error)]
pub enum UpdateSettingsError {
    /// The layer changed since the etag was read.
    #[error("the settings changed since the etag was read")]
    EtagMismatch,
    /// There is no such user.
    #[error("there is no such user")]
    UserNotFound,
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for UpdateSettingsError {
    fn from(error: sqlx::Error) -> Self {
        match violated_constraint(&error) {
            Some("settings_layers_user_id") => Self::UserNotFound,
            _ => Self::Store(error.into()),
        }
    }
}

/// The settings. Made by [`Store::settings`].
#[derive(Debug, Clone, Copy)]
pub struct Settings<'a> {
    store: &'a Store,
}

impl Store {
    /// The settings.
    #[must_use]
    pub fn settings(&self) -> Settings<'_> {
        Settings { store: self }
    }
}

impl Settings<'_> {
    /// Reads a layer. One that was never written is empty.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn layer(&self, layer: Layer) -> Result<LayerSettings, StoreError> {
        let mut connection = self.store.acquire().await?;
        // One statement sees one moment: the revision belongs to the values.
        let rows: Vec<LayerRow> = sqlx::query_as(
            "SELECT c.revision AS current, coalesce(l.revision, 0) AS layer_revision, s.name, s.value, \
             s.revision \
             FROM pgmoor.counters AS c \
             LEFT JOIN pgmoor.settings_layers AS l ON l.layer = $1 \
             LEFT JOIN pgmoor.settings AS s ON s.layer = l.layer AND s.value IS NOT NULL \
             WHERE c.name = $2",
        )
        .bind(layer.to_string())
        .bind(Counter::Settings.name())
        .fetch_all(&mut *connection)
        .await?;
        let first = rows
            .first()
            .ok_or_else(|| Inconsistency::new("counters", "name", Counter::Settings.name()))?;
        let (etag, revision) = (Etag::of(first.layer_revision), first.current);
        let values = rows.into_iter().filter_map(|row| {
            let (name, value, revision) = (row.name?, row.value?, row.revision?);
            Some((name, LayerValue { value, revision }))
        });
        Ok(LayerSettings {
            values: values.collect(),
            etag,
            revision,
        })
    }

    /// Changes a layer: sets the values that are given and takes out those that are `None`.
    ///
    /// # Errors
    /// [`UpdateSettingsError`] by cause.
    pub async fn update(
        &self,
        layer: Layer,
        changes: &BTreeMap<String, Option<Value>>,
        etag: Option<&Etag>,
    ) -> Result<LayerChanged, UpdateSettingsError> {
        let mut connection = self.store.acquire().await?;
        let mut tx = connection.begin().await?;
        let before = lock(&mut tx, layer, etag).await?;
        let (names, values): (Vec<&String>, Vec<Option<&Value>>) =
            changes.iter().map(|(name, value)| (name, value.as_ref())).unzip();
        let changed: Vec<String> = sqlx::query_scalar(
            "INSERT INTO pgmoor.settings AS s (layer, name, value, revision) \
             SELECT $1, name, value, 0 FROM unnest($2::text[], $3::jsonb[]) AS change (name, value) \
             ON CONFLICT ON CONSTRAINT settings_pkey DO UPDATE SET value = excluded.value, revision = 0 \
             WHERE s.value IS DISTINCT FROM excluded.value RETURNING name",
        )
        .bind(layer.to_string())
        .bind(names)
        .bind(values)
        .fetch_all(&mut *tx)
        .await?;
        let after = number(&mut tx, layer, before, changed).await?;
        tx.commit().await?;
        Ok(after)
    }

    /// Takes values out of a layer.
    ///
    /// # Errors
    /// [`UpdateSettingsError`] by cause.
    pub async fn reset(
        &self,
        layer: Layer,
        scope: ResetScope<'_>,
        etag: Option<&Etag>,
    ) -> Result<LayerChanged, UpdateSettingsError> {
        let names = match scope {
            ResetScope::All => None,
            ResetScope::Names(names) => Some(names),
        };
        let mut connection = self.store.acquire().await?;
        let mut tx = connection.begin().await?;
        let before = lock(&mut tx, layer, etag).await?;
        let changed: Vec<String> = sqlx::query_scalar(
            "UPDATE pgmoor.settings SET value = NULL, revision = 0 \
             WHERE layer = $1 AND value IS NOT NULL AND ($2::text[] IS NULL OR name = ANY ($2)) RETURNING \
             name",
        )
        .bind(layer.to_string())
        .bind(names)
        .fetch_all(&mut *tx)
        .await?;
        let after = number(&mut tx, layer, before, changed).await?;
        tx.commit().await?;
        Ok(after)
    }

    /// What changed in these layers after a revision; 0 for all that was ever set. Several changes of one
    /// setting are one: the last.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn since(&self, layers: &[Layer], revision: i64) -> Result<SettingChanges, StoreError> {
        let names: Vec<String> = layers.iter().map(Layer::to_string).collect();
        let mut connection = self.store.acquire().await?;
        let rows: Vec<ChangeRow> = sqlx::query_as(
            "SELECT c.revision AS current, s.layer, s.name, s.value, s.revision FROM pgmoor.counters AS c \
             LEFT JOIN pgmoor.settings AS s ON s.layer = ANY ($1) AND s.revision > $2 \
             WHERE c.name = $3 ORDER BY s.revision, s.layer, s.name",
        )
        .bind(&names)
        .bind(revision)
        .bind(Counter::Settings.name())
        .fetch_all(&mut *connection)
        .await?;
        let current = rows.first().map_or(revision, |row| row.current);
        let changes = rows
            .into_iter()
            .filter_map(ChangeRow::into_change)
            .collect::<Result<Vec<_>, _>>()?;
        Ok(SettingChanges {
            changes,
            revision: current,
        })
    }

    /// The revision of the last change of any layer: what a watcher polls.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn revision(&self) -> Result<i64, StoreError> {
        let mut connection = self.store.acquire().await?;
        Ok(Counter::Settings.current(&mut connection).await?)
    }
}

/// Locks the layer, which everybody who changes it does, and returns its revision.
async fn lock(tx: &mut PgConnection, layer: Layer, etag: Option<&Etag>) -> Result<i64, UpdateSettingsError> {
    let user_id = match layer {
        Layer::Defaults => None,
        Layer::User(id) => Some(id.as_uuid()),
    };
    // No constraint is named: of two who insert a layer first, PostgreSQL reports a violation of whichever
    // unique index is not the named one.
    sqlx::query("INSERT INTO pgmoor.settings_layers (layer, user_id) VALUES ($1, $2) ON CONFLICT DO NOTHING")
        .bind(layer.to_string())
        .bind(user_id)
        .execute(&mut *tx)
        .await?;
    let revision: i64 =
        sqlx::query_scalar("SELECT revision FROM pgmoor.settings_layers WHERE layer = $1 FOR NO KEY UPDATE")
            .bind(layer.to_string())
            .fetch_optional(tx)
            .await?
            .ok_or(UpdateSettingsError::UserNotFound)?;
    match Etag::allows(etag, revision) {
        true => Ok(revision),
        false => Err(UpdateSettingsError::EtagMismatch),
    }
}

/// Gives the rows that were changed, marked by revision 0, their revision.
async fn number(
    tx: &mut PgConnection,
    layer: Layer,
    before: i64,
    changed: Vec<String>,
) -> Result<LayerChanged, sqlx::Error> {
    if changed.is_empty() {
        return Ok(LayerChanged {
            changed: BTreeSet::new(),
            etag: Etag::of(before),
            revision: before,
        });
    }
    let revision = Counter::Settings.next(tx).await?;
    sqlx::query("UPDATE pgmoor.settings SET revision = $2 WHERE layer = $1 AND revision = 0")
        .bind(layer.to_string())
        .bind(revision)
        .execute(&mut *tx)
        .await?;
    sqlx::query("UPDATE pgmoor.settings_layers SET revision = $2 WHERE layer = $1")
        .bind(layer.to_string())
        .bind(revision)
        .execute(&mut *tx)
        .await?;
    Ok(LayerChanged {
        changed: changed.into_iter().collect(),
        etag: Etag::of(revision),
        revision,
    })
}

#[derive(sqlx::FromRow)]
struct LayerRow {
    current: i64,
    layer_revision: i64,
    name: Option<String>,
    value: Option<Value>,
    revision: Option<i64>,
}

#[derive(sqlx::FromRow)]
struct ChangeRow {
    current: i64,
    layer: Option<String>,
    name: Option<String>,
    value: Option<Value>,
    revision: Option<i64>,
}

impl ChangeRow {
    /// `None` for the row that says only that nothing changed.
    fn into_change(self) -> Option<Result<SettingChange, Inconsistency>> {
        let (layer, name, revision) = (self.layer?, self.name?, self.revision?);
        let layer = match layer.as_str() {
            DEFAULTS => Layer::Defaults,
            id => match id.parse() {
                Ok(id) => Layer::User(id),
                Err(_) => {
                    return Some(Err(Inconsistency::new(
                        "settings",
                        "layer",
                        format!("{layer}/{name}"),
                    )));
                }
            },
        };
        Some(Ok(SettingChange {
            layer,
            name,
            value: self.value,
            revision,
        }))
    }
}
