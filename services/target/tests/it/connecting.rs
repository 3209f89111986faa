//! Who is let in, and who gets the password.

use std::io::{Read, Write};

use domain::egress::EgressDenied;
use domain::endpoint::{SslMode, TlsPolicy};
use secrecy::SecretString;
use target::{ConnectError, Login, ResolveError, resolve};

use crate::world::{World, destination, name, policy, superuser, target};

fn no_tls() -> TlsPolicy {
    TlsPolicy::new(SslMode::Disable, "").unwrap()
}

#[tokio::test]
async fn server_says_its_version_and_counts() {
    let world = World::new().await;
    let login = superuser(world.cluster);
    let questions = target(&world.resolved, &login, "asking")
        .questions()
        .await
        .unwrap();
    let facts = questions.facts().await.unwrap();
    assert!(
        facts.major() >= 13 && facts.version.starts_with(&facts.major().to_string()) && !facts.in_recovery
    );
    assert_eq!(
        questions.count_tables(&[name("no such schema")]).await.unwrap(),
        0
    );
    assert!(questions.count_tables(&[name("pg_catalog")]).await.unwrap() > 10);
}

#[tokio::test]
async fn refusals_are_told_apart() {
    let world = World::new().await;
    let login = superuser(world.cluster);
    let wrong = Login {
        password: SecretString::from("wrong"),
        ..login.clone()
    };
    let refused = target(&world.resolved, &wrong, "x").questions().await;
    assert!(
        matches!(refused, Err(ConnectError::Authentication(_))),
        "{refused:?}"
    );
    let missing = Login {
        database: name("host=127.0.0.1"),
        ..login
    };
    let refused = target(&world.resolved, &missing, "x").questions().await;
    assert!(
        matches!(&refused, Err(ConnectError::Refused { code, .. }) if code == "3D000"),
        "{refused:?}"
    );
    let port = harness::free_port();
    let nobody = resolve(
        &destination("127.0.0.1", port, no_tls()),
        &policy(&["127.0.0.1"], port),
    )
    .await
    .unwrap();
    let refused = target(&nobody, &superuser(world.cluster), "x").questions().await;
    assert!(
        matches!(refused, Err(ConnectError::Unreachable(_))),
        "{refused:?}"
    );
}

#[tokio::test]
async fn server_that_asks_for_the_password_itself_does_not_get_it() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut startup = [0; 512];
        let length = stream.read(&mut startup).unwrap();
        // AuthenticationCleartextPassword.
        stream.write_all(&[b'R', 0, 0, 0, 8, 0, 0, 0, 3]).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok();
        (startup[..length].to_vec(), answer)
    });
    let resolved = resolve(
        &destination("127.0.0.1", port, no_tls()),
        &policy(&["127.0.0.1"], port),
    )
    .await
    .unwrap();
    let login = Login {
        username: name("postgres"),
        password: SecretString::from("s3cret"),
        database: name("postgres"),
    };
    let refused = target(&resolved, &login, "x").questions().await;
    assert!(
        matches!(refused, Err(ConnectError::Unreachable(_))),
        "{refused:?}"
    );
    let (startup, answer) = server.join().unwrap();
    assert!(startup.windows(8).any(|window| window == b"postgres"));
    assert!(answer.is_empty(), "{answer:?}");
}

#[tokio::test]
async fn forbidden_addresses_are_denied_before_connecting() {
    let denied = async |host, port| match resolve(
        &destination(host, port, no_tls()),
        &policy(&["0.0.0.0/0", "localhost"], 1),
    )
    .await
    {
        Err(ResolveError::Denied(denied)) => denied,
        other => panic!("{host}: {other:?}"),
    };
    for (host, port) in [("127.0.0.1", 5432), ("169.254.169.254", 80), ("localhost", 5432)] {
        assert!(
            matches!(denied(host, port).await, EgressDenied::Forbidden { .. }),
            "{host}"
        );
    }
    let unknown = resolve(
        &destination("no-such-host.invalid", 5432, no_tls()),
        &policy(&["*.invalid", "no-such-host.invalid"], 1),
    )
    .await;
    assert!(
        matches!(unknown, Err(ResolveError::Unknown { .. })),
        "{unknown:?}"
    );
}
