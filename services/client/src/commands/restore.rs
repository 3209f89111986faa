//! `restore`: a backup, or a file of the user, back into a database.

use clap::Args;
use rpc::backup::v1::StartRestoreRequest;
use rpc::backup::v1::start_restore_request::Source;

use super::files::file_name;
use super::instances::named;
use super::ops;
use crate::context::Context;
use crate::error::ClientError;
use crate::server_name;

/// A wish for a restore.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  pgmoor restore backups/… -s shop -d orders --clean
  pgmoor files upload shop.dump && pgmoor restore --file shop.dump -s test/shop --single-transaction

Ctrl-C ends the wait and not the restore; pgmoor ops cancel ends the restore.")]
pub struct Restore {
    /// backups/{backup}, or its id
    #[arg(required_unless_present = "file", conflicts_with = "file")]
    backup: Option<String>,
    /// A file of yours on the server, in pg_dump's custom format
    #[arg(long, value_name = "PATH")]
    file: Option<String>,
    /// The server to restore to: its name, id, display name, or group/name
    #[arg(long, short)]
    server: String,
    /// The database to restore to; without it the server's maintenance database
    #[arg(long, short, default_value = "", hide_default_value = true)]
    database: String,
    /// Drop the objects before they are made again
    #[arg(long)]
    clean: bool,
    /// All of it or nothing
    #[arg(long)]
    single_transaction: bool,
    /// Print the operation and do not wait for its end
    #[arg(long)]
    no_wait: bool,
}

impl Restore {
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), ClientError> {
        let no_wait = self.no_wait;
        let operation = context
            .interruptible(async |context| self.start(context).await)
            .await?;
        if no_wait {
            return context.show(&operation).await;
        }
        let operation = ops::wait(context, &operation.name, "restoring").await?;
        ops::report(context, &operation).await?;
        context.show(&operation).await
    }

    async fn start(self, context: &mut Context) -> Result<rpc::operation::v1::Operation, ClientError> {
        let source = match (self.backup, self.file) {
            (Some(backup), _) => Source::Backup(named("backups", backup)),
            (None, Some(file)) => Source::File(file_name(&file)),
            (None, None) => return Err(ClientError::usage("name a backup or a file")),
        };
        let request = StartRestoreRequest {
            source: Some(source),
            server: server_name::resolve(context, &self.server).await?,
            database: self.database,
            clean: self.clean,
            single_transaction: self.single_transaction,
            // With an id of its own the request may be repeated: it starts one restore.
            request_id: context.request_id(),
        };
        let client = context.connection()?.backups();
        let answer = context
            .read(async || client.clone().start_restore(request.clone()).await)
            .await?;
        answer
            .operation
            .ok_or(ClientError::Incomplete { field: "operation" })
    }
}
