//! Which providers API instances have in their configuration, and what becomes of what one gave that none of them has any more.
//!
//! Invariant: nothing goes before the provider has been unknown for a while, so that a change of the configuration may come to one
//! instance after the other. An instance that has it keeps it known. While no instance looks, no time passes: whoever starts first
//! after all had stopped may be the one that is configured without it.

use std::time::Duration;

use sqlx::{Connection as _, PgConnection};

use crate::administrators::{self, Administrator};
use crate::counter::Counter;
use crate::error::StoreError;
use crate::logins::end_of_providers;
use crate::revocations::{self, Subject};
use crate::{Store, seconds};

/// The row that says when an instance looked last, whatever it has in its configuration. No provider's id has such a character.
const LOOKED: &str = "*";
/// Where nobody looked for longer than this, nobody was there. Instances look every hour.
const LONGEST_PAUSE: Duration = Duration::from_secs(2 * 60 * 60);

/// The providers that are known. Made by [`Store::known_providers`].
#[derive(Debug, Clone, Copy)]
pub struct KnownProviders<'a> {
    store: &'a Store,
}

impl Store {
    /// The providers that are known.
    #[must_use]
    pub fn known_providers(&self) -> KnownProviders<'_> {
        KnownProviders { store: self }
    }
}

impl KnownProviders<'_> {
    /// Writes down that these are in an instance's configuration now, and since when others are not.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn see(&self, ids: &[String]) -> Result<(), StoreError> {
        let mut connection = self.store.acquire().await?;
        let mut tx = connection.begin().await?;
        skip_pause(&mut tx).await?;
        sqlx::query(
            "INSERT INTO pgmoor.known_providers (id) SELECT unnest($1::text[]) \
             ON CONFLICT ON CONSTRAINT known_providers_pkey DO UPDATE SET seen_time = clock_timestamp()",
        )
        .bind(ids)
        .execute(&mut *tx)
        .await?;
        // Of what nobody has seen yet the time begins now.
        sqlx::query(
            "INSERT INTO pgmoor.known_providers (id) \
             SELECT substr(source, 6) FROM pgmoor.group_members WHERE source LIKE 'oidc:_%' \
             UNION SELECT administrator_provider FROM pgmoor.users WHERE administrator_provider IS NOT NULL \
             UNION SELECT provider FROM pgmoor.identity_groups \
             UNION SELECT provider FROM pgmoor.logins WHERE end_time IS NULL AND provider IS NOT NULL \
             ON CONFLICT ON CONSTRAINT known_providers_pkey DO NOTHING",
        )
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(())
    }

    /// Ends the memberships, and what else was given, of providers that no instance has had for `age`. Returns how many
    /// memberships ended. Administrators that they made stop being ones, unless nobody else is. Logins that were begun at one end:
    /// nobody can be asked about them any more.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn forget(&self, age: Duration) -> Result<u64, StoreError> {
        let mut connection = self.store.acquire().await?;
        let mut tx = connection.begin().await?;
        let gone: Vec<String> = sqlx::query_scalar(
            "DELETE FROM pgmoor.known_providers WHERE seen_time < clock_timestamp() - make_interval(secs => $1) \
             AND id <> $2 RETURNING id",
        )
        .bind(seconds(age))
        .bind(LOOKED)
        .fetch_all(&mut *tx)
        .await?;
        if gone.is_empty() {
            return Ok(0);
        }
        // Users before their groups, as with their logins.
        let unmade = end_administrators(&mut tx, &gone).await?;
        let logins = end_of_providers(&mut tx, &gone).await?;
        sqlx::query("DELETE FROM pgmoor.identity_groups WHERE provider = ANY ($1)")
            .bind(&gone)
            .execute(&mut *tx)
            .await?;
        let sources: Vec<String> = gone.iter().map(|id| format!("oidc:{id}")).collect();
        let ended = sqlx::query("DELETE FROM pgmoor.group_members WHERE source = ANY ($1)")
            .bind(&sources)
            .execute(&mut *tx)
            .await?
            .rows_affected();
        let revoked: Vec<Subject> = logins.iter().copied().map(Subject::Login).collect();
        revocations::append(&mut tx, &revoked).await?;
        if ended > 0 || unmade > 0 {
            // What is open is decided again.
            Counter::Policy.next(&mut tx).await?;
        }
        tx.commit().await?;
        let logins = logins.len();
        tracing::info!(providers = ?gone, memberships = ended, logins, "what providers gave that are not configured any more has ended");
        Ok(ended)
    }
}

/// Writes down that somebody looks now, and does not count the time in which nobody did.
async fn skip_pause(tx: &mut PgConnection) -> Result<(), sqlx::Error> {
    // Programs that did not write down when they looked wrote down at least what they had.
    sqlx::query(
        "INSERT INTO pgmoor.known_providers (id, seen_time) \
         SELECT $1, coalesce(max(seen_time), clock_timestamp()) FROM pgmoor.known_providers \
         ON CONFLICT ON CONSTRAINT known_providers_pkey DO NOTHING",
    )
    .bind(LOOKED)
    .execute(&mut *tx)
    .await?;
    // Locked, so that of two instances that start at once one moves the times.
    let pause: Option<f64> = sqlx::query_scalar(
        "SELECT extract(epoch FROM clock_timestamp() - seen_time)::float8 FROM pgmoor.known_providers \
         WHERE id = $1 FOR UPDATE",
    )
    .bind(LOOKED)
    .fetch_optional(&mut *tx)
    .await?;
    if let Some(pause) = pause.filter(|pause| *pause > seconds(LONGEST_PAUSE)) {
        sqlx::query(
            "UPDATE pgmoor.known_providers \
             SET seen_time = least(seen_time + make_interval(secs => $1), clock_timestamp())",
        )
        .bind(pause)
        .execute(&mut *tx)
        .await?;
    }
    sqlx::query("UPDATE pgmoor.known_providers SET seen_time = clock_timestamp() WHERE id = $1")
        .bind(LOOKED)
        .execute(tx)
        .await?;
    Ok(())
}

/// Returns how many stopped being ones.
async fn end_administrators(tx: &mut PgConnection, gone: &[String]) -> Result<u64, sqlx::Error> {
    let administrators = administrators::locked(tx).await?;
    let made_by_one = |one: &Administrator| one.provider.as_ref().is_some_and(|by| gone.contains(by));
    if administrators.iter().all(made_by_one) {
        if !administrators.is_empty() {
            tracing::warn!(
                "all administrators were made by providers that are not configured any more, and stay"
            );
        }
        return Ok(0);
    }
    let unmade = sqlx::query(
        "UPDATE pgmoor.users SET administrator = false, administrator_provider = NULL, version = version + 1, \
         update_time = clock_timestamp() WHERE administrator_provider = ANY ($1)",
    )
    .bind(gone)
    .execute(tx)
    .await?;
    Ok(unmade.rows_affected())
}
