//! nginx in front of API instances, with the configuration that `deploy/nginx` ships.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;
use tokio::net::TcpStream;

use crate::process::Process;
use crate::unprivileged::hand_over;
use crate::{eventually, free_port, programs};

/// The shipped configuration: a test runs what users are told to run.
const TEMPLATE: &str = include_str!("../../deploy/nginx/pgmoor.conf.template");
/// The part for the instances' HTTP ports.
const HTTP_TEMPLATE: &str = include_str!("../../deploy/nginx/pgmoor-http.conf.template");

/// What goes into the configuration's placeholders.
#[derive(Debug, Clone, Default)]
pub struct NginxOptions {
    /// The API instances, tried in turn.
    pub api_servers: Vec<SocketAddr>,
    /// The HTTP ports of the instances, if browsers come.
    pub http: Option<NginxHttp>,
}

/// The HTTP side: what browsers ask for.
#[derive(Debug, Clone)]
pub struct NginxHttp {
    /// Where nginx listens for them, on 127.0.0.1.
    pub port: u16,
    /// The instances' HTTP ports, tried in turn.
    pub servers: Vec<SocketAddr>,
}

/// A running nginx of this test process, listening on 127.0.0.1.
#[derive(Debug)]
pub struct Nginx {
    // Declared before the directory: the server stops before its files go.
    _server: Process,
    directory: TempDir,
    port: u16,
}

impl Nginx {
    /// Starts nginx and waits until it accepts connections. The instances need not be there yet.
    ///
    /// # Panics
    /// When nginx is not installed or does not start; the text has its log.
    pub async fn start(options: &NginxOptions) -> Self {
        let directory = tempfile::Builder::new()
            .prefix("pgmoor-nginx-")
            .tempdir()
            .expect("a temporary directory");
        hand_over(directory.path());
        let port = free_port();
        let configuration = directory.path().join("nginx.conf");
        let text = render(
            SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            &options.api_servers,
            directory.path(),
        );
        std::fs::write(&configuration, text).expect("nginx's configuration file");
        if let Some(http) = &options.http {
            let parts = directory.path().join("conf.d");
            std::fs::create_dir(&parts).expect("a directory for nginx");
            let text = HTTP_TEMPLATE
                .replace("@HTTP_LISTEN@", &format!("127.0.0.1:{}", http.port))
                .replace("@HTTP_SERVERS@", &upstreams(&http.servers));
            std::fs::write(parts.join("http.conf"), text).expect("nginx's configuration file");
            hand_over(&parts);
        }
        hand_over(&configuration);
        let server = Process::builder(programs::nginx())
            .args(["-p".as_ref(), directory.path().as_os_str()])
            .args(["-c".as_ref(), configuration.as_os_str()])
            // Before the configuration is read, nginx would open its compiled-in log, which an ordinary user
            // may not.
            .args(["-e", "stderr", "-g", "daemon off;"])
            .unprivileged()
            .directory(directory.path())
            .spawn();
        let nginx = Self {
            _server: server,
            directory,
            port,
        };
        eventually(Duration::from_secs(20), "nginx accepts connections", async || {
            let connected = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await;
            connected.map_err(|error| format!("{error}; nginx wrote: {}", nginx.error_log_text()))
        })
        .await;
        nginx
    }

    /// The port it listens on.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The address for a gRPC client.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// One line per finished call, with the instances that were tried as `upstream=…`.
    #[must_use]
    pub fn access_log_text(&self) -> String {
        read(&self.directory.path().join("access.log"))
    }

    /// What nginx complained about.
    #[must_use]
    pub fn error_log_text(&self) -> String {
        read(&self.directory.path().join("stderr.log")) + &read(&self.directory.path().join("error.log"))
    }
}

fn render(listen: SocketAddr, api_servers: &[SocketAddr], directory: &Path) -> String {
    TEMPLATE
        .replace("@LISTEN@", &listen.to_string())
        .replace("@API_SERVERS@", &upstreams(api_servers))
        .replace("@RUNTIME_DIRECTORY@", &directory.display().to_string())
}

/// On one line: the template's header names the placeholders too, in comments.
fn upstreams(servers: &[SocketAddr]) -> String {
    let servers: Vec<String> = servers
        .iter()
        .map(|server| format!("server {server} max_fails=1 fail_timeout=1s;"))
        .collect();
    servers.join(" ")
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

#[cfg(test)]
mod tests;
