//! `pgmoor check`: what it finds and how it says so.

use std::path::Path;

use harness::{Cluster, Database};

use crate::command::{Ended, migrated, pgmoor, pgmoor_in};

/// The database's URL with the rights of one role of ours.
async fn url_of(database: &Database, group: &str) -> String {
    let login = Cluster::shared()
        .await
        .create_login(&format!("IN ROLE {group}"))
        .await;
    database.url_as(&login)
}

fn issue(directory: &Path, role: &str) {
    let arguments = [
        "admin",
        "issue-certificate",
        "--role",
        role,
        "--name",
        role,
        "--out",
        role,
    ];
    pgmoor_in(directory, &arguments, &[], "").succeeded();
}

fn check(directory: &Path, role: &str, environment: &[(&str, &str)]) -> Ended {
    pgmoor_in(directory, &["check", "--role", role], environment, "")
}

#[tokio::test]
async fn configuration_that_works_has_no_failed_line() {
    let database = migrated().await;
    let directory = tempfile::tempdir().unwrap();
    issue(directory.path(), "api");
    let owner = database.url();
    let arguments = ["admin", "create-sealing-key", "--out", "opening-key"];
    pgmoor_in(
        directory.path(),
        &arguments,
        &[("PGMOOR_CONFIG_DATABASE_URL", &owner)],
        "",
    )
    .succeeded();
    let url = url_of(&database, "pgmoor_api").await;
    let environment = [
        ("PGMOOR_CONFIG_DATABASE_URL", url.as_str()),
        ("PGMOOR_TRUST__AUTHORITY", "api/authority.pem"),
        ("PGMOOR_TRUST__API__CERTIFICATE", "api/certificate.pem"),
        ("PGMOOR_TRUST__API__KEY", "api/key.pem"),
        ("PGMOOR_EGRESS__ALLOW", "10.0.0.0/8"),
        ("PGMOOR_STORAGE__DIRECTORY", "."),
    ];
    let lines = check(directory.path(), "api", &environment).succeeded();
    for line in [
        "ok     config database: answers and takes writes",
        "ok     schema: ",
        "ok     database role: the login has the rights of pgmoor_api",
        "ok     certificate of api: pgmoor://api/api until ",
        "ok     egress: 1 rules",
        "ok     storage: . can be written to",
    ] {
        assert!(lines.contains(line), "{line} is not in\n{lines}");
    }
}

#[tokio::test]
async fn each_thing_that_is_wrong_has_a_line_with_what_to_do() {
    let database = migrated().await;
    let directory = tempfile::tempdir().unwrap();
    issue(directory.path(), "api");
    let url = url_of(&database, "pgmoor_api").await;
    let environment = [
        ("PGMOOR_CONFIG_DATABASE_URL", url.as_str()),
        ("PGMOOR_TRUST__AUTHORITY", "api/authority.pem"),
        ("PGMOOR_TRUST__POOLER__CERTIFICATE", "api/certificate.pem"),
        ("PGMOOR_TRUST__POOLER__KEY", "api/key.pem"),
        ("PGMOOR_SEALING__OPENING_KEY_FILE", "nowhere"),
    ];
    let ended = check(directory.path(), "pooler", &environment);
    let lines = ended.stdout.clone();
    let summary = ended.failed(1);
    for line in [
        "FAILED database role: the login lacks the rights of pgmoor_pooler: GRANT pgmoor_pooler TO it",
        "FAILED certificate of pooler: it is for pgmoor://api/api, not for the role pooler",
        "FAILED sealing key: there is none",
        "FAILED opening key: the opening key's file nowhere cannot be read",
    ] {
        assert!(lines.contains(line), "{line} is not in\n{lines}");
    }
    assert!(summary.contains("4 checks failed"), "{summary}");
}

#[tokio::test]
async fn certificate_of_another_authority_and_foreign_key_are_found() {
    let database = migrated().await;
    let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    issue(ours.path(), "api");
    issue(theirs.path(), "api");
    let url = database.url();
    let foreign_authority = theirs.path().join("api/authority.pem");
    let foreign_key = theirs.path().join("api/key.pem");
    let found = |authority: &Path, key: &Path| {
        let environment = [
            ("PGMOOR_CONFIG_DATABASE_URL", url.as_str()),
            ("PGMOOR_TRUST__AUTHORITY", authority.to_str().unwrap()),
            ("PGMOOR_TRUST__API__CERTIFICATE", "api/certificate.pem"),
            ("PGMOOR_TRUST__API__KEY", key.to_str().unwrap()),
        ];
        check(ours.path(), "api", &environment).stdout
    };
    let lines = found(&foreign_authority, Path::new("api/key.pem"));
    assert!(lines.contains("did not issue it"), "{lines}");
    let lines = found(Path::new("api/authority.pem"), &foreign_key);
    assert!(lines.contains("is not the key of api/certificate.pem"), "{lines}");
}

#[tokio::test]
async fn database_without_schema_is_told_to_be_migrated() {
    let database = Cluster::shared().await.create_database().await;
    let url = database.url();
    let ended = pgmoor(&["check"], &[("PGMOOR_CONFIG_DATABASE_URL", &url)]);
    assert!(ended.stdout.contains("FAILED schema: "), "{ended:?}");
    assert!(ended.stdout.contains("pgmoor migrate"), "{ended:?}");
    ended.failed(1);
}

#[tokio::test]
async fn opening_key_is_compared_with_the_config_database() {
    let (database, other) = (migrated().await, migrated().await);
    let directory = tempfile::tempdir().unwrap();
    let (url, other) = (database.url(), other.url());
    let arguments = ["admin", "create-sealing-key", "--out", "opening-key"];
    pgmoor_in(
        directory.path(),
        &arguments,
        &[("PGMOOR_CONFIG_DATABASE_URL", &url)],
        "",
    )
    .succeeded();
    let found = |url: &str| {
        let environment = [
            ("PGMOOR_CONFIG_DATABASE_URL", url),
            ("PGMOOR_SEALING__OPENING_KEY_FILE", "opening-key"),
        ];
        pgmoor_in(directory.path(), &["check"], &environment, "").stdout
    };
    let lines = found(&url);
    assert!(
        lines.contains("ok     opening key: opens what is sealed to "),
        "{lines}"
    );
    let lines = found(&other);
    assert!(lines.contains("FAILED sealing key: there is none"), "{lines}");
    let arguments = ["admin", "create-sealing-key", "--out", "another-key"];
    pgmoor_in(
        directory.path(),
        &arguments,
        &[("PGMOOR_CONFIG_DATABASE_URL", &other)],
        "",
    )
    .succeeded();
    let lines = found(&other);
    assert!(
        lines.contains("FAILED opening key: credentials are sealed to "),
        "{lines}"
    );
}
