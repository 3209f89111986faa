//! The directory backend, as any object store's user sees it, and as somebody who can write to the directory does.

use std::os::unix::fs::symlink;
use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{Error, GetRange, ObjectStore, ObjectStoreExt, PutMode, PutOptions};
use storage::StorageError;

use crate::world::World;

async fn text(store: &dyn ObjectStore, key: &str) -> Result<String, Error> {
    let bytes = store.get(&Path::from(key)).await?.bytes().await?;
    Ok(String::from_utf8(bytes.to_vec()).unwrap())
}

async fn put(store: &dyn ObjectStore, key: &str, content: &'static str) -> Result<(), Error> {
    store.put(&Path::from(key), content.into()).await.map(drop)
}

#[tokio::test]
async fn object_is_read_whole_in_ranges_and_under_conditions() {
    let world = World::new();
    let store = world.store.as_ref();
    put(store, "a/b", "0123456789").await.unwrap();
    let key = Path::from("a/b");
    assert_eq!(text(store, "a/b").await.unwrap(), "0123456789");
    assert_eq!(store.get_range(&key, 2..5).await.unwrap(), "234");
    assert_eq!(store.get_range(&key, 8..100).await.unwrap(), "89");
    for (range, expected) in [(GetRange::Offset(7), "789"), (GetRange::Suffix(2), "89")] {
        let options = object_store::GetOptions::new().with_range(Some(range));
        let found = store
            .get_opts(&key, options)
            .await
            .unwrap()
            .bytes()
            .await
            .unwrap();
        assert_eq!(found, expected);
    }
    let meta = store.head(&key).await.unwrap();
    assert_eq!(meta.size, 10);
    let stale = object_store::GetOptions::new().with_if_match(Some("other"));
    assert!(matches!(
        store.get_opts(&key, stale).await,
        Err(Error::Precondition { .. })
    ));
    assert!(matches!(text(store, "a/c").await, Err(Error::NotFound { .. })));
    assert!(matches!(text(store, "a/b/c").await, Err(Error::NotFound { .. })));
    assert!(matches!(text(store, "a").await, Err(Error::NotFound { .. })));
}

