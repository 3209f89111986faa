use client::Exit;
use rpc::access::v1::{CredentialMode, ServerPolicy, Tenancy};

use crate::fake::Fake;
use crate::login::logged_in;

fn present() -> ServerPolicy {
    let mut policy = ServerPolicy {
        environment: "staging".to_owned(),
        databases: vec!["orders".to_owned()],
        restores_forbidden: true,
        max_elevation: Some(prost_types::Duration {
            seconds: 60,
            nanos: 0,
        }),
        ..ServerPolicy::default()
    };
    policy.set_tenancy(Tenancy::MultiTenant);
    policy.set_credential_mode(CredentialMode::PersonalOnly);
    policy
}

#[tokio::test]
async fn part_of_a_policy_is_changed_and_the_rest_stays() {
    let fake = Fake::start().await;
    let machine = logged_in(&fake).await;
    fake.state.policy.lock().policy = present();
    let policy = async |options: &[&str]| {
        let done = machine
            .run(&[&["servers", "policy", "wiki"], options].concat())
            .await;
        assert_eq!(done.exit, Exit::Success, "{}", done.stderr);
        fake.state.policy.lock().policy.clone()
    };
    assert_eq!(policy(&[]).await, present());
    assert_eq!(fake.state.policy.lock().version, 0, "it was only shown");
    let no_backups = ServerPolicy {
        backups_forbidden: true,
        ..present()
    };
    assert_eq!(policy(&["--no-backups"]).await, no_backups);
    assert_eq!(
        policy(&[
            "--no-backups=false",
            "--no-restores=false",
            "--max-elevation",
            "0s"
        ])
        .await,
        ServerPolicy {
            restores_forbidden: false,
            max_elevation: Some(prost_types::Duration::default()),
            ..present()
        }
    );
    let mut open = policy(&["--all-databases", "--personal-only=false"]).await;
    assert_eq!(
        (open.tenancy(), open.credential_mode(), open.databases.len()),
        (Tenancy::SingleTenant, CredentialMode::Shared, 0)
    );
    open = policy(&["-d", "a", "-d", "b"]).await;
    assert_eq!(
        (open.tenancy(), open.databases),
        (Tenancy::MultiTenant, vec!["a".to_owned(), "b".to_owned()])
    );
}

#[tokio::test]
async fn policy_that_somebody_else_changes_meanwhile_is_not_overwritten() {
    let fake = Fake::start().await;
    let machine = logged_in(&fake).await;
    let theirs = ServerPolicy {
        backups_forbidden: true,
        ..present()
    };
    {
        let mut policy = fake.state.policy.lock();
        policy.policy = present();
        policy.meanwhile = Some(theirs.clone());
    }
    let arguments = ["servers", "policy", "wiki", "--max-elevation", "1h"];
    let done = machine.run(&arguments).await;
    assert_eq!(done.exit, Exit::Failed, "{}", done.stderr);
    assert!(done.stderr.contains("[ETAG_MISMATCH]"), "{}", done.stderr);
    assert_eq!(fake.state.policy.lock().policy, theirs);
    // Now it is known.
    let done = machine.run(&arguments).await;
    assert_eq!(done.exit, Exit::Success, "{}", done.stderr);
    let policy = fake.state.policy.lock().policy.clone();
    assert!(policy.backups_forbidden);
    assert_eq!(policy.max_elevation.unwrap().seconds, 3600);
}
