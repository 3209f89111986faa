//! The way to an operation's server: its registration, its opened password, its checked addresses.

use std::time::Duration;

use domain::access::Access;
use domain::credential::NoCredential;
use domain::id::{ServerId, UserId};
use domain::name::Identifier;
use rpc::errors::v1::ErrorReason;
use sealing::{Binding, KeyId, Sealed};
use store::servers::Server;
use target::tools::{ToolEnvironment, ToolLogin};
use target::{Login, Resolved, Target, TargetOptions, resolve};

use crate::Context;
use crate::failure::{Failure, Halt};
use crate::journal::Journal;

/// Longest wait for an answer to a question of ours.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest wait for backends to be gone once they were told to end.
const END_TIMEOUT: Duration = Duration::from_secs(30);

/// The way to a database.
#[derive(Debug)]
pub(crate) struct Reach {
    pub(crate) server: Server,
    resolved: Resolved,
    login: Login,
    /// What the operation's backends are found by.
    application_name: String,
    connect_timeout: Duration,
}

impl Reach {
    /// Opens the password that the operation's owner logs in with, their own where they have one, which the journal hides from here on, and checks every address.
    pub(crate) async fn find(
        context: &Context,
        (server, user): (ServerId, UserId),
        database: &Identifier,
        application_name: String,
        journal: &Journal,
    ) -> Result<Self, Halt> {
        let gone = || Failure::new(ErrorReason::ResourceNotFound, "the server's registration is gone");
        let server = context
            .patient(|store| async move { store.servers().get(server).await })
            .await?
            .ok_or_else(gone)?;
        let id = server.id;
        let there = context
            .patient(|store| async move { store.servers().credentials(id, user).await })
            .await?;
        // Never the read-only one: its role need not see all that is to be saved.
        let chosen = there.choose(server.policy.credential_mode, Access::ReadWrite);
        let credential = chosen.map_err(missing)?;
        let sealed = Sealed {
            key: KeyId::from_stored(credential.key_id),
            bytes: credential.sealed,
        };
        let binding = Binding {
            server: server.id,
            kind: credential.kind,
            username: credential.role.as_str(),
            destination: &server.destination,
        };
        let password = context.opener.open(&binding, &sealed)?;
        journal.hide(&password);
        let resolved = resolve(&server.destination, &context.options.egress).await?;
        let login = Login {
            username: credential.role,
            password,
            database: database.clone(),
        };
        Ok(Self {
            server,
            resolved,
            login,
            application_name,
            connect_timeout: context.options.connect_timeout,
        })
    }

    /// For our own questions. They come one after the other, so that they and the program never need two connections.
    pub(crate) fn target(&self) -> Result<Target, Halt> {
        let options = TargetOptions {
            application_name: format!("{} asking", self.application_name),
            max_connections: 1,
            connect_timeout: self.connect_timeout,
            statement_timeout: STATEMENT_TIMEOUT,
        };
        Ok(Target::new(&self.resolved, &self.login, &options)?)
    }

    /// What a program needs to connect.
    pub(crate) fn environment(&self, context: &Context, read_write: bool) -> Result<ToolEnvironment, Halt> {
        let login = ToolLogin {
            resolved: &self.resolved,
            username: &self.login.username,
            password: &self.login.password,
            database: &self.login.database,
            application_name: &self.application_name,
            connect_timeout: self.connect_timeout,
            read_write,
        };
        let options = &context.options;
        Ok(ToolEnvironment::new(
            &options.scratch_directory,
            options.tool_user,
            &login,
        )?)
    }

    /// Ends what the operation's program left on the server, and waits until it is gone.
    pub(crate) async fn end_backends(&self) -> Result<u64, Halt> {
        let target = self.target()?;
        let ended = target
            .questions()
            .await?
            .end_backends(&self.application_name, END_TIMEOUT)
            .await?;
        target.close();
        Ok(ended)
    }
}

fn missing(why: NoCredential) -> Failure {
    match why {
        NoCredential::Missing => Failure::new(
            ErrorReason::CredentialMissing,
            "the server has no password, or it was voided",
        ),
        NoCredential::PersonalMissing => Failure::new(
            ErrorReason::PersonalCredentialMissing,
            "the server is used with personal credentials only, and the owner of the operation has none there",
        ),
    }
}
