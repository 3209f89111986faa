//! `files`: the user's own files on the server.

use std::path::PathBuf;

use clap::Subcommand;
use rpc::storage::v1::{DeleteFileRequest, File, ListFilesRequest};

use super::transfer;
use crate::context::Context;
use crate::error::ClientError;
use crate::output::record::{Record, text, time};

const ROOT: &str = "users/me";

/// Files. PATH is a path within your own root, for example dumps/shop.dump.
#[derive(Debug, Clone, Subcommand)]
pub enum Files {
    /// List your files, or those of a folder
    List {
        /// The folder
        #[arg(default_value = "", hide_default_value = true)]
        folder: String,
    },
    /// Upload a file; it appears whole or not at all
    #[command(after_help = "\
Examples:
  pgmoor files upload shop.dump dumps/shop.dump
  pg_dump -Fc shop | pgmoor files upload - dumps/shop.dump")]
    Upload {
        /// The local file; - for the standard input
        file: PathBuf,
        /// Where to put it; without it, under the file's own name
        path: Option<String>,
        /// Replace a file that exists
        #[arg(long)]
        overwrite: bool,
        /// Send it in pieces that are repeated one by one, for connections that break
        #[arg(long)]
        pieces: bool,
    },
    /// Download a file
    #[command(after_help = "\
What arrives is kept beside the file, as FILE.part, until all of it is there; a download that
broke off goes on from it when it is repeated.")]
    Download {
        /// The file's path
        path: String,
        /// Where to write it; without it, under the file's own name; - for the standard output
        file: Option<PathBuf>,
        /// Replace a local file that exists
        #[arg(long)]
        overwrite: bool,
    },
    /// Delete a file
    Delete {
        /// The file's path
        path: String,
    },
}

impl Files {
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), ClientError> {
        let client = context.connection()?.files();
        match self {
            Self::List { folder } => {
                let page = async |context: &mut Context, page_size, page_token: String| {
                    let (parent, folder) = (ROOT.to_owned(), folder.clone());
                    let request = ListFilesRequest {
                        parent,
                        folder,
                        page_size,
                        page_token,
                    };
                    let page = context
                        .read(async || client.clone().list_files(request.clone()).await)
                        .await?;
                    Ok((page.files, page.next_page_token))
                };
                let files = context.pages(None, page).await?;
                context.show_list(&files).await
            }
            Self::Upload {
                file,
                path,
                overwrite,
                pieces,
            } => {
                let own_name = || file.file_name().map(|name| name.to_string_lossy().into_owned());
                let path = path
                    .or_else(own_name)
                    .filter(|path| path != "-")
                    .ok_or_else(|| ClientError::usage("say where to put it: pgmoor files upload - PATH"))?;
                let name = file_name(&path);
                let written = transfer::upload(context, &file, name, overwrite, pieces).await?;
                context.show(&written).await
            }
            Self::Download {
                path,
                file,
                overwrite,
            } => {
                let own_name = path.rsplit('/').next().unwrap_or(&path);
                let file = file.unwrap_or_else(|| PathBuf::from(own_name));
                let expected = transfer::Expected::default();
                transfer::download(context, &file_name(&path), &file, overwrite, &expected).await
            }
            Self::Delete { path } => {
                let request = DeleteFileRequest {
                    name: file_name(&path),
                };
                context
                    .read(async || client.clone().delete_file(request.clone()).await)
                    .await?;
                context.notes.line(&format!("deleted {path}"));
                Ok(())
            }
        }
    }
}

/// The API's name of a file, of which a person gives the path alone.
pub(crate) fn file_name(path: &str) -> String {
    let is_name = path.starts_with("users/") && path.contains("/files/");
    if is_name {
        path.to_owned()
    } else {
        format!("{ROOT}/files/{path}")
    }
}

impl Record for File {
    const MESSAGE: &'static str = "pgmoor.storage.v1.File";
    const COLUMNS: &'static [&'static str] = &["name", "size_bytes", "update_time"];

    fn cells(&self) -> Vec<Option<String>> {
        vec![
            text(&self.name),
            Some(self.size_bytes.to_string()),
            time(self.update_time.as_ref()),
        ]
    }
}
