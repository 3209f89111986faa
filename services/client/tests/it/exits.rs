use std::sync::atomic::Ordering;

use client::{Exit, Format};

use crate::fake::Fake;
use crate::login::logged_in;
use crate::pgmoor::{Machine, parse};

#[tokio::test]
async fn reading_is_repeated_while_the_server_is_away() {
    let fake = Fake::start().await;
    let machine = logged_in(&fake).await;
    fake.state.unavailable.store(2, Ordering::SeqCst);
    let done = machine.run(&["servers", "list", "--format", "csv"]).await;
    assert_eq!(done.exit, Exit::Success, "{}", done.stderr);
    assert_eq!(
        fake.state.count(|counts| &counts.list_servers),
        2 + 2,
        "two pages"
    );
    insta::assert_snapshot!(done.stdout, @r"
    name,group,display_name,endpoints,username,maintenance_database,has_password
    servers/1,prod,shop,db:5432,,,false
    servers/2,test,shop,db:5432,,,false
    servers/3,test,wiki,db:5432,,,false
    ");
    fake.state.unavailable.store(100, Ordering::SeqCst);
    let done = machine.run(&["servers", "list"]).await;
    assert_eq!(done.exit, Exit::Unavailable);
    assert!(
        done.stderr.contains("[SHUTTING_DOWN]") && done.stdout.is_empty(),
        "{done:?}"
    );
}

#[tokio::test]
async fn each_failure_has_its_exit_status() {
    let fake = Fake::start().await;
    let machine = logged_in(&fake).await;
    for (arguments, exit, says) in [
        (
            &["catalog", "databases", "nothing"][..],
            Exit::NotFound,
            "there is no server \"nothing\"",
        ),
        (
            &["catalog", "databases", "shop"][..],
            Exit::Usage,
            "prod/shop (servers/1), test/shop (servers/2)",
        ),
        (&["token", "list"][..], Exit::Failed, "[UNIMPLEMENTED]"),
        (
            &["servers", "import", "/nowhere/servers.json"][..],
            Exit::Failed,
            "/nowhere/servers.json",
        ),
        (&["servers", "add", "x"][..], Exit::Usage, "--host"),
    ] {
        let done = machine.run(arguments).await;
        assert_eq!(done.exit, exit, "{arguments:?}: {}", done.stderr);
        assert!(done.stderr.contains(says), "{arguments:?}: {}", done.stderr);
        assert_eq!(done.stdout, "");
    }
}

#[tokio::test]
async fn server_that_is_not_there_is_unavailable() {
    // The port was free a moment ago and nobody listens on it now.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let done = Machine::new(&url)
        .run_with(&["login", "-U", "alice", "--password-stdin"], "x\n")
        .await;
    assert_eq!(done.exit, Exit::Unavailable);
    assert!(done.stderr.contains("is the server running?"), "{}", done.stderr);
}

#[tokio::test]
async fn token_takes_the_place_of_a_login() {
    let fake = Fake::start().await;
    let machine = Machine::new(&fake.url);
    let file = machine.path("token");
    std::fs::write(&file, "api-token\n").unwrap();
    let done = machine
        .run(&["whoami", "--token-file", file.to_str().unwrap()])
        .await;
    assert_eq!(done.exit, Exit::Success, "{}", done.stderr);
    assert!(done.stdout.contains("alice"), "{}", done.stdout);
}

#[tokio::test]
async fn refused_entry_of_an_import_is_reported_and_fails() {
    let fake = Fake::start().await;
    let machine = logged_in(&fake).await;
    let done = machine
        .run_with(&["servers", "import", "-", "--dry-run"], "{}")
        .await;
    assert_eq!(done.exit, Exit::Failed);
    assert!(done.stdout.contains("SSLCert names a file"), "{}", done.stdout);
    assert_eq!(
        done.stderr,
        "dry run: 1 created, 0 updated, 0 unchanged, 1 refused\n"
    );
}

#[test]
fn command_line_takes_no_passwords_and_says_what_is_missing() {
    for wrong in [
        &["login", "--password", "x"][..],
        &["sql"][..],
        &["sql", "-s", "x", "--session", "y"][..],
        &["sql", "-s", "x", "-c", "a", "-f", "b"][..],
        &["sql", "-s", "x", "--param", "1"][..],
        &["backup", "start", "shop"][..],
        &["restore", "-s", "shop"][..],
        &["restore", "b", "--file", "f", "-s", "shop"][..],
        &["settings", "reset"][..],
        &["instances", "update", "x"][..],
        &["--format", "xml", "whoami"][..],
    ] {
        let error = parse(wrong).expect_err(&format!("{wrong:?}"));
        assert_eq!(error.exit_code(), i32::from(Exit::Usage.status()), "{wrong:?}");
    }
    assert_eq!(Format::default(), Format::Table);
}

#[test]
fn every_command_explains_itself() {
    for command in [
        "login",
        "logout",
        "whoami",
        "settings",
        "servers",
        "instances",
        "pools",
        "catalog",
        "sql",
        "backup",
        "restore",
        "ops",
        "files",
        "users",
        "token",
    ] {
        let help = parse(&[command, "--help"])
            .expect_err("help ends the parse")
            .to_string();
        assert!(help.contains("Usage:"), "{command}");
    }
}
