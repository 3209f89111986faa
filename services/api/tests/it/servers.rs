//! Servers, instances and pgAdmin's servers.json.

use domain::endpoint::{Destination, TlsPolicy};
use domain::id::ServerId;
use domain::random::SystemRandom;
use prost_types::FieldMask;
use rpc::errors::v1::ErrorReason;
use rpc::server::v1::{
    CreateServerRequest, CredentialKind, DeleteServerRequest, Endpoint, ExportServersRequest,
    GetInstanceRequest, GetServerRequest, ImportOutcome, ImportServersRequest, ImportServersResponse,
    Instance, InstanceLimits, ListInstancesRequest, ListServersRequest, Server, SetPersonalCredentialRequest,
    SetReadOnlyCredentialRequest, SetServerPasswordRequest, SslMode, TestServerRequest,
    UpdateInstanceRequest, UpdateServerRequest,
};
use sealing::{Binding, KeyId, OpenError, Opener, OpeningKey, Sealed};
use secrecy::ExposeSecret as _;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::world::{ADMIN, Caller, DEADLINE, World, assert_fails};

const SECRET: &str = "the server's own password";

fn server(name: &str, host: &str) -> Server {
    Server {
        display_name: name.to_owned(),
        username: "app".to_owned(),
        endpoints: vec![Endpoint {
            host: host.to_owned(),
            port: 0,
        }],
        ..Server::default()
    }
}

async fn create(caller: &Caller, server: Server, password: &str) -> Result<Server, Status> {
    let request = CreateServerRequest {
        server: Some(server),
        password: password.to_owned(),
        validate_only: false,
    };
    Ok(caller
        .servers()
        .create_server(request)
        .await?
        .into_inner()
        .server
        .unwrap())
}

async fn get(caller: &Caller, name: &str) -> Result<Server, Status> {
    let request = GetServerRequest {
        name: name.to_owned(),
    };
    Ok(caller
        .servers()
        .get_server(request)
        .await?
        .into_inner()
        .server
        .unwrap())
}

async fn import(caller: &Caller, document: &str, validate_only: bool) -> ImportServersResponse {
    let request = ImportServersRequest {
        document: document.to_owned().into_bytes().into(),
        validate_only,
    };
    caller
        .servers()
        .import_servers(request)
        .await
        .unwrap()
        .into_inner()
}

fn outcomes(response: &ImportServersResponse) -> Vec<ImportOutcome> {
    response
        .servers
        .iter()
        .map(rpc::server::v1::ImportedServer::outcome)
        .collect()
}

/// Publishes a key to seal to, as a pooler does, and keeps what opens.
async fn pooler_key(world: &World) -> Opener {
    let key = OpeningKey::generate(&SystemRandom);
    let sealing = key.sealing_key();
    let sql = "INSERT INTO pgmoor.sealing_keys (key_id, public_key) VALUES ($1, $2)";
    let owner = world.database.connect().await;
    owner
        .execute(sql, &[&sealing.id().as_str(), &sealing.to_bytes()])
        .await
        .unwrap();
    Opener::new([key])
}

/// What is stored for a server, opened for a destination.
async fn opened(world: &World, opener: &Opener, server: &Server, host: &str) -> Result<String, OpenError> {
    let id: ServerId = server.name.strip_prefix("servers/").unwrap().parse().unwrap();
    let sql = "SELECT sealed, key_id FROM pgmoor.credentials WHERE server_id = $1::text::uuid";
    let row = world
        .database
        .connect()
        .await
        .query_one(sql, &[&id.to_string()])
        .await
        .unwrap();
    let sealed = Sealed {
        bytes: row.get(0),
        key: KeyId::from_stored(row.get(1)),
    };
    let endpoint = domain::endpoint::Endpoint::new(host, 0).unwrap();
    let destination = Destination::new(vec![endpoint], TlsPolicy::default()).unwrap();
    let binding = Binding {
        kind: domain::credential::CredentialKind::Shared,
        server: id,
        username: &server.username,
        destination: &destination,
    };
    opener
        .open(&binding, &sealed)
        .map(|secret| secret.expose_secret().to_owned())
}

