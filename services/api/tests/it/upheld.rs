//! What goes on after its call was let in ends when what allowed it is taken away.

use std::time::Duration;

use futures::future::join_all;
use prost_reflect::DescriptorPool;
use rpc::access::v1::{
    AccessLevel, CreateGrantRequest, CreateRoleBindingRequest, DeleteGrantRequest, DeleteRoleBindingRequest,
    Grant, RoleBinding,
};
use rpc::audit::v1::WatchAuditRecordsRequest;
use rpc::errors::v1::ErrorReason;
use rpc::operation::v1::WaitOperationRequest;
use rpc::settings::v1::WatchSettingsRequest;
use rpc::storage::v1::{DownloadFileRequest, DownloadFileResponse};
use rpc::user::v1::{UpdateUserRequest, User};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, timeout};
use tonic::{Code, Status, Streaming};

use crate::work::{Worker, server, start_backup, wish};
use crate::world::{ADMIN, Caller, DEADLINE, REVOCATION_DEADLINE, World, assert_fails};

const MIB: usize = 1024 * 1024;
/// Many more streams than are decided upon at a time.
const MANY: usize = 128;

/// The streams that an API instance decides upon again, by tests in this file or by the entry they share with one of them.
const BY_THE_INSTANCE: [&str; 4] = [
    "/pgmoor.audit.v1.AuditService/ExportAuditRecords",
    "/pgmoor.audit.v1.AuditService/WatchAuditRecords",
    "/pgmoor.settings.v1.SettingsService/WatchSettings",
    "/pgmoor.storage.v1.StorageService/DownloadFile",
];
/// The streams of sessions, which their pooler ends with them.
const BY_THE_POOLER: [&str; 4] = [
    "/pgmoor.query.v1.QueryService/Execute",
    "/pgmoor.query.v1.QueryService/FetchMore",
    "/pgmoor.query.v1.QueryService/ResumeExecution",
    "/pgmoor.query.v1.QueryService/WatchSession",
];

#[test]
fn somebody_decides_again_about_every_stream() {
    let pool = DescriptorPool::decode(rpc::descriptors::PUBLIC).unwrap();
    let mut streams: Vec<_> = pool
        .services()
        .flat_map(|service| service.methods().collect::<Vec<_>>())
        .filter(prost_reflect::MethodDescriptor::is_server_streaming)
        .map(|method| format!("/{}/{}", method.parent_service().full_name(), method.name()))
        .collect();
    streams.sort_unstable();
    let mut known = [BY_THE_INSTANCE, BY_THE_POOLER].concat();
    known.sort_unstable();
    assert_eq!(
        streams, known,
        "say here who decides about a stream while it is open"
    );
}

async fn bind(admin: &Caller, role: &str, member: &str) -> String {
    let role_binding = RoleBinding {
        role: role.to_owned(),
        member: member.to_owned(),
        ..RoleBinding::default()
    };
    let request = CreateRoleBindingRequest {
        role_binding: Some(role_binding),
    };
    let bound = admin.roles().create_role_binding(request).await.unwrap();
    bound.into_inner().role_binding.unwrap().name
}

async fn unbind(admin: &Caller, name: String) {
    let request = DeleteRoleBindingRequest { name };
    admin.roles().delete_role_binding(request).await.unwrap();
}

/// Reads what still comes.
async fn ended<T>(stream: &mut Streaming<T>) -> Result<(), Status> {
    let end = async {
        loop {
            match stream.message().await {
                Ok(Some(_)) => {}
                Ok(None) => return Ok(()),
                Err(status) => return Err(status),
            }
        }
    };
    timeout(REVOCATION_DEADLINE, end).await.expect("an end in time")
}

