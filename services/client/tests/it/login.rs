use client::Exit;

use crate::fake::Fake;
use crate::pgmoor::Machine;

pub async fn logged_in(fake: &Fake) -> Machine {
    let machine = Machine::new(&fake.url);
    let done = machine
        .run_with(
            &["login", "--user", "alice", "--password-stdin"],
            "correct horse\n",
        )
        .await;
    assert_eq!(done.exit, Exit::Success, "{}", done.stderr);
    machine
}

#[tokio::test]
async fn login_is_remembered_and_logout_forgets_it() {
    let fake = Fake::start().await;
    let machine = logged_in(&fake).await;
    let done = machine.run(&["whoami", "--format", "json"]).await;
    assert_eq!(done.exit, Exit::Success, "{}", done.stderr);
    let json: serde_json::Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!(json["username"], "alice");
    assert_eq!(json["credentialKind"], "CREDENTIAL_KIND_ACCESS_TOKEN");
    let config = std::fs::read_to_string(machine.path("pgmoor/config.toml")).unwrap();
    assert!(
        config.contains(&fake.url) && config.contains("alice") && !config.contains("access-0"),
        "{config}"
    );
    assert_eq!(machine.run(&["logout"]).await.exit, Exit::Success);
    let done = machine.run(&["whoami"]).await;
    assert_eq!(done.exit, Exit::Denied);
    assert!(done.stderr.contains("run: pgmoor login"), "{}", done.stderr);
}

#[tokio::test]
async fn wrong_password_is_denied_and_stores_nothing() {
    let fake = Fake::start().await;
    let machine = Machine::new(&fake.url);
    let done = machine
        .run_with(&["login", "-U", "alice", "--password-stdin"], "wrong\n")
        .await;
    assert_eq!(done.exit, Exit::Denied);
    assert!(
        done.stderr.contains("[LOGIN_FAILED]") && !done.stderr.contains("wrong\n"),
        "{}",
        done.stderr
    );
    assert!(!machine.path("pgmoor/credentials/default").exists());
}

#[tokio::test]
async fn login_without_a_terminal_says_how_to_give_the_password() {
    let fake = Fake::start().await;
    let done = Machine::new(&fake.url).run(&["login", "-U", "alice"]).await;
    assert_eq!(done.exit, Exit::Denied);
    assert!(done.stderr.contains("--password-stdin"), "{}", done.stderr);
}

#[tokio::test]
async fn tokens_are_not_sent_to_another_address() {
    let fake = Fake::start().await;
    let mut machine = logged_in(&fake).await;
    let other = Fake::start().await;
    machine.url.clone_from(&other.url);
    assert_eq!(machine.run(&["whoami"]).await.exit, Exit::Denied);
    assert_eq!(other.state.count(|counts| &counts.who_am_i), 0);
}
