//! `catalog`: databases, schemas and tables.

use clap::{Args, Subcommand};
use rpc::catalog::v1::{
    Database, ListDatabasesRequest, ListSchemasRequest, ListTablesRequest, Schema, Table,
};

use crate::context::Context;
use crate::error::ClientError;
use crate::output::record::{Record, text, word};
use crate::server_name;

/// The catalog.
#[derive(Debug, Clone, Subcommand)]
pub enum Catalog {
    /// List the databases of a server
    #[command(after_help = "Example:\n  pgmoor catalog databases shop")]
    Databases {
        /// The server: its name, id, display name, or group/name
        server: String,
    },
    /// List the schemas of a database
    Schemas {
        #[command(flatten)]
        place: Place,
    },
    /// List tables, views and sequences of a schema
    #[command(after_help = "Example:\n  pgmoor catalog tables shop public -d orders --format csv")]
    Tables {
        #[command(flatten)]
        place: Place,
        /// The schema
        #[arg(default_value = "public")]
        schema: String,
    },
}

/// A database of a server.
#[derive(Debug, Clone, Args)]
pub struct Place {
    /// The server: its name, id, display name, or group/name
    server: String,
    /// The database; without it the server's maintenance database
    #[arg(long, short, default_value = "", hide_default_value = true)]
    database: String,
}

impl Catalog {
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), ClientError> {
        let client = context.connection()?.catalog();
        match self {
            Self::Databases { server } => {
                let server = server_name::resolve(context, &server).await?;
                let page = async |context: &mut Context, page_size, page_token: String| {
                    let request = ListDatabasesRequest {
                        server: server.clone(),
                        page_size,
                        page_token,
                    };
                    let page = context
                        .read(async || client.clone().list_databases(request.clone()).await)
                        .await?;
                    Ok((page.databases, page.next_page_token))
                };
                let databases = context.pages(None, page).await?;
                context.show_list(&databases).await
            }
            Self::Schemas { place } => {
                let server = server_name::resolve(context, &place.server).await?;
                let page = async |context: &mut Context, page_size, page_token: String| {
                    let database = place.database.clone();
                    let request = ListSchemasRequest {
                        server: server.clone(),
                        database,
                        page_size,
                        page_token,
                    };
                    let page = context
                        .read(async || client.clone().list_schemas(request.clone()).await)
                        .await?;
                    Ok((page.schemas, page.next_page_token))
                };
                let schemas = context.pages(None, page).await?;
                context.show_list(&schemas).await
            }
            Self::Tables { place, schema } => {
                let server = server_name::resolve(context, &place.server).await?;
                let page = async |context: &mut Context, page_size, page_token: String| {
                    let (server, database, schema) = (server.clone(), place.database.clone(), schema.clone());
                    let request = ListTablesRequest {
                        server,
                        database,
                        schema,
                        page_size,
                        page_token,
                    };
                    let page = context
                        .read(async || client.clone().list_tables(request.clone()).await)
                        .await?;
                    Ok((page.tables, page.next_page_token))
                };
                let tables = context.pages(None, page).await?;
                context.show_list(&tables).await
            }
        }
    }
}

impl Record for Database {
    const MESSAGE: &'static str = "pgmoor.catalog.v1.Database";
    const COLUMNS: &'static [&'static str] = &["name", "owner", "encoding", "connectable", "size_bytes"];

    fn cells(&self) -> Vec<Option<String>> {
        vec![
            text(&self.name),
            text(&self.owner),
            text(&self.encoding),
            Some(self.connectable.to_string()),
            self.size_bytes.map(|size| size.to_string()),
        ]
    }
}

impl Record for Schema {
    const MESSAGE: &'static str = "pgmoor.catalog.v1.Schema";
    const COLUMNS: &'static [&'static str] = &["name", "owner", "usable"];

    fn cells(&self) -> Vec<Option<String>> {
        vec![text(&self.name), text(&self.owner), Some(self.usable.to_string())]
    }
}

impl Record for Table {
    const MESSAGE: &'static str = "pgmoor.catalog.v1.Table";
    const COLUMNS: &'static [&'static str] = &["name", "kind", "owner", "estimated_rows", "size_bytes"];

    fn cells(&self) -> Vec<Option<String>> {
        vec![
            text(&self.name),
            word(self.kind().as_str_name(), "TABLE_KIND_"),
            text(&self.owner),
            (self.estimated_rows >= 0).then(|| self.estimated_rows.to_string()),
            Some(self.size_bytes.to_string()),
        ]
    }
}
