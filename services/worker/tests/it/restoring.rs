//! What is restored is what was stored, or nothing is written.

use domain::backup::RestoreRequest;
use domain::id::BackupId;

use crate::world::World;

async fn backed_up(world: &World) -> BackupId {
    world
        .succeeded(world.backup(&["shop"]).await)
        .await
        .backup_id
        .unwrap()
}

fn artifact(world: &World) -> std::path::PathBuf {
    let [artifact] = world.artifact_files().try_into().unwrap();
    artifact
}

#[tokio::test]
async fn truncated_or_altered_artifact_is_refused_before_anything_is_written() {
    let world = World::with_data().await;
    let _worker = world.start().await;
    let backup = backed_up(&world).await;
    world
        .owner()
        .await
        .batch_execute("DROP SCHEMA shop CASCADE")
        .await
        .unwrap();
    let path = artifact(&world);
    let content = std::fs::read(&path).unwrap();
    let mut altered = content.clone();
    let last = altered.len() - 100;
    altered[last] ^= 1;
    for broken in [&content[..content.len() / 2], &content[..0], &altered] {
        std::fs::write(&path, broken).unwrap();
        let failure = world.failed(world.restore(backup).await).await;
        assert_eq!(failure.reason, "ARTIFACT_INVALID", "{failure:?}");
        assert!(!world.exists("shop").await);
    }
    std::fs::remove_file(&path).unwrap();
    assert_eq!(
        world.failed(world.restore(backup).await).await.reason,
        "RESOURCE_NOT_FOUND"
    );
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, content).unwrap();
    world.succeeded(world.restore(backup).await).await;
}

#[tokio::test]
async fn users_file_is_restored_if_it_is_an_archive() {
    let world = World::with_data().await;
    let _worker = world.start().await;
    backed_up(&world).await;
    let before = world.checksum().await;
    let content = std::fs::read(artifact(&world)).unwrap();
    world
        .owner()
        .await
        .batch_execute("DROP SCHEMA shop CASCADE")
        .await
        .unwrap();
    world.upload("foreign", b"#!/bin/sh\necho hello\n".to_vec()).await;
    world.upload("empty", Vec::new()).await;
    world
        .upload("plain.sql", b"CREATE SCHEMA shop;\n\\! touch x\n".to_vec())
        .await;
    world.upload("head", content[..20].to_vec()).await;
    world.upload("contents cut", content[..600].to_vec()).await;
    // The table of contents is whole, the data is not.
    world
        .upload("rows cut", content[..content.len() - 5000].to_vec())
        .await;
    for file in [
        "foreign",
        "empty",
        "plain.sql",
        "head",
        "contents cut",
        "rows cut",
    ] {
        let failure = world.failed(world.restore_file(file).await).await;
        assert_eq!(failure.reason, "ARTIFACT_INVALID", "{file}: {failure:?}");
        assert!(!world.exists("shop").await, "{file}");
    }
    assert_eq!(
        world.failed(world.restore_file("missing").await).await.reason,
        "RESOURCE_NOT_FOUND"
    );

    world.upload("dumps/good", content).await;
    world.succeeded(world.restore_file("dumps/good").await).await;
    assert_eq!(world.checksum().await, before);
}

#[tokio::test]
async fn error_of_the_server_fails_the_restore_with_its_words() {
    let world = World::with_data().await;
    let _worker = world.start().await;
    let backup = backed_up(&world).await;
    let id = world.restore(backup).await;
    let failure = world.failed(id).await;
    assert_eq!(
        (failure.reason.as_str(), failure.exit_status),
        ("TOOL_FAILED", Some(1))
    );
    assert!(
        failure.message.contains("schema \"shop\" already exists"),
        "{failure:?}"
    );
    assert!(world.log(id).await.contains("schema \"shop\" already exists"));
    world
        .owner()
        .await
        .batch_execute("DELETE FROM shop.orders WHERE id > 10")
        .await
        .unwrap();
    let clean = RestoreRequest {
        file: None,
        clean: true,
        single_transaction: true,
    };
    world
        .succeeded(world.restore_with(Some(backup), &clean).await)
        .await;
    let rows: i64 = world
        .owner()
        .await
        .query_one("SELECT count(*) FROM shop.orders", &[])
        .await
        .unwrap()
        .get(0);
    assert_eq!(rows, 20_000);
}

#[tokio::test]
async fn archive_larger_than_the_scratch_space_is_refused() {
    let world = World::with_data().await;
    let options = worker::WorkerOptions {
        scratch_bytes: 1000,
        ..world.options()
    };
    let _worker = world.start_with(options).await;
    let backup = backed_up(&world).await;
    assert_eq!(
        world.failed(world.restore(backup).await).await.reason,
        "QUOTA_EXCEEDED"
    );
}
