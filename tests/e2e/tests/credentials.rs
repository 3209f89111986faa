//! Credentials beside a server's own password, as people set and use them: through two API instances and the CLI.

use std::process::Output;

use e2e::world::Caller;
use e2e::{Client, World, leaks, reason};
use harness::{Login, random};
use rpc::access::v1::{
    AccessLevel, CreateGrantRequest, CredentialMode, Grant, ServerPolicy, UpdateServerPolicyRequest,
};
use rpc::backup::v1::StartBackupRequest;
use rpc::errors::v1::ErrorReason;
use rpc::query::v1::{OpenSessionRequest, SessionAccess, SessionMode};
use rpc::server::v1::{
    CredentialKind, DeletePersonalCredentialRequest, GetPersonalCredentialRequest, GetServerRequest,
    InspectServerRequest, Server, SetPersonalCredentialRequest, SetReadOnlyCredentialRequest,
    TestServerRequest,
};
use rpc::user::v1::GetUserRequest;
use tonic::{Code, Status};

use crate::read_only::pgmoor;
use crate::worlds::shared;

async fn login(world: &World) -> Login {
    let login = world.target().cluster().create_login("").await;
    world
        .secrets()
        .remember("the password of a role", &login.password);
    login
}

async fn set_personal(client: &Client, server: &str, login: &Login) {
    let request = SetPersonalCredentialRequest {
        name: server.to_owned(),
        role: login.user.clone(),
        password: login.password.clone(),
    };
    let set = client.servers().set_personal_credential(request).await;
    let credential = set.unwrap().into_inner().credential.unwrap();
    assert_eq!(credential.role, login.user);
}

async fn get(client: &Client, server: &str) -> Server {
    let request = GetServerRequest {
        name: server.to_owned(),
    };
    let response = client.servers().get_server(request).await.unwrap();
    response.into_inner().server.unwrap()
}

async fn share(owner: &Client, server: &str, with: &Client, access: AccessLevel) {
    let me = GetUserRequest {
        name: "users/me".to_owned(),
    };
    let member = with.users().get_user(me).await.unwrap().into_inner();
    let request = CreateGrantRequest {
        parent: server.to_owned(),
        grant: Some(Grant {
            member: member.user.unwrap().name,
            access: access.into(),
            ..Grant::default()
        }),
    };
    owner.grants().create_grant(request).await.unwrap();
}

/// Who a session of either mode says it is, asked through both instances.
async fn current_users(caller: &Caller, server: &str, access: SessionAccess) -> Result<String, Status> {
    let mut users = Vec::new();
    for mode in [SessionMode::Pinned, SessionMode::Auto] {
        let request = OpenSessionRequest {
            server: server.to_owned(),
            mode: mode.into(),
            access: access.into(),
            ..OpenSessionRequest::default()
        };
        let opened = caller.a().query().open_session(request).await?.into_inner();
        let session = opened.session.unwrap();
        for client in &caller.apis {
            let said = client.execute(&session.name, "SELECT current_user").await?;
            assert_eq!(said.value(), session.username);
            users.push(said.value().to_owned());
        }
        caller.a().close_session(&session).await?;
    }
    users.dedup();
    Ok(users.join(","))
}

async fn set_mode(client: &Client, server: &str, mode: CredentialMode) {
    let request = UpdateServerPolicyRequest {
        server: server.to_owned(),
        policy: Some(ServerPolicy {
            credential_mode: mode.into(),
            ..ServerPolicy::default()
        }),
        ..UpdateServerPolicyRequest::default()
    };
    let set = client.grants().update_server_policy(request).await.unwrap();
    assert_eq!(set.into_inner().policy.unwrap().credential_mode(), mode);
}

