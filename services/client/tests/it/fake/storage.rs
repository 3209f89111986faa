use std::pin::Pin;
use std::sync::atomic::Ordering;

use rpc::storage::v1::storage_service_server::StorageService;
use rpc::storage::v1::upload_file_request::Kind;
use rpc::storage::v1::*;
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status, Streaming, async_trait};

use super::{Service, not_offered};

#[async_trait]
impl StorageService for Service {
    type DownloadFileStream = Pin<Box<dyn Stream<Item = Result<DownloadFileResponse, Status>> + Send>>;

    async fn upload_file(
        &self,
        request: Request<Streaming<UploadFileRequest>>,
    ) -> Result<Response<UploadFileResponse>, Status> {
        self.0.admit(&request)?;
        let mut stream = request.into_inner();
        let mut file = File::default();
        while let Some(message) = stream.next().await {
            match message?.kind {
                Some(Kind::Start(start)) => {
                    self.0.available()?;
                    file.name = start.name;
                }
                Some(Kind::Data(data)) => self.0.received.lock().extend_from_slice(&data),
                None => return Err(Status::invalid_argument("empty")),
            }
        }
        file.size_bytes = self.0.received.lock().len() as i64;
        Ok(Response::new(UploadFileResponse {
            file: Some(file),
            ..UploadFileResponse::default()
        }))
    }

    async fn write_file(
        &self,
        request: Request<WriteFileRequest>,
    ) -> Result<Response<WriteFileResponse>, Status> {
        self.0.admit(&request)?;
        let piece = request.into_inner();
        let mut received = self.0.received.lock();
        received.truncate(usize::try_from(piece.offset).unwrap());
        received.extend_from_slice(&piece.data);
        let next_offset = received.len() as i64;
        let file = piece.last.then(|| File {
            name: piece.name,
            size_bytes: next_offset,
            ..File::default()
        });
        Ok(Response::new(WriteFileResponse { next_offset, file }))
    }

    /// Breaks off after a third of what is left, twice.
    async fn download_file(
        &self,
        request: Request<DownloadFileRequest>,
    ) -> Result<Response<Self::DownloadFileStream>, Status> {
        self.0.admit(&request)?;
        let count = self.0.counts.download.fetch_add(1, Ordering::SeqCst);
        let content = self.0.content.lock().clone();
        let rest = &content[usize::try_from(request.get_ref().offset).unwrap()..];
        let breaks = count < 2;
        let given = if breaks { &rest[..rest.len() / 3] } else { rest };
        let mut messages: Vec<_> = given
            .chunks(1000)
            .map(|data| {
                Ok(DownloadFileResponse {
                    data: data.to_vec().into(),
                    size_bytes: 0,
                })
            })
            .collect();
        if let Some(Ok(first)) = messages.first_mut() {
            first.size_bytes = content.len() as i64;
        }
        if breaks {
            messages.push(Err(Status::unavailable("the server goes down")));
        }
        Ok(Response::new(Box::pin(tokio_stream::iter(messages))))
    }

    not_offered! {
        list_files(ListFilesRequest) -> ListFilesResponse;
        delete_file(DeleteFileRequest) -> DeleteFileResponse;
    }
}
