//! The keys that passwords are sealed to: who has them, and how they are changed while everything serves.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use data_encoding::BASE64URL_NOPAD;
use e2e::memory::found_in_dump;
use e2e::world::create_server;
use e2e::{Client, World, WorldOptions, admin};
use harness::{Login, Process, eventually, pgmoor_binary, random};
use rpc::server::v1::{
    CredentialKind, SetPersonalCredentialRequest, SetReadOnlyCredentialRequest, SetServerPasswordRequest,
    TestServerRequest,
};

const SOON: Duration = Duration::from_secs(60);

/// A configuration of the operator's commands, with a ring of keys.
fn with_ring(world: &World, ring: &Path) -> PathBuf {
    let mut text = std::fs::read_to_string(world.config_database().commands_configuration()).unwrap();
    text += &format!("\n[sealing]\nopening_key_file = {ring:?}\n");
    let path = ring.with_extension("toml");
    std::fs::write(&path, text).unwrap();
    path
}

async fn pgmoor_admin(words: &[&str], configuration: &Path, more: &[&str]) -> String {
    let configuration = configuration.to_str().unwrap();
    admin::run([&["admin"], words, &["--config", configuration], more].concat()).await
}

/// Opens the stored password, and connects with it.
async fn test(client: &Client, server: &str) -> Result<(), String> {
    let request = TestServerRequest {
        name: server.to_owned(),
        database: String::new(),
        ..Default::default()
    };
    let tested = client.servers().test_server(request).await;
    tested.map(drop).map_err(|status| format!("{status:?}"))
}

/// Has a server credentials of every kind.
async fn set_credentials(client: &Client, server: &str, login: &Login) {
    let (name, role, password) = (server.to_owned(), login.user.clone(), login.password.clone());
    let request = SetPersonalCredentialRequest {
        name: name.clone(),
        role: role.clone(),
        password: password.clone(),
    };
    client.servers().set_personal_credential(request).await.unwrap();
    let request = SetReadOnlyCredentialRequest { name, role, password };
    client.servers().set_read_only_credential(request).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn key_is_changed_while_sessions_are_opened_and_passwords_set() {
    let world = World::start(WorldOptions::default()).await;
    let caller = world.create_administrator().await;
    let server = world.register_target(caller.a()).await;
    let other = world.register_target(caller.b()).await;
    set_credentials(caller.a(), &server, world.target().login()).await;
    let (stop, tests, failures) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
        Arc::new(std::sync::Mutex::new(Vec::new())),
    );
    let mut working = tokio::task::JoinSet::new();
    for (client, name) in [
        (caller.a().clone(), server.clone()),
        (caller.b().clone(), other.clone()),
    ] {
        let (stop, tests, failures) = (Arc::clone(&stop), Arc::clone(&tests), Arc::clone(&failures));
        let password = world.target().login().password.clone();
        working.spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let request = SetServerPasswordRequest {
                    name: name.clone(),
                    password: password.clone(),
                };
                let set = client.servers().set_server_password(request).await;
                let tested = test(&client, &name).await;
                let failed = set.err().map(|status| format!("{status:?}")).or(tested.err());
                failures.lock().unwrap().extend(failed);
                tests.fetch_add(1, Ordering::Relaxed);
            }
        });
    }

    let ring = world.opening_key_file();
    let old = std::fs::read_to_string(&ring).unwrap();
    let next = ring.with_file_name("next.key");
    let commands = with_ring(&world, &ring);
    let made = pgmoor_admin(
        &["create-sealing-key"],
        &commands,
        &["--out", next.to_str().unwrap()],
    )
    .await;
    assert!(made.contains("rotate-keys"), "{made}");
    let next = std::fs::read_to_string(&next).unwrap();
    world.secrets().remember("the next opening key", next.trim());

    // Without the key that opens them nothing is touched, and nobody is told to seal to the new one.
    let lacking = with_ring(&world, &ring.with_file_name("next.key"));
    let refused = Process::builder(pgmoor_binary())
        .args(["admin", "rotate-keys", "--config"])
        .arg(&lacking)
        .spawn();
    assert!(!refused.wait_exit(SOON).await.success());
    let log = refused.log_text();
    assert!(
        log.contains("the ring lacks keys") && log.contains("(5 passwords)"),
        "{log}"
    );

    std::fs::write(&ring, format!("{old}{next}")).unwrap();
    let taken_up = |log: String| log.contains("the key ring has changed");
    eventually(SOON, "the pooler holds both keys", async || {
        world.poolers().iter().all(|pooler| taken_up(pooler.log_text()))
    })
    .await;
    let rotated = pgmoor_admin(&["rotate-keys"], &commands, &[]).await;
    assert!(rotated.contains("nothing is sealed to"), "{rotated}");
    let before = tests.load(Ordering::Relaxed);
    eventually(SOON, "work goes on", async || {
        tests.load(Ordering::Relaxed) > before + 4
    })
    .await;
    stop.store(true, Ordering::Relaxed);
    working.join_all().await;
    assert_eq!(*failures.lock().unwrap(), Vec::<String>::new());

    // What was set on its way to the old key, by an instance that had read it right before.
    pgmoor_admin(&["rotate-keys"], &commands, &[]).await;
    std::fs::write(&ring, &next).unwrap();
    eventually(SOON, "the old key is let go", async || {
        let twice = |log: String| log.matches("the key ring has changed").count() == 2;
        world.poolers().iter().all(|pooler| twice(pooler.log_text()))
    })
    .await;
    for name in [&server, &other] {
        test(caller.a(), name).await.unwrap();
    }
    for kind in [
        CredentialKind::Shared,
        CredentialKind::ReadOnly,
        CredentialKind::Personal,
    ] {
        let request = TestServerRequest {
            name: server.clone(),
            credential: kind.into(),
            ..TestServerRequest::default()
        };
        caller.a().servers().test_server(request).await.unwrap();
    }
    assert_eq!(e2e::leaks::find(&world), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instance_of_the_api_has_no_secret_in_its_memory() {
    let world = World::start(WorldOptions::default()).await;
    let caller = world.create_administrator().await;
    // One instance is told the password, and the other one serves.
    let password = random::password();
    let user = random::name("role");
    let target = world.target().cluster().connect().await;
    let sql = format!("CREATE ROLE {user} LOGIN PASSWORD '{password}'");
    target.batch_execute(&sql).await.unwrap();
    world.secrets().remember("the target's password", &password);
    let registration = rpc::server::v1::Server {
        username: user,
        ..world.target_server()
    };
    let server = create_server(caller.a(), registration, &password).await.unwrap();
    let serving = caller.b();
    test(serving, &server).await.unwrap();
    let session = serving.open_session(&server).await.unwrap();
    assert_eq!(
        serving.execute(&session.name, "SELECT 1").await.unwrap().value(),
        "1"
    );

    let text = std::fs::read_to_string(world.opening_key_file()).unwrap();
    let text = text.trim().to_owned();
    let encoded = text.rsplit(':').next().unwrap();
    let key = BASE64URL_NOPAD.decode(encoded.as_bytes()).unwrap();
    let needles = [password.as_bytes(), encoded.as_bytes(), key.as_slice()];
    let dumped = |process: &e2e::RoleProcess| found_in_dump(process.pid().unwrap(), &needles).unwrap();
    assert_eq!(dumped(&world.apis()[1]), [false; 3]);
    // The same look finds the key where it is.
    assert!(
        dumped(&world.poolers()[0])[2],
        "the pooler has the key it opens with"
    );
    assert_eq!(e2e::leaks::find(&world), Vec::<String>::new());
}
