//! What a role needs before it can start: a migrated database, a login, certificates, keys.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use harness::{Cluster, Database, Process, free_port};
use tempfile::TempDir;

use crate::command::{SOON, migrated, pgmoor_in, role};

/// An arrangement for one role. Those made beside it share its database, its certificate authority and its
/// sealing key.
pub(crate) struct World {
    pub(crate) database: Arc<Database>,
    pub(crate) port: u16,
    directory: Arc<TempDir>,
    role: &'static str,
    environment: BTreeMap<String, String>,
}

impl World {
    /// Everything that role needs and nothing it must do without.
    pub(crate) async fn of(role: &'static str) -> Self {
        let database = Arc::new(migrated().await);
        let directory = Arc::new(tempfile::tempdir().unwrap());
        let made = Self::arrange(role, database, directory).await;
        made.run(&["admin", "create-sealing-key", "--out", "opening-key"]);
        made
    }

    /// The same for another role of the same installation.
    pub(crate) async fn beside(&self, role: &'static str) -> Self {
        Self::arrange(role, self.database.clone(), self.directory.clone()).await
    }

    async fn arrange(role: &'static str, database: Arc<Database>, directory: Arc<TempDir>) -> Self {
        let port = free_port();
        let login = Cluster::shared()
            .await
            .create_login(&format!("IN ROLE pgmoor_{role}"))
            .await;
        let mut world = Self {
            database,
            port,
            directory,
            role,
            environment: BTreeMap::new(),
        };
        world.run(&[
            "admin",
            "issue-certificate",
            "--role",
            role,
            "--name",
            "one",
            "--out",
            role,
        ]);
        let url = world.database.url_as(&login);
        world.set("PGMOOR_CONFIG_DATABASE_URL", &url);
        world.set(
            &format!("PGMOOR_{}__LISTEN", role.to_uppercase()),
            &format!("127.0.0.1:{port}"),
        );
        for (key, file) in [
            ("AUTHORITY", "authority"),
            ("ROLE__CERTIFICATE", "certificate"),
            ("ROLE__KEY", "key"),
        ] {
            let key = format!("PGMOOR_TRUST__{}", key.replace("ROLE", &role.to_uppercase()));
            let path = world.file(&format!("{role}/{file}.pem"));
            world.set(&key, path.to_str().unwrap());
        }
        if role != "pooler" {
            let path = world.file("objects");
            world.set("PGMOOR_STORAGE__DIRECTORY", path.to_str().unwrap());
        }
        if role != "api" {
            let path = world.file("opening-key");
            world.set("PGMOOR_SEALING__OPENING_KEY_FILE", path.to_str().unwrap());
        }
        world
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// Sets a variable of the role's environment.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.environment.insert(name.to_owned(), value.to_owned());
    }

    /// What the role's environment has for a variable.
    pub(crate) fn variable(&self, name: &str) -> &str {
        &self.environment[name]
    }

    /// Runs a command as the database's owner, in the world's directory.
    pub(crate) fn run(&self, arguments: &[&str]) -> String {
        let url = self.database.url();
        pgmoor_in(
            self.path(),
            arguments,
            &[("PGMOOR_CONFIG_DATABASE_URL", &url)],
            "",
        )
        .succeeded()
    }

    /// Starts the role.
    pub(crate) fn spawn(&self) -> Process {
        let environment: Vec<_> = self
            .environment
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        role(self.role, &environment)
    }

    /// Starts the role and waits until it serves.
    pub(crate) async fn serve(&self) -> Process {
        let process = self.spawn();
        process
            .wait_for_line(&format!("pgmoor {} serves", self.role), SOON)
            .await;
        process
    }
}
