//! `servers`: registrations of PostgreSQL servers.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use prost_types::FieldMask;
use rpc::server::v1::{
    CreateServerRequest, CredentialKind, DeleteServerRequest, ExportServersRequest, GetServerRequest,
    ImportOutcome, ImportServersRequest, ImportedServer, Server, SetServerPasswordRequest, TestServerRequest,
    UpdateServerRequest,
};
use secrecy::ExposeSecret as _;

use super::credential_option::CredentialOption;
use super::server_fields::{Fields, endpoints_text};
use super::{groups, server_policy, transfer};
use crate::connection::Call;
use crate::context::Context;
use crate::error::ClientError;
use crate::exit::Exit;
use crate::output::record::{Record, text, word};
use crate::password::PasswordOptions;
use crate::server_name;

/// How long a test may take: the pooler tries each host with a deadline of its own.
const TEST_WAIT: std::time::Duration = std::time::Duration::from_secs(60);

/// Servers. SERVER is a server's name, its id, its display name where it is the only one, or group/name.
#[derive(Debug, Clone, Subcommand)]
pub enum Servers {
    /// List your servers
    List,
    /// Show a server
    Get {
        /// The server: its name, id, display name, or group/name
        server: String,
    },
    /// Register a server; asks for its password
    #[command(after_help = "\
Examples:
  pgmoor servers add shop --host db1.example.com --username app
  pgmoor servers add shop --group prod --host db1.example.com --host db2.example.com:5433 \\
      --username app --ssl-mode verify-full --root-certificates ca.pem --password-stdin < secret")]
    Add(Box<Add>),
    /// Change a server. A change of hosts, TLS or user name voids its password
    #[command(
        after_help = "Example:\n  pgmoor servers update shop --maintenance-database orders --comment ''"
    )]
    Update(Box<Update>),
    /// Show what a server allows, whoever asks; with an option, change it
    #[command(after_help = "\
Examples:
  pgmoor servers policy shop
  pgmoor servers policy shop --preset production
  pgmoor servers policy shop --environment staging --database orders --no-restores")]
    Policy(Box<server_policy::Policy>),
    /// Set a server's password, or forget it
    SetPassword {
        /// The server: its name, id, display name, or group/name
        server: String,
        /// Forget the stored password
        #[arg(long, conflicts_with_all = ["password_stdin", "password_file"])]
        forget: bool,
        #[command(flatten)]
        password: PasswordOptions,
    },
    /// Credentials beside the server's own: yours, and that of read-only sessions
    #[command(
        subcommand,
        after_help = "\
Examples:
  pgmoor servers credentials set-personal shop --role ann
  pgmoor servers credentials set-read-only shop --role shop_reader --password-file secret"
    )]
    Credentials(super::credentials::Credentials),
    /// Connect once and report what was found
    Test {
        /// The server: its name, id, display name, or group/name
        server: String,
        /// The database; without it the maintenance database
        #[arg(long, short, default_value = "", hide_default_value = true)]
        database: String,
        #[command(flatten)]
        credential: CredentialOption,
    },
    /// Look what a server's role may do, and whether PostgreSQL keeps it from writing
    Inspect(super::inspection::Inspect),
    /// Print, or run, the SQL that makes a role which can only read
    #[command(
        name = "provision-readonly",
        after_help = "\
Examples:
  pgmoor servers provision-readonly shop --role shop_reader > reader.sql
  pgmoor servers provision-readonly shop --role shop_reader -d orders -d stock --keep-for app
  pgmoor servers provision-readonly shop --role shop_reader --run-as admin/shop

It takes rights from PUBLIC, since none can be kept from one role alone: temporary tables, large
objects, what was granted to everybody. Roles that need them are named with --keep-for. Doing it
twice changes nothing. The role has no password yet."
    )]
    ProvisionReadonly(Box<super::provision::Provision>),
    /// Show or change what inspections of a server let pass
    #[command(after_help = "\
Example:
  pgmoor servers inspection-policy shop --trust 'public.total(integer)' --trust extension:pg_stat_statements")]
    InspectionPolicy(super::inspection::Policy),
    /// Forget a server; nothing happens to its databases
    Remove {
        /// The server: its name, id, display name, or group/name
        server: String,
    },
    /// Register the servers of a pgAdmin servers.json; doing it twice changes nothing
    #[command(after_help = "\
Examples:
  pgmoor servers import servers.json --dry-run
  pgmoor servers import - < servers.json

What pgAdmin exports (setup.py dump-servers) holds no passwords: set them afterwards with
pgmoor servers set-password. The exit status is 1 where an entry was refused.")]
    Import {
        /// The file; - for the standard input
        file: PathBuf,
        /// Report what would happen and change nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Write your servers as a pgAdmin servers.json, without passwords
    Export {
        /// The file; - for the standard output
        #[arg(default_value = "-")]
        file: PathBuf,
    },
}

