//! Files in pieces, each through another instance.

use bytes::Bytes;
use storage::{MAX_PIECE_BYTES, Piece, Sha256Hex, StorageError, WrittenPiece};

use crate::world::{World, path};

fn piece(offset: u64, data: &str, last: bool) -> Piece {
    Piece {
        offset,
        data: Bytes::from(data.to_owned()),
        last,
        overwrite: false,
    }
}

impl World {
    /// Writes a piece through an instance of its own.
    async fn piece(&self, piece: Piece) -> Result<WrittenPiece, StorageError> {
        self.files().write_piece(self.user, &path("x"), piece).await
    }
}

#[tokio::test]
async fn file_appears_with_its_last_piece() {
    let world = World::new();
    assert_eq!(world.piece(piece(0, "abc", false)).await.unwrap().next_offset, 3);
    assert_eq!(world.piece(piece(3, "de", false)).await.unwrap().next_offset, 5);
    assert!(matches!(world.read("x").await, Err(StorageError::NotFound)));
    let written = world.piece(piece(5, "f", true)).await.unwrap();
    let file = written.written.unwrap();
    assert_eq!((file.file.size, file.sha256), (6, Sha256Hex::of(b"abcdef")));
    assert_eq!(world.read("x").await.unwrap(), "abcdef");
    assert!(matches!(
        world.piece(piece(0, "new", false)).await,
        Err(StorageError::AlreadyExists)
    ));
}

#[tokio::test]
async fn piece_sent_again_changes_nothing() {
    let world = World::new();
    for (offset, data) in [(0, "abc"), (0, "abc"), (3, "de"), (3, "de"), (5, "fg"), (3, "de")] {
        world.piece(piece(offset, data, false)).await.unwrap();
    }
    let last = world.piece(piece(7, "h", true)).await.unwrap();
    assert_eq!(world.piece(piece(7, "h", true)).await.unwrap(), last);
    assert_eq!(world.read("x").await.unwrap(), "abcdefgh");
}

#[tokio::test]
async fn gap_is_refused_with_the_offset_to_go_on_from() {
    let world = World::new();
    let expected = async |piece| match world.piece(piece).await {
        Err(StorageError::OffsetOutOfRange { expected }) => expected,
        other => panic!("{other:?}"),
    };
    assert_eq!(expected(piece(3, "x", false)).await, 0);
    world.piece(piece(0, "abc", false)).await.unwrap();
    world.piece(piece(3, "def", false)).await.unwrap();
    assert_eq!(expected(piece(7, "x", true)).await, 6);
    assert_eq!(expected(piece(4, "x", true)).await, 3);
    assert_eq!(expected(piece(u64::MAX, "x", true)).await, 6);
    world.piece(piece(6, "", true)).await.unwrap();
    assert_eq!(world.read("x").await.unwrap(), "abcdef");
}

#[tokio::test]
async fn another_piece_takes_the_place_of_what_was_there_and_after() {
    let world = World::new();
    for (offset, data) in [(0, "abc"), (3, "def"), (6, "ghi"), (3, "DE")] {
        world.piece(piece(offset, data, false)).await.unwrap();
    }
    world.piece(piece(5, "!", true)).await.unwrap();
    assert_eq!(world.read("x").await.unwrap(), "abcDE!");
}

#[tokio::test]
async fn offset_zero_begins_anew() {
    let world = World::new();
    for (offset, data) in [(0, "abc"), (3, "def"), (0, "abc")] {
        world.piece(piece(offset, data, false)).await.unwrap();
    }
    let skipped = world.piece(piece(6, "x", true)).await;
    assert!(matches!(
        skipped,
        Err(StorageError::OffsetOutOfRange { expected: 3 })
    ));
    world.piece(piece(3, "", true)).await.unwrap();
    assert_eq!(world.read("x").await.unwrap(), "abc");
}

#[tokio::test]
async fn last_piece_is_not_taken_for_an_older_upload_of_other_content() {
    let world = World::new();
    let overwriting = |offset, data, last| Piece {
        overwrite: true,
        ..piece(offset, data, last)
    };
    world.piece(overwriting(0, "old", false)).await.unwrap();
    world.piece(overwriting(3, "end", true)).await.unwrap();
    world.piece(overwriting(0, "new", false)).await.unwrap();
    world.piece(overwriting(3, "end", true)).await.unwrap();
    assert_eq!(world.read("x").await.unwrap(), "newend");
    // The receipt stands, but the file is another one by now.
    world.write("x", "other").await.unwrap();
    let late = world.piece(overwriting(3, "end", true)).await;
    assert!(matches!(
        late,
        Err(StorageError::OffsetOutOfRange { expected: 0 })
    ));
    assert_eq!(world.read("x").await.unwrap(), "other");
}

#[tokio::test]
async fn empty_file_is_one_empty_last_piece() {
    let world = World::new();
    world.piece(piece(0, "", true)).await.unwrap();
    assert_eq!(world.read("x").await.unwrap(), "");
}

#[tokio::test]
async fn pieces_count_towards_the_quota() {
    let world = World::new();
    let files = world.files_with(10);
    let write = async |piece| files.write_piece(world.user, &path("x"), piece).await;
    write(piece(0, "123456", false)).await.unwrap();
    let exceeded = write(piece(6, "78901", true)).await;
    assert!(matches!(
        exceeded,
        Err(StorageError::QuotaExceeded { quota_bytes: 10 })
    ));
    write(piece(6, "7890", true)).await.unwrap();
    assert_eq!(files.usage(world.user).await.unwrap() - 10, receipt_bytes(&world));
}

fn receipt_bytes(world: &World) -> u64 {
    world
        .leftovers()
        .iter()
        .map(|file| std::fs::metadata(file).unwrap().len())
        .sum()
}

#[tokio::test]
async fn piece_too_large_is_refused() {
    let world = World::new();
    let large = "x".repeat(MAX_PIECE_BYTES + 1);
    let refused = world.piece(piece(0, &large, true)).await;
    assert!(matches!(
        refused,
        Err(StorageError::PieceTooLarge {
            limit: MAX_PIECE_BYTES
        })
    ));
}

#[tokio::test]
async fn unfinished_pieces_are_removed_by_age() {
    let world = World::new();
    world.piece(piece(0, "abc", false)).await.unwrap();
    let written = std::fs::metadata(&world.leftovers()[0])
        .unwrap()
        .modified()
        .unwrap();
    assert_eq!(world.files().remove_abandoned(written.into()).await.unwrap(), 0);
    let later = written + std::time::Duration::from_secs(1);
    assert_eq!(world.files().remove_abandoned(later.into()).await.unwrap(), 1);
    let next = world.piece(piece(3, "d", true)).await;
    assert!(matches!(
        next,
        Err(StorageError::OffsetOutOfRange { expected: 0 })
    ));
}
