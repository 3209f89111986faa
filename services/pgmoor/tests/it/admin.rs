//! Certificates, keys and the first user.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::command::{Ended, migrated, pgmoor, pgmoor_in};

fn mode(path: impl AsRef<Path>) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn issue(directory: &Path, role: &str, name: &str, more: &[&str]) -> Ended {
    let arguments = [
        "admin",
        "issue-certificate",
        "--role",
        role,
        "--name",
        name,
        "--out",
        name,
    ];
    pgmoor_in(directory, &[&arguments, more].concat(), &[], "")
}

#[test]
fn certificates_of_two_processes_share_an_authority() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let first = issue(
        path,
        "pooler",
        "pooler-1",
        &["--dns-name", "pooler-1.example.com", "--ip", "10.0.0.1"],
    )
    .succeeded();
    assert!(first.contains("made a certificate authority"), "{first}");
    assert!(first.contains("issued pgmoor://pooler/pooler-1 until"), "{first}");
    let second = issue(path, "api", "api-1", &[]).succeeded();
    assert!(!second.contains("made a certificate authority"), "{second}");
    assert!(
        second.contains("trust.api.certificate = \"api-1/certificate.pem\""),
        "{second}"
    );

    let read = |file: &str| std::fs::read_to_string(path.join(file)).unwrap();
    assert_eq!(read("pooler-1/authority.pem"), read("api-1/authority.pem"));
    assert_ne!(read("pooler-1/key.pem"), read("api-1/key.pem"));
    assert!(read("api-1/certificate.pem").starts_with("-----BEGIN CERTIFICATE-----"));
}

#[test]
fn keys_are_for_their_owner_only() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    issue(path, "worker", "w", &[]).succeeded();
    assert_eq!(mode(path.join("pgmoor-ca")), 0o700);
    assert_eq!(mode(path.join("pgmoor-ca/authority-key.pem")), 0o600);
    assert_eq!(mode(path.join("w/key.pem")), 0o600);
    assert_eq!(mode(path.join("w/certificate.pem")), 0o644);
}

#[test]
fn certificate_is_replaced_only_when_told() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    issue(path, "api", "a", &[]).succeeded();
    let key = || std::fs::read_to_string(path.join("a/key.pem")).unwrap();
    let before = key();
    let error = issue(path, "api", "a", &[]).failed(1);
    assert!(error.contains("--force"), "{error}");
    assert_eq!(key(), before);
    issue(path, "api", "a", &["--force"]).succeeded();
    assert_ne!(key(), before);
}

#[test]
fn another_authority_is_not_slipped_in() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    issue(path, "api", "a", &[]).succeeded();
    std::fs::remove_file(path.join("a/key.pem")).unwrap();
    std::fs::remove_file(path.join("a/certificate.pem")).unwrap();
    let error = issue(path, "api", "a", &["--ca-dir", "other"]).failed(1);
    assert!(error.contains("another authority"), "{error}");
}

#[test]
fn names_that_would_say_another_role_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    for name in [
        "pooler.pgmoor.internal",
        "POOLER.pgmoor.internal.",
        "*.example.com",
    ] {
        let error = issue(path, "api", "a", &["--dns-name", name]).failed(64);
        assert!(error.contains("--dns-name"), "{error}");
    }
    issue(path, "api", "../a", &[]).failed(64);
    issue(path, "root", "a", &[]).failed(64);
    issue(path, "api", "a", &["--lifetime", "0s"]).failed(64);
}

#[tokio::test]
async fn first_administrator_gets_a_password_printed_once() {
    let database = migrated().await;
    let url = database.url();
    let environment = [("PGMOOR_CONFIG_DATABASE_URL", url.as_str())];
    let made = pgmoor(
        &["admin", "create-user", "--username", "alice", "--administrator"],
        &environment,
    )
    .succeeded();
    assert!(made.contains("made the administrator alice (users/"), "{made}");
    let password = made
        .lines()
        .find_map(|line| line.strip_prefix("password: "))
        .unwrap();
    assert_eq!(password.len(), 24);

    let row = database.connect().await;
    let row = row
        .query_one("SELECT administrator, password_hash FROM pgmoor.users", &[])
        .await
        .unwrap();
    assert!(row.get::<_, bool>(0));
    let hash: String = row.get(1);
    assert!(
        hash.starts_with("$argon2id$") && !hash.contains(password),
        "{hash}"
    );

    let again = pgmoor(&["admin", "create-user", "--username", "Alice"], &environment).failed(1);
    assert!(again.contains("not made"), "{again}");
}