#[tokio::test]
async fn password_is_sealed_for_its_destination_and_never_shown() {
    let world = World::start().await;
    let opener = pooler_key(&world).await;
    let admin = world.a.login(ADMIN).await;
    let created = create(&admin, server("db", "db.example.com"), SECRET)
        .await
        .unwrap();
    assert!(created.has_password && !format!("{created:?}").contains(SECRET));
    assert_eq!(
        opened(&world, &opener, &created, "db.example.com").await.unwrap(),
        SECRET
    );
    assert!(
        opened(&world, &opener, &created, "evil.example.com")
            .await
            .is_err()
    );
    let stored: String = world
        .database
        .connect()
        .await
        .query_one("SELECT string_agg(c::text, '') FROM pgmoor.credentials c", &[])
        .await
        .unwrap()
        .get(0);
    assert!(!stored.contains(SECRET));
}

#[tokio::test]
async fn role_is_looked_at_as_soon_as_there_is_a_password() {
    let world = World::start().await;
    pooler_key(&world).await;
    let admin = world.a.login(ADMIN).await;
    let looked_at = async |count: usize| {
        harness::eventually(DEADLINE, "it is looked", async || {
            let inspected = world.a.sessions.inspected.lock().unwrap().clone();
            if inspected.len() == count {
                Ok(inspected)
            } else {
                Err(format!("{inspected:?}"))
            }
        })
        .await
    };
    let bare = create(&admin, server("bare", "db.example.com"), "")
        .await
        .unwrap();
    let first = create(&admin, server("db", "db.example.com"), SECRET)
        .await
        .unwrap();
    let any = CredentialKind::Unspecified;
    assert_eq!(looked_at(1).await, [(first.name.clone(), any)]);
    let password = SetServerPasswordRequest {
        name: bare.name.clone(),
        password: SECRET.to_owned(),
    };
    admin.servers().set_server_password(password).await.unwrap();
    let mut looks = vec![(first.name.clone(), any), (bare.name, any)];
    assert_eq!(looked_at(2).await, looks);
    // So it is of each credential of its own role.
    let reader = SetReadOnlyCredentialRequest {
        name: first.name.clone(),
        role: "reader".to_owned(),
        password: SECRET.to_owned(),
    };
    admin.servers().set_read_only_credential(reader).await.unwrap();
    looks.push((first.name.clone(), CredentialKind::ReadOnly));
    assert_eq!(looked_at(3).await, looks);
    let own = SetPersonalCredentialRequest {
        name: first.name.clone(),
        role: "ann".to_owned(),
        password: SECRET.to_owned(),
    };
    admin.servers().set_personal_credential(own).await.unwrap();
    looks.push((first.name, CredentialKind::Personal));
    assert_eq!(looked_at(4).await, looks);
}

#[tokio::test]
async fn change_of_the_destination_voids_the_password() {
    let world = World::start().await;
    let opener = pooler_key(&world).await;
    let admin = world.a.login(ADMIN).await;
    let created = create(&admin, server("db", "db.example.com"), SECRET)
        .await
        .unwrap();
    let renamed = Server {
        name: created.name.clone(),
        comment: "ours".to_owned(),
        ..Server::default()
    };
    let request = UpdateServerRequest {
        server: Some(renamed),
        update_mask: None,
    };
    let renamed = admin
        .servers()
        .update_server(request)
        .await
        .unwrap()
        .into_inner()
        .server
        .unwrap();
    assert!(renamed.has_password, "a comment is no destination");
    for moved in [
        Server {
            endpoints: server("", "evil.example.com").endpoints,
            ..Server::default()
        },
        Server {
            username: "postgres".to_owned(),
            ..Server::default()
        },
        Server {
            tls: Some(rpc::server::v1::TlsPolicy {
                mode: SslMode::Disable.into(),
                ..Default::default()
            }),
            ..Server::default()
        },
    ] {
        let set = SetServerPasswordRequest {
            name: created.name.clone(),
            password: SECRET.to_owned(),
        };
        let set = admin
            .servers()
            .set_server_password(set)
            .await
            .unwrap()
            .into_inner()
            .server
            .unwrap();
        assert!(set.has_password);
        let moved = Server {
            name: created.name.clone(),
            ..moved
        };
        let request = UpdateServerRequest {
            server: Some(moved),
            update_mask: None,
        };
        let moved = admin
            .servers()
            .update_server(request)
            .await
            .unwrap()
            .into_inner()
            .server
            .unwrap();
        assert!(!moved.has_password);
    }
    let _ = opener;
    let forget = SetServerPasswordRequest {
        name: created.name.clone(),
        password: String::new(),
    };
    let forgotten = admin
        .servers()
        .set_server_password(forget)
        .await
        .unwrap()
        .into_inner()
        .server
        .unwrap();
    assert!(!forgotten.has_password);
}

