//! The client's commands.

use clap::Subcommand;

use crate::commands::{
    audit, backup, catalog, elevations, explain_access, files, grants, groups, instances, login, logins, ops,
    pools, restore, roles, servers, settings, token, users, whoami,
};
use crate::context::Context;
use crate::error::ClientError;
use crate::sql;

/// A command of the client.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Log in and remember the server
    Login(login::Login),
    /// End the login
    Logout(login::Logout),
    /// Where you are logged in
    #[command(subcommand)]
    Logins(logins::Logins),
    /// Show who you are
    Whoami(whoami::Whoami),
    /// Settings that follow you to every client
    #[command(subcommand)]
    Settings(settings::Settings),
    /// The PostgreSQL servers you registered
    #[command(subcommand)]
    Servers(servers::Servers),
    /// The PostgreSQL instances behind the servers, and their connection budgets
    #[command(subcommand)]
    Instances(instances::Instances),
    /// What poolers do: pools, clients, backends, waits; pause, reconnect, kill
    Pools(pools::Pools),
    /// What is in a server's databases
    #[command(subcommand)]
    Catalog(catalog::Catalog),
    /// Run SQL: a statement, a file, or a prompt
    Sql(Box<sql::Sql>),
    /// Make, list and fetch backups
    #[command(subcommand)]
    Backup(backup::Backup),
    /// Restore a backup, or a file that pg_dump made
    Restore(restore::Restore),
    /// Follow background work
    #[command(subcommand)]
    Ops(ops::Ops),
    /// Your files on the server
    #[command(subcommand)]
    Files(files::Files),
    /// The people who use pgmoor
    #[command(subcommand)]
    Users(users::Users),
    /// Groups of users
    #[command(subcommand)]
    Groups(groups::Groups),
    /// Sets of permissions
    #[command(subcommand)]
    Roles(roles::Roles),
    /// To whom roles are bound
    #[command(subcommand)]
    Bindings(roles::Bindings),
    /// Shares in the use of servers
    #[command(subcommand)]
    Grants(grants::Grants),
    /// Writing for a while where one may only read
    #[command(subcommand)]
    Elevations(elevations::Elevations),
    /// What a user may do with a server, and by which rules
    ExplainAccess(explain_access::ExplainAccess),
    /// Who called what, and how it ended
    #[command(subcommand)]
    Audit(audit::Audit),
    /// API tokens for automation
    #[command(subcommand)]
    Token(token::Token),
}

impl Command {
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), ClientError> {
        // These end something before they give in to Ctrl-C.
        match self {
            Self::Sql(sql) => return Box::pin(sql.run(context)).await,
            Self::Backup(backup) => return Box::pin(backup.run(context)).await,
            Self::Restore(restore) => return Box::pin(restore.run(context)).await,
            Self::Ops(ops) => return Box::pin(ops.run(context)).await,
            _ => {}
        }
        context
            .interruptible(async |context| Box::pin(self.simple(context)).await)
            .await
    }

    async fn simple(self, context: &mut Context) -> Result<(), ClientError> {
        match self {
            Self::Login(login) => login.run(context).await,
            Self::Logout(logout) => logout.run(context).await,
            Self::Logins(logins) => logins.run(context).await,
            Self::Whoami(whoami) => whoami.run(context).await,
            Self::Settings(settings) => settings.run(context).await,
            Self::Servers(servers) => servers.run(context).await,
            Self::Instances(instances) => instances.run(context).await,
            Self::Pools(pools) => pools.run(context).await,
            Self::Catalog(catalog) => catalog.run(context).await,
            Self::Files(files) => files.run(context).await,
            Self::Users(users) => users.run(context).await,
            Self::Groups(groups) => groups.run(context).await,
            Self::Roles(roles) => roles.run(context).await,
            Self::Bindings(bindings) => bindings.run(context).await,
            Self::Grants(grants) => grants.run(context).await,
            Self::Elevations(elevations) => elevations.run(context).await,
            Self::ExplainAccess(explain) => explain.run(context).await,
            Self::Audit(audit) => audit.run(context).await,
            Self::Token(token) => token.run(context).await,
            // Carried out by `run`.
            Self::Sql(_) | Self::Backup(_) | Self::Restore(_) | Self::Ops(_) => Ok(()),
        }
    }
}
