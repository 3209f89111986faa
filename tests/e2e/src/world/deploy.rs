//! What an operator does before and while a deployment starts: commands, configuration files, processes.

use std::path::Path;

use futures::future::join_all;
use harness::free_port;

use crate::config_database::{ConfigDatabase, write_secret};
use crate::configuration::{Own, Shared};
use crate::secrets::Secrets;
use crate::{Role, RoleProcess, admin, configuration};

/// What the processes of every role are started from.
pub(super) struct Plan<'a> {
    pub(super) directory: &'a Path,
    pub(super) config_database: &'a ConfigDatabase,
    pub(super) shared: &'a Shared,
    /// Where API instances answer browsers, one after the other.
    pub(super) http_ports: &'a [u16],
}

impl Plan<'_> {
    pub(super) async fn start(&self, role: Role, names: &[(Role, String)]) -> Vec<RoleProcess> {
        let names = names.iter().filter(|(other, _)| *other == role);
        let names = names.enumerate();
        join_all(names.map(|(index, (_, name))| self.start_one(role, index, name))).await
    }

    async fn start_one(&self, role: Role, index: usize, name: &str) -> RoleProcess {
        let directory = self.directory.join(name);
        let opening_key = self.directory.join("opening.key");
        let (port, metrics_port) = (free_port(), free_port());
        let own = Own {
            role,
            url_file: &self.config_database.url_file(role.as_str()),
            port,
            metrics_port,
            certificate: &admin::Certificate::of(&directory),
            opening_key_file: (role != Role::Api).then_some(opening_key.as_path()),
            storage: &self.directory.join("storage"),
            http_port: (role == Role::Api)
                .then(|| self.http_ports.get(index).copied())
                .flatten(),
        };
        let text = configuration::of_process(self.shared, &own);
        std::fs::write(directory.join("pgmoor.toml"), text).expect("a configuration file");
        RoleProcess::start(role, name.to_owned(), directory, port, metrics_port).await
    }
}

/// Runs the commands an operator runs once and returns what they wrote.
pub(super) async fn set_up(
    config_database: &ConfigDatabase,
    directory: &Path,
    secrets: &Secrets,
    superuser_password: &str,
) -> admin::Log {
    let mut log = config_database.migrate(secrets).await;
    let configuration = config_database.commands_configuration();
    let opening_key = directory.join("opening.key");
    log += &admin::create_sealing_key(&configuration, &opening_key).await;
    let key = std::fs::read_to_string(&opening_key).expect("the opening key's file");
    secrets.remember("the opening key", key.trim());
    let password_file = directory.join("superuser.password");
    write_secret(&password_file, superuser_password);
    log += &admin::create_user(&configuration, super::SUPERUSER, &password_file).await;
    std::fs::create_dir(directory.join("storage")).expect("a directory for files");
    log
}

/// Issues each process's certificate into its directory and returns what the commands wrote.
pub(super) async fn issue_certificates(directory: &Path, names: &[(Role, String)]) -> admin::Log {
    let mut log = String::new();
    for (role, name) in names {
        let own = directory.join(name);
        log += &admin::issue_certificate(&directory.join("authority"), *role, name, &own).await;
    }
    log
}