#[tokio::test]
async fn password_before_the_first_pooler_is_refused_and_nothing_is_registered() {
    let world = World::start().await;
    let admin = world.a.login(ADMIN).await;
    let early = create(&admin, server("db", "db.example.com"), SECRET).await;
    let status = assert_fails(early, Code::Unavailable, ErrorReason::PoolerUnavailable);
    assert!(status.get_details_retry_info().is_some());
    create(&admin, server("db", "db.example.com"), "").await.unwrap();
}

#[tokio::test]
async fn forbidden_addresses_are_refused() {
    let world = World::start().await;
    let admin = world.a.login(ADMIN).await;
    for host in [
        "169.254.169.254",
        "127.0.0.1",
        "::1",
        "192.0.2.1",
        "db.elsewhere.test",
        "::ffff:127.0.0.1",
    ] {
        let denied = create(&admin, server("db", host), "").await;
        if host == "db.elsewhere.test" {
            // It may resolve into the allowed network: the pooler decides once it has resolved.
            denied.unwrap();
            continue;
        }
        assert_fails(denied, Code::PermissionDenied, ErrorReason::EgressDenied);
    }
    for host in [
        "",
        "/var/run/postgresql",
        "host=evil",
        "postgres://evil/x",
        "127.1",
        "0x7f000001",
    ] {
        let odd = create(&admin, server("odd", host), "").await;
        assert_fails(odd, Code::InvalidArgument, ErrorReason::InvalidField);
    }
}

#[tokio::test]
async fn two_registrations_share_one_instance_and_its_budget() {
    let world = World::start().await;
    let admin = world.a.login(ADMIN).await;
    let one = create(&admin, server("one", "db.example.com"), "").await.unwrap();
    let two = create(&admin, server("two", "DB.EXAMPLE.COM."), "")
        .await
        .unwrap();
    assert_eq!(one.instance, two.instance);
    let taken = create(&admin, server("one", "db.example.com"), "").await;
    assert_fails(taken, Code::AlreadyExists, ErrorReason::ResourceExists);

    let change = |max_connections, etag: &str| UpdateInstanceRequest {
        instance: Some(Instance {
            name: one.instance.clone(),
            max_connections,
            etag: etag.to_owned(),
            ..Instance::default()
        }),
        update_mask: None,
    };
    let read = GetInstanceRequest {
        name: one.instance.clone(),
    };
    let before = admin
        .instances()
        .get_instance(read)
        .await
        .unwrap()
        .into_inner()
        .instance
        .unwrap();
    assert_eq!((before.max_connections, before.reserved_connections), (20, 5));
    let there = world.b.with_token(admin.token.as_deref().unwrap());
    let after = there
        .instances()
        .update_instance(change(40, &before.etag))
        .await
        .unwrap();
    assert_eq!(after.into_inner().instance.unwrap().max_connections, 40);
    let stale = there.instances().update_instance(change(50, &before.etag)).await;
    assert_fails(stale, Code::Aborted, ErrorReason::EtagMismatch);
    for odd in [-1, 3, 10_001, i32::MAX] {
        let odd = there.instances().update_instance(change(odd, "")).await;
        assert_fails(odd, Code::InvalidArgument, ErrorReason::InvalidField);
    }
}