#[tokio::test]
async fn user_with_a_credential_of_their_own_is_themselves_on_a_server_of_others() {
    let world = &shared().await.world;
    let (owner, friend) = tokio::join!(world.create_user(), world.create_user());
    let server = world.register_target(owner.a()).await;
    share(owner.a(), &server, friend.a(), AccessLevel::ReadWrite).await;
    let shared_role = world.target().login().user.clone();
    let write = SessionAccess::ReadWrite;
    assert_eq!(current_users(&friend, &server, write).await.unwrap(), shared_role);
    let missing = GetPersonalCredentialRequest { name: server.clone() };
    let missing = friend.a().servers().get_personal_credential(missing).await;
    reason::expect(missing, Code::NotFound, ErrorReason::ResourceNotFound);

    let own = login(world).await;
    set_personal(friend.a(), &server, &own).await;
    assert_eq!(current_users(&friend, &server, write).await.unwrap(), own.user);
    assert_eq!(current_users(&owner, &server, write).await.unwrap(), shared_role);
    assert!(get(friend.b(), &server).await.has_personal_credential);
    // To the owner it is not there.
    assert!(!get(owner.b(), &server).await.has_personal_credential);
    let unseen = GetPersonalCredentialRequest { name: server.clone() };
    let unseen = owner.b().servers().get_personal_credential(unseen).await;
    reason::expect(unseen, Code::NotFound, ErrorReason::ResourceNotFound);

    // A backup is made as who asked for it: their role has no rights in a schema of the shared one.
    let schema = random::name("s");
    let database = world.target().database();
    let made = format!(
        "CREATE SCHEMA {schema} AUTHORIZATION {shared_role}; SET ROLE {shared_role}; CREATE TABLE {schema}.t (n int)"
    );
    database.execute(&made).await;
    let backup = async |client: &Client| {
        let request = StartBackupRequest {
            server: server.clone(),
            schemas: vec![schema.clone()],
            ..StartBackupRequest::default()
        };
        let started = client.backups().start_backup(request).await.unwrap().into_inner();
        client
            .operation_ended(&started.operation.unwrap().name)
            .await
            .unwrap()
    };
    assert!(backup(owner.a()).await.error.is_none());
    let refused = backup(friend.a()).await.error.unwrap();
    assert_eq!(refused.reason, "TOOL_FAILED", "{refused:?}");
    let granted = format!(
        "GRANT USAGE ON SCHEMA {schema} TO {0}; GRANT SELECT ON {schema}.t TO {0}",
        own.user
    );
    database.execute(&granted).await;
    let ended = backup(friend.a()).await;
    assert!(ended.error.is_none(), "{ended:?}");

    // Where nothing but personal ones are used, the owner is held to it too.
    set_mode(owner.a(), &server, CredentialMode::PersonalOnly).await;
    assert_eq!(current_users(&friend, &server, write).await.unwrap(), own.user);
    let refused = current_users(&owner, &server, write).await;
    reason::expect(
        refused,
        Code::FailedPrecondition,
        ErrorReason::PersonalCredentialMissing,
    );
    let refused = backup(owner.a()).await.error.unwrap();
    assert_eq!(refused.reason, "PERSONAL_CREDENTIAL_MISSING");
    set_mode(owner.a(), &server, CredentialMode::Shared).await;

    let delete = DeletePersonalCredentialRequest { name: server.clone() };
    friend
        .b()
        .servers()
        .delete_personal_credential(delete)
        .await
        .unwrap();
    assert_eq!(current_users(&friend, &server, write).await.unwrap(), shared_role);
    assert_eq!(leaks::find(world), Vec::<String>::new());
}