#[tokio::test]
async fn watch_of_the_trail_ends_on_the_other_instance_with_the_role() {
    let world = World::start().await;
    let admin = world.a.login(ADMIN).await;
    let alice = world.member("alice").await;
    let bound = bind(&admin, "roles/auditor", &alice.name).await;
    let there = world.b.with_token(alice.caller.token.as_deref().unwrap());
    let mut watch = harness::eventually(DEADLINE, "the role is known", async || {
        let request = WatchAuditRecordsRequest::default();
        there.audit().watch_audit_records(request).await
    })
    .await
    .into_inner();
    watch.message().await.unwrap().unwrap();
    // A change that takes nothing from them changes nothing.
    let other = bind(&admin, "roles/operator", &alice.name).await;
    unbind(&admin, other).await;
    let quiet = timeout(Duration::from_secs(2), async {
        loop {
            watch.message().await.unwrap().expect("the watch goes on");
        }
    });
    quiet.await.unwrap_err();

    unbind(&admin, bound).await;
    assert_fails(
        ended(&mut watch).await,
        Code::PermissionDenied,
        ErrorReason::AccessRevoked,
    );
}

#[tokio::test]
async fn watch_of_anothers_settings_ends_when_its_watcher_administers_no_more() {
    let world = World::start().await;
    let admin = world.a.login(ADMIN).await;
    let (alice, bob) = (world.member("alice").await, world.member("bob").await);
    let set = async |administrator| {
        let user = User {
            name: alice.name.clone(),
            administrator,
            ..User::default()
        };
        let request = UpdateUserRequest {
            user: Some(user),
            update_mask: Some(prost_types::FieldMask {
                paths: vec!["administrator".to_owned()],
            }),
        };
        admin.users().update_user(request).await.unwrap();
    };
    set(true).await;
    let mut watch = harness::eventually(DEADLINE, "the administrator is known", async || {
        let request = WatchSettingsRequest {
            parent: bob.name.clone(),
            after_revision: 0,
        };
        alice.caller.settings().watch_settings(request).await
    })
    .await
    .into_inner();
    watch.message().await.unwrap().unwrap();
    set(false).await;
    assert_fails(
        ended(&mut watch).await,
        Code::PermissionDenied,
        ErrorReason::AccessRevoked,
    );
}

#[tokio::test]
async fn download_of_a_backup_ends_with_the_grant_however_slow_its_reader_is() {
    let world = World::start().await;
    let admin = world.a.login(ADMIN).await;
    let alice = world.member("alice").await;
    let server = server(&admin).await;
    start_backup(&admin, wish(&server)).await.unwrap();
    let backup = Worker::of(&world).await.back_up(&vec![7; 40 * MIB]).await;
    // To see the backup, and to see what is in it.
    bind(&admin, "roles/auditor", &alice.name).await;
    let grant = CreateGrantRequest {
        parent: server,
        grant: Some(Grant {
            member: alice.name.clone(),
            access: AccessLevel::ReadOnly.into(),
            ..Grant::default()
        }),
    };
    let grant = admin.grants().create_grant(grant).await.unwrap().into_inner();
    let request = DownloadFileRequest {
        name: backup,
        offset: 0,
    };
    let pieces = alice.caller.files().download_file(request).await.unwrap();
    let mut pieces = pieces.into_inner();
    pieces.message().await.unwrap().unwrap();
    let revoked = DeleteGrantRequest {
        name: grant.grant.unwrap().name,
        ..DeleteGrantRequest::default()
    };
    admin.grants().delete_grant(revoked).await.unwrap();
    // 40 messages, four in a second.
    let mut pace = interval(Duration::from_millis(250));
    let status = loop {
        pace.tick().await;
        match pieces.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("all of it was sent"),
            Err(status) => break status,
        }
    };
    let (code, why) = (Code::PermissionDenied, ErrorReason::AccessRevoked);
    assert_fails(Err::<(), _>(status), code, why);
}

/// A tick in a second, at most.
fn pace() -> Interval {
    let mut pace = interval(Duration::from_secs(1));
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    pace
}

/// Reads a quarter of a MiB of a download that is longer.
async fn read_some(pieces: &mut Streaming<DownloadFileResponse>) -> Result<(), Status> {
    let mut read = 0;
    while read < MIB / 4 {
        read += pieces.message().await?.expect("the download goes on").data.len();
    }
    Ok(())
}

