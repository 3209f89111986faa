//! Uploads, downloads and lists of users' files.

use bytes::Bytes;
use storage::{InvalidContent, Sha256Hex, StorageError, UploadOptions};

use crate::world::{World, collect, path, replace};

#[tokio::test]
async fn uploaded_file_is_downloaded_from_any_offset() {
    let world = World::new();
    let content: Vec<u8> = (0..9_000_000_u32).map(|n| n as u8).collect();
    let options = UploadOptions {
        overwrite: false,
        expected_size: Some(content.len() as u64),
        expected_sha256: Some(Sha256Hex::of(&content)),
    };
    let mut upload = world
        .files()
        .begin_upload(world.user, &path("dumps/big"), options)
        .await
        .unwrap();
    for piece in content.chunks(700_001) {
        upload.write(Bytes::copy_from_slice(piece)).await.unwrap();
    }
    assert!(matches!(
        world.read("dumps/big").await,
        Err(StorageError::NotFound)
    ));
    let written = upload.finish().await.unwrap();
    assert_eq!(
        (written.file.size, written.sha256),
        (9_000_000, Sha256Hex::of(&content))
    );
    for offset in [0, 1, 8_400_000, 8_999_999, 9_000_000] {
        let (file, stream) = world
            .files()
            .download(world.user, &path("dumps/big"), offset)
            .await
            .unwrap();
        assert_eq!(file.size, 9_000_000);
        assert!(
            collect(stream).await.unwrap() == content[offset as usize..],
            "{offset}"
        );
    }
    let beyond = world
        .files()
        .download(world.user, &path("dumps/big"), 9_000_001)
        .await;
    assert!(matches!(
        beyond.err(),
        Some(StorageError::OffsetOutOfRange { expected: 9_000_000 })
    ));
    assert!(world.leftovers().is_empty(), "{:?}", world.leftovers());
}

#[tokio::test]
async fn file_other_than_stated_does_not_appear() {
    let world = World::new();
    let stated = |expected_size, expected_sha256| UploadOptions {
        overwrite: true,
        expected_size,
        expected_sha256,
    };
    let upload = async |options, content: &'static str| {
        let mut upload = world
            .files()
            .begin_upload(world.user, &path("x"), options)
            .await?;
        upload.write(Bytes::from(content)).await?;
        upload.finish().await
    };
    world.write("x", "old").await.unwrap();
    for (options, content) in [
        (stated(Some(3), None), "ab"),
        (stated(Some(3), None), "abcd"),
        (stated(None, Some(Sha256Hex::of(b"abc"))), "abd"),
    ] {
        let refused = upload(options, content).await;
        assert!(
            matches!(refused, Err(StorageError::ArtifactInvalid(_))),
            "{refused:?}"
        );
        assert_eq!(world.read("x").await.unwrap(), "old");
    }
    assert!(world.leftovers().is_empty(), "{:?}", world.leftovers());
    upload(stated(Some(3), Some(Sha256Hex::of(b"abc"))), "abc")
        .await
        .unwrap();
    assert_eq!(world.read("x").await.unwrap(), "abc");
}

#[tokio::test]
async fn of_uploads_that_must_not_replace_one_wins() {
    let world = World::new();
    let begin = async || {
        world
            .files()
            .begin_upload(world.user, &path("f/x"), UploadOptions::default())
            .await
    };
    let mut uploads = Vec::new();
    for number in 0..8 {
        let mut upload = begin().await.unwrap();
        upload.write(Bytes::from(format!("{number}"))).await.unwrap();
        uploads.push(upload);
    }
    let mut tasks = tokio::task::JoinSet::new();
    for (number, upload) in uploads.into_iter().enumerate() {
        tasks.spawn(async move { (number, upload.finish().await) });
    }
    let mut winner = None;
    for (number, result) in tasks.join_all().await {
        match result {
            Ok(_) => assert_eq!(winner.replace(number), None, "two winners"),
            Err(error) => assert!(matches!(error, StorageError::AlreadyExists), "{error:?}"),
        }
    }
    assert_eq!(world.read("f/x").await.unwrap(), winner.unwrap().to_string());
    assert!(matches!(begin().await.err(), Some(StorageError::AlreadyExists)));
    assert!(world.leftovers().is_empty(), "{:?}", world.leftovers());
}

