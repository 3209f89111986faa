//! The config database: everything pgmoor remembers, in PostgreSQL schema `pgmoor`.
//!
//! Invariants: this is the only crate with a driver for it. Rows never leave: each aggregate has a module
//! with a private row struct that is turned into the public type by `TryFrom`, and a row no program of ours
//! could have written is an [`Inconsistency`]. Every name in SQL is schema-qualified. Isolation is READ
//! COMMITTED; a rule across rows locks the row they have in common; stamps and leases that processes share
//! are made by `clock_timestamp()` on the server.
//!
//! # The shape of an aggregate
//!
//! [`Store`] hands out a borrowing handle per aggregate, e.g. [`Store::users`]. To add one:
//!
//! 1. A migration makes its tables, with every constraint named, and grants each group role what it needs
//!    (see `migrations/README.md`).
//! 2. A module has, in this order: the public types, one error enum per method that can fail for a reason the
//!    caller can act on (with a `Store` variant, filled by `error::store_variant!`), the handle with its
//!    methods, the row and its `TryFrom`.
//! 3. A method is one intent and one transaction: `acquire`, `begin` if it takes more than one statement, SQL
//!    in place, `commit`. What is not found is `Ok(None)`, or a `NotFound` variant where something was to be
//!    done to it. Outcomes that must be committed (a reused refresh token ends its login) are values, not
//!    errors: an error rolls back.
//! 4. Locks are taken in the order users, logins and tokens, servers and backups, operations, layers,
//!    counters: counters last, because everybody's changes pass there.
//! 5. A listing is by keyset ([`page`]).
//! 6. Its tests are in `tests/it`, against real PostgreSQL, the concurrent ones too.
//!
//! A *revision* is a row of `pgmoor.counters` that is incremented in the transaction of the change it
//! numbers. The row's lock makes the numbers appear in the order of the commits: who has read up to revision
//! n misses nothing by asking for what is after n. A sequence would not do: its numbers are given before the
//! commits and become visible in any order.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod access;
pub mod accounts;
mod administrators;
pub mod api_tokens;
pub mod audit;
pub mod backups;
mod connection;
mod counter;
mod destination;
pub mod devices;
pub mod directory;
pub mod elevations;
mod error;
mod etag;
pub mod grants;
pub mod groups;
pub mod identities;
pub mod inspection_policies;
pub mod inspections;
pub mod instance_owners;
pub mod instances;
pub mod known_providers;
pub mod limits;
mod login;
pub mod login_attempts;
pub mod login_throttles;
pub mod logins;
pub mod migrate;
pub mod operations;
pub mod page;
pub mod poolers;
pub mod provider_sessions;
pub mod revocations;
pub mod role_bindings;
pub mod roles;
mod schema;
pub mod sealed_logins;
pub mod sealing_keys;
pub mod servers;
pub mod sessions;
pub mod settings;
pub mod signing_keys;
pub mod succession;
pub mod users;
pub mod vouching;

use std::sync::Arc;
use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::postgres::Postgres;

pub use connection::{ConnectError, ConnectOptions, InvalidUrl};
pub use error::{Inconsistency, Reports, StoreError, Unavailable};
pub use etag::Etag;
pub use page::{Cursor, Page, PageRequest, PageSize};
pub use schema::SchemaError;

use connection::Connections;

/// The config database. Clones share one pool of connections.
#[derive(Debug, Clone)]
pub struct Store {
    connections: Arc<Connections>,
}

impl Store {
    /// Finds the host that takes writes and prepares connections to it.
    ///
    /// # Errors
    /// When the URL is wrong, no host takes writes, PostgreSQL is too old, or a pooler in front does not pool
    /// sessions.
    pub async fn connect(options: &ConnectOptions) -> Result<Self, ConnectError> {
        Ok(Self {
            connections: Arc::new(Connections::open(options).await?),
        })
    }

    /// Closes all connections and waits for those in use. Later calls fail as unavailable.
    pub async fn close(&self) {
        self.connections.close().await;
    }

    /// Checks that the database answers and takes writes.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when it does not.
    pub async fn ping(&self) -> Result<(), StoreError> {
        self.acquire().await.map(drop)
    }

    async fn acquire(&self) -> Result<PoolConnection<Postgres>, StoreError> {
        self.connections.acquire().await
    }
}

/// A duration as `make_interval(secs => $n)` takes it.
fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}