#[tokio::test]
async fn limits_are_changed_by_their_paths_and_shown_whole() {
    let world = World::start().await;
    let admin = world.a.login(ADMIN).await;
    let name = create(&admin, server("db", "db.example.com"), "")
        .await
        .unwrap()
        .instance;
    let update = async |limits: InstanceLimits, paths: Option<&[&str]>| {
        let request = UpdateInstanceRequest {
            instance: Some(Instance {
                name: name.clone(),
                limits: Some(limits),
                ..Default::default()
            }),
            update_mask: paths.map(|paths| prost_types::FieldMask {
                paths: paths.iter().map(ToString::to_string).collect(),
            }),
        };
        let answer = admin.instances().update_instance(request).await?;
        Ok::<_, Status>(answer.into_inner().instance.unwrap().limits.unwrap())
    };
    let second = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
    let wish = InstanceLimits {
        pool_size: Some(3),
        query_timeout: second(90),
        ..Default::default()
    };
    let all: InstanceLimits = update(wish, None).await.unwrap();
    assert_eq!((all.pool_size, all.query_timeout), (Some(3), second(90)));
    assert_eq!(
        (all.max_waiting, all.server_idle_timeout),
        (Some(5000), second(600))
    );
    let one = update(InstanceLimits::default(), Some(&["limits.pool_size"]))
        .await
        .unwrap();
    assert_eq!((one.pool_size, one.query_timeout), (Some(0), second(90)));
    let none = update(InstanceLimits::default(), Some(&["limits"]))
        .await
        .unwrap();
    assert_eq!(none.query_timeout, second(0));
    let wrong = InstanceLimits {
        max_waiting: Some(0),
        server_connect_timeout: second(-1),
        ..Default::default()
    };
    let refused: Result<InstanceLimits, Status> = update(wrong, None).await;
    let violations = refused
        .as_ref()
        .unwrap_err()
        .get_details_bad_request()
        .unwrap()
        .field_violations;
    let fields: Vec<&str> = violations
        .iter()
        .map(|violation| violation.field.as_str())
        .collect();
    assert_eq!(
        fields,
        [
            "instance.limits.max_waiting",
            "instance.limits.server_connect_timeout"
        ]
    );
    assert_fails(refused, Code::InvalidArgument, ErrorReason::InvalidField);
}

#[tokio::test]
async fn members_register_on_known_instances_only_and_see_their_own() {
    let world = World::start().await;
    let admin = world.a.login(ADMIN).await;
    let theirs = create(&admin, server("db", "db.example.com"), "").await.unwrap();
    let member = world.member("alice").await;
    let new = create(&member.caller, server("db", "new.example.com"), "").await;
    assert_fails(new, Code::PermissionDenied, ErrorReason::PermissionMissing);
    let instances = admin
        .instances()
        .list_instances(ListInstancesRequest::default())
        .await
        .unwrap();
    assert_eq!(
        instances.into_inner().instances.len(),
        1,
        "nothing was left behind"
    );

    let read = || GetInstanceRequest {
        name: theirs.instance.clone(),
    };
    let unseen = member.caller.instances().get_instance(read()).await;
    assert_fails(unseen, Code::NotFound, ErrorReason::ResourceNotFound);
    let listed = member
        .caller
        .instances()
        .list_instances(ListInstancesRequest::default())
        .await
        .unwrap();
    assert!(listed.into_inner().instances.is_empty());
    let own = create(&member.caller, server("db", "db.example.com"), "")
        .await
        .unwrap();
    assert_eq!(own.instance, theirs.instance);
    member.caller.instances().get_instance(read()).await.unwrap();

    let listed = member
        .caller
        .servers()
        .list_servers(ListServersRequest::default())
        .await
        .unwrap();
    let listed: Vec<_> = listed
        .into_inner()
        .servers
        .into_iter()
        .map(|server| server.name)
        .collect();
    assert_eq!(listed, std::slice::from_ref(&own.name));
    assert_fails(
        get(&member.caller, &theirs.name).await,
        Code::NotFound,
        ErrorReason::ResourceNotFound,
    );
    // An administrator of pgmoor is not the owner of everybody's passwords.
    assert_fails(
        get(&admin, &own.name).await,
        Code::NotFound,
        ErrorReason::ResourceNotFound,
    );
    let delete = DeleteServerRequest {
        name: own.name.clone(),
        etag: String::new(),
    };
    let foreign = admin.servers().delete_server(delete.clone()).await;
    assert_fails(foreign, Code::NotFound, ErrorReason::ResourceNotFound);
    let test = TestServerRequest {
        name: own.name.clone(),
        ..Default::default()
    };
    let foreign = admin.servers().test_server(test.clone()).await;
    assert_fails(foreign, Code::NotFound, ErrorReason::ResourceNotFound);
    let tested = member
        .caller
        .servers()
        .test_server(test)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(tested.instance, own.instance);
    member.caller.servers().delete_server(delete).await.unwrap();
    assert_fails(
        get(&member.caller, &own.name).await,
        Code::NotFound,
        ErrorReason::ResourceNotFound,
    );
}

