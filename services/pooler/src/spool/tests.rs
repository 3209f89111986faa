use std::os::unix::fs::MetadataExt as _;

use domain::random::SeededRandom;
use futures::TryStreamExt as _;

use super::*;

fn space(directory: &tempfile::TempDir, bytes: u64) -> SpoolSpace {
    SpoolSpace::new(directory.path().to_owned(), bytes, Arc::new(SeededRandom::new(1)))
}

fn message(number: i64, bytes: usize) -> Numbered {
    let text = u8::try_from(number % 256).unwrap();
    Numbered {
        message: EncodedEvents::from_encoded(vec![text; bytes].into()),
        first: number,
        last: number,
    }
}

async fn numbers(spool: &Spool, after: i64) -> Vec<i64> {
    let all: Vec<Numbered> = spool.read(after).try_collect().await.unwrap();
    all.iter()
        .map(|one| one.last)
        .filter(|last| *last > after)
        .collect()
}

#[tokio::test]
async fn spool_gives_back_what_it_was_given_from_wherever_and_has_no_name() {
    let directory = tempfile::tempdir().unwrap();
    let mut spool = space(&directory, 1 << 30).open().await.unwrap();
    for number in 1..=100 {
        spool.append(&message(number, 10_000)).await.unwrap();
    }
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    assert!(spool.covers(0) && spool.covers(100) && !spool.covers(101));
    assert_eq!(numbers(&spool, 0).await, (1..=100).collect::<Vec<_>>());
    // What waits for its block is there too, and what is appended later does not disturb who reads.
    let reader = spool.read(57);
    spool.append(&message(101, 100_000)).await.unwrap();
    let rest: Vec<Numbered> = reader.try_collect().await.unwrap();
    assert_eq!(rest.last().unwrap().last, 100);
    let last = spool.read(100).try_collect::<Vec<_>>().await.unwrap();
    assert_eq!(last.last().unwrap().message.as_bytes(), &vec![101; 100_000]);
}

#[tokio::test]
async fn file_tells_nobody_anything_and_what_was_changed_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let mut spool = space(&directory, 1 << 30).open().await.unwrap();
    spool.append(&message(65, BLOCK)).await.unwrap();
    let mut bytes = vec![0; usize::try_from(spool.file.metadata().unwrap().size()).unwrap()];
    spool.file.read_exact_at(&mut bytes, 0).unwrap();
    assert!(!bytes.windows(4).any(|window| window == b"AAAA"));
    spool.file.write_all_at(&[bytes[100] ^ 1], 100).unwrap();
    let read: Result<Vec<Numbered>, _> = spool.read(0).try_collect().await;
    assert!(matches!(read, Err(SpoolError::Damaged)));
}

#[tokio::test]
async fn spools_take_no_more_than_their_space_and_give_it_back() {
    let directory = tempfile::tempdir().unwrap();
    let space = space(&directory, 8 * BLOCK as u64);
    let mut spool = space.open().await.unwrap();
    spool.append(&message(1, BLOCK)).await.unwrap();
    let refused = spool.append(&message(2, BLOCK)).await;
    assert!(matches!(refused, Err(SpoolError::Full)), "one has its share only");
    assert!(space.used.load(Ordering::Relaxed) > 0);
    drop(spool);
    assert_eq!(space.used.load(Ordering::Relaxed), 0);
    let nothing = SpoolSpace::new(directory.path().to_owned(), 0, Arc::new(SeededRandom::new(1)));
    assert!(matches!(nothing.open().await, Err(SpoolError::Full)));
}
