//! `backup`: logical backups with pg_dump.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use rpc::backup::v1::{
    Backup as BackupMessage, DeleteBackupRequest, GetBackupRequest, ListBackupsRequest, StartBackupRequest,
    TableName,
};

use super::instances::named;
use super::{ops, transfer};
use crate::context::Context;
use crate::error::ClientError;
use crate::output::record::{Record, text, time};
use crate::server_name;

/// Backups. BACKUP is backups/{backup}, or its id.
#[derive(Debug, Clone, Subcommand)]
pub enum Backup {
    /// Back up schemas or tables, and wait for the end
    #[command(after_help = "\
Examples:
  pgmoor backup start shop -d orders --schema public
  pgmoor backup start prod/shop --table public.orders --table public.items --compression 9
  pgmoor backup start shop --schema public --no-wait --format json | jq -r .name")]
    Start(Start),
    /// List your backups, newest first
    List {
        /// At most so many
        #[arg(long, default_value_t = 100, value_name = "N")]
        limit: usize,
    },
    /// Show a backup
    Get {
        /// backups/{backup}, or its id
        backup: String,
    },
    /// Delete a backup with its artifact
    Delete {
        /// backups/{backup}, or its id
        backup: String,
    },
    /// Fetch a backup's artifact, a file for pg_restore, and check it
    #[command(after_help = "\
A download that broke off goes on where it was when it is repeated.
Example:
  pgmoor backup download backups/… shop.dump && pg_restore --list shop.dump")]
    Download {
        /// backups/{backup}, or its id
        backup: String,
        /// Where to write it; - for the standard output
        file: PathBuf,
        /// Replace a file that exists
        #[arg(long)]
        overwrite: bool,
    },
}

/// A wish for a backup.
#[derive(Debug, Clone, Args)]
pub struct Start {
    /// The server: its name, id, display name, or group/name
    server: String,
    /// The database; without it the server's maintenance database
    #[arg(long, short, default_value = "", hide_default_value = true)]
    database: String,
    /// A schema, by exact name; again for more
    #[arg(
        long = "schema",
        short = 'n',
        value_name = "SCHEMA",
        required_unless_present = "tables"
    )]
    schemas: Vec<String>,
    /// A table, as schema.table, by exact name; again for more. Quote parts with points in them: '"a.b".c'
    #[arg(long = "table", short = 't', value_name = "SCHEMA.TABLE", value_parser = table_name)]
    tables: Vec<TableName>,
    /// How hard to compress, 0 to 9; without it the setting backup.compression
    #[arg(long, value_name = "LEVEL", value_parser = clap::value_parser!(i32).range(0..=9))]
    compression: Option<i32>,
    /// Leave large objects out
    #[arg(long)]
    without_large_objects: bool,
    /// Print the operation and do not wait for its end
    #[arg(long)]
    no_wait: bool,
}

impl Backup {
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), ClientError> {
        match self {
            Self::Start(start) => start.run(context).await,
            other => {
                context
                    .interruptible(async |context| other.simple(context).await)
                    .await
            }
        }
    }

    async fn simple(self, context: &mut Context) -> Result<(), ClientError> {
        let client = context.connection()?.backups();
        match self {
            Self::List { limit } => {
                let page = async |context: &mut Context, page_size, page_token: String| {
                    let request = ListBackupsRequest {
                        page_size,
                        page_token,
                    };
                    let page = context
                        .read(async || client.clone().list_backups(request.clone()).await)
                        .await?;
                    Ok((page.backups, page.next_page_token))
                };
                let backups = context.pages(Some(limit), page).await?;
                context.show_list(&backups).await
            }
            Self::Get { backup } => {
                let backup = get(context, named("backups", backup)).await?;
                context.show(&backup).await
            }
            Self::Delete { backup } => {
                let request = DeleteBackupRequest {
                    name: named("backups", backup),
                };
                context
                    .read(async || client.clone().delete_backup(request.clone()).await)
                    .await?;
                context.notes.line(&format!("deleted {}", request.name));
                Ok(())
            }
            Self::Download {
                backup,
                file,
                overwrite,
            } => {
                let backup = get(context, named("backups", backup)).await?;
                let expected = transfer::Expected {
                    sha256: Some(backup.sha256),
                    size: Some(backup.size_bytes),
                };
                transfer::download(context, &backup.name, &file, overwrite, &expected).await
            }
            // Carried out by `run`.
            Self::Start(_) => Ok(()),
        }
    }
}

