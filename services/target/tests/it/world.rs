//! A cluster, the way to it, and programs run against it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use domain::egress::EgressPolicy;
use domain::endpoint::{Destination, Endpoint, SslMode, TlsPolicy};
use domain::name::Identifier;
use harness::{Cluster, Connection};
use secrecy::SecretString;
use target::tools::{
    DumpOptions, RestoreOptions, Tool, ToolEnvironment, ToolLogin, ToolProcess, Toolbox, ToolboxOptions,
};
use target::{Login, Resolved, Target, TargetOptions, resolve};
use tempfile::TempDir;
use tokio::io::AsyncReadExt;

pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

pub(crate) fn name(text: &str) -> Identifier {
    text.parse().unwrap()
}

/// Everything that is needed to run a program against a database.
pub(crate) struct World {
    pub(crate) cluster: &'static Cluster,
    pub(crate) resolved: Resolved,
    pub(crate) tool: Tool,
    pub(crate) scratch: TempDir,
}

pub(crate) struct Outcome {
    pub(crate) status: ExitStatus,
    pub(crate) output: Vec<u8>,
    pub(crate) log: String,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::of(
            Cluster::shared().await,
            TlsPolicy::new(SslMode::Disable, "").unwrap(),
        )
        .await
    }

    pub(crate) async fn of(cluster: &'static Cluster, tls: TlsPolicy) -> Self {
        let destination = destination("127.0.0.1", cluster.port(), tls);
        let resolved = resolve(&destination, &policy(&["127.0.0.1"], cluster.port()))
            .await
            .unwrap();
        let toolbox = Toolbox::discover(&ToolboxOptions {
            known_places: true,
            ..ToolboxOptions::default()
        })
        .await;
        let facts = target(&resolved, &superuser(cluster), "facts")
            .questions()
            .await
            .unwrap()
            .facts()
            .await
            .unwrap();
        Self {
            cluster,
            resolved,
            tool: toolbox.for_dump(facts.major()).unwrap().clone(),
            scratch: tempfile::tempdir().unwrap(),
        }
    }

    /// Makes a database with this very name and connects to it.
    pub(crate) async fn database(&self, database: &Identifier) -> Connection {
        let quoted = database.quoted();
        let superuser = self.cluster.connect().await;
        superuser
            .batch_execute(&format!("DROP DATABASE IF EXISTS {quoted} WITH (FORCE)"))
            .await
            .unwrap();
        superuser
            .batch_execute(&format!("CREATE DATABASE {quoted}"))
            .await
            .unwrap();
        let endpoint = self.cluster.endpoint();
        endpoint.connect(&endpoint.superuser(), database.as_str()).await
    }

    pub(crate) fn environment(&self, database: &Identifier, application_name: &str) -> ToolEnvironment {
        self.environment_with(database, application_name, &self.cluster.endpoint().password)
    }

    pub(crate) fn environment_with(
        &self,
        database: &Identifier,
        application_name: &str,
        password: &str,
    ) -> ToolEnvironment {
        let login = ToolLogin {
            resolved: &self.resolved,
            username: &name("postgres"),
            password: &SecretString::from(password),
            database,
            application_name,
            connect_timeout: Duration::from_secs(10),
            read_write: true,
        };
        ToolEnvironment::new(self.scratch.path(), None, &login).unwrap()
    }

    pub(crate) async fn dump(&self, database: &Identifier, options: &DumpOptions) -> Outcome {
        let arguments = options.arguments(self.tool.version.major);
        run(
            &self.tool.pg_dump(),
            &arguments,
            &self.environment(database, "dump"),
        )
        .await
    }

    pub(crate) async fn restore(
        &self,
        database: &Identifier,
        archive: &[u8],
        options: RestoreOptions,
    ) -> Outcome {
        let path = self.archive(archive);
        run(
            &self.tool.pg_restore(),
            &options.arguments(&path),
            &self.environment(database, "restore"),
        )
        .await
    }

    pub(crate) fn archive(&self, content: &[u8]) -> PathBuf {
        let path = self.scratch.path().join("archive");
        std::fs::write(&path, content).unwrap();
        path
    }
}

pub(crate) fn destination(host: &str, port: u16, tls: TlsPolicy) -> Destination {
    Destination::new(vec![Endpoint::new(host, i64::from(port)).unwrap()], tls).unwrap()
}

pub(crate) fn policy(rules: &[&str], loopback_port: u16) -> EgressPolicy {
    EgressPolicy {
        rules: rules.iter().map(|rule| rule.parse().unwrap()).collect(),
        loopback_ports: BTreeSet::from([loopback_port]),
        config_database: Vec::new(),
    }
}

pub(crate) fn superuser(cluster: &Cluster) -> Login {
    Login {
        username: name("postgres"),
        password: SecretString::from(cluster.endpoint().password.clone()),
        database: name("postgres"),
    }
}

pub(crate) fn target(resolved: &Resolved, login: &Login, application_name: &str) -> Target {
    let options = TargetOptions {
        application_name: application_name.to_owned(),
        max_connections: 1,
        connect_timeout: Duration::from_secs(10),
        statement_timeout: Duration::from_secs(10),
    };
    Target::new(resolved, login, &options).unwrap()
}

pub(crate) async fn run(program: &Path, arguments: &[String], environment: &ToolEnvironment) -> Outcome {
    finish(ToolProcess::spawn(program, arguments, Some(environment), None).unwrap()).await
}

pub(crate) async fn finish(mut process: ToolProcess) -> Outcome {
    let (mut stdout, mut stderr) = (process.take_stdout().unwrap(), process.take_stderr().unwrap());
    let (mut output, mut log) = (Vec::new(), Vec::new());
    let read = async { tokio::try_join!(stdout.read_to_end(&mut output), stderr.read_to_end(&mut log)) };
    tokio::time::timeout(DEADLINE, read)
        .await
        .expect("the program closes its output")
        .unwrap();
    let status = tokio::time::timeout(DEADLINE, process.wait())
        .await
        .expect("the program ends")
        .unwrap();
    Outcome {
        status,
        output,
        log: String::from_utf8_lossy(&log).into_owned(),
    }
}
