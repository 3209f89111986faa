//! Files of users, written through one instance and read through the other.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::stream;
use harness::eventually;
use rpc::errors::v1::ErrorReason;
use rpc::storage::v1::storage_service_client::StorageServiceClient;
use rpc::storage::v1::upload_file_request::Kind;
use rpc::storage::v1::{
    DeleteFileRequest, DownloadFileRequest, File, ListFilesRequest, UploadFileRequest, UploadFileResponse,
    UploadStart, WriteFileRequest, WriteFileResponse,
};
use rpc::user::v1::{UpdateUserRequest, User};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Endpoint;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt as _;

use crate::world::{ADMIN, Caller, DEADLINE, QUOTA_BYTES, World, assert_fails};

const MIB: usize = 1024 * 1024;

fn start(name: &str) -> UploadStart {
    UploadStart {
        name: name.to_owned(),
        ..UploadStart::default()
    }
}

fn message(kind: Kind) -> UploadFileRequest {
    UploadFileRequest { kind: Some(kind) }
}

async fn upload(caller: &Caller, start: UploadStart, data: &[u8]) -> Result<UploadFileResponse, Status> {
    let mut messages = vec![message(Kind::Start(start))];
    messages.extend(
        data.chunks(MIB)
            .map(|piece| message(Kind::Data(piece.to_vec().into()))),
    );
    Ok(caller
        .files()
        .upload_file(stream::iter(messages))
        .await?
        .into_inner())
}

async fn write(
    caller: &Caller,
    name: &str,
    offset: i64,
    data: &[u8],
    last: bool,
) -> Result<WriteFileResponse, Status> {
    let data = data.to_vec().into();
    let request = WriteFileRequest {
        name: name.to_owned(),
        offset,
        data,
        last,
        overwrite: false,
    };
    Ok(caller.files().write_file(request).await?.into_inner())
}

/// Writes a small file at once.
pub async fn write_whole(caller: &Caller, name: &str, data: &[u8]) -> Result<File, Status> {
    Ok(write(caller, name, 0, data, true).await?.file.unwrap())
}

/// The whole size and the bytes from the offset on.
pub async fn download(caller: &Caller, name: &str, offset: i64) -> Result<(i64, Vec<u8>), Status> {
    let request = DownloadFileRequest {
        name: name.to_owned(),
        offset,
    };
    let mut pieces = caller.files().download_file(request).await?.into_inner();
    let first = pieces.message().await?.expect("a first message");
    let mut content = first.data.to_vec();
    while let Some(piece) = pieces.message().await? {
        assert!(piece.data.len() <= MIB);
        assert_eq!(piece.size_bytes, 0);
        content.extend_from_slice(&piece.data);
    }
    Ok((first.size_bytes, content))
}

async fn list(caller: &Caller, folder: &str) -> Vec<String> {
    let mut request = ListFilesRequest {
        parent: "users/me".to_owned(),
        folder: folder.to_owned(),
        ..Default::default()
    };
    request.page_size = 2;
    let mut paths = Vec::new();
    loop {
        let page = caller
            .files()
            .list_files(request.clone())
            .await
            .unwrap()
            .into_inner();
        assert!(page.files.len() <= 2);
        paths.extend(
            page.files
                .iter()
                .map(|file| file.name.split_once("/files/").unwrap().1.to_owned()),
        );
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            return paths;
        }
    }
}

async fn delete(caller: &Caller, name: &str) -> Result<(), Status> {
    let request = DeleteFileRequest {
        name: name.to_owned(),
    };
    caller.files().delete_file(request).await.map(drop)
}

/// Every file in the object store's directory and around it, however unfinished.
pub fn files_under(world: &World) -> Vec<PathBuf> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    walk(world.objects.path(), &mut found);
    found
}

/// Content that differs everywhere.
fn content(length: usize) -> Vec<u8> {
    (0u32..).flat_map(u32::to_le_bytes).take(length).collect()
}

