//! A PostgreSQL cluster for this test binary, with TLS and a user for every way to authenticate.

use std::net::SocketAddr;
use std::sync::OnceLock;
use std::time::Duration;

use harness::ClusterOptions;
use harness::tls::Authority;
use pgconn::{ConnectConfig, HostPort, TlsMode, TlsRoots};

/// Name in the server's certificate. Nothing resolves it: tests connect by address.
pub(crate) const HOST: &str = "db.test";
pub(crate) const PASSWORD: &str = "correct horse";

const HBA: &str = "
host all scram 127.0.0.1/32 scram-sha-256
host all md5 127.0.0.1/32 md5
host all password 127.0.0.1/32 password
host all trust 127.0.0.1/32 trust
";

pub(crate) struct Cluster {
    pub(crate) address: SocketAddr,
    authority: String,
    /// Ends with the process.
    _server: harness::Cluster,
}

pub(crate) fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    // On a thread of its own: the tests that share it each have a runtime, and are inside it.
    CLUSTER.get_or_init(|| std::thread::spawn(start).join().unwrap())
}

impl Cluster {
    /// A configuration for one of the users `scram`, `md5`, `password`, `trust`.
    pub(crate) fn config(&self, user: &str, tls: TlsMode) -> ConnectConfig {
        let host = HostPort {
            name: HOST.to_owned(),
            address: self.address,
        };
        let mut config = ConnectConfig::new(host, user, "postgres", tls);
        config.password = Some(PASSWORD.into());
        config.connect_timeout = Duration::from_secs(30);
        config
    }

    pub(crate) fn verify_full(&self) -> TlsMode {
        TlsMode::VerifyFull {
            roots: TlsRoots::from_pem(self.authority.as_bytes()).unwrap(),
        }
    }
}

fn start() -> Cluster {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let identity = Authority::new().issue(HOST, &[HOST]);
        let authority = identity.authority.clone();
        let options = ClusterOptions {
            hba: Some(HBA.to_owned()),
            ssl: Some(identity),
            ..ClusterOptions::default()
        };
        let server = harness::Cluster::start(options).await;
        let superuser = server.connect().await;
        for statement in [
            format!("CREATE ROLE scram LOGIN PASSWORD '{PASSWORD}'"),
            format!("CREATE ROLE password LOGIN PASSWORD '{PASSWORD}'"),
            "SET password_encryption = md5".to_owned(),
            format!("CREATE ROLE md5 LOGIN PASSWORD '{PASSWORD}'"),
            "CREATE ROLE trust LOGIN SUPERUSER".to_owned(),
            "CREATE DATABASE ascii ENCODING SQL_ASCII LOCALE 'C' TEMPLATE template0".to_owned(),
        ] {
            superuser.batch_execute(&statement).await.unwrap();
        }
        Cluster {
            address: SocketAddr::from(([127, 0, 0, 1], server.port())),
            authority,
            _server: server,
        }
    })
}