#[tokio::test]
async fn quota_ends_an_upload_while_it_streams() {
    let world = World::new();
    let files = world.files_with(1000);
    let mut first = files
        .begin_upload(world.user, &path("a"), replace())
        .await
        .unwrap();
    first.write(Bytes::from(vec![0; 600])).await.unwrap();
    first.finish().await.unwrap();
    let mut second = files
        .begin_upload(world.user, &path("b"), replace())
        .await
        .unwrap();
    second.write(Bytes::from(vec![0; 400])).await.unwrap();
    let exceeded = second.write(Bytes::from(vec![0; 1])).await;
    assert!(matches!(
        exceeded,
        Err(StorageError::QuotaExceeded { quota_bytes: 1000 })
    ));
    drop(second);
    // What a replaced file had is free, and another user's quota is untouched.
    let mut again = files
        .begin_upload(world.user, &path("a"), replace())
        .await
        .unwrap();
    again.write(Bytes::from(vec![0; 1000])).await.unwrap();
    again.finish().await.unwrap();
    let stated = UploadOptions {
        expected_size: Some(1),
        ..replace()
    };
    let refused = files.begin_upload(world.user, &path("b"), stated).await;
    assert!(matches!(refused.err(), Some(StorageError::QuotaExceeded { .. })));
    files
        .begin_upload(world.other, &path("b"), stated)
        .await
        .unwrap()
        .abort()
        .await;
    assert_eq!(files.usage(world.user).await.unwrap(), 1000);
}

#[tokio::test]
async fn uploads_that_pass_the_quota_together_do_not_both_appear() {
    let world = World::new();
    let files = world.files_with(1000);
    let mut uploads = Vec::new();
    for name in ["a", "b"] {
        let mut upload = files
            .begin_upload(world.user, &path(name), replace())
            .await
            .unwrap();
        upload.write(Bytes::from(vec![0; 600])).await.unwrap();
        uploads.push(upload);
    }
    let second = uploads.pop().unwrap();
    uploads.pop().unwrap().finish().await.unwrap();
    assert!(matches!(
        second.finish().await,
        Err(StorageError::QuotaExceeded { .. })
    ));
}

#[tokio::test]
async fn files_are_listed_by_path_page_by_page() {
    let world = World::new();
    for name in ["b", "a/2", "a/1", "a b", "a/x/3", "c"] {
        world.write(name, "x").await.unwrap();
    }
    let files = world.files();
    let mut names = Vec::new();
    let mut after = None;
    loop {
        let page = files.list(world.user, None, after.as_ref(), 2).await.unwrap();
        assert!(page.files.len() <= 2);
        names.extend(page.files.iter().map(|file| file.path.to_string()));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(names, ["a b", "a/1", "a/2", "a/x/3", "b", "c"]);
    let folder = files.list(world.user, Some(&path("a")), None, 10).await.unwrap();
    let below: Vec<_> = folder.files.iter().map(|file| file.path.as_str()).collect();
    assert_eq!(below, ["a/1", "a/2", "a/x/3"]);
    assert!(
        files
            .list(world.other, None, None, 10)
            .await
            .unwrap()
            .files
            .is_empty()
    );
}

#[tokio::test]
async fn users_files_are_apart() {
    let world = World::new();
    world.write("x", "mine").await.unwrap();
    let files = world.files();
    assert!(matches!(
        files.get(world.other, &path("x")).await,
        Err(StorageError::NotFound)
    ));
    assert!(matches!(
        files.delete(world.other, &path("x")).await,
        Err(StorageError::NotFound)
    ));
    assert_eq!(world.read("x").await.unwrap(), "mine");
    files.delete(world.user, &path("x")).await.unwrap();
    assert!(matches!(world.read("x").await, Err(StorageError::NotFound)));
}

#[tokio::test]
async fn file_and_folder_of_one_name_are_refused() {
    let world = World::new();
    world.write("a", "file").await.unwrap();
    assert!(matches!(
        world.write("a/b", "x").await,
        Err(StorageError::NameTaken)
    ));
    world.write("folder/b", "x").await.unwrap();
    assert!(matches!(
        world.write("folder", "x").await,
        Err(StorageError::NameTaken)
    ));
    assert_eq!(world.read("a").await.unwrap(), "file");
    assert!(world.leftovers().is_empty(), "{:?}", world.leftovers());
}

#[tokio::test]
async fn odd_names_stand_for_themselves() {
    let world = World::new();
    for name in [
        "--file=x",
        "a%2fb",
        "100%",
        "a%252fb",
        "Größe \u{1f418}",
        "*?[x]{}|~#",
        "host=evil",
        ".hidden",
        "~",
    ] {
        world.write(name, name).await.unwrap();
        assert_eq!(world.read(name).await.unwrap(), name);
        assert_eq!(
            std::fs::read_to_string(world.user_root().join(name)).unwrap(),
            name
        );
    }
    let deep = vec!["x".repeat(255); 32].join("/");
    world.write(&deep, "deep").await.unwrap();
    assert_eq!(world.read(&deep).await.unwrap(), "deep");
    assert!(
        world
            .files()
            .list(world.user, None, None, 100)
            .await
            .unwrap()
            .files
            .iter()
            .any(|file| file.path.as_str() == deep)
    );
}

#[test]
fn invalid_content_says_how() {
    let error = StorageError::from(InvalidContent::Size {
        expected: 3,
        found: 2,
    });
    assert_eq!(
        error.to_string(),
        "the content is invalid: it has 2 bytes instead of 3"
    );
}
