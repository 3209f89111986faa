//! Importing a server: what has its owner, group and name already is changed, so that importing twice changes
//! nothing.

use sqlx::Connection as _;
use thiserror::Error;

use super::{ATTEMPTS, NewServer, Server, Servers, insert, lock_by_name, meets_a_merge, read, write};
use crate::error::{Inconsistency, StoreError, violated_constraint};

/// Whether an import is carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImportMode {
    /// It is.
    Apply,
    /// Everything is tried and nothing kept.
    Validate,
}

/// What an import did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImportOutcome {
    /// A server was registered.
    Created,
    /// A server was changed.
    Updated,
    /// A server was as it should be.
    Unchanged,
}

/// An imported server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// What happened, or would have.
    pub outcome: ImportOutcome,
    /// The server as it is, or would be.
    pub server: Server,
}

/// Why a server was not imported.
#[derive(Debug, Error)]
pub enum ImportServerError {
    /// There is no such user.
    #[error("there is no such user")]
    OwnerNotFound,
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for ImportServerError {
    fn from(error: sqlx::Error) -> Self {
        match violated_constraint(&error) {
            Some("servers_owner_id") => Self::OwnerNotFound,
            _ => Self::Store(error.into()),
        }
    }
}

impl From<Inconsistency> for ImportServerError {
    fn from(error: Inconsistency) -> Self {
        Self::Store(error.into())
    }
}

impl Servers<'_> {
    /// Registers a server, or changes the one that has its owner, group and name to be like it (`wanted.id`
    /// is then unused). A change of destination or role voids the password.
    ///
    /// # Errors
    /// [`ImportServerError`] by cause.
    pub async fn import(&self, wanted: &NewServer, mode: ImportMode) -> Result<Imported, ImportServerError> {
        let mut connection = self.store.acquire().await?;
        let mut attempt = 1;
        loop {
            let mut tx = connection.begin().await?;
            let before = lock_by_name(&mut tx, wanted.owner_id, &wanted.group, &wanted.display_name).await?;
            let (id, outcome, written) = match before.map(Server::try_from).transpose()? {
                None => (wanted.id, ImportOutcome::Created, insert(&mut tx, wanted).await),
                Some(before) => {
                    let after = like(before.clone(), wanted);
                    match after == before {
                        true => {
                            return Ok(Imported {
                                outcome: ImportOutcome::Unchanged,
                                server: before,
                            });
                        }
                        false => (
                            before.id,
                            ImportOutcome::Updated,
                            write(&mut tx, &before, &after).await,
                        ),
                    }
                }
            };
            match written {
                // Another import of the same name, or a merge of its instance, came in between: look again.
                Err(error) if attempt < ATTEMPTS && (meets_a_merge(&error) || name_taken(&error)) => {
                    attempt += 1;
                    continue;
                }
                written => written?,
            }
            let server = Server::try_from(read(&mut tx, id).await?)?;
            if mode == ImportMode::Apply {
                tx.commit().await?;
            }
            return Ok(Imported { outcome, server });
        }
    }
}

fn name_taken(error: &sqlx::Error) -> bool {
    violated_constraint(error) == Some("servers_name_key")
}

fn like(mut server: Server, wanted: &NewServer) -> Server {
    server.destination = wanted.destination.clone();
    server.maintenance_database = wanted.maintenance_database.clone();
    server.username = wanted.username.clone();
    server.comment.clone_from(&wanted.comment);
    server
}