#[tokio::test]
async fn password_comes_from_a_file_or_from_standard_input_and_is_not_printed() {
    let database = migrated().await;
    let url = database.url();
    let environment = [("PGMOOR_CONFIG_DATABASE_URL", url.as_str())];
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("password"), "correct horse battery\n").unwrap();
    let arguments = [
        "admin",
        "create-user",
        "--username",
        "bob",
        "--password-file",
        "password",
    ];
    let made = pgmoor_in(directory.path(), &arguments, &environment, "").succeeded();
    assert!(
        made.starts_with("made the user bob") && !made.contains("horse"),
        "{made}"
    );

    let arguments = ["admin", "create-user", "--username", "carol", "--password-stdin"];
    pgmoor_in(
        directory.path(),
        &arguments,
        &environment,
        "correct horse battery\n",
    )
    .succeeded();
    let arguments = ["admin", "create-user", "--username", "dave", "--password-stdin"];
    let error = pgmoor_in(directory.path(), &arguments, &environment, "\n").failed(1);
    assert!(error.contains("empty"), "{error}");
    let error = pgmoor_in(directory.path(), &arguments, &environment, "short\n").failed(1);
    assert!(error.contains("password"), "{error}");
}

#[tokio::test]
async fn opening_key_is_written_and_its_public_half_registered() {
    let database = migrated().await;
    let url = database.url();
    let environment = [("PGMOOR_CONFIG_DATABASE_URL", url.as_str())];
    let directory = tempfile::tempdir().unwrap();
    let arguments = ["admin", "create-sealing-key", "--out", "opening-key"];
    let made = pgmoor_in(directory.path(), &arguments, &environment, "").succeeded();
    let key = directory.path().join("opening-key");
    assert_eq!(mode(&key), 0o600);
    let text = std::fs::read_to_string(&key).unwrap();
    assert!(
        text.starts_with("pgmoor-opening-key-1:") && !made.contains(text.trim()),
        "{made}"
    );

    let error = pgmoor_in(directory.path(), &arguments, &environment, "").failed(1);
    assert!(error.contains("opening-key"), "{error}");
    assert_eq!(std::fs::read_to_string(&key).unwrap(), text);
}

#[tokio::test]
async fn second_key_is_sealed_to_once_it_is_rotated_to() {
    let database = migrated().await;
    let (url, directory) = (database.url(), tempfile::tempdir().unwrap());
    let run = |arguments: &[&str], more: &[(&str, &str)]| {
        let environment = [&[("PGMOOR_CONFIG_DATABASE_URL", url.as_str())], more].concat();
        pgmoor_in(directory.path(), arguments, &environment, "")
    };
    let key = |text: &str| -> String {
        let (_, rest) = text.split_once("sealing key ").unwrap();
        rest.chars().take_while(char::is_ascii_hexdigit).collect()
    };
    let first = run(&["admin", "create-sealing-key", "--out", "one"], &[]).succeeded();
    let second = run(&["admin", "create-sealing-key", "--out", "two"], &[]).succeeded();
    assert!(second.contains("pgmoor admin rotate-keys"), "{second}");
    let (first, second) = (key(&first), key(&second));

    let line = |file: &str| std::fs::read_to_string(directory.path().join(file)).unwrap();
    let ring = format!("{}{}", line("one"), line("two"));
    // From the environment as from a file.
    let keys = [("PGMOOR_SEALING__OPENING_KEYS", ring.as_str())];
    let rotated = run(&["admin", "rotate-keys"], &keys).succeeded();
    assert!(
        rotated.contains(&format!("sealed to {second} from now on")),
        "{rotated}"
    );
    assert!(
        rotated.contains(&format!("nothing is sealed to {first} any more")),
        "{rotated}"
    );
    // And back again.
    let back = run(&["admin", "rotate-keys", "--to", &first], &keys).succeeded();
    assert!(back.contains(&format!("sealed to {first} from now on")), "{back}");
    let unknown = run(&["admin", "rotate-keys", "--to", "0123"], &keys).failed(1);
    assert!(
        unknown.contains("the ring does not hold the key 0123"),
        "{unknown}"
    );
    let both = [keys[0], ("PGMOOR_SEALING__OPENING_KEY_FILE", "one")];
    run(&["admin", "rotate-keys"], &both).failed(64);
}

#[tokio::test]
async fn key_that_cannot_be_registered_leaves_no_file() {
    let database = migrated().await;
    let url = database.url();
    database.execute("DROP TABLE pgmoor.sealing_keys CASCADE").await;
    let directory = tempfile::tempdir().unwrap();
    let arguments = ["admin", "create-sealing-key", "--out", "opening-key"];
    pgmoor_in(
        directory.path(),
        &arguments,
        &[("PGMOOR_CONFIG_DATABASE_URL", &url)],
        "",
    )
    .failed(1);
    assert!(!directory.path().join("opening-key").exists());
}