#[tokio::test]
async fn wrong_fields_of_a_server_are_all_named() {
    let world = World::start().await;
    let admin = world.a.login(ADMIN).await;
    let wrong = Server {
        display_name: "x".repeat(10_000),
        group: "a\nb".to_owned(),
        username: String::new(),
        maintenance_database: "x".repeat(64),
        comment: "x".repeat(1025),
        endpoints: vec![Endpoint {
            host: "db.example.com".to_owned(),
            port: 70_000,
        }],
        tls: Some(rpc::server::v1::TlsPolicy {
            mode: 99,
            ..Default::default()
        }),
        ..Server::default()
    };
    let status = assert_fails(
        create(&admin, wrong, "a\0b").await,
        Code::InvalidArgument,
        ErrorReason::InvalidField,
    );
    let fields = status.get_details_bad_request().unwrap().field_violations;
    let mut fields: Vec<_> = fields.into_iter().map(|field| field.field).collect();
    fields.sort();
    let expected = [
        "password",
        "server.comment",
        "server.display_name",
        "server.endpoints[0]",
        "server.group",
        "server.maintenance_database",
        "server.tls.mode",
        "server.username",
    ];
    assert_eq!(fields, expected);
}

#[tokio::test]
async fn validate_only_registers_nothing() {
    let world = World::start().await;
    let admin = world.a.login(ADMIN).await;
    let request = |name: &str| CreateServerRequest {
        server: Some(server(name, "db.example.com")),
        validate_only: true,
        ..Default::default()
    };
    let tried = admin
        .servers()
        .create_server(request("db"))
        .await
        .unwrap()
        .into_inner()
        .server
        .unwrap();
    assert_eq!(
        (tried.name.as_str(), tried.maintenance_database.as_str()),
        ("", "postgres")
    );
    let listed = admin
        .servers()
        .list_servers(ListServersRequest::default())
        .await
        .unwrap()
        .into_inner();
    assert!(listed.servers.is_empty());
    create(&admin, server("db", "db.example.com"), "").await.unwrap();
    let taken = admin.servers().create_server(request("db")).await;
    assert_fails(taken, Code::AlreadyExists, ErrorReason::ResourceExists);
}

#[tokio::test]
async fn update_changes_what_the_mask_names() {
    let world = World::start().await;
    let admin = world.a.login(ADMIN).await;
    let before = create(&admin, server("db", "db.example.com"), "").await.unwrap();
    let request = UpdateServerRequest {
        server: Some(Server {
            name: before.name.clone(),
            display_name: "renamed".to_owned(),
            username: "ignored".to_owned(),
            etag: before.etag.clone(),
            ..Server::default()
        }),
        update_mask: Some(FieldMask {
            paths: vec!["display_name".to_owned()],
        }),
    };
    let after = admin
        .servers()
        .update_server(request.clone())
        .await
        .unwrap()
        .into_inner()
        .server
        .unwrap();
    assert_eq!(
        (after.display_name.as_str(), after.username.as_str()),
        ("renamed", "app")
    );
    let stale = admin.servers().update_server(request).await;
    assert_fails(stale, Code::Aborted, ErrorReason::EtagMismatch);
}

const DOCUMENT: &str = r##"{"Servers": {
    "2": {"Name": "second", "Group": "Team", "Host": "db.example.com", "Port": 5433, "Username": "app",
          "MaintenanceDB": "app", "SSLMode": "verify-full", "Comment": "c",
          "BGColor": "#ff0000", "Shared": false},
    "1": {"Name": "first", "Group": "Team", "Host": "db.example.com", "Port": 5432, "Username": "app",
          "MaintenanceDB": "postgres", "ConnectionParameters": {"sslmode": "prefer", "connect_timeout": 10}},
    "3": {"Name": "files", "Group": "Team", "Host": "db.example.com", "Port": 5432, "Username": "app",
          "MaintenanceDB": "postgres", "PassFile": "/home/me/.pgpass"},
    "4": {"Name": "metadata", "Group": "Team", "Host": "169.254.169.254", "Port": 5432, "Username": "app",
          "MaintenanceDB": "postgres", "SSLMode": "require"},
    "5": {"Name": "first", "Group": "Team", "Host": "db.example.com", "Port": 5432, "Username": "app",
          "MaintenanceDB": "postgres", "SSLMode": "require"},
    "6": "not an object"
}}"##;

