//! Servers that cannot be reached or do not let us in, and files that are no servers.json.

use e2e::world::create_server;
use e2e::{Client, reason};
use prost_types::FieldMask;
use rpc::errors::v1::ErrorReason;
use rpc::server::v1::{
    Endpoint, GetServerRequest, ImportOutcome, ImportServersRequest, ListServersRequest, Server, SslMode,
    TestServerRequest, TlsPolicy, UpdateServerRequest,
};
use tonic::{Code, Status};

use crate::worlds::shared;

async fn test(client: &Client, server: &str) -> Result<(), Status> {
    let request = TestServerRequest {
        name: server.to_owned(),
        database: String::new(),
        ..Default::default()
    };
    client.servers().test_server(request).await.map(drop)
}

#[tokio::test]
async fn wrong_password_is_told_as_such_and_never_echoed() {
    let world = &shared().await.world;
    let caller = world.create_administrator().await;
    let canary = harness::random::password();
    world.secrets().remember("a wrong server password", &canary);
    let server = create_server(caller.a(), world.target_server(), &canary)
        .await
        .unwrap();
    let answers = [
        test(caller.b(), &server).await,
        caller.a().open_session(&server).await.map(drop),
    ];
    for answer in answers {
        let status = reason::expect(
            answer,
            Code::FailedPrecondition,
            ErrorReason::TargetAuthenticationFailed,
        );
        assert!(!reason::text(&status).contains(&canary));
    }
}

#[tokio::test]
async fn ordinary_user_registers_on_known_instances_only() {
    let world = &shared().await.world;
    let caller = world.create_user().await;
    world.register_target(caller.a()).await;
    let mut server = world.target_server();
    server.endpoints[0].host = "10.255.255.1".to_owned();
    let refused = create_server(caller.a(), server, "").await;
    reason::expect(refused, Code::PermissionDenied, ErrorReason::PermissionMissing);
}

#[tokio::test]
async fn server_without_a_password_says_that_it_is_missing() {
    let world = &shared().await.world;
    let caller = world.create_administrator().await;
    let server = create_server(caller.a(), world.target_server(), "")
        .await
        .unwrap();
    let answer = test(caller.b(), &server).await;
    reason::expect(answer, Code::FailedPrecondition, ErrorReason::CredentialMissing);
}

#[tokio::test]
async fn moving_a_server_voids_its_password() {
    let world = &shared().await.world;
    let caller = world.create_administrator().await;
    let name = world.register_target(caller.a()).await;
    test(caller.b(), &name).await.unwrap();
    let update = async |port: u16| {
        let request = UpdateServerRequest {
            server: Some(Server {
                name: name.clone(),
                endpoints: vec![Endpoint {
                    host: "127.0.0.1".to_owned(),
                    port: i32::from(port),
                }],
                ..Server::default()
            }),
            update_mask: Some(FieldMask {
                paths: vec!["endpoints".to_owned()],
            }),
        };
        let updated = caller.a().servers().update_server(request).await.unwrap();
        updated.into_inner().server.unwrap()
    };
    let there = update(world.dead_port()).await;
    assert!(!there.has_password);
    let answer = test(caller.b(), &name).await;
    reason::expect(answer, Code::FailedPrecondition, ErrorReason::CredentialMissing);
    // Moving it back brings nothing back.
    let back = update(world.target().cluster().port()).await;
    assert!(!back.has_password);
    let answer = test(caller.b(), &name).await;
    reason::expect(answer, Code::FailedPrecondition, ErrorReason::CredentialMissing);
}

#[tokio::test]
async fn two_names_of_one_postgres_become_one_instance_with_one_budget() {
    let world = &shared().await.world;
    let caller = world.create_administrator().await;
    let first = world.register_target(caller.a()).await;
    let mut server = world.target_server();
    server.endpoints[0].host = "localhost".to_owned();
    let password = &world.target().login().password;
    let second = create_server(caller.b(), server, password).await.unwrap();
    let instance = async |name: &str| {
        let request = GetServerRequest {
            name: name.to_owned(),
        };
        let server = caller.a().servers().get_server(request).await.unwrap();
        server.into_inner().server.unwrap().instance
    };
    for name in [&first, &second] {
        test(caller.a(), name).await.unwrap();
    }
    assert_eq!(instance(&first).await, instance(&second).await);
    // Both still work, each by its own name and password.
    for name in [&first, &second] {
        let session = caller.b().open_session(name).await.unwrap();
        assert_eq!(
            caller
                .a()
                .execute(&session.name, "SELECT 1")
                .await
                .unwrap()
                .value(),
            "1"
        );
        caller.a().close_session(&session).await.unwrap();
    }
}

