//! The login key, and the key that signs, replaced while people log in.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use data_encoding::BASE64URL_NOPAD;
use e2e::{Client, World, admin};
use harness::{Process, eventually, pgmoor_binary};
use rpc::auth::v1::{RefreshTokenRequest, TokenPair, WhoAmIRequest};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::arrangement::{DEADLINE, arrange, begin, poll};

/// Instances look at the key that signs every 30 s.
const FOLLOWED: Duration = Duration::from_secs(180);
/// A pause between two logins of one loop.
const PACE: Duration = Duration::from_millis(200);

/// A configuration of the operator's commands, with this file of login keys.
fn with_keys(world: &World, keys: &Path) -> PathBuf {
    let mut text = std::fs::read_to_string(world.config_database().commands_configuration()).unwrap();
    text += &format!("\n[api]\nlogin_key_file = {keys:?}\n");
    let path = keys.with_extension("toml");
    std::fs::write(&path, text).unwrap();
    path
}

async fn pgmoor_admin(words: &[&str], configuration: &Path) -> String {
    let configuration = configuration.to_str().unwrap();
    admin::run([&["admin"], words, &["--config", configuration]].concat()).await
}

/// Everything that failed, and how much did not.
#[derive(Default)]
struct Going {
    stop: AtomicBool,
    done: AtomicUsize,
    failed: std::sync::Mutex<Vec<String>>,
}

impl Going {
    fn note<T>(&self, answer: Result<T, tonic::Status>) -> Option<T> {
        match answer {
            Ok(value) => {
                self.done.fetch_add(1, Ordering::Relaxed);
                Some(value)
            }
            Err(status) => {
                self.failed.lock().unwrap().push(format!("{status:?}"));
                None
            }
        }
    }

    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    /// Waits until as much again has been done as there are loops, and some.
    async fn more(&self) {
        let before = self.done.load(Ordering::Relaxed);
        eventually(DEADLINE, "logins go on", async || {
            self.done.load(Ordering::Relaxed) > before + 6
        })
        .await;
    }
}

/// Logs in with a password, over and over.
async fn log_in(going: Arc<Going>, client: Client, username: String, password: String) {
    while going.goes_on() {
        let tokens = going.note(client.log_in(&username, &password).await);
        if let Some(tokens) = tokens {
            let client = client.with_token(&tokens.access_token);
            going.note(client.auth().who_am_i(WhoAmIRequest {}).await);
        }
        tokio::time::sleep(PACE).await;
    }
}