#[tokio::test]
async fn what_only_reads_logs_in_as_the_read_only_role_through_every_instance() {
    let world = &shared().await.world;
    let (owner, reader) = tokio::join!(world.create_user(), world.create_user());
    let server = world.register_target(owner.a()).await;
    share(owner.a(), &server, reader.a(), AccessLevel::ReadOnly).await;
    let role = login(world).await;
    let request = |password: &str| SetReadOnlyCredentialRequest {
        name: server.clone(),
        role: role.user.clone(),
        password: password.to_owned(),
    };
    let refused = reader
        .a()
        .servers()
        .set_read_only_credential(request("theirs"))
        .await;
    reason::expect(refused, Code::PermissionDenied, ErrorReason::PermissionMissing);
    let set = owner
        .a()
        .servers()
        .set_read_only_credential(request(&role.password))
        .await;
    let set = set.unwrap().into_inner().server.unwrap();
    assert!(set.has_read_only_credential && set.read_only_role == role.user);
    let seen = get(reader.b(), &server).await;
    assert!(seen.has_read_only_credential && !seen.has_personal_credential);

    let (read, write) = (SessionAccess::ReadOnly, SessionAccess::ReadWrite);
    // Who may only read reads, whatever they ask for.
    for (caller, access) in [(&owner, read), (&reader, read), (&reader, write)] {
        assert_eq!(current_users(caller, &server, access).await.unwrap(), role.user);
    }
    let target = world.target().login().user.clone();
    assert_eq!(current_users(&owner, &server, write).await.unwrap(), target);
    let inspect = InspectServerRequest {
        name: server.clone(),
        ..InspectServerRequest::default()
    };
    let inspected = owner.b().servers().inspect_server(inspect).await.unwrap();
    assert_eq!(inspected.into_inner().inspection.unwrap().username, role.user);
    for (kind, name) in [
        (CredentialKind::ReadOnly, &role.user),
        (CredentialKind::Shared, &target),
    ] {
        let test = TestServerRequest {
            name: server.clone(),
            credential: kind.into(),
            ..TestServerRequest::default()
        };
        let tested = owner.b().servers().test_server(test).await.unwrap().into_inner();
        assert_eq!(tested.role.unwrap().name, *name);
    }
    // A server that points elsewhere has none of its credentials.
    let moved = rpc::server::v1::UpdateServerRequest {
        server: Some(Server {
            name: server.clone(),
            tls: Some(rpc::server::v1::TlsPolicy {
                mode: rpc::server::v1::SslMode::Require.into(),
                ..Default::default()
            }),
            ..Server::default()
        }),
        update_mask: None,
    };
    let moved = owner
        .a()
        .servers()
        .update_server(moved)
        .await
        .unwrap()
        .into_inner();
    let moved = moved.server.unwrap();
    assert!(!moved.has_read_only_credential && !moved.has_password && moved.read_only_role.is_empty());
}

#[tokio::test]
async fn credentials_are_set_shown_and_forgotten_from_the_command_line() {
    let world = &shared().await.world;
    let caller = world.create_user().await;
    let server = world.register_target(caller.a()).await;
    let own = login(world).await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("password");
    std::fs::write(&file, format!("{}\n", own.password)).unwrap();
    let file = file.to_str().unwrap();
    let run = async |arguments: &[&str]| {
        let words = [&["servers", "credentials"], arguments].concat();
        pgmoor(world, caller.a(), &words).await
    };
    let succeeded = |output: Output| {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        assert!(output.status.success(), "{}", text(output.stderr));
        text(output.stdout) + &text(output.stderr)
    };
    let with = ["--role", &own.user, "--password-file", file];
    let set = [&["set-personal", &server], &with[..]].concat();
    assert!(succeeded(run(&set).await).contains(&own.user));
    assert!(succeeded(run(&["show", &server]).await).contains(&own.user));
    let set = [&["set-read-only", &server], &with[..]].concat();
    assert!(succeeded(run(&set).await).contains(&own.user));
    let arguments = ["servers", "test", &server, "--credential", "personal"];
    let tested = succeeded(pgmoor(world, caller.a(), &arguments).await);
    assert!(tested.contains(&own.user), "{tested}");
    succeeded(run(&["delete-personal", &server]).await);
    succeeded(run(&["delete-read-only", &server]).await);
    assert!(!run(&["show", &server]).await.status.success());
    let left = get(caller.b(), &server).await;
    assert!(!left.has_personal_credential && !left.has_read_only_credential);
}