#[tokio::test]
async fn upload_through_one_instance_is_downloaded_through_the_other() {
    let world = World::start().await;
    let (a, b) = (world.a.login(ADMIN).await, world.b.login(ADMIN).await);
    let data = content(5 * MIB + 17);
    let options = UploadStart {
        size_bytes: Some(data.len() as i64),
        ..start("users/me/files/dumps/a b.dump")
    };
    let uploaded = upload(&a, options.clone(), &data).await.unwrap();
    let file = uploaded.file.unwrap();
    assert_eq!(file.name, format!("users/{}/files/dumps/a b.dump", world.admin));
    assert!(file.update_time.is_some() && file.size_bytes == data.len() as i64);
    for name in [file.name.as_str(), "users/me/files/dumps/a b.dump"] {
        let (size, read) = download(&b, name, 0).await.unwrap();
        assert!(size == file.size_bytes && read == data);
    }
    // Resumed through the other instance, where the first one broke off.
    let (size, rest) = download(&a, &file.name, 3_000_000).await.unwrap();
    assert!(size == file.size_bytes && rest == data[3_000_000..]);
    let (size, nothing) = download(&a, &file.name, file.size_bytes).await.unwrap();
    assert_eq!((size, nothing.len()), (file.size_bytes, 0));
    let beyond = download(&a, &file.name, file.size_bytes + 1).await;
    let status = assert_fails(beyond, Code::OutOfRange, ErrorReason::OffsetOutOfRange);
    assert_eq!(
        status.get_details_error_info().unwrap().metadata["offset"],
        file.size_bytes.to_string()
    );

    let again = upload(&b, options.clone(), &data).await;
    assert_fails(again, Code::AlreadyExists, ErrorReason::ResourceExists);
    // With its checksum it may replace, and is found to be what was said.
    let replace = UploadStart {
        overwrite: true,
        sha256: uploaded.sha256.to_uppercase(),
        ..options
    };
    assert_eq!(upload(&b, replace, &data).await.unwrap().sha256, uploaded.sha256);
    delete(&b, &file.name).await.unwrap();
    assert_fails(
        delete(&a, &file.name).await,
        Code::NotFound,
        ErrorReason::ResourceNotFound,
    );
    assert_eq!(files_under(&world), Vec::<PathBuf>::new());
}

#[tokio::test]
async fn empty_file_is_a_file() {
    let world = World::start().await;
    let admin = world.a.login(ADMIN).await;
    upload(&admin, start("users/me/files/empty"), b"").await.unwrap();
    assert_eq!(
        download(&admin, "users/me/files/empty", 0).await.unwrap(),
        (0, vec![])
    );
    assert_eq!(list(&admin, "").await, ["empty"]);
}

#[tokio::test]
async fn path_that_would_leave_the_root_is_refused_everywhere() {
    let world = World::start().await;
    let admin = world.a.login(ADMIN).await;
    let paths = [
        "../x",
        "a/../../x",
        "..",
        "%2e%2e/x",
        "/etc/passwd",
        "a//b",
        "",
        "a\\b",
        "a\0b",
        "..\u{2215}x",
    ];
    for path in paths {
        let name = format!("users/me/files/{path}");
        let outcomes = [
            upload(&admin, start(&name), b"x").await.map(drop),
            write(&admin, &name, 0, b"x", true).await.map(drop),
            download(&admin, &name, 0).await.map(drop),
            delete(&admin, &name).await,
        ];
        for outcome in outcomes {
            let status = assert_fails(outcome, Code::InvalidArgument, ErrorReason::InvalidField);
            let field = &status.get_details_bad_request().unwrap().field_violations[0].field;
            assert!(
                ["name", "start.name"].contains(&field.as_str()),
                "{path}: {field}"
            );
        }
    }
    for folder in ["../..", "..", "a/", "/"] {
        let request = ListFilesRequest {
            parent: "users/me".to_owned(),
            folder: folder.to_owned(),
            ..Default::default()
        };
        let outcome = admin.files().list_files(request).await;
        assert_fails(outcome, Code::InvalidArgument, ErrorReason::InvalidField);
    }
    for name in [
        "users/me",
        "files/x",
        "users/../files/x",
        "users/me/x",
        "servers/x",
        "backups/x",
    ] {
        let outcome = download(&admin, name, 0).await;
        assert_fails(outcome, Code::InvalidArgument, ErrorReason::InvalidField);
    }
    assert_eq!(files_under(&world), Vec::<PathBuf>::new());
}

#[tokio::test]
async fn foreign_file_is_as_good_as_missing() {
    let world = World::start().await;
    let admin = world.a.login(ADMIN).await;
    let member = world.member("alice").await.caller;
    let foreign = write_whole(&admin, "users/me/files/secret", b"x")
        .await
        .unwrap()
        .name;
    let missing = foreign.replace("secret", "nothing");
    let nobody = "users/00000000-0000-4000-8000-000000000000/files/secret".to_owned();
    let mut answers = Vec::new();
    for name in [&foreign, &missing, &nobody] {
        let outcomes = [
            upload(&member, start(name), b"x").await.map(drop),
            write(&member, name, 0, b"x", true).await.map(drop),
            download(&member, name, 0).await.map(drop),
            delete(&member, name).await,
        ];
        answers.push(outcomes.map(|outcome| {
            let status = assert_fails(outcome, Code::NotFound, ErrorReason::ResourceNotFound);
            (
                status.message().to_owned(),
                status.get_details_resource_info().unwrap().resource_type,
            )
        }));
    }
    assert_eq!(answers[0], answers[1]);
    assert_eq!(answers[0], answers[2]);
    let parent = format!("users/{}", world.admin);
    let request = ListFilesRequest {
        parent,
        ..ListFilesRequest::default()
    };
    let outcome = member.files().list_files(request).await;
    assert_fails(outcome, Code::NotFound, ErrorReason::ResourceNotFound);
    assert_eq!(list(&member, "").await, Vec::<String>::new());
    assert_eq!(download(&admin, &foreign, 0).await.unwrap().1, b"x");
}