/// Refreshes a login, whose provider is asked every second.
async fn refresh(going: Arc<Going>, client: Client, mut tokens: TokenPair) -> TokenPair {
    while going.goes_on() {
        let request = RefreshTokenRequest {
            refresh_token: tokens.refresh_token.clone(),
        };
        let answer = client.auth().refresh_token(request).await;
        if let Some(answer) = going.note(answer) {
            tokens = answer.into_inner().tokens.unwrap();
        }
        tokio::time::sleep(PACE).await;
    }
    tokens
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn login_key_is_changed_while_people_log_in_and_go_on() {
    let mut here = arrange(
        &[json!({ "ann": { "preferred_username": "ann" } })],
        "check_interval = \"1s\"",
        "auto_create = true",
    )
    .await;
    let file = here.world.directory().join("login.key");
    let old = std::fs::read_to_string(&file).unwrap();
    let next = here.world.directory().join("next.key");
    admin::create_login_key(&next).await;
    let new = std::fs::read_to_string(&next).unwrap();
    here.world.secrets().remember("the next login key", new.trim());

    // Three logins of before: one that goes on, one whose person has yet to confirm it, one whose browser is away.
    let tokens = here.log_in(0, "ann").await.unwrap();
    let client = here.world.anonymous();
    let held = begin(&client, "idp-0").await.unwrap();
    let mut page = here.browse(0, &held, "ann").await;
    let away = begin(&client, "idp-0").await.unwrap();

    let going = Arc::new(Going::default());
    let mut loops = JoinSet::new();
    for index in 0..2 {
        let password = here.world.superuser_password().to_owned();
        let username = e2e::world::SUPERUSER.to_owned();
        loops.spawn(log_in(Arc::clone(&going), here.api(index), username, password));
    }
    let mut refreshing = JoinSet::new();
    refreshing.spawn(refresh(Arc::clone(&going), client.clone(), tokens));

    // To the second line of every instance, then to the first, then alone. Each looks when it is its time to.
    let taken_up = async |text: String, times: usize| {
        std::fs::write(&file, text).unwrap();
        eventually(DEADLINE, "every instance has the keys", async || {
            let changed = "the ring of login keys has changed";
            let apis = here.world.apis().iter();
            apis.map(|api| api.log_text().matches(changed).count())
                .all(|count| count == times)
        })
        .await;
    };
    taken_up(format!("{old}{new}"), 1).await;
    going.more().await;
    taken_up(format!("{new}{old}"), 2).await;
    going.more().await;
    let commands = with_keys(&here.world, &file);
    let resealed = pgmoor_admin(&["rotate-login-key"], &commands).await;
    assert!(!resealed.contains("; 0 texts"), "{resealed}");
    assert!(resealed.contains("nothing is sealed with"), "{resealed}");
    assert!(!resealed.contains("open with no key"), "{resealed}");
    going.more().await;
    pgmoor_admin(&["rotate-login-key"], &commands).await;
    taken_up(new.clone(), 3).await;
    going.more().await;

    let done = page.answer("confirm").await;
    assert!(done.body.contains("You are logged in"), "{done:?}");
    poll(&client, &held).await.unwrap();
    here.browse_and_confirm(0, &away, "ann").await;
    poll(&client, &away).await.unwrap();
    going.stop.store(true, Ordering::Relaxed);
    loops.join_all().await;
    let tokens = refreshing.join_all().await.remove(0);
    assert_eq!(*going.failed.lock().unwrap(), Vec::<String>::new());
    here.who(&tokens).await;

    // Nothing needs the old key: not an instance that starts, and nothing that rests.
    let left = pgmoor_admin(&["rotate-login-key"], &commands).await;
    assert!(left.contains("; 0 texts"), "{left}");
    assert!(!left.contains("open with no key"), "{left}");
    for api in here.world.apis_mut() {
        assert!(api.stop().await);
        api.start_again().await;
    }
    here.log_in(0, "ann").await.unwrap();
}

/// The name of the key that signed a token.
fn key_of(token: &str) -> String {
    let header = token.split('.').next().unwrap();
    let header = BASE64URL_NOPAD.decode(header.as_bytes()).unwrap();
    let header: Value = serde_json::from_slice(&header).unwrap();
    header["kid"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn signing_key_is_replaced_while_everybody_goes_on_and_not_by_one_in_clear_unasked() {
    let here = arrange(&[json!({})], "", "").await;
    let world = &here.world;
    let password = world.superuser_password();
    let log_in = async |index: usize| {
        let tokens = here.api(index).log_in(e2e::world::SUPERUSER, password).await;
        tokens.unwrap().access_token
    };
    let accepted = async |token: &str| {
        for index in 0..2 {
            let client = here.api(index).with_token(token);
            client.auth().who_am_i(WhoAmIRequest {}).await.unwrap();
        }
    };
    let stored = world.config_database().database().connect().await;
    let present = async || {
        let sql =
            "SELECT id::text, octet_length(private_key) FROM pgmoor.signing_keys WHERE retire_time IS NULL";
        let row = stored.query_one(sql, &[]).await.unwrap();
        (row.get::<_, String>(0), row.get::<_, i32>(1))
    };
    let before = log_in(0).await;
    let (first, bytes) = present().await;
    assert_eq!((key_of(&before), bytes), (first.clone(), 72));

    let bare = world.config_database().commands_configuration();
    let refused = Process::builder(pgmoor_binary())
        .args(["admin", "rotate-signing-key", "--config"])
        .arg(&bare)
        .spawn();
    assert!(!refused.wait_exit(DEADLINE).await.success());
    let log = refused.log_text();
    assert!(log.contains("--in-clear"), "{log}");
    assert_eq!(present().await, (first.clone(), 72));

    let commands = with_keys(world, &world.directory().join("login.key"));
    let replaced = pgmoor_admin(&["rotate-signing-key"], &commands).await;
    assert!(replaced.contains("sealed with the login key"), "{replaced}");
    let (second, bytes) = present().await;
    assert_ne!(second, first);
    assert_eq!(bytes, 72);
    for index in 0..2 {
        eventually(FOLLOWED, "an instance signs with the new key", async || {
            let token = log_in(index).await;
            accepted(&token).await;
            key_of(&token) == second
        })
        .await;
    }
    accepted(&before).await;
}

#[tokio::test]
async fn instances_go_on_with_the_key_before_where_the_new_one_was_sealed_by_a_stranger() {
    let here = arrange(&[json!({})], "", "").await;
    let world = &here.world;
    let log_in = async || {
        let tokens = here
            .api(0)
            .log_in(e2e::world::SUPERUSER, world.superuser_password())
            .await;
        tokens.map(|tokens| tokens.access_token)
    };
    let first = log_in().await.unwrap();
    let strange = world.directory().join("strange.key");
    admin::create_login_key(&strange).await;
    pgmoor_admin(&["rotate-signing-key"], &with_keys(world, &strange)).await;
    eventually(
        FOLLOWED,
        "the instance sees a key that it cannot use",
        async || {
            let token = log_in().await.unwrap();
            assert_eq!(key_of(&token), key_of(&first));
            let log = world.apis()[0].log_text();
            log.contains("the key that was replaced goes on signing")
        },
    )
    .await;

    // It does not sign with a key that is not believed any more.
    let stored = world.config_database().database();
    stored
        .execute(
            "UPDATE pgmoor.signing_keys SET retire_time = clock_timestamp() WHERE retire_time IS NOT NULL",
        )
        .await;
    let refused = eventually(FOLLOWED, "nobody logs in", async || match log_in().await {
        Ok(_) => Err("somebody does"),
        Err(status) => Ok(status),
    })
    .await;
    assert_eq!(refused.code(), tonic::Code::Internal, "{refused:?}");
    let commands = with_keys(world, &world.directory().join("login.key"));
    pgmoor_admin(&["rotate-signing-key"], &commands).await;
    let token = eventually(FOLLOWED, "people log in again", async || log_in().await).await;
    assert_ne!(key_of(&token), key_of(&first));
}

#[tokio::test]
async fn sealed_signing_key_is_followed_by_one_in_clear_where_that_is_asked_for() {
    let here = arrange(&[json!({})], "", "").await;
    let world = &here.world;
    let commands = with_keys(world, &world.directory().join("login.key"));
    let both = Process::builder(pgmoor_binary())
        .args(["admin", "rotate-signing-key", "--in-clear", "--config"])
        .arg(&commands)
        .spawn();
    assert_eq!(both.wait_exit(DEADLINE).await.code(), Some(64));
    let bare = world.config_database().commands_configuration();
    let clear = pgmoor_admin(&["rotate-signing-key", "--in-clear"], &bare).await;
    assert!(clear.contains("in clear"), "{clear}");
    let stored = world.config_database().database().connect().await;
    let sql = "SELECT octet_length(private_key) FROM pgmoor.signing_keys WHERE retire_time IS NULL";
    let bytes: i32 = stored.query_one(sql, &[]).await.unwrap().get(0);
    assert_eq!(bytes, 32);
    here.world.superuser().await;
}
