//! A PostgreSQL server that pgmoor works on, with pgbench's tables in two schemas.

use std::time::Duration;

use harness::programs::{postgres_program, search_path};
use harness::{Cluster, ClusterOptions, Database, Login, Process};

use crate::secrets::Secrets;

/// How long pgbench may take to make its tables.
const DEADLINE: Duration = Duration::from_secs(120);

/// The schema that is backed up: a small one.
pub const SALES: &str = "sales";
/// The schema with the large table.
pub const ARCHIVE: &str = "archive";
/// pgbench's tables.
pub const TABLES: [&str; 4] = [
    "pgbench_accounts",
    "pgbench_branches",
    "pgbench_history",
    "pgbench_tellers",
];

/// A target.
#[derive(Debug)]
pub struct Target {
    // Declared before the cluster: the database is dropped while it still answers.
    database: Database,
    cluster: Cluster,
    login: Login,
}

impl Target {
    /// Starts a cluster with a database and a role that owns it.
    pub async fn start(options: ClusterOptions, secrets: &Secrets) -> Self {
        let cluster = Cluster::start(options).await;
        let database = cluster.create_database().await;
        let login = cluster.create_login("").await;
        secrets.remember("the target role's password", &login.password);
        let sql = format!("ALTER DATABASE {} OWNER TO {}", database.name(), login.user);
        database.execute(&sql).await;
        Self {
            database,
            cluster,
            login,
        }
    }

    /// Makes pgbench's tables in a schema of that name: 100,000 accounts for each unit of `scale`.
    ///
    /// # Panics
    /// When pgbench fails; the text has what it wrote.
    pub async fn load(&self, schema: &str, scale: u32) {
        let connection = self.database.connect_as(&self.login).await;
        let made = connection.batch_execute(&format!("CREATE SCHEMA {schema}")).await;
        made.unwrap_or_else(|error| panic!("creating schema {schema}: {error:?}"));
        let pgbench = Process::builder(postgres_program("pgbench"))
            .args(["--initialize", "--quiet", "--scale", &scale.to_string()])
            .args(["--host", "127.0.0.1", "--port", &self.cluster.port().to_string()])
            .args(["--username", &self.login.user, self.database.name()])
            .env_clear()
            .env("PATH", search_path())
            .env("PGPASSWORD", &self.login.password)
            .env("PGOPTIONS", format!("-c search_path={schema}"))
            .spawn();
        let exit = pgbench.wait_exit(DEADLINE).await;
        assert!(exit.success(), "pgbench: {}", pgbench.log_text());
    }

    /// A checksum over every row of every table of a schema, whatever their order on disk.
    ///
    /// # Panics
    /// When a table is not there.
    pub async fn checksum(&self, schema: &str) -> String {
        let connection = self.database.connect().await;
        let mut sums = Vec::new();
        for table in TABLES {
            let sql = format!(
                "SELECT count(*) || ':' || coalesce(md5(string_agg(sum, '' ORDER BY sum)), '') \
                 FROM (SELECT md5(t::text) AS sum FROM {schema}.{table} AS t) AS rows"
            );
            let row = connection.query_one(&sql, &[]).await;
            let sum: String = row
                .unwrap_or_else(|error| panic!("{schema}.{table}: {error:?}"))
                .get(0);
            sums.push(format!("{table}={sum}"));
        }
        sums.join(" ")
    }

    /// The database.
    #[must_use]
    pub fn database(&self) -> &Database {
        &self.database
    }

    /// The cluster.
    #[must_use]
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// The role that pgmoor logs in as.
    #[must_use]
    pub fn login(&self) -> &Login {
        &self.login
    }

    /// A pgAdmin servers.json with this server under that name, and a key that pgmoor ignores.
    #[must_use]
    pub fn servers_json(&self, name: &str) -> String {
        format!(
            r##"{{
  "Servers": {{
    "1": {{
      "Name": "{name}",
      "Group": "Demo",
      "Host": "127.0.0.1",
      "Port": {},
      "MaintenanceDB": "{}",
      "Username": "{}",
      "SSLMode": "disable",
      "BGColor": "#204a87"
    }}
  }}
}}
"##,
            self.cluster.port(),
            self.database.name(),
            self.login.user
        )
    }
}