/// A new server.
#[derive(Debug, Clone, Args)]
pub struct Add {
    /// What you call it
    display_name: String,
    #[command(flatten)]
    fields: Fields,
    /// Do not ask for a password
    #[arg(long, conflicts_with_all = ["password_stdin", "password_file"])]
    no_password: bool,
    #[command(flatten)]
    password: PasswordOptions,
    /// Check the request and register nothing
    #[arg(long)]
    dry_run: bool,
}

/// A changed server.
#[derive(Debug, Clone, Args)]
pub struct Update {
    /// The server: its name, id, display name, or group/name
    server: String,
    /// What you call it from now on
    #[arg(long, value_name = "NAME")]
    display_name: Option<String>,
    #[command(flatten)]
    fields: Fields,
    /// Hand it over: to groups/ and the name or id of a group you are in, or users/me
    #[arg(long, value_name = "OWNER")]
    owner: Option<String>,
    /// Only if it has not changed since this etag was read
    #[arg(long, default_value = "", hide_default_value = true)]
    etag: String,
}

impl Servers {
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), ClientError> {
        match self {
            Self::List => {
                let servers = server_name::all(context).await?;
                context.show_list(&servers).await
            }
            Self::Get { server } => {
                let request = GetServerRequest {
                    name: server_name::resolve(context, &server).await?,
                };
                let client = context.connection()?.servers();
                let answer = context
                    .read(async || client.clone().get_server(request.clone()).await)
                    .await?;
                show(context, answer.server).await
            }
            Self::Add(add) => add.run(context).await,
            Self::Update(update) => update.run(context).await,
            Self::Policy(policy) => policy.run(context).await,
            Self::SetPassword {
                server,
                forget,
                password,
            } => set_password(context, &server, forget, password).await,
            Self::Test {
                server,
                database,
                credential,
            } => test(context, &server, database, credential.kind()).await,
            Self::Credentials(credentials) => credentials.run(context).await,
            Self::Inspect(inspect) => inspect.run(context).await,
            Self::InspectionPolicy(policy) => policy.run(context).await,
            Self::ProvisionReadonly(provision) => provision.run(context).await,
            Self::Remove { server } => {
                let request = DeleteServerRequest {
                    name: server_name::resolve(context, &server).await?,
                    ..DeleteServerRequest::default()
                };
                let client = context.connection()?.servers();
                context
                    .read(async || client.clone().delete_server(request.clone()).await)
                    .await?;
                context.notes.line(&format!("forgot {}", request.name));
                Ok(())
            }
            Self::Import { file, dry_run } => import(context, &file, dry_run).await,
            Self::Export { file } => export(context, &file).await,
        }
    }
}

impl Add {
    async fn run(self, context: &mut Context) -> Result<(), ClientError> {
        let mut server = Server {
            display_name: self.display_name,
            ..Server::default()
        };
        self.fields.apply(&mut server)?;
        if server.endpoints.is_empty() {
            return Err(ClientError::usage("name at least one host with --host"));
        }
        let ask =
            !self.no_password && !self.dry_run && (self.password.is_given() || context.stdin_is_terminal);
        let password = if ask {
            let question = format!("password of {} at {}: ", server.username, server.display_name);
            self.password
                .existing(context, &question)
                .await?
                .expose_secret()
                .to_owned()
        } else {
            String::new()
        };
        let request = CreateServerRequest {
            server: Some(server),
            password,
            validate_only: self.dry_run,
        };
        let client = context.connection()?.servers();
        let answer = context
            .change(async || client.clone().create_server(request.clone()).await)
            .await?;
        show(context, answer.server).await
    }
}

impl Update {
    async fn run(self, context: &mut Context) -> Result<(), ClientError> {
        let name = server_name::resolve(context, &self.server).await?;
        let mut server = Server {
            name,
            etag: self.etag,
            ..Server::default()
        };
        let mut paths = self.fields.apply(&mut server)?;
        if let Some(display_name) = self.display_name {
            server.display_name = display_name;
            paths.push("display_name");
        }
        if let Some(owner) = self.owner {
            server.owner = groups::resolve_member(context, owner).await?;
            paths.push("owner");
        }
        if paths.is_empty() {
            return Err(ClientError::usage("nothing to change: give at least one option"));
        }
        let update_mask = Some(FieldMask {
            paths: paths.into_iter().map(str::to_owned).collect(),
        });
        let client = context.connection()?.servers();
        // The policy is one field to the API: what is not changed of it must be what it was.
        if self.fields.ssl_mode.is_some() != self.fields.root_certificates.is_some() && server.tls.is_some() {
            let request = GetServerRequest {
                name: server.name.clone(),
            };
            let present = context
                .read(async || client.clone().get_server(request.clone()).await)
                .await?;
            let present = present.server.and_then(|server| server.tls).unwrap_or_default();
            if let Some(tls) = &mut server.tls {
                match self.fields.ssl_mode {
                    Some(_) => tls.root_certificates = present.root_certificates,
                    None => tls.mode = present.mode,
                }
            }
        }
        let request = UpdateServerRequest {
            server: Some(server),
            update_mask,
        };
        let answer = context
            .read(async || client.clone().update_server(request.clone()).await)
            .await?;
        let lost = answer.server.as_ref().is_some_and(|server| !server.has_password);
        show(context, answer.server).await?;
        if lost {
            context
                .notes
                .line("the server has no password now; run: pgmoor servers set-password SERVER");
        }
        Ok(())
    }
}

