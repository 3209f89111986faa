//! A whole deployment: config database, target, poolers, workers, API instances, nginx.

mod caller;
mod deploy;
mod keeper;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use futures::future::join_all;
use harness::nginx::NginxHttp;
use harness::{ClusterOptions, Nginx, NginxOptions, free_port, random};
use tokio::sync::OnceCell;

pub use self::caller::{Caller, create_server, set_budget, set_limits};
use self::deploy::{Plan, issue_certificates, set_up};
use self::keeper::Keeper;
use crate::config_database::ConfigDatabase;
use crate::configuration::{Logins, Shared};
use crate::recording::Recorder;
use crate::secrets::Secrets;
use crate::target::{ARCHIVE, SALES};
use crate::{Client, Role, RoleProcess, Target, admin};

/// The first superuser's login name.
pub const SUPERUSER: &str = "admin";

/// How a world differs from the default one: two API instances, one pooler, one worker.
#[derive(Debug, Clone)]
pub struct WorldOptions {
    /// API instances.
    pub apis: usize,
    /// Poolers.
    pub poolers: usize,
    /// Workers.
    pub workers: usize,
    /// Settings of the config database's cluster.
    pub config_cluster: ClusterOptions,
    /// Settings of the target's cluster.
    pub target_cluster: ClusterOptions,
    /// pgbench's scale for the two schemas; none for an empty target.
    pub scale: Option<Scale>,
    /// `egress.allow`. On loopback it counts for the ports of the target, of the config database and
    /// [`World::dead_port`] only.
    pub egress_allow: Vec<String>,
    /// `telemetry.otlp_endpoint`.
    pub otlp_endpoint: Option<String>,
    /// `telemetry.log_level`.
    pub log_level: String,
    /// `pooler.lease` and `pooler.takeover_grace`; the defaults where not given.
    pub takeover: Option<(String, String)>,
    /// `audit.loss_window`, where calls are refused that cannot be recorded.
    pub audit_loss_window: Option<String>,
    /// Logins with providers, if there are any.
    pub oidc: Option<OidcOptions>,
    /// Keeps what the world's callers are answered.
    pub recorder: Option<Recorder>,
    /// The keys of `[audit]` as they are written; the defaults where not given.
    pub audit: Option<String>,
}

/// What a world needs for logins with providers.
#[derive(Debug, Clone)]
pub struct OidcOptions {
    /// The balancer's port for browsers; the test has chosen it, since providers have to know it.
    pub external_port: u16,
    /// The section `[oidc]` as it is written.
    pub section: String,
}

impl OidcOptions {
    /// Where a provider sends browsers back.
    #[must_use]
    pub fn redirect_uri(external_port: u16, provider: &str) -> String {
        format!("http://127.0.0.1:{external_port}/oidc/callback/{provider}")
    }
}

/// pgbench's scale by schema.
#[derive(Debug, Clone, Copy)]
pub struct Scale {
    /// Of the schema that is backed up.
    pub sales: u32,
    /// Of the schema with the large table.
    pub archive: u32,
}

impl Default for WorldOptions {
    fn default() -> Self {
        Self {
            apis: 2,
            poolers: 1,
            workers: 1,
            config_cluster: ClusterOptions::default(),
            target_cluster: ClusterOptions::default(),
            scale: None,
            egress_allow: vec!["127.0.0.1".to_owned()],
            otlp_endpoint: None,
            log_level: "info".to_owned(),
            takeover: None,
            audit_loss_window: None,
            oidc: None,
            recorder: None,
            audit: None,
        }
    }
}

/// A running deployment. Dropping it stops everything, in the order of its fields.
#[derive(Debug)]
pub struct World {
    nginx: Nginx,
    apis: Vec<RoleProcess>,
    workers: Vec<RoleProcess>,
    poolers: Vec<RoleProcess>,
    target: Target,
    config_database: ConfigDatabase,
    secrets: Secrets,
    commands_log: String,
    superuser_password: String,
    recorder: Option<Recorder>,
    dead_port: u16,
    http_ports: Vec<u16>,
    instance_made: OnceCell<()>,
    directory: PathBuf,
    // Last: its end removes the directory.
    _keeper: Keeper,
}

