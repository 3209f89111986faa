//! Fresh databases, logins and connections on a test cluster.

use std::ops::{Deref, DerefMut};

use tokio::task::JoinHandle;
use tokio_postgres::{Client, NoTls};

use crate::random;

/// The superuser of every test cluster.
pub const SUPERUSER: &str = "postgres";

/// Where a cluster listens and who its superuser is.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// The address it listens on.
    pub host: String,
    /// The port it listens on.
    pub port: u16,
    /// The password of the superuser `postgres`.
    pub password: String,
}

/// A role that can log in, with its password.
#[derive(Debug, Clone)]
pub struct Login {
    /// The role's name, usable unquoted.
    pub user: String,
    /// Its password.
    pub password: String,
}

impl Endpoint {
    /// The superuser.
    #[must_use]
    pub fn superuser(&self) -> Login {
        Login {
            user: SUPERUSER.to_owned(),
            password: self.password.clone(),
        }
    }

    /// `postgres://user:password@host:port/database`. Names are written as they are: the harness's own need
    /// no escape.
    #[must_use]
    pub fn url(&self, login: &Login, database: &str) -> String {
        let Login { user, password } = login;
        format!(
            "postgres://{user}:{password}@{}:{}/{database}",
            self.host, self.port
        )
    }

    /// Connects without TLS.
    ///
    /// # Errors
    /// What tokio-postgres says, the server's refusal among it.
    pub async fn try_connect(
        &self,
        login: &Login,
        database: &str,
    ) -> Result<Connection, tokio_postgres::Error> {
        let mut config = tokio_postgres::Config::new();
        config
            .host(&self.host)
            .port(self.port)
            .user(&login.user)
            .password(&login.password)
            .dbname(database);
        config
            .connect_timeout(std::time::Duration::from_secs(10))
            .application_name("harness");
        let (client, connection) = config.connect(NoTls).await?;
        #[allow(
            clippy::disallowed_methods,
            reason = "the connection owns its driver and aborts it on drop"
        )]
        let driver = tokio::spawn(async move {
            // The client's calls report what ends the connection.
            let _ = connection.await;
        });
        Ok(Connection { client, driver })
    }

    /// Connects without TLS.
    ///
    /// # Panics
    /// When the server refuses.
    pub async fn connect(&self, login: &Login, database: &str) -> Connection {
        let connection = self.try_connect(login, database).await;
        connection.unwrap_or_else(|error| panic!("connecting to {database} as {}: {error:?}", login.user))
    }
}

/// A connection that closes when dropped. Use it as the [`tokio_postgres::Client`] it holds.
#[derive(Debug)]
pub struct Connection {
    client: Client,
    driver: JoinHandle<()>,
}

impl Deref for Connection {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl DerefMut for Connection {
    fn deref_mut(&mut self) -> &mut Client {
        &mut self.client
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// A database of its own for one test. Dropping the value drops the database, as far as the cluster still
/// answers.
#[derive(Debug)]
pub struct Database {
    endpoint: Endpoint,
    name: String,
}

impl Database {
    /// Creates a database with a random name, as a copy of `template` when one is given. A template may have
    /// no connections while it is copied.
    pub(crate) async fn create(endpoint: Endpoint, template: Option<&str>) -> Self {
        let name = random::name("test");
        let clause = template
            .map(|template| format!(" TEMPLATE {template}"))
            .unwrap_or_default();
        let connection = endpoint.connect(&endpoint.superuser(), SUPERUSER).await;
        let created = connection
            .batch_execute(&format!("CREATE DATABASE {name}{clause}"))
            .await;
        created.unwrap_or_else(|error| panic!("creating database {name}{clause}: {error:?}"));
        Self { endpoint, name }
    }

    /// The database's name, usable unquoted.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where its cluster listens.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The superuser's URL of this database.
    #[must_use]
    pub fn url(&self) -> String {
        self.url_as(&self.endpoint.superuser())
    }

    /// That login's URL of this database.
    #[must_use]
    pub fn url_as(&self, login: &Login) -> String {
        self.endpoint.url(login, &self.name)
    }

    /// Connects as the superuser.
    ///
    /// # Panics
    /// When the server refuses.
    pub async fn connect(&self) -> Connection {
        self.connect_as(&self.endpoint.superuser()).await
    }

    /// Connects as `login`.
    ///
    /// # Panics
    /// When the server refuses.
    pub async fn connect_as(&self, login: &Login) -> Connection {
        self.endpoint.connect(login, &self.name).await
    }

    /// Runs statements as the superuser on a connection of their own.
    ///
    /// # Panics
    /// When one fails.
    pub async fn execute(&self, sql: &str) {
        let done = self.connect().await.batch_execute(sql).await;
        done.unwrap_or_else(|error| panic!("{error:?} in {sql}"));
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let (endpoint, name) = (self.endpoint.clone(), std::mem::take(&mut self.name));
        // A thread with a runtime of its own: the test's may be ending. Nobody waits for it: the cluster's
        // end removes the database anyway.
        std::thread::spawn(move || {
            let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
                return;
            };
            runtime.block_on(async {
                if let Ok(connection) = endpoint.try_connect(&endpoint.superuser(), SUPERUSER).await {
                    let _ = connection
                        .batch_execute(&format!("DROP DATABASE {name} WITH (FORCE)"))
                        .await;
                }
            });
        });
    }
}
