//! Artifacts appear at once and are verified when read.

use bytes::Bytes;
use domain::id::{BackupId, OperationId};
use domain::random::SystemRandom;
use storage::{ArtifactKey, Fingerprint, InvalidContent, Sha256Hex, StorageError};

use crate::world::{World, collect};

fn key() -> ArtifactKey {
    ArtifactKey::new(
        BackupId::generate(&SystemRandom),
        OperationId::generate(&SystemRandom),
        1,
    )
}

async fn written(world: &World, key: &ArtifactKey, content: &'static str) -> Fingerprint {
    let mut writer = world.artifacts().begin(key).await.unwrap();
    writer.write(Bytes::from(content)).await.unwrap();
    let fingerprint = writer.finish().await.unwrap();
    assert_eq!(fingerprint.sha256, Sha256Hex::of(content.as_bytes()));
    fingerprint
}

fn file_of(world: &World, key: &ArtifactKey) -> std::path::PathBuf {
    world.root().join("artifacts").join(key.as_str())
}

#[tokio::test]
async fn artifact_appears_when_its_writer_finishes() {
    let world = World::new();
    let key = key();
    let mut writer = world.artifacts().begin(&key).await.unwrap();
    writer.write(Bytes::from_static(b"PGDMP")).await.unwrap();
    assert!(!file_of(&world, &key).exists());
    let fingerprint = writer.finish().await.unwrap();
    let content = world.artifacts().read(&key, fingerprint, 0).await.unwrap();
    assert_eq!(collect(content).await.unwrap(), b"PGDMP");
    let rest = world.artifacts().read(&key, fingerprint, 3).await.unwrap();
    assert_eq!(collect(rest).await.unwrap(), b"MP");
    world.artifacts().delete(&key).await.unwrap();
    world.artifacts().delete(&key).await.unwrap();
    assert!(matches!(
        world.artifacts().read(&key, fingerprint, 0).await.err(),
        Some(StorageError::NotFound)
    ));
}

#[tokio::test]
async fn abandoned_artifact_leaves_nothing() {
    let world = World::new();
    let mut writer = world.artifacts().begin(&key()).await.unwrap();
    writer.write(Bytes::from_static(b"half")).await.unwrap();
    writer.abort().await;
    assert!(world.leftovers().is_empty());
}

#[tokio::test]
async fn truncated_artifact_is_refused_before_its_first_byte() {
    let world = World::new();
    let key = key();
    let fingerprint = written(&world, &key, "0123456789").await;
    std::fs::write(file_of(&world, &key), "01234").unwrap();
    let refused = world.artifacts().read(&key, fingerprint, 0).await.err();
    let expected = InvalidContent::Size {
        expected: 10,
        found: 5,
    };
    assert!(matches!(refused, Some(StorageError::ArtifactInvalid(invalid)) if invalid == expected));
}

#[tokio::test]
async fn altered_artifact_is_found_out_at_its_end() {
    let world = World::new();
    let key = key();
    let fingerprint = written(&world, &key, "0123456789").await;
    std::fs::write(file_of(&world, &key), "0123456780").unwrap();
    let content = world.artifacts().read(&key, fingerprint, 0).await.unwrap();
    let refused = collect(content).await;
    assert!(matches!(
        refused,
        Err(StorageError::ArtifactInvalid(InvalidContent::Checksum { .. }))
    ));
}

#[tokio::test]
async fn attempts_do_not_share_a_key() {
    let (backup, operation) = (
        BackupId::generate(&SystemRandom),
        OperationId::generate(&SystemRandom),
    );
    let [one, two] = [1, 2].map(|attempt| ArtifactKey::new(backup, operation, attempt));
    assert_ne!(one, two);
    assert_eq!(ArtifactKey::from_stored(one.as_str()), Some(one));
    for bad in [
        "",
        "x",
        "../x",
        &format!("{backup}/../../etc"),
        &format!("{backup}/{operation}"),
        &format!("{backup}/{operation}-1/x"),
    ] {
        assert_eq!(ArtifactKey::from_stored(bad), None, "{bad}");
    }
}

#[tokio::test]
async fn old_artifacts_can_be_listed() {
    let world = World::new();
    let key = key();
    written(&world, &key, "x").await;
    let modified = std::fs::metadata(file_of(&world, &key))
        .unwrap()
        .modified()
        .unwrap();
    assert!(
        world
            .artifacts()
            .list_before(modified.into())
            .await
            .unwrap()
            .is_empty()
    );
    let later = modified + std::time::Duration::from_secs(1);
    assert_eq!(world.artifacts().list_before(later.into()).await.unwrap(), [key]);
}