async fn get(context: &mut Context, name: String) -> Result<BackupMessage, ClientError> {
    let client = context.connection()?.backups();
    let request = GetBackupRequest { name };
    let answer = context
        .read(async || client.clone().get_backup(request.clone()).await)
        .await?;
    answer.backup.ok_or(ClientError::Incomplete { field: "backup" })
}

impl Start {
    async fn run(self, context: &mut Context) -> Result<(), ClientError> {
        let no_wait = self.no_wait;
        let operation = context
            .interruptible(async |context| self.start(context).await)
            .await?;
        if no_wait {
            return context.show(&operation).await;
        }
        let operation = ops::wait(context, &operation.name, "backing up").await?;
        ops::report(context, &operation).await?;
        let backup = get(context, operation.backup).await?;
        context.show(&backup).await
    }

    async fn start(self, context: &mut Context) -> Result<rpc::operation::v1::Operation, ClientError> {
        let request = StartBackupRequest {
            server: server_name::resolve(context, &self.server).await?,
            database: self.database,
            schemas: self.schemas,
            tables: self.tables,
            compression: self.compression,
            without_large_objects: self.without_large_objects,
            // With an id of its own the request may be repeated: it starts one backup.
            request_id: context.request_id(),
        };
        let client = context.connection()?.backups();
        let answer = context
            .read(async || client.clone().start_backup(request.clone()).await)
            .await?;
        answer
            .operation
            .ok_or(ClientError::Incomplete { field: "operation" })
    }
}

/// `schema.table`, either part in double quotes where it has points or quotes in it.
fn table_name(text: &str) -> Result<TableName, String> {
    let wrong = || "a table is named schema.table".to_owned();
    let (schema, rest) = name_part(text).ok_or_else(wrong)?;
    let (table, rest) = rest.strip_prefix('.').and_then(name_part).ok_or_else(wrong)?;
    if rest.is_empty() {
        Ok(TableName { schema, table })
    } else {
        Err(wrong())
    }
}

fn name_part(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(['.', '"']).unwrap_or(text.len());
        return (end > 0).then(|| (text[..end].to_owned(), &text[end..]));
    };
    let mut name = String::new();
    let mut chars = quoted.char_indices().peekable();
    while let Some((at, char)) = chars.next() {
        if char != '"' {
            name.push(char);
        } else if chars.next_if(|(_, next)| *next == '"').is_some() {
            name.push('"');
        } else {
            return (!name.is_empty()).then(|| (name, &quoted[at + 1..]));
        }
    }
    None
}

impl Record for BackupMessage {
    const MESSAGE: &'static str = "pgmoor.backup.v1.Backup";
    const COLUMNS: &'static [&'static str] = &[
        "name",
        "server",
        "database",
        "schemas",
        "tables",
        "size_bytes",
        "create_time",
    ];

    fn cells(&self) -> Vec<Option<String>> {
        let tables: Vec<_> = self
            .tables
            .iter()
            .map(|name| format!("{}.{}", name.schema, name.table))
            .collect();
        vec![
            text(&self.name),
            text(&self.server),
            text(&self.database),
            text(&self.schemas.join(" ")),
            text(&tables.join(" ")),
            Some(self.size_bytes.to_string()),
            time(self.create_time.as_ref()),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_names_have_two_parts() {
        let read = |text| table_name(text).map(|name| (name.schema, name.table));
        assert_eq!(read("public.orders"), Ok(("public".into(), "orders".into())));
        assert_eq!(
            read(r#""a.b"."say ""hi""""#),
            Ok(("a.b".into(), "say \"hi\"".into()))
        );
        for wrong in ["orders", "a.b.c", ".a", "a.", "\"a.b", "\"\".x", "a\"b.c"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