#[tokio::test]
async fn server_that_is_down_is_unreachable_and_can_be_asked_again() {
    let world = &shared().await.world;
    let caller = world.create_administrator().await;
    let mut server = world.target_server();
    server.endpoints = vec![Endpoint {
        host: "127.0.0.1".to_owned(),
        port: i32::from(world.dead_port()),
    }];
    let server = create_server(caller.a(), server, "irrelevant password")
        .await
        .unwrap();
    for _ in 0..2 {
        let answer = test(caller.b(), &server).await;
        reason::expect(answer, Code::Unavailable, ErrorReason::TargetUnreachable);
        let answer = caller.a().open_session(&server).await;
        reason::expect(answer, Code::Unavailable, ErrorReason::TargetUnreachable);
    }
}

#[tokio::test]
async fn server_without_tls_is_refused_where_the_registration_demands_it() {
    let world = &shared().await.world;
    let caller = world.create_administrator().await;
    for mode in [SslMode::Require, SslMode::VerifyFull] {
        let mut server = world.target_server();
        server.tls = Some(TlsPolicy {
            mode: mode.into(),
            root_certificates: String::new(),
        });
        let password = &world.target().login().password;
        let server = create_server(caller.a(), server, password).await.unwrap();
        let answer = test(caller.b(), &server).await;
        reason::expect(answer, Code::FailedPrecondition, ErrorReason::TargetTlsFailed);
    }
}

#[tokio::test]
async fn servers_json_that_is_not_one_is_an_invalid_document() {
    let world = &shared().await.world;
    let caller = world.create_administrator().await;
    for document in [
        &b"not JSON"[..],
        b"",
        b"\xff\xfe\x00",
        b"[]",
        b"{\"Servers\": 7}",
        b"{\"Servers\": {\"1\": {",
    ] {
        let request = ImportServersRequest {
            document: document.to_vec().into(),
            validate_only: false,
        };
        let refused = caller.a().servers().import_servers(request).await;
        reason::expect(refused, Code::InvalidArgument, ErrorReason::InvalidDocument);
    }
    let listed = caller
        .b()
        .servers()
        .list_servers(ListServersRequest::default())
        .await;
    assert!(listed.unwrap().into_inner().servers.is_empty());
}

#[tokio::test]
async fn wrong_entries_of_a_servers_json_are_told_and_the_others_imported() {
    let world = &shared().await.world;
    let caller = world.create_administrator().await;
    let document = serde_json::json!({ "Servers": {
        "1": { "Name": "good", "Group": "G", "Host": "127.0.0.1", "Port": world.target().cluster().port(),
               "MaintenanceDB": "postgres", "Username": "u", "SSLMode": "disable", "BGColor": "#fff" },
        "2": { "Name": "socket", "Group": "G", "Host": "/var/run/postgresql", "Port": 5432,
               "MaintenanceDB": "postgres", "Username": "u", "SSLMode": "disable" },
        "3": { "Name": "file", "Group": "G", "Host": "127.0.0.1", "Port": world.target().cluster().port(),
               "MaintenanceDB": "postgres", "Username": "u", "SSLMode": "disable", "PassFile": "/etc/passwd" },
        "4": { "Group": "G" },
    }});
    let request = ImportServersRequest {
        document: document.to_string().into(),
        validate_only: false,
    };
    let imported = caller
        .a()
        .servers()
        .import_servers(request)
        .await
        .unwrap()
        .into_inner()
        .servers;
    let outcome = |key: &str| imported.iter().find(|entry| entry.key == key).unwrap();
    assert_eq!(outcome("1").outcome(), ImportOutcome::Created, "{imported:?}");
    assert_eq!(outcome("1").ignored_keys, ["BGColor"]);
    for key in ["2", "3", "4"] {
        assert_eq!(outcome(key).outcome(), ImportOutcome::Refused, "{imported:?}");
        assert!(!outcome(key).error.is_empty());
    }
    let listed = caller
        .b()
        .servers()
        .list_servers(ListServersRequest::default())
        .await;
    assert_eq!(listed.unwrap().into_inner().servers.len(), 1);
}
