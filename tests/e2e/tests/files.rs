//! Users' files through two instances, and paths that lead elsewhere.

use e2e::{Client, reason};
use rpc::errors::v1::ErrorReason;
use rpc::storage::v1::upload_file_request::Kind;
use rpc::storage::v1::{
    DeleteFileRequest, DownloadFileRequest, UploadFileRequest, UploadFileResponse, UploadStart,
    WriteFileRequest,
};
use tonic::{Code, Status};

use crate::worlds::shared;

/// Uploads a file in pieces.
pub(crate) async fn upload(
    client: &Client,
    name: &str,
    content: &[u8],
) -> Result<UploadFileResponse, Status> {
    let start = UploadFileRequest {
        kind: Some(Kind::Start(UploadStart {
            name: name.to_owned(),
            overwrite: true,
            ..UploadStart::default()
        })),
    };
    let pieces: Vec<UploadFileRequest> = content
        .chunks(64 * 1024)
        .map(|piece| UploadFileRequest {
            kind: Some(Kind::Data(piece.to_vec().into())),
        })
        .collect();
    let messages = tokio_stream::iter([start].into_iter().chain(pieces));
    Ok(client.storage().upload_file(messages).await?.into_inner())
}

/// Reads a file, or a backup's artifact, from an offset to its end.
pub(crate) async fn download(client: &Client, name: &str, offset: i64) -> Result<Vec<u8>, Status> {
    let request = DownloadFileRequest {
        name: name.to_owned(),
        offset,
    };
    let mut stream = client.storage().download_file(request).await?.into_inner();
    let mut content = Vec::new();
    while let Some(piece) = stream.message().await? {
        content.extend_from_slice(&piece.data);
    }
    Ok(content)
}

#[tokio::test]
async fn paths_that_leave_the_root_are_invalid_fields() {
    let caller = shared().await.world.create_user().await;
    for path in [
        "../x",
        "a/../../x",
        "..",
        ".",
        "/etc/passwd",
        "a//b",
        "a/./b",
        "a\\..\\b",
        "a/b\0c",
        "",
        "a/\n",
    ] {
        let name = format!("users/me/files/{path}");
        let write = WriteFileRequest {
            name: name.clone(),
            data: b"x"[..].into(),
            last: true,
            ..WriteFileRequest::default()
        };
        let delete = DeleteFileRequest { name: name.clone() };
        for answer in [
            upload(caller.a(), &name, b"x").await.map(drop),
            caller.a().storage().write_file(write).await.map(drop),
            download(caller.b(), &name, 0).await.map(drop),
            caller.b().storage().delete_file(delete).await.map(drop),
        ] {
            let status = answer.expect_err(path);
            let expected = (Code::InvalidArgument, ErrorReason::InvalidField);
            assert_eq!(
                reason::of(&status),
                expected,
                "{path:?}: {}",
                reason::text(&status)
            );
        }
    }
}

#[tokio::test]
async fn file_written_through_a_is_read_through_b_from_any_offset() {
    let caller = shared().await.world.create_user().await;
    let content: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
    let name = "users/me/files/folder/numbers.bin";
    let uploaded = upload(caller.a(), name, &content).await.unwrap();
    assert_eq!(uploaded.sha256.len(), 64);
    assert_eq!(download(caller.b(), name, 0).await.unwrap(), content);
    let tail = download(caller.b(), name, 1_000_001).await.unwrap();
    assert_eq!(tail, content[1_000_001..]);
    let beyond = download(caller.b(), name, 5_000_000).await;
    reason::expect(beyond, Code::OutOfRange, ErrorReason::OffsetOutOfRange);
}

#[tokio::test]
async fn another_users_file_answers_as_one_that_never_was() {
    let world = &shared().await.world;
    let (owner, other) = tokio::join!(world.create_user(), world.create_user());
    let uploaded = upload(owner.a(), "users/me/files/mine", b"mine").await.unwrap();
    let name = uploaded.file.unwrap().name;
    let foreign = download(other.b(), &name, 0).await.unwrap_err();
    let absent = download(other.b(), &format!("{name}2"), 0).await.unwrap_err();
    assert_eq!(
        reason::of(&foreign),
        (Code::NotFound, ErrorReason::ResourceNotFound)
    );
    assert_eq!(reason::of(&absent), reason::of(&foreign));
    assert_eq!(download(owner.b(), &name, 0).await.unwrap(), b"mine");
}
