//! Users' files: the handlers of StorageService.
//!
//! Invariant: a name that a client writes leads into the caller's own root or nowhere, another user's file is
//! as good as missing; and no file is ever whole in this process's memory.

mod delete_file;
mod download_file;
mod failure;
mod list_files;
mod name;
mod upload_file;
mod write_file;

use std::sync::Arc;

use rpc::storage::v1 as proto;
use rpc::storage::v1::storage_service_server::StorageService;
use tonic::{Request, Response, Status, Streaming};

use crate::context::Context;
use crate::rpcs::rpcs;
use crate::upheld::Upheld;

pub(crate) use failure::failed;
pub(crate) use name::path;

/// Serves `pgmoor.storage.v1.StorageService`.
#[derive(Debug)]
pub(crate) struct StorageRpcs(pub(crate) Arc<Context>);

rpcs! {
    StorageService for StorageRpcs {
        list_files::list_files(ListFilesRequest) -> ListFilesResponse;
        write_file::write_file(WriteFileRequest) -> WriteFileResponse;
        delete_file::delete_file(DeleteFileRequest) -> DeleteFileResponse;
    }

    type DownloadFileStream = Upheld<proto::DownloadFileResponse>;

    async fn upload_file(
        &self,
        request: Request<Streaming<proto::UploadFileRequest>>,
    ) -> Result<Response<proto::UploadFileResponse>, Status> {
        let call = self.0.call(request)?;
        self.0.answer(upload_file::upload_file(&self.0, call).await)
    }

    async fn download_file(
        &self,
        request: Request<proto::DownloadFileRequest>,
    ) -> Result<Response<Self::DownloadFileStream>, Status> {
        let call = self.0.call(request)?;
        self.0.answer(download_file::download_file(&self.0, call).await)
    }
}
