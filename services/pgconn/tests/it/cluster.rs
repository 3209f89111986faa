//! A PostgreSQL cluster for this test binary, with TLS and a user for every way to authenticate.
//!
//! It is started once and ends with the test process however that ends: a supervising shell waits for the
//! end of its standard input, which only we hold, then stops the server and removes the directory.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use pgconn::{ConnectConfig, HostPort, TlsMode, TlsRoots};

/// Name in the server's certificate. Nothing resolves it: tests connect by address.
pub(crate) const HOST: &str = "db.test";
pub(crate) const PASSWORD: &str = "correct horse";

pub(crate) struct Cluster {
    pub(crate) address: SocketAddr,
    pub(crate) ca_pem: String,
    directory: PathBuf,
    _supervisor: Child,
}

pub(crate) fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(start)
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
            roots: TlsRoots::from_pem(self.ca_pem.as_bytes()).unwrap(),
        }
    }

    /// Runs SQL as superuser over the socket, by psql.
    pub(crate) fn sql(&self, sql: &str) {
        let output = self.psql(sql);
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    fn psql(&self, sql: &str) -> std::process::Output {
        Command::new(binary("psql"))
            .args(["-X", "-q", "-U", "postgres", "-v", "ON_ERROR_STOP=1", "-h"])
            .arg(&self.directory)
            .args([
                "-p",
                &self.address.port().to_string(),
                "-d",
                "postgres",
                "-c",
                sql,
            ])
            .output()
            .unwrap()
    }
}

/// Where Debian and the PostgreSQL project's packages put the programs.
const BINARIES: &str = "/usr/lib/postgresql/15/bin";

fn binary(name: &str) -> PathBuf {
    Path::new(BINARIES).join(name)
}

/// A server program, as user postgres when we are root: PostgreSQL refuses to run as root.
fn server_command(name: &str) -> Vec<String> {
    let mut command = Vec::new();
    if rustix::process::geteuid().is_root() {
        for word in [
            "setpriv",
            "--reuid=postgres",
            "--regid=postgres",
            "--init-groups",
            "--",
        ] {
            command.push(word.to_owned());
        }
    }
    command.push(binary(name).display().to_string());
    command
}

fn run(command: &[String], args: &[&str]) {
    let output = Command::new(&command[0])
        .args(&command[1..])
        .args(args)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn start() -> Cluster {
    let directory = tempfile::Builder::new()
        .prefix("pgconn-")
        .tempdir()
        .unwrap()
        .keep();
    let path = |name: &str| directory.join(name).display().to_string();
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let data = path("data");
    let ca_pem = write_certificates(&directory);
    fs::write(directory.join("hba"), HBA).unwrap();
    let own = |name: &str| {
        if rustix::process::geteuid().is_root() {
            run(&["chown".to_owned()], &["postgres:", name]);
        }
    };
    own(&path(""));
    own(&path("server.key"));
    let initdb = server_command("initdb");
    run(
        &initdb,
        &[
            "-D",
            &data,
            "-U",
            "postgres",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--locale=C",
            "--no-sync",
        ],
    );

    let settings = [
        format!("port={port}"),
        "listen_addresses=127.0.0.1".to_owned(),
        format!("unix_socket_directories={}", directory.display()),
        format!("hba_file={}", path("hba")),
        "ssl=on".to_owned(),
        format!("ssl_cert_file={}", path("server.crt")),
        format!("ssl_key_file={}", path("server.key")),
        "fsync=off".to_owned(),
    ];
    let mut postgres = server_command("postgres");
    postgres.extend(["-D".to_owned(), data]);
    for setting in settings {
        postgres.extend(["-c".to_owned(), setting]);
    }
    let script = r#"dir=$1; shift; "$@" & cat >/dev/null; kill -INT $!; wait; rm -rf "$dir""#;
    let supervisor = Command::new("sh")
        .args(["-c", script, "sh"])
        .arg(&directory)
        .args(postgres)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(fs::File::create(directory.join("log")).unwrap())
        .spawn()
        .unwrap();

    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let cluster = Cluster {
        address,
        ca_pem,
        directory,
        _supervisor: supervisor,
    };
    let deadline = Instant::now() + Duration::from_secs(60);
    while !cluster.psql("select 1").status.success() {
        let log = || fs::read_to_string(cluster.directory.join("log")).unwrap_or_default();
        assert!(Instant::now() < deadline, "PostgreSQL did not start: {}", log());
        std::thread::sleep(Duration::from_millis(50));
    }
    for user in ["scram", "password"] {
        cluster.sql(&format!("create role {user} login password '{PASSWORD}'"));
    }
    cluster.sql(&format!(
        "set password_encryption = md5; create role md5 login password '{PASSWORD}'"
    ));
    cluster.sql("create role trust login superuser");
    cluster.sql("create database ascii encoding SQL_ASCII template template0");
    cluster
}

const HBA: &str = "
local all postgres trust
host all scram 127.0.0.1/32 scram-sha-256
host all md5 127.0.0.1/32 md5
host all password 127.0.0.1/32 password
host all trust 127.0.0.1/32 trust
";

/// A certificate authority and a certificate for [`HOST`]; returns the authority's.
fn write_certificates(directory: &Path) -> String {
    let (ca_pem, issuer) = authority();
    let key = rcgen::KeyPair::generate().unwrap();
    let server = rcgen::CertificateParams::new(vec![HOST.to_owned()]).unwrap();
    let server = server.signed_by(&key, &issuer).unwrap();
    fs::write(directory.join("server.crt"), server.pem()).unwrap();
    let path = directory.join("server.key");
    fs::write(&path, key.serialize_pem()).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    ca_pem
}

pub(crate) fn authority() -> (String, rcgen::Issuer<'static, rcgen::KeyPair>) {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(Vec::<String>::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let pem = params.self_signed(&key).unwrap().pem();
    (pem, rcgen::Issuer::new(params, key))
}
