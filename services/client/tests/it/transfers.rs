use std::sync::atomic::Ordering;

use client::Exit;

use crate::fake::Fake;
use crate::login::logged_in;

fn content(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 7 % 251) as u8).collect()
}

#[tokio::test]
async fn download_goes_on_where_it_broke_off() {
    let fake = Fake::start().await;
    let machine = logged_in(&fake).await;
    *fake.state.content.lock() = content(100_000);
    let file = machine.path("shop.dump");
    let path = file.to_str().unwrap();
    // What an earlier download left.
    std::fs::write(machine.path("shop.dump.part"), &content(100_000)[..1234]).unwrap();
    let done = machine.run(&["files", "download", "dumps/shop.dump", path]).await;
    assert_eq!(done.exit, Exit::Success, "{}", done.stderr);
    assert!(std::fs::read(&file).unwrap() == content(100_000));
    assert!(!machine.path("shop.dump.part").exists());
    assert_eq!(fake.state.count(|counts| &counts.download), 3);
    let done = machine.run(&["files", "download", "dumps/shop.dump", path]).await;
    assert_eq!(
        done.exit,
        Exit::Usage,
        "a file that exists is not replaced: {}",
        done.stderr
    );
    let done = machine
        .run(&["files", "download", "x", path, "--overwrite"])
        .await;
    assert_eq!(done.exit, Exit::Success, "{}", done.stderr);
}

#[tokio::test]
async fn upload_arrives_whole() {
    let fake = Fake::start().await;
    let machine = logged_in(&fake).await;
    let file = machine.path("big.bin");
    std::fs::write(&file, content(3_000_000)).unwrap();
    let path = file.to_str().unwrap();
    let done = machine
        .run(&["files", "upload", path, "dumps/big.bin", "--format", "csv"])
        .await;
    assert_eq!(done.exit, Exit::Success, "{}", done.stderr);
    assert!(
        done.stdout.contains("users/me/files/dumps/big.bin,3000000"),
        "{}",
        done.stdout
    );
    assert!(*fake.state.received.lock() == content(3_000_000));
}

#[tokio::test]
async fn upload_that_is_cut_off_goes_on_in_pieces() {
    let fake = Fake::start().await;
    let machine = logged_in(&fake).await;
    fake.state.unavailable.store(1, Ordering::SeqCst);
    let file = machine.path("big.bin");
    std::fs::write(&file, content(5_000_000)).unwrap();
    let done = machine.run(&["files", "upload", file.to_str().unwrap()]).await;
    assert_eq!(done.exit, Exit::Success, "{}", done.stderr);
    assert!(done.stderr.contains("going on in pieces"), "{}", done.stderr);
    assert!(*fake.state.received.lock() == content(5_000_000));
}
