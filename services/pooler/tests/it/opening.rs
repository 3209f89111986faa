//! What a session is opened on, and what is refused.

use domain::endpoint::{Endpoint, SslMode};
use harness::Login;
use rpc::errors::v1::ErrorReason;
use rpc::query::v1::OpenSessionRequest;
use rpc::server::v1::{ReplicationRole, TestServerRequest};
use sessions::{Sessions as _, UserToken};
use store::servers::Server;
use tonic_types::StatusExt as _;

use crate::support::{World, name, reason, register};

fn on(server: &Server) -> OpenSessionRequest {
    OpenSessionRequest {
        server: format!("servers/{}", server.id),
        ..Default::default()
    }
}

#[tokio::test]
async fn parameters_hold_from_the_start() {
    let world = World::new().await;
    let mut request = world.open_request();
    request
        .parameters
        .insert("search_path".to_owned(), "a, b".to_owned());
    let session = name(&world.try_open(request).await.unwrap());
    assert_eq!(world.value(session, "SHOW search_path").await, "a, b");
    let mut request = world.open_request();
    request
        .parameters
        .insert("role".to_owned(), "postgres".to_owned());
    let refused = world.try_open(request).await.unwrap_err();
    assert_eq!(reason(&refused), ErrorReason::InvalidField);
}

#[tokio::test]
async fn wrong_password_is_a_clear_error_without_the_password() {
    let world = World::new().await;
    let login = Login {
        user: "postgres".to_owned(),
        password: "wrong-secret".to_owned(),
    };
    let server = world
        .register("wrong", "postgres", &login, SslMode::Disable)
        .await;
    let refused = world.try_open(on(&server)).await.unwrap_err();
    assert_eq!(reason(&refused), ErrorReason::TargetAuthenticationFailed);
    assert!(!format!("{refused:?}").contains("wrong-secret"));
}

#[tokio::test]
async fn database_name_is_only_a_name() {
    let world = World::new().await;
    for database in ["host=evil", "--file=x", "postgres://evil/x", "nowhere"] {
        let request = OpenSessionRequest {
            database: database.to_owned(),
            ..world.open_request()
        };
        let refused = world.try_open(request).await.unwrap_err();
        assert_eq!(
            reason(&refused),
            ErrorReason::TargetRefused,
            "{database}: {refused:?}"
        );
        assert_eq!(
            refused.get_details_error_info().unwrap().metadata["sqlstate"],
            "3D000"
        );
        assert!(refused.message().contains(database), "{refused:?}");
    }
}

#[tokio::test]
async fn only_the_owner_may_use_a_server() {
    let world = World::new().await;
    let other = world.other_user().await;
    let instance = world.server.instance_id;
    let refused = world
        .pooler
        .open_session(&other, instance, world.open_request())
        .await
        .unwrap_err();
    assert_eq!(reason(&refused), ErrorReason::ResourceNotFound);
    let mut request = world.open_request();
    request.server = "servers/none".to_owned();
    let refused = world.try_open(request).await.unwrap_err();
    assert_eq!(reason(&refused), ErrorReason::ResourceNotFound);
}

#[tokio::test]
async fn forged_token_is_refused() {
    let world = World::new().await;
    let forged = UserToken("not-a-token".into());
    let refused = world
        .pooler
        .open_session(&forged, world.server.instance_id, world.open_request())
        .await;
    assert_eq!(reason(&refused.unwrap_err()), ErrorReason::TokenInvalid);
}

#[tokio::test]
async fn forbidden_addresses_are_never_contacted() {
    let world = World::new().await;
    let login = world.cluster.endpoint().superuser();
    let closed_port = harness::free_port();
    for (index, (host, port)) in [
        ("127.0.0.1", closed_port),
        ("169.254.169.254", 5432),
        ("localhost", closed_port),
        ("192.0.2.1", 5432),
    ]
    .into_iter()
    .enumerate()
    {
        let endpoint = Endpoint::new(host, port.into()).unwrap();
        let (store, key, name) = (&world.store, &world.opening_key, format!("s{index}"));
        let server = register(
            store,
            key,
            world.user,
            &name,
            "postgres",
            &login,
            endpoint,
            SslMode::Disable,
        )
        .await;
        let refused = world.try_open(on(&server)).await.unwrap_err();
        assert_eq!(reason(&refused), ErrorReason::EgressDenied, "{host}");
    }
}

#[tokio::test]
async fn password_is_void_once_the_server_points_elsewhere() {
    let world = World::new().await;
    // The row is changed behind the API's back, as somebody with the config database could.
    let sql = "UPDATE pgmoor.servers SET endpoints = jsonb_set(endpoints, '{0,host}', '\"127.0.0.2\"')";
    world.config().execute(sql).await;
    let refused = world.try_open(world.open_request()).await.unwrap_err();
    assert_eq!(reason(&refused), ErrorReason::CredentialMissing);
}

#[tokio::test]
async fn tls_that_is_not_offered_is_refused() {
    let world = World::new().await;
    let login = world.cluster.endpoint().superuser();
    let server = world.register("tls", "postgres", &login, SslMode::Require).await;
    let refused = world.try_open(on(&server)).await.unwrap_err();
    assert_eq!(reason(&refused), ErrorReason::TargetTlsFailed);
}

#[tokio::test]
async fn test_of_a_server_tells_what_answered() {
    let world = World::new().await;
    let request = TestServerRequest {
        name: format!("servers/{}", world.server.id),
        ..Default::default()
    };
    let found = world
        .pooler
        .test_server(&world.token, world.server.instance_id, request)
        .await
        .unwrap();
    let role = found.role.clone().unwrap();
    assert_eq!(
        (role.name.as_str(), role.superuser, role.monitor),
        ("postgres", true, true)
    );
    assert_eq!(found.replication_role(), ReplicationRole::Primary);
    assert!(!found.pooler_in_front && !found.encrypted);
    assert_eq!(found.server_max_connections, 200);
    assert!(!found.system_identifier.is_empty());
    assert!(found.server_version.contains('.'));
    assert_eq!(found.instance, format!("instances/{}", world.server.instance_id));
}