#[tokio::test]
async fn upload_that_is_not_what_was_said_leaves_nothing() {
    let world = World::start().await;
    let admin = world.a.login(ADMIN).await;
    let data = content(10 * MIB);
    let name = "users/me/files/a.dump";
    let sized = |size| UploadStart {
        size_bytes: Some(size),
        ..start(name)
    };
    for wrong in [
        UploadStart {
            sha256: "0".repeat(64),
            ..start(name)
        },
        sized(10 * MIB as i64 - 1),
        sized(10 * MIB as i64 + 1),
    ] {
        let outcome = upload(&admin, wrong, &data).await;
        assert_fails(outcome, Code::FailedPrecondition, ErrorReason::ArtifactInvalid);
        assert_eq!(files_under(&world), Vec::<PathBuf>::new());
    }
    for wrong in [
        UploadStart {
            sha256: "0".repeat(63),
            ..start(name)
        },
        sized(-1),
    ] {
        let outcome = upload(&admin, wrong, &data).await;
        assert_fails(outcome, Code::InvalidArgument, ErrorReason::InvalidField);
    }
    let too_much = upload(&admin, sized(QUOTA_BYTES as i64 + 1), b"").await;
    let status = assert_fails(too_much, Code::ResourceExhausted, ErrorReason::QuotaExceeded);
    let metadata = status.get_details_error_info().unwrap().metadata;
    assert_eq!(metadata["quota_bytes"], QUOTA_BYTES.to_string());
    let unsaid = upload(&admin, start(name), &content(QUOTA_BYTES as usize + 1)).await;
    assert_fails(unsaid, Code::ResourceExhausted, ErrorReason::QuotaExceeded);
    assert_eq!(files_under(&world), Vec::<PathBuf>::new());
}

#[tokio::test]
async fn upload_begins_with_what_it_is_and_says_it_once() {
    let world = World::start().await;
    let admin = world.a.login(ADMIN).await;
    let begin = || message(Kind::Start(start("users/me/files/a")));
    let data = || message(Kind::Data(b"x".to_vec().into()));
    for messages in [
        vec![],
        vec![data(), begin()],
        vec![begin(), data(), begin()],
        vec![begin(), UploadFileRequest { kind: None }],
    ] {
        let outcome = admin.files().upload_file(stream::iter(messages)).await;
        assert_fails(outcome, Code::InvalidArgument, ErrorReason::InvalidField);
    }
    assert_eq!(files_under(&world), Vec::<PathBuf>::new());
}

#[tokio::test]
async fn upload_of_a_client_that_dies_leaves_nothing() {
    let world = Arc::new(World::start().await);
    let token = world.a.tokens(ADMIN).await.access_token;
    let dying = world.clone();
    // In a runtime of its own: when that is dropped its connection breaks, as when a process is killed.
    let client = tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let (sender, messages) = mpsc::channel(1);
            let channel = Endpoint::from_shared(dying.a.address.clone())
                .unwrap()
                .connect()
                .await
                .unwrap();
            let mut request = Request::new(ReceiverStream::new(messages));
            request
                .metadata_mut()
                .insert("authorization", format!("Bearer {token}").parse().unwrap());
            let mut uploading = JoinSet::new();
            uploading.spawn(async move { StorageServiceClient::new(channel).upload_file(request).await });
            sender
                .send(message(Kind::Start(start("users/me/files/a"))))
                .await
                .unwrap();
            for _ in 0..12 {
                sender
                    .send(message(Kind::Data(content(MIB).into())))
                    .await
                    .unwrap();
            }
            eventually(DEADLINE, "a part is written", async || {
                !files_under(&dying).is_empty()
            })
            .await;
        });
    });
    client.await.unwrap();
    eventually(DEADLINE, "it is gone", async || files_under(&world).is_empty()).await;
    let admin = world.a.login(ADMIN).await;
    assert_eq!(list(&admin, "").await, Vec::<String>::new());
}