#[tokio::test]
async fn downloads_go_on_while_the_config_database_hangs_and_are_decided_upon_when_it_answers_again() {
    let (world, relay) = World::start_behind_a_relay().await;
    let admin = world.b.login(ADMIN).await;
    let alice = world.member("alice").await;
    let server = server(&admin).await;
    start_backup(&admin, wish(&server)).await.unwrap();
    let backup = Worker::of(&world).await.back_up(&vec![7; 32 * MIB]).await;
    bind(&admin, "roles/auditor", &alice.name).await;
    let grant = CreateGrantRequest {
        parent: server,
        grant: Some(Grant {
            member: alice.name.clone(),
            access: AccessLevel::ReadOnly.into(),
            ..Grant::default()
        }),
    };
    let grant = admin.grants().create_grant(grant).await.unwrap().into_inner();
    let mut downloads = Vec::new();
    for _ in 0..MANY {
        // On connections of their own: who is slow holds up nobody else, and has little of what they did not read.
        let caller = world.a.apart(&alice.caller).await;
        let request = DownloadFileRequest {
            name: backup.clone(),
            offset: 0,
        };
        let mut pieces = caller.files().download_file(request).await.unwrap().into_inner();
        pieces.message().await.unwrap().unwrap();
        downloads.push(pieces);
    }

    relay.fall_silent();
    let began = Instant::now();
    let reading = downloads.iter_mut().map(async |pieces| {
        // For longer than anything that is known counts without being renewed.
        let mut pace = pace();
        for _ in 0..16 {
            pace.tick().await;
            read_some(pieces).await.unwrap();
        }
    });
    timeout(Duration::from_secs(60), join_all(reading))
        .await
        .expect("the downloads go on");
    println!("{MANY} downloads of 16 s took {:?}", began.elapsed());

    let revoked = DeleteGrantRequest {
        name: grant.grant.unwrap().name,
        ..DeleteGrantRequest::default()
    };
    admin.grants().delete_grant(revoked).await.unwrap();
    relay.resume();
    let ends = downloads.iter_mut().map(async |pieces| {
        let mut pace = pace();
        loop {
            pace.tick().await;
            if let Err(status) = read_some(pieces).await {
                return status;
            }
        }
    });
    let (code, why) = (Code::PermissionDenied, ErrorReason::AccessRevoked);
    for status in join_all(ends).await {
        assert_fails(Err::<(), _>(status), code, why);
    }
}

/// Waits until an instance looks whether an operation has ended, which it does for calls that wait for that.
async fn is_looked_for(world: &World) {
    let outside = world.database.connect().await;
    harness::eventually(DEADLINE, "the call waits", async || {
        let sql = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() \
            AND query LIKE 'SELECT id FROM pgmoor.operations WHERE id = ANY%'";
        !outside.query(sql, &[]).await.unwrap().is_empty()
    })
    .await;
}

#[tokio::test]
async fn wait_for_an_operation_of_somebody_else_ends_with_the_role() {
    let world = World::start().await;
    let admin = world.a.login(ADMIN).await;
    let alice = world.member("alice").await;
    let server = server(&admin).await;
    let name = start_backup(&admin, wish(&server)).await.unwrap().name;
    let bound = bind(&admin, "roles/auditor", &alice.name).await;
    let request = WaitOperationRequest {
        name,
        timeout: Some(prost_types::Duration {
            seconds: 120,
            nanos: 0,
        }),
    };
    let mut operations = alice.caller.operations();
    let wait = operations.wait_operation(request);
    let revoke = async {
        is_looked_for(&world).await;
        unbind(&admin, bound).await;
        Instant::now()
    };
    let answered = async { (wait.await, Instant::now()) };
    let both = async { tokio::join!(answered, revoke) };
    let ((answer, end), revoked) = timeout(DEADLINE, both).await.expect("an answer");
    assert!(end.saturating_duration_since(revoked) < REVOCATION_DEADLINE + Duration::from_secs(1));
    assert_fails(answer, Code::PermissionDenied, ErrorReason::AccessRevoked);
}