#[tokio::test]
async fn listing_has_every_object_below_a_prefix_and_nothing_else() {
    let world = World::new();
    for key in ["a/1", "a/b/2", "ab/3", "c"] {
        put(world.store.as_ref(), key, "x").await.unwrap();
    }
    let list = async |prefix: Option<&str>| {
        let prefix = prefix.map(Path::from);
        let found: Vec<_> = world.store.list(prefix.as_ref()).try_collect().await.unwrap();
        found
            .iter()
            .map(|meta| meta.location.to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!(list(Some("a")).await, ["a/1", "a/b/2"]);
    assert_eq!(list(None).await.len(), 4);
    assert!(list(Some("missing")).await.is_empty());
    let folder = world
        .store
        .list_with_delimiter(Some(&Path::from("a")))
        .await
        .unwrap();
    assert_eq!(folder.common_prefixes, [Path::from("a/b")]);
    assert_eq!(folder.objects.len(), 1);
}

#[tokio::test]
async fn folder_goes_with_its_last_object() {
    let world = World::new();
    put(world.store.as_ref(), "a/b/c", "x").await.unwrap();
    world.store.delete(&Path::from("a/b/c")).await.unwrap();
    assert!(!world.root().join("a").exists());
    let gone = world.store.delete(&Path::from("a/b/c")).await;
    assert!(matches!(gone, Err(Error::NotFound { .. })));
}

#[tokio::test]
async fn copies_and_renames_replace_only_when_told() {
    let world = World::new();
    let store = world.store.as_ref();
    put(store, "one", "1").await.unwrap();
    put(store, "two", "2").await.unwrap();
    let (one, two, three) = (Path::from("one"), Path::from("two"), Path::from("x/three"));
    for refused in [
        store.copy_if_not_exists(&one, &two).await,
        store.rename_if_not_exists(&one, &two).await,
    ] {
        assert!(matches!(refused, Err(Error::AlreadyExists { .. })), "{refused:?}");
    }
    store.copy(&one, &three).await.unwrap();
    store.rename(&one, &two).await.unwrap();
    assert_eq!(text(store, "two").await.unwrap(), "1");
    assert_eq!(text(store, "x/three").await.unwrap(), "1");
    assert!(matches!(text(store, "one").await, Err(Error::NotFound { .. })));
    let missing = store.rename(&one, &two).await;
    assert!(matches!(missing, Err(Error::NotFound { .. })));
    assert_eq!(text(store, "two").await.unwrap(), "1");
}

#[tokio::test]
async fn of_many_that_create_an_object_one_wins() {
    let world = World::new();
    let mut tasks = tokio::task::JoinSet::new();
    for writer in 0..16 {
        let store = Arc::clone(&world.store);
        tasks.spawn(async move {
            let options = PutOptions {
                mode: PutMode::Create,
                ..PutOptions::default()
            };
            let content = format!("{writer}").into();
            (
                writer,
                store
                    .put_opts(&Path::from("shared/one"), content, options)
                    .await
                    .is_ok(),
            )
        });
    }
    let winners: Vec<_> = tasks
        .join_all()
        .await
        .into_iter()
        .filter(|(_, won)| *won)
        .collect();
    assert_eq!(winners.len(), 1, "{winners:?}");
    assert_eq!(
        text(world.store.as_ref(), "shared/one").await.unwrap(),
        winners[0].0.to_string()
    );
    assert!(world.leftovers().is_empty(), "{:?}", world.leftovers());
}

#[tokio::test]
async fn writers_do_not_lose_a_folder_to_a_deleter() {
    let world = World::new();
    let mut tasks = tokio::task::JoinSet::new();
    for writer in 0..8 {
        let store = Arc::clone(&world.store);
        tasks.spawn(async move {
            let key = Path::from(format!("folder/{writer}"));
            for _ in 0..50 {
                store.put(&key, "x".into()).await.unwrap();
                store.delete(&key).await.unwrap();
            }
        });
    }
    tasks.join_all().await;
    assert!(!world.root().join("folder").exists());
}

#[tokio::test]
async fn parts_of_an_upload_land_in_order_whatever_order_they_are_written_in() {
    let world = World::new();
    let mut upload = world.store.put_multipart(&Path::from("big")).await.unwrap();
    let first = upload.put_part(Bytes::from(vec![b'a'; 100_000]).into());
    let second = upload.put_part("b".into());
    second.await.unwrap();
    assert!(matches!(
        text(world.store.as_ref(), "big").await,
        Err(Error::NotFound { .. })
    ));
    first.await.unwrap();
    upload.complete().await.unwrap();
    let content = text(world.store.as_ref(), "big").await.unwrap();
    assert!(content.len() == 100_001 && content.ends_with("ab"));
}

#[tokio::test]
async fn abandoned_upload_leaves_nothing() {
    let world = World::new();
    let mut upload = world.store.put_multipart(&Path::from("big")).await.unwrap();
    upload.put_part("x".into()).await.unwrap();
    assert_eq!(world.leftovers().len(), 1);
    drop(upload);
    assert!(world.leftovers().is_empty());
}

#[tokio::test]
async fn what_a_killed_writer_left_is_removed_by_age() {
    let world = World::new();
    put(world.store.as_ref(), "kept", "x").await.unwrap();
    std::fs::write(world.root().join(".staging/dead"), "half").unwrap();
    let written = std::fs::metadata(world.root().join(".staging/dead"))
        .unwrap()
        .modified()
        .unwrap();
    assert_eq!(world.store.remove_abandoned(written).await.unwrap(), 0);
    let later = written + std::time::Duration::from_secs(1);
    assert_eq!(world.store.remove_abandoned(later).await.unwrap(), 1);
    assert_eq!(text(world.store.as_ref(), "kept").await.unwrap(), "x");
}

#[tokio::test]
async fn symbolic_links_are_never_followed() {
    let world = World::new();
    world.write("kept", "mine").await.unwrap();
    let secret = world.outside().join("secret");
    std::fs::create_dir(&secret).unwrap();
    std::fs::write(secret.join("file"), "secret").unwrap();
    let root = world.user_root();
    symlink(secret.join("file"), root.join("leaf")).unwrap();
    symlink(&secret, root.join("folder")).unwrap();
    // A link that stays within the store's directory is not followed either: it may lead to another user.
    symlink("kept", root.join("inside")).unwrap();
    symlink("missing", root.join("dangling")).unwrap();

    for name in ["leaf", "folder/file", "inside", "dangling"] {
        assert!(
            matches!(world.read(name).await, Err(StorageError::NotFound)),
            "{name}"
        );
        let deleted = world.files().delete(world.user, &crate::world::path(name)).await;
        assert!(matches!(deleted, Err(StorageError::NotFound)), "{name}");
    }
    assert!(world.write("folder/file", "overwritten").await.is_err());
    assert!(world.write("folder/new", "planted").await.is_err());
    let listed = world.files().list(world.user, None, None, 100).await.unwrap();
    assert_eq!(listed.files.len(), 1);

    // Writing to a link's name replaces the link itself.
    world.write("leaf", "new").await.unwrap();
    world.write("dangling", "new").await.unwrap();
    assert_eq!(std::fs::read_to_string(secret.join("file")).unwrap(), "secret");
    assert_eq!(std::fs::read_dir(&secret).unwrap().count(), 1);
    assert!(!root.join("missing").exists());
}

#[tokio::test]
async fn link_swapped_in_while_writing_never_leads_outside() {
    let world = World::new();
    let secret = world.outside().join("secret");
    std::fs::create_dir(&secret).unwrap();
    std::fs::create_dir_all(world.user_root()).unwrap();
    let folder = world.user_root().join("folder");
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let swapper = std::thread::spawn({
        let (stop, folder, secret) = (Arc::clone(&stop), folder.clone(), secret.clone());
        move || {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let _ = std::fs::remove_dir_all(&folder);
                let _ = symlink(&secret, &folder);
                let _ = std::fs::remove_file(&folder);
                let _ = std::fs::create_dir(&folder);
            }
        }
    });
    for _ in 0..500 {
        // It may fail; it must not write elsewhere.
        let _ = world.write("folder/file", "x").await;
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    swapper.join().unwrap();
    assert_eq!(std::fs::read_dir(&secret).unwrap().count(), 0);
}

#[tokio::test]
async fn devices_and_pipes_are_no_files() {
    let world = World::new();
    world.write("kept", "x").await.unwrap();
    let pipe = world.user_root().join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    let _socket = std::os::unix::net::UnixListener::bind(world.user_root().join("socket")).unwrap();
    for name in ["pipe", "socket"] {
        assert!(world.read(name).await.is_err(), "{name}");
    }
    assert_eq!(
        world
            .files()
            .list(world.user, None, None, 100)
            .await
            .unwrap()
            .files
            .len(),
        1
    );
}

#[tokio::test]
async fn reader_sees_the_old_object_or_the_new_one() {
    let world = World::new();
    let store = Arc::clone(&world.store);
    let contents = ["a", "b"].map(|letter| letter.repeat(600_000));
    store
        .put(&Path::from("x"), contents[0].clone().into())
        .await
        .unwrap();
    let writer = tokio::task::spawn_blocking({
        let (store, contents) = (Arc::clone(&store), contents.clone());
        let runtime = tokio::runtime::Handle::current();
        move || {
            for turn in 0..100 {
                let content = contents[turn % 2].clone().into();
                runtime.block_on(store.put(&Path::from("x"), content)).unwrap();
            }
        }
    });
    let mut seen = 0;
    while !writer.is_finished() || seen == 0 {
        let found = text(store.as_ref(), "x").await.unwrap();
        assert!(contents.contains(&found), "{} bytes", found.len());
        seen += 1;
    }
    writer.await.unwrap();
}

#[tokio::test]
async fn store_stays_with_its_directory_when_the_path_changes_its_meaning() {
    let world = World::new();
    let moved = world.outside().join("moved");
    std::fs::rename(world.root(), &moved).unwrap();
    symlink("/", world.root()).unwrap();
    put(world.store.as_ref(), "a", "x").await.unwrap();
    assert!(moved.join("a").exists());
}

#[tokio::test]
async fn own_folder_for_unfinished_files_is_no_objects_place() {
    let world = World::new();
    for key in [".staging/x", ".staging"] {
        assert!(put(world.store.as_ref(), key, "x").await.is_err(), "{key}");
        assert!(text(world.store.as_ref(), key).await.is_err(), "{key}");
    }
    assert!(put(world.store.as_ref(), "", "x").await.is_err());
}