/// Most lines of a log that a failed test shows.
const MOST_LINES: usize = 20;

/// A test that failed shows what its processes found wrong: their logs go with the world.
impl Drop for World {
    #[allow(clippy::print_stderr, reason = "where a failed test says why")]
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        for process in self.processes() {
            let log = process.log_text();
            let wrong: Vec<&str> = log.lines().filter(|line| line.contains("ERROR")).collect();
            for line in wrong.iter().rev().take(MOST_LINES).rev() {
                eprintln!("{}: {line}", process.name());
            }
        }
        let complaints = self.nginx.error_log_text();
        let complaints: Vec<&str> = complaints.lines().collect();
        for line in complaints.iter().rev().take(MOST_LINES).rev() {
            eprintln!("nginx: {line}");
        }
    }
}

impl World {
    /// Starts everything and waits until it serves.
    ///
    /// # Panics
    /// When something does not; the text has its log.
    pub async fn start(options: WorldOptions) -> Self {
        let keeper = Keeper::start();
        let directory = keeper.directory().to_path_buf();
        let secrets = Secrets::default();
        let (config_database, target) = tokio::join!(
            ConfigDatabase::start(options.config_cluster.clone(), &directory, &secrets),
            Target::start(options.target_cluster.clone(), &secrets),
        );
        let load = async {
            if let Some(scale) = options.scale {
                target.load(SALES, scale.sales).await;
                target.load(ARCHIVE, scale.archive).await;
            }
        };
        let superuser_password = random::password();
        secrets.remember("the superuser's password", &superuser_password);
        let names: Vec<(Role, String)> = [
            (Role::Pooler, options.poolers),
            (Role::Api, options.apis),
            (Role::Worker, options.workers),
        ]
        .into_iter()
        .flat_map(|(role, count)| (0..count).map(move |index| (role, format!("{role}-{index}"))))
        .collect();
        let set_up = async {
            let log = set_up(&config_database, &directory, &secrets, &superuser_password).await;
            log + &issue_certificates(&directory, &names).await
        };
        let ((), commands_log) = tokio::join!(load, set_up);

        let dead_port = free_port();
        let http_ports: Vec<u16> = (0..options.apis).map(|_| free_port()).collect();
        let logins = match &options.oidc {
            Some(oidc) => {
                let login_key_file = directory.join("login.key");
                admin::create_login_key(&login_key_file).await;
                let key = std::fs::read_to_string(&login_key_file).expect("the login key's file");
                secrets.remember("the login key", key.trim());
                Some(Logins {
                    oidc: oidc.section.clone(),
                    external_url: format!("http://127.0.0.1:{}", oidc.external_port),
                    login_key_file,
                })
            }
            None => None,
        };
        let shared = Shared {
            egress_allow: options.egress_allow.clone(),
            // The config database's too: it is denied for what it is, not for where it is.
            loopback_ports: vec![
                target.cluster().port(),
                dead_port,
                config_database.cluster().port(),
            ],
            otlp_endpoint: options.otlp_endpoint.clone(),
            log_level: options.log_level.clone(),
            takeover: options.takeover.clone(),
            audit_loss_window: options.audit_loss_window.clone(),
            logins,
            audit: options.audit.clone(),
        };
        let plan = Plan {
            directory: &directory,
            config_database: &config_database,
            shared: &shared,
            http_ports: &http_ports,
        };
        let poolers = plan.start(Role::Pooler, &names).await;
        let (apis, workers) = tokio::join!(plan.start(Role::Api, &names), plan.start(Role::Worker, &names));
        if options.poolers > 0 {
            join_all(apis.iter().map(RoleProcess::wait_for_sessions)).await;
        }
        let listening = |api: &RoleProcess| SocketAddr::from((Ipv4Addr::LOCALHOST, api.port()));
        let nginx = Nginx::start(&NginxOptions {
            api_servers: apis.iter().map(listening).collect(),
            http: options.oidc.as_ref().map(|oidc| NginxHttp {
                port: oidc.external_port,
                servers: http_ports
                    .iter()
                    .map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, *port)))
                    .collect(),
            }),
        })
        .await;
        Self {
            nginx,
            apis,
            workers,
            poolers,
            target,
            config_database,
            secrets,
            commands_log,
            superuser_password,
            recorder: options.recorder,
            dead_port,
            http_ports,
            instance_made: OnceCell::new(),
            directory,
            _keeper: keeper,
        }
    }

    /// The balancer's address.
    #[must_use]
    pub fn url(&self) -> String {
        self.nginx.url()
    }

    /// A caller without credentials, through the balancer.
    #[must_use]
    pub fn anonymous(&self) -> Client {
        self.client(&self.url())
    }

    fn client(&self, url: &str) -> Client {
        let client = Client::anonymous(url);
        match &self.recorder {
            Some(recorder) => client.recorded_by(recorder),
            None => client,
        }
    }

    /// Logs a user in through the balancer and remembers the tokens as secrets.
    ///
    /// # Panics
    /// When the login fails.
    pub async fn log_in(&self, username: &str, password: &str) -> String {
        let tokens = self.anonymous().log_in(username, password).await;
        let tokens = tokens.unwrap_or_else(|status| panic!("logging {username} in: {status:?}"));
        self.secrets.remember("an access token", &tokens.access_token);
        self.secrets.remember("a refresh token", &tokens.refresh_token);
        tokens.access_token
    }

    /// Logs the superuser in and returns them as callers of each address.
    pub async fn superuser(&self) -> Caller {
        let token = self.log_in(SUPERUSER, &self.superuser_password).await;
        self.caller(&token)
    }

    /// Makes an ordinary user with a random name and logs them in.
    ///
    /// # Panics
    /// When that fails.
    pub async fn create_user(&self) -> Caller {
        self.create(false).await
    }

    /// Makes an administrator with a random name and logs them in. Only they may register servers on new
    /// instances.
    ///
    /// # Panics
    /// When that fails.
    pub async fn create_administrator(&self) -> Caller {
        self.create(true).await
    }

    async fn create(&self, administrator: bool) -> Caller {
        let (username, password) = (random::name("user"), random::password());
        self.secrets.remember("a user's password", &password);
        let request = rpc::user::v1::CreateUserRequest {
            user: Some(rpc::user::v1::User {
                username: username.clone(),
                display_name: "A user".to_owned(),
                administrator,
                ..rpc::user::v1::User::default()
            }),
            password: password.clone(),
        };
        let made = self.superuser().await.balanced.users().create_user(request).await;
        made.unwrap_or_else(|status| panic!("creating a user: {status:?}"));
        let token = self.log_in(&username, &password).await;
        self.caller(&token)
    }

    /// That token's holder as callers of each address.
    #[must_use]
    pub fn caller(&self, token: &str) -> Caller {
        let direct = self.apis.iter();
        Caller {
            balanced: self.anonymous().with_token(token),
            apis: direct
                .map(|api| self.client(&api.url()).with_token(token))
                .collect(),
        }
    }

    /// Registers the target for a caller, with its password, and returns the server's name.
    ///
    /// # Panics
    /// When that fails.
    pub async fn register_target(&self, caller: &Client) -> String {
        let register = async |caller: &Client| {
            let password = &self.target.login().password;
            let created = create_server(caller, self.target_server(), password).await;
            created.unwrap_or_else(|status| panic!("registering the target: {status:?}"))
        };
        // The instance must be there before an ordinary user may register a server on it.
        self.instance_made
            .get_or_init(async || drop(register(self.superuser().await.a()).await))
            .await;
        register(caller).await
    }

    /// The target as a registration, under a random name.
    #[must_use]
    pub fn target_server(&self) -> rpc::server::v1::Server {
        rpc::server::v1::Server {
            display_name: random::name("target"),
            endpoints: vec![rpc::server::v1::Endpoint {
                host: "127.0.0.1".to_owned(),
                port: i32::from(self.target.cluster().port()),
            }],
            tls: Some(rpc::server::v1::TlsPolicy {
                mode: rpc::server::v1::SslMode::Disable.into(),
                root_certificates: String::new(),
            }),
            maintenance_database: self.target.database().name().to_owned(),
            username: self.target.login().user.clone(),
            ..rpc::server::v1::Server::default()
        }
    }

    /// The first superuser's password.
    #[must_use]
    pub fn superuser_password(&self) -> &str {
        &self.superuser_password
    }

    /// The API instances.
    #[must_use]
    pub fn apis(&self) -> &[RoleProcess] {
        &self.apis
    }

    /// The API instances, to be killed and started.
    pub fn apis_mut(&mut self) -> &mut [RoleProcess] {
        &mut self.apis
    }

    /// The poolers.
    #[must_use]
    pub fn poolers(&self) -> &[RoleProcess] {
        &self.poolers
    }

    /// The poolers, to be killed and started.
    pub fn poolers_mut(&mut self) -> &mut [RoleProcess] {
        &mut self.poolers
    }

    /// The workers.
    #[must_use]
    pub fn workers(&self) -> &[RoleProcess] {
        &self.workers
    }

    /// The target.
    #[must_use]
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// The config database.
    #[must_use]
    pub fn config_database(&self) -> &ConfigDatabase {
        &self.config_database
    }

    /// The balancer.
    #[must_use]
    pub fn nginx(&self) -> &Nginx {
        &self.nginx
    }

    /// What may not be seen anywhere.
    #[must_use]
    pub fn secrets(&self) -> &Secrets {
        &self.secrets
    }

    /// A port of 127.0.0.1 that egress allows and where nobody listens.
    #[must_use]
    pub fn dead_port(&self) -> u16 {
        self.dead_port
    }

    /// The certificate of a process, for example `api-0`.
    #[must_use]
    pub fn certificate(&self, name: &str) -> admin::Certificate {
        admin::Certificate::of(&self.directory.join(name))
    }

    /// Where its processes have their files.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The file of the keys that open passwords, which poolers and workers share.
    #[must_use]
    pub fn opening_key_file(&self) -> PathBuf {
        self.directory.join("opening.key")
    }

    /// Where the API instances answer browsers, without the balancer.
    #[must_use]
    pub fn http_urls(&self) -> Vec<String> {
        let ports = self.http_ports.iter();
        ports.map(|port| format!("http://127.0.0.1:{port}")).collect()
    }

    /// Name and process id of everything of pgmoor's that runs.
    #[must_use]
    pub fn pids(&self) -> Vec<(String, u32)> {
        let processes = self.processes();
        processes
            .filter_map(|process| Some((process.name().to_owned(), process.pid()?)))
            .collect()
    }

    /// What every program here has logged, PostgreSQL and nginx among them, with where it stands.
    #[must_use]
    pub fn logs(&self) -> Vec<(String, String)> {
        let mut logs: Vec<(String, String)> = self
            .processes()
            .map(|process| (format!("the log of {}", process.name()), process.log_text()))
            .collect();
        logs.push(("the output of commands".to_owned(), self.commands_log.clone()));
        logs.push(("nginx's access log".to_owned(), self.nginx.access_log_text()));
        logs.push(("nginx's error log".to_owned(), self.nginx.error_log_text()));
        logs.push((
            "the log of the config database".to_owned(),
            self.config_database.cluster().log_text(),
        ));
        logs.push((
            "the log of the target".to_owned(),
            self.target.cluster().log_text(),
        ));
        logs
    }

    fn processes(&self) -> impl Iterator<Item = &RoleProcess> {
        self.apis.iter().chain(&self.poolers).chain(&self.workers)
    }
}