#[tokio::test]
async fn servers_json_is_imported_once_however_often() {
    use ImportOutcome::{Created, Refused, Unchanged, Updated};
    let world = World::start().await;
    let admin = world.a.login(ADMIN).await;
    let tried = import(&admin, DOCUMENT, true).await;
    assert_eq!(
        outcomes(&tried),
        [Created, Created, Refused, Refused, Refused, Refused]
    );
    assert!(tried.servers.iter().all(|server| server.server.is_empty()));
    let listed = admin
        .servers()
        .list_servers(ListServersRequest::default())
        .await
        .unwrap()
        .into_inner();
    assert!(listed.servers.is_empty(), "a dry run changes nothing");

    let first = import(&admin, DOCUMENT, false).await;
    assert_eq!(
        outcomes(&first),
        [Created, Created, Refused, Refused, Refused, Refused]
    );
    let keys: Vec<_> = first.servers.iter().map(|server| server.key.as_str()).collect();
    assert_eq!(keys, ["2", "1", "3", "4", "5", "6"], "in the order of the file");
    assert_eq!(first.servers[0].ignored_keys, ["BGColor"]);
    assert!(
        first.servers[1]
            .ignored_keys
            .iter()
            .any(|key| key == "ConnectionParameters.connect_timeout")
    );
    assert!(first.servers[2].error.contains("PassFile") && !first.servers[2].error.contains(".pgpass"));
    assert!(first.servers[3].error.contains("169.254.169.254"));

    let there = world.b.with_token(admin.token.as_deref().unwrap());
    let again = import(&there, DOCUMENT, false).await;
    assert_eq!(outcomes(&again)[..2], [Unchanged, Unchanged]);
    assert_eq!(again.servers[0].server, first.servers[0].server);
    let moved = DOCUMENT.replace("\"Port\": 5433", "\"Port\": 5444");
    assert_eq!(
        outcomes(&import(&there, &moved, true).await)[..2],
        [Updated, Unchanged]
    );
    assert_eq!(
        outcomes(&import(&there, &moved, false).await)[..2],
        [Updated, Unchanged]
    );
    let read = get(&admin, &first.servers[0].server).await.unwrap();
    assert_eq!(
        (read.endpoints[0].port, read.maintenance_database.as_str()),
        (5444, "app")
    );
}

#[tokio::test]
async fn export_is_read_back_without_a_change() {
    let world = World::start().await;
    let admin = world.a.login(ADMIN).await;
    import(&admin, DOCUMENT, false).await;
    let several = Server {
        endpoints: vec![
            Endpoint {
                host: "a.example.com".to_owned(),
                port: 5432,
            },
            Endpoint {
                host: "10.0.0.1".to_owned(),
                port: 5433,
            },
        ],
        tls: Some(rpc::server::v1::TlsPolicy {
            mode: SslMode::VerifyFull.into(),
            root_certificates: "-----BEGIN CERTIFICATE-----".to_owned(),
        }),
        ..server("several", "")
    };
    create(&admin, several, "").await.unwrap();
    let exported = admin
        .servers()
        .export_servers(ExportServersRequest {})
        .await
        .unwrap()
        .into_inner();
    let text = String::from_utf8(exported.document.to_vec()).unwrap();
    let again = import(&admin, &text, false).await;
    assert_eq!(outcomes(&again), [ImportOutcome::Unchanged; 3], "{text}");
}

#[tokio::test]
async fn document_that_is_no_servers_json_is_refused() {
    let world = World::start().await;
    let admin = world.a.login(ADMIN).await;
    for document in [
        "",
        "not json: hunter2",
        "{}",
        "{\"Servers\": []}",
        "{\"Servers\": {\"1\": {\"Name\": ]}}",
    ] {
        let request = ImportServersRequest {
            document: document.as_bytes().to_vec().into(),
            validate_only: false,
        };
        let refused = admin.servers().import_servers(request).await;
        let status = assert_fails(refused, Code::InvalidArgument, ErrorReason::InvalidDocument);
        assert!(!format!("{status:?}").contains("hunter2"));
    }
}