#[tokio::test]
async fn pieces_through_both_instances_make_one_file() {
    let world = World::start().await;
    let (a, b) = (world.a.login(ADMIN).await, world.b.login(ADMIN).await);
    let name = "users/me/files/pieces";
    let data = content(7 * MIB);
    let (first, rest) = data.split_at(3 * MIB);
    let (second, third) = rest.split_at(3 * MIB);
    let at = |pieces: usize| (pieces * 3 * MIB) as i64;
    let gap = write(&a, name, at(1), second, false).await;
    let status = assert_fails(gap, Code::OutOfRange, ErrorReason::OffsetOutOfRange);
    assert_eq!(status.get_details_error_info().unwrap().metadata["offset"], "0");
    let written = write(&a, name, 0, first, false).await.unwrap();
    assert_eq!((written.next_offset, written.file), (at(1), None));
    let gap = write(&b, name, at(2), third, true).await;
    let status = assert_fails(gap, Code::OutOfRange, ErrorReason::OffsetOutOfRange);
    assert_eq!(
        status.get_details_error_info().unwrap().metadata["offset"],
        at(1).to_string()
    );
    for caller in [&b, &a] {
        // The second time its answer was lost.
        assert_eq!(
            write(caller, name, at(1), second, false)
                .await
                .unwrap()
                .next_offset,
            at(2)
        );
    }
    assert_eq!(list(&a, "").await, Vec::<String>::new());
    for caller in [&a, &b] {
        let file = write(caller, name, at(2), third, true)
            .await
            .unwrap()
            .file
            .unwrap();
        assert_eq!(file.size_bytes, 7 * MIB as i64);
    }
    assert!(download(&b, name, 0).await.unwrap().1 == data);
    let again = write(&a, name, 0, b"x", true).await;
    assert_fails(again, Code::AlreadyExists, ErrorReason::ResourceExists);
    for wrong in [
        write(&a, "users/me/files/other", -1, b"x", true).await,
        write(&a, "users/me/files/other", 0, &content(3 * MIB + 1), true).await,
    ] {
        assert_fails(wrong, Code::InvalidArgument, ErrorReason::InvalidField);
    }
}

#[tokio::test]
async fn files_are_listed_by_path_and_folder() {
    let world = World::start().await;
    let admin = world.a.login(ADMIN).await;
    let paths = ["a", "b/1", "b/2", "b/c/3", "bb/4"];
    for path in paths.iter().rev() {
        write_whole(&admin, &format!("users/me/files/{path}"), b"x")
            .await
            .unwrap();
    }
    assert_eq!(list(&admin, "").await, paths);
    assert_eq!(list(&admin, "b").await, paths[1..4]);
    assert_eq!(list(&admin, "b/c").await, paths[3..4]);
    assert_eq!(list(&admin, "none").await, Vec::<String>::new());
    let request = |folder: &str, page_token: String| ListFilesRequest {
        parent: "users/me".to_owned(),
        folder: folder.to_owned(),
        page_size: 1,
        page_token,
    };
    let first = admin
        .files()
        .list_files(request("b", String::new()))
        .await
        .unwrap()
        .into_inner();
    let elsewhere = admin.files().list_files(request("", first.next_page_token)).await;
    assert_fails(elsewhere, Code::InvalidArgument, ErrorReason::InvalidPageToken);
}

#[tokio::test]
async fn download_of_a_disabled_user_ends() {
    let world = World::start().await;
    let member = world.member("alice").await;
    upload(&member.caller, start("users/me/files/large"), &content(24 * MIB))
        .await
        .unwrap();
    let request = DownloadFileRequest {
        name: "users/me/files/large".to_owned(),
        offset: 0,
    };
    let mut pieces = member
        .caller
        .files()
        .download_file(request)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        pieces.message().await.unwrap().unwrap().size_bytes,
        24 * MIB as i64
    );
    let user = User {
        name: member.name,
        disabled: true,
        ..User::default()
    };
    let request = UpdateUserRequest {
        user: Some(user),
        update_mask: None,
    };
    world
        .b
        .login(ADMIN)
        .await
        .users()
        .update_user(request)
        .await
        .unwrap();
    let refused = async || {
        let request = ListFilesRequest {
            parent: "users/me".to_owned(),
            ..ListFilesRequest::default()
        };
        member.caller.files().list_files(request).await.is_err()
    };
    // The reader was slow, and what it did not take yet it does not get.
    eventually(Duration::from_secs(5), "the user is refused", refused).await;
    let mut received = 0;
    let ended = loop {
        match pieces.message().await {
            Ok(Some(piece)) => received += piece.data.len(),
            Ok(None) => panic!("the download went on"),
            Err(status) => break status,
        }
    };
    assert!(received < 24 * MIB);
    assert_fails(
        Err::<(), _>(ended),
        Code::Unauthenticated,
        ErrorReason::TokenRevoked,
    );
}