async fn show(context: &mut Context, server: Option<Server>) -> Result<(), ClientError> {
    context
        .show(&server.ok_or(ClientError::Incomplete { field: "server" })?)
        .await
}

async fn set_password(
    context: &mut Context,
    server: &str,
    forget: bool,
    password: PasswordOptions,
) -> Result<(), ClientError> {
    let name = server_name::resolve(context, server).await?;
    let password = if forget {
        String::new()
    } else {
        password
            .existing(context, &format!("password for {server}: "))
            .await?
            .expose_secret()
            .to_owned()
    };
    if password.is_empty() && !forget {
        return Err(ClientError::usage(
            "the password is empty; use --forget to take it away",
        ));
    }
    let request = SetServerPasswordRequest { name, password };
    let client = context.connection()?.servers();
    context
        .read(async || client.clone().set_server_password(request.clone()).await)
        .await?;
    context.notes.line(if forget {
        "the password is forgotten"
    } else {
        "the password is stored"
    });
    Ok(())
}

async fn test(
    context: &mut Context,
    server: &str,
    database: String,
    credential: CredentialKind,
) -> Result<(), ClientError> {
    let name = server_name::resolve(context, server).await?;
    let request = TestServerRequest {
        name,
        database,
        credential: credential.into(),
    };
    let connection = context.connection()?;
    let client = connection.servers();
    let call = Call::repeatable(context.patient(TEST_WAIT));
    let answer = connection
        .call(call, async || client.clone().test_server(request.clone()).await)
        .await?;
    context
        .show_message("pgmoor.server.v1.TestServerResponse", &answer)
        .await
}

async fn import(context: &mut Context, file: &Path, dry_run: bool) -> Result<(), ClientError> {
    let document = transfer::read_whole(context, file)?;
    let request = ImportServersRequest {
        document: document.into(),
        validate_only: dry_run,
    };
    let client = context.connection()?.servers();
    let answer = context
        .read(async || client.clone().import_servers(request.clone()).await)
        .await?;
    context.show_list(&answer.servers).await?;
    let count = |outcome| {
        answer
            .servers
            .iter()
            .filter(|server| server.outcome() == outcome)
            .count()
    };
    let refused = count(ImportOutcome::Refused);
    context.notes.line(&format!(
        "{}{} created, {} updated, {} unchanged, {refused} refused",
        if dry_run { "dry run: " } else { "" },
        count(ImportOutcome::Created),
        count(ImportOutcome::Updated),
        count(ImportOutcome::Unchanged),
    ));
    if refused > 0 {
        Err(ClientError::Reported(Exit::Failed))
    } else {
        Ok(())
    }
}

async fn export(context: &mut Context, file: &Path) -> Result<(), ClientError> {
    let client = context.connection()?.servers();
    let answer = context
        .read(async || client.clone().export_servers(ExportServersRequest {}).await)
        .await?;
    if file == Path::new("-") {
        context.out.block.extend_from_slice(&answer.document);
        return context.out.flush().await;
    }
    std::fs::write(file, &answer.document).map_err(ClientError::writing(file))
}

impl Record for Server {
    const MESSAGE: &'static str = "pgmoor.server.v1.Server";
    const COLUMNS: &'static [&'static str] = &[
        "name",
        "group",
        "display_name",
        "endpoints",
        "username",
        "maintenance_database",
        "has_password",
    ];

    fn cells(&self) -> Vec<Option<String>> {
        vec![
            text(&self.name),
            text(&self.group),
            text(&self.display_name),
            endpoints_text(&self.endpoints),
            text(&self.username),
            text(&self.maintenance_database),
            Some(self.has_password.to_string()),
        ]
    }
}

impl Record for ImportedServer {
    const MESSAGE: &'static str = "pgmoor.server.v1.ImportedServer";
    const COLUMNS: &'static [&'static str] = &[
        "key",
        "group",
        "display_name",
        "outcome",
        "server",
        "ignored_keys",
        "error",
    ];

    fn cells(&self) -> Vec<Option<String>> {
        vec![
            text(&self.key),
            text(&self.group),
            text(&self.display_name),
            word(self.outcome().as_str_name(), "IMPORT_OUTCOME_"),
            text(&self.server),
            text(&self.ignored_keys.join(" ")),
            text(&self.error),
        ]
    }
}
