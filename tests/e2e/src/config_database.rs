//! The config database: a cluster of its own with an owner and a login role for each of pgmoor's roles.

use std::path::{Path, PathBuf};

use harness::{Cluster, ClusterOptions, Database, Login};

use crate::secrets::Secrets;
use crate::{Role, admin, configuration};

/// The database and the files that lead to it.
#[derive(Debug)]
pub struct ConfigDatabase {
    // Declared before the cluster: the database is dropped while it still answers.
    database: Database,
    cluster: Cluster,
    directory: PathBuf,
    owner: Login,
}

impl ConfigDatabase {
    /// Starts a cluster and makes an empty database in it, with its owner.
    pub async fn start(options: ClusterOptions, directory: &Path, secrets: &Secrets) -> Self {
        let cluster = Cluster::start(options).await;
        let database = cluster.create_database().await;
        // It makes the group roles.
        let owner = cluster.create_login("CREATEROLE").await;
        secrets.remember("the config database owner's password", &owner.password);
        let sql = format!("ALTER DATABASE {} OWNER TO {}", database.name(), owner.user);
        database.execute(&sql).await;
        let this = Self {
            database,
            cluster,
            directory: directory.to_path_buf(),
            owner,
        };
        write_secret(&this.url_file("owner"), &this.database.url_as(&this.owner));
        let text = configuration::of_commands(&this.url_file("owner"));
        std::fs::write(this.commands_configuration(), text).expect("the commands' configuration");
        this
    }

    /// Migrates, and makes a login role for each of pgmoor's roles.
    pub async fn migrate(&self, secrets: &Secrets) -> admin::Log {
        let log = admin::migrate(&self.commands_configuration()).await;
        for role in Role::ALL {
            let login = self.cluster.create_login("").await;
            secrets.remember(&format!("the {role}'s config database password"), &login.password);
            let sql = format!("GRANT pgmoor_{role} TO {}", login.user);
            self.database.execute(&sql).await;
            write_secret(&self.url_file(role.as_str()), &self.database.url_as(&login));
        }
        log
    }

    /// The file with the URL for a role or the `owner`.
    #[must_use]
    pub fn url_file(&self, role: &str) -> PathBuf {
        self.directory.join(format!("{role}.url"))
    }

    /// The configuration file of the owner's commands.
    #[must_use]
    pub fn commands_configuration(&self) -> PathBuf {
        self.directory.join("commands.toml")
    }

    /// The database.
    #[must_use]
    pub fn database(&self) -> &Database {
        &self.database
    }

    /// Its cluster.
    #[must_use]
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }
}

/// Writes a file that only its owner can read.
pub(crate) fn write_secret(path: &Path, secret: &str) {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;

    let file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path);
    let written = file.and_then(|mut file| file.write_all(secret.as_bytes()));
    written.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}
