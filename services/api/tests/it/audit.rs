//! The audit trail as the API leaves it, and as it is read.

use std::time::Duration;

use api::TrustedHops;
use audit::LogOptions;
use audit::buffer::WhenFull;
use harness::eventually;
use rpc::access::v1::{CreateRoleBindingRequest, RoleBinding};
use rpc::audit::v1::{
    AuditFilter, AuditRecord, AuditRecordKind, AuditWriterRole, ExportAuditRecordsRequest,
    ListAuditRecordsRequest, WatchAuditRecordsRequest,
};
use rpc::auth::v1::{CreateApiTokenRequest, RefreshTokenRequest, WhoAmIRequest};
use rpc::errors::v1::ErrorReason;
use rpc::query::v1::{ExecuteRequest, Script};
use rpc::server::v1::{CreateServerRequest, DeleteServerRequest, Endpoint, Server};
use rpc::settings::v1::ResetSettingsRequest;
use rpc::user::v1::{ListUsersRequest, SetPasswordRequest};
use tonic::{Code, Request};
use tonic_types::StatusExt as _;

use crate::world::{ADMIN, AuditSetup, Caller, DEADLINE, Instance, PASSWORD, World, assert_fails};

/// The records that match, newest first, as soon as there are that many.
async fn records(reader: &Caller, filter: AuditFilter, count: usize) -> Vec<AuditRecord> {
    eventually(DEADLINE, "the records are written", async || {
        let request = ListAuditRecordsRequest {
            filter: Some(filter.clone()),
            ..ListAuditRecordsRequest::default()
        };
        let page = reader.audit().list_audit_records(request).await;
        let records = page.map_err(|status| status.to_string())?.into_inner().records;
        if records.len() >= count {
            Ok(records)
        } else {
            Err(format!("{records:?}"))
        }
    })
    .await
}

fn of_method(method: &str) -> AuditFilter {
    AuditFilter {
        method: method.to_owned(),
        ..AuditFilter::default()
    }
}

fn server(display_name: &str) -> CreateServerRequest {
    CreateServerRequest {
        server: Some(Server {
            display_name: display_name.to_owned(),
            username: "app".to_owned(),
            endpoints: vec![Endpoint {
                host: "db.example.com".to_owned(),
                port: 0,
            }],
            ..Server::default()
        }),
        ..CreateServerRequest::default()
    }
}

/// Everything in the trail's table, as text.
async fn dump(world: &World) -> String {
    let rows = world
        .database
        .connect()
        .await
        .query("SELECT r::text FROM pgmoor.audit_records AS r", &[])
        .await
        .unwrap();
    rows.iter().map(|row| row.get::<_, String>(0)).collect()
}

#[tokio::test]
async fn record_says_who_called_what_from_where_and_how_it_ended() {
    let world = World::start().await;
    let admin = world.a.login(ADMIN).await;
    let created = admin.servers().create_server(server("db")).await.unwrap();
    let name = created.into_inner().server.unwrap().name;
    let delete = DeleteServerRequest {
        name: name.clone(),
        etag: "other".to_owned(),
    };
    admin.servers().delete_server(delete).await.unwrap_err();
    let about = AuditFilter {
        resource: name.clone(),
        ..of_method("DeleteServer")
    };
    let record = records(&admin, about, 1).await.remove(0);
    assert_eq!(record.method, "pgmoor.server.v1.ServerService/DeleteServer");
    assert_eq!(record.resources, [name]);
    assert_eq!(
        (record.user, record.username.as_str()),
        (format!("users/{}", world.admin), ADMIN)
    );
    assert_eq!(
        (record.outcome.as_str(), record.reason.as_str()),
        ("ABORTED", "ETAG_MISMATCH")
    );
    assert_eq!(record.address, "127.0.0.1");
    assert!(record.credential.starts_with("logins/"), "{}", record.credential);
    assert_eq!(record.correlation_id.len(), 32);
    assert_eq!(AuditWriterRole::Api as i32, record.writer_role);
    assert!(record.duration.is_some() && record.time.is_some());

    let login = records(&admin, of_method("LoginWithPassword"), 1).await.remove(0);
    assert_eq!((login.outcome.as_str(), login.username.as_str()), ("OK", ADMIN));
    assert_eq!(login.user, format!("users/{}", world.admin));

    // By an API token, which is named.
    let request = CreateApiTokenRequest {
        display_name: "ci".to_owned(),
        ..CreateApiTokenRequest::default()
    };
    let made = admin.auth().create_api_token(request).await.unwrap().into_inner();
    let automat = world.b.with_token(&made.token);
    automat.servers().create_server(server("another")).await.unwrap();
    let record = records(&admin, of_method("CreateServer"), 2).await.remove(0);
    assert!(
        record.credential.starts_with("apiTokens/"),
        "{}",
        record.credential
    );

    // What only reads leaves none.
    admin.auth().who_am_i(WhoAmIRequest {}).await.unwrap();
    let reads = records(&admin, of_method("WhoAmI"), 0).await;
    assert_eq!(reads, []);
}

#[tokio::test]
async fn refusals_are_recorded_also_of_methods_that_otherwise_are_not() {
    let world = World::start().await;
    let admin = world.a.login(ADMIN).await;
    let member = world.member("alice").await;
    let refused = member
        .caller
        .users()
        .list_users(ListUsersRequest::default())
        .await;
    assert_fails(refused, Code::PermissionDenied, ErrorReason::PermissionMissing);
    let anonymous = world.b.anonymous();
    anonymous.auth().who_am_i(WhoAmIRequest {}).await.unwrap_err();
    world
        .a
        .try_login("mallory", "c4n4ry-of-a-login")
        .await
        .unwrap_err();
    let refresh_token = "c4n4ry-of-a-refresh".to_owned();
    let refreshed = anonymous
        .auth()
        .refresh_token(RefreshTokenRequest { refresh_token })
        .await;
    refreshed.unwrap_err();

    let record = records(&admin, of_method("ListUsers"), 1).await.remove(0);
    assert_eq!(
        (record.user.as_str(), record.username.as_str()),
        (member.name.as_str(), "alice")
    );
    assert_eq!(
        (record.outcome.as_str(), record.reason.as_str()),
        ("PERMISSION_DENIED", "PERMISSION_MISSING")
    );
    let record = records(&admin, of_method("WhoAmI"), 1).await.remove(0);
    assert_eq!(
        (record.user.as_str(), record.reason.as_str()),
        ("", "CREDENTIALS_MISSING")
    );
    let failed = AuditFilter {
        outcome: "UNAUTHENTICATED".to_owned(),
        ..of_method("LoginWithPassword")
    };
    let record = records(&admin, failed, 1).await.remove(0);
    assert_eq!((record.user.as_str(), record.username.as_str()), ("", "mallory"));
    records(&admin, of_method("RefreshToken"), 1).await;
    assert!(!dump(&world).await.contains("c4n4ry"));
}

#[tokio::test]
async fn flood_of_refusals_from_one_address_is_counted() {
    let world = World::start().await;
    let anonymous = world.a.anonymous();
    for _ in 0..200 {
        anonymous.auth().who_am_i(WhoAmIRequest {}).await.unwrap_err();
    }
    assert!(
        world.a.log.figures().suppressed >= 150,
        "{:?}",
        world.a.log.figures()
    );
    let admin = world.b.login(ADMIN).await;
    let filter = AuditFilter {
        kinds: vec![AuditRecordKind::Suppressed.into()],
        ..AuditFilter::default()
    };
    let counted = records(&admin, filter, 1).await.remove(0);
    assert_eq!(counted.address, "127.0.0.1");
    assert!(counted.count >= 150, "{counted:?}");
    let recorded = records(&admin, of_method("WhoAmI"), 20).await.len();
    assert!(recorded < 50, "{recorded}");
}

#[tokio::test]
async fn client_cannot_choose_the_address_it_is_recorded_with() {
    let from = async |instance: &Instance, forwarded: &str| {
        let mut request = Request::new(WhoAmIRequest {});
        let value = forwarded.parse().unwrap();
        request.metadata_mut().insert("x-forwarded-for", value);
        instance.anonymous().auth().who_am_i(request).await.unwrap_err();
    };
    let addresses = async |world: &World| {
        let admin = world.a.login(ADMIN).await;
        let mut found: Vec<_> = records(&admin, of_method("WhoAmI"), 2)
            .await
            .into_iter()
            .map(|record| record.address)
            .collect();
        found.reverse();
        found
    };
    let world = World::start().await;
    from(&world.a, "192.0.2.1").await;
    from(&world.a, "192.0.2.66, 192.0.2.1").await;
    assert_eq!(addresses(&world).await, ["127.0.0.1", "127.0.0.1"]);

    let behind_one = AuditSetup {
        trusted_hops: TrustedHops::new(1, &["127.0.0.0/8".to_owned()]).unwrap(),
        ..AuditSetup::default()
    };
    let world = World::start_with(behind_one).await;
    from(&world.a, "192.0.2.1").await;
    from(&world.a, "10.0.0.1, 192.0.2.66, 192.0.2.1").await;
    assert_eq!(addresses(&world).await, ["192.0.2.1", "192.0.2.1"]);

    let elsewhere = AuditSetup {
        trusted_hops: TrustedHops::new(1, &["10.0.0.0/8".to_owned()]).unwrap(),
        ..AuditSetup::default()
    };
    let world = World::start_with(elsewhere).await;
    from(&world.a, "192.0.2.1").await;
    from(&world.a, "192.0.2.2").await;
    assert_eq!(addresses(&world).await, ["127.0.0.1", "127.0.0.1"]);
}

#[tokio::test]
async fn no_password_token_or_statement_reaches_the_trail() {
    let world = World::start().await;
    let admin = world.a.login(ADMIN).await;
    let with_password = CreateServerRequest {
        password: "c4n4ry-of-the-server".to_owned(),
        ..server("db")
    };
    // Nobody can open it yet, so it is not taken.
    admin.servers().create_server(with_password).await.unwrap_err();
    let request = SetPasswordRequest {
        name: "users/me".to_owned(),
        current_password: "c4n4ry-current".to_owned(),
        new_password: "c4n4ry-new-password".to_owned(),
    };
    admin.users().set_password(request).await.unwrap_err();
    let request = ExecuteRequest {
        session: "servers/00000000-0000-4000-8000-000000000001/sessions/aaaaaaaaaaaaaaaaaaaaaaa".to_owned(),
        script: Some(Script {
            sql: "SELECT 'c4n4ry-of-a-statement'".to_owned(),
            ..Script::default()
        }),
        ..ExecuteRequest::default()
    };
    let executed = admin.query().execute(request).await;
    let _ = executed.map(|answer| drop(answer.into_inner()));
    let record = records(&admin, of_method("Execute"), 1).await.remove(0);
    assert_eq!(record.session, record.resources[0]);
    records(&admin, of_method("SetPassword"), 1).await;
    let dump = dump(&world).await;
    assert!(!dump.contains("c4n4ry") && !dump.contains(PASSWORD));
    assert!(!dump.contains(admin.token.as_ref().unwrap()));
}

#[tokio::test]
async fn full_trail_refuses_calls_that_must_be_recorded_and_no_others() {
    let world = World::start_with(AuditSetup {
        options: LogOptions {
            capacity: 3,
            when_full: WhenFull::Refuse,
            loss_window: Duration::from_secs(3600),
            ..LogOptions::default()
        },
        is_written: false,
        ..AuditSetup::default()
    })
    .await;
    let admin = world.a.login(ADMIN).await;
    let mut refused = None;
    for number in 0..4 {
        let created = admin
            .servers()
            .create_server(server(&format!("db {number}")))
            .await;
        refused = created.err();
        if refused.is_some() {
            break;
        }
    }
    let refused = refused.expect("the trail is full");
    assert_eq!(rpc::error::reason(&refused), Some(ErrorReason::AuditUnavailable));
    assert_eq!(refused.code(), Code::Unavailable);
    assert!(refused.get_details_retry_info().unwrap().retry_delay.is_some());
    // Nothing was done.
    let listed = admin
        .servers()
        .list_servers(rpc::server::v1::ListServersRequest::default())
        .await;
    assert_eq!(listed.unwrap().into_inner().servers.len(), 2);
    admin.auth().who_am_i(WhoAmIRequest {}).await.unwrap();
}

#[tokio::test]
async fn full_trail_that_counts_refuses_nothing() {
    let world = World::start_with(AuditSetup {
        options: LogOptions {
            capacity: 2,
            when_full: WhenFull::Count,
            ..LogOptions::default()
        },
        is_written: false,
        ..AuditSetup::default()
    })
    .await;
    let admin = world.a.login(ADMIN).await;
    for number in 0..5 {
        let request = server(&format!("db {number}"));
        admin.servers().create_server(request).await.unwrap();
    }
    let figures = world.a.log.figures();
    assert_eq!((figures.buffered, figures.unrecorded), (2, 4));
}

#[tokio::test]
async fn many_names_do_not_hide_what_a_call_was_refused_for() {
    let world = World::start().await;
    let admin = world.a.login(ADMIN).await;
    let (alice, bob) = (world.member("alice").await, world.member("bob").await);
    let request = ResetSettingsRequest {
        parent: bob.name.clone(),
        names: (0..1000).map(|number| format!("servers/{number}")).collect(),
        ..ResetSettingsRequest::default()
    };
    let refused = alice.caller.settings().reset_settings(request).await;
    assert_fails(refused, Code::NotFound, ErrorReason::ResourceNotFound);
    let record = &records(&admin, of_method("ResetSettings"), 1).await[0];
    assert_eq!(
        (&record.user, record.outcome.as_str()),
        (&alice.name, "NOT_FOUND")
    );
    assert_eq!(record.resources[0], bob.name);
    assert_eq!(record.resources[1], "servers/0");
    assert_eq!(record.resources.last().unwrap(), "and 936 more");
}

#[tokio::test]
async fn lists_are_filtered_and_come_in_pages() {
    let world = World::start().await;
    let admin = world.a.login(ADMIN).await;
    let member = world.member("alice").await;
    let mut names = Vec::new();
    for number in 0..5 {
        let request = server(&format!("db {number}"));
        let created = admin.servers().create_server(request).await.unwrap();
        names.push(created.into_inner().server.unwrap().name);
    }
    for name in &names {
        let request = DeleteServerRequest {
            name: name.clone(),
            etag: String::new(),
        };
        // Not hers, so it is not there.
        member.caller.servers().delete_server(request).await.unwrap_err();
    }
    let of_alice = AuditFilter {
        user: member.name.clone(),
        ..of_method("pgmoor.server.v1.ServerService/DeleteServer")
    };
    let all = records(&admin, of_alice.clone(), 5).await;
    let named: Vec<_> = all
        .iter()
        .rev()
        .map(|record| record.resources[0].clone())
        .collect();
    assert_eq!(named, names);
    assert!(all.iter().all(|record| record.outcome == "NOT_FOUND"));

    let (mut paged, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = ListAuditRecordsRequest {
            filter: Some(of_alice.clone()),
            page_size: 2,
            page_token: page_token.clone(),
        };
        let page = admin
            .audit()
            .list_audit_records(request)
            .await
            .unwrap()
            .into_inner();
        paged.extend(page.records);
        if page.next_page_token.is_empty() {
            break;
        }
        page_token = page.next_page_token;
    }
    assert_eq!(paged, all);
    // A token of another list.
    let request = ListAuditRecordsRequest {
        filter: Some(of_method("CreateServer")),
        page_size: 2,
        page_token,
    };
    let wrong = admin.audit().list_audit_records(request).await;
    assert_fails(wrong, Code::InvalidArgument, ErrorReason::InvalidPageToken);

    let middle = all[2].time;
    let later = AuditFilter {
        start_time: middle,
        ..of_alice.clone()
    };
    let earlier = AuditFilter {
        end_time: middle,
        ..of_alice.clone()
    };
    assert_eq!(records(&admin, later, 3).await, all[..3]);
    assert_eq!(records(&admin, earlier, 2).await, all[3..]);
    let traced = AuditFilter {
        correlation_id: all[1].correlation_id.clone(),
        ..AuditFilter::default()
    };
    assert_eq!(records(&admin, traced, 1).await, all[1..2]);
    for wrong in [
        AuditFilter {
            user: "users/nobody".to_owned(),
            ..AuditFilter::default()
        },
        AuditFilter {
            kinds: vec![99],
            ..AuditFilter::default()
        },
        AuditFilter {
            outcome: "a\0b".to_owned(),
            ..AuditFilter::default()
        },
    ] {
        let request = ListAuditRecordsRequest {
            filter: Some(wrong),
            ..ListAuditRecordsRequest::default()
        };
        let refused = admin.audit().list_audit_records(request).await;
        assert_fails(refused, Code::InvalidArgument, ErrorReason::InvalidField);
    }
}

#[tokio::test]
async fn only_who_may_read_the_trail_reads_it() {
    let world = World::start().await;
    let member = world.member("alice").await.caller;
    let refused = member
        .audit()
        .list_audit_records(ListAuditRecordsRequest::default())
        .await;
    assert_fails(refused, Code::PermissionDenied, ErrorReason::PermissionMissing);
    let refused = member
        .audit()
        .watch_audit_records(WatchAuditRecordsRequest::default())
        .await;
    assert_fails(
        refused.map(drop),
        Code::PermissionDenied,
        ErrorReason::PermissionMissing,
    );
    let refused = member
        .audit()
        .export_audit_records(ExportAuditRecordsRequest::default())
        .await;
    assert_fails(
        refused.map(drop),
        Code::PermissionDenied,
        ErrorReason::PermissionMissing,
    );
}

#[tokio::test]
async fn watch_that_breaks_off_goes_on_at_the_other_instance() {
    let world = World::start().await;
    let admin = world.a.login(ADMIN).await;
    let filter = of_method("CreateServer");
    let watch = async |instance: &Instance, after_position: Option<i64>| {
        let request = WatchAuditRecordsRequest {
            filter: Some(filter.clone()),
            after_position,
        };
        let reader = instance.with_token(admin.token.as_ref().unwrap());
        reader
            .audit()
            .watch_audit_records(request)
            .await
            .unwrap()
            .into_inner()
    };
    let mut first = watch(&world.a, None).await;
    let began = first.message().await.unwrap().unwrap();
    assert_eq!(began.records, []);
    admin.servers().create_server(server("one")).await.unwrap();
    let seen = tokio::time::timeout(DEADLINE, first.message())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert_eq!(seen.records.len(), 1);
    drop(first);
    for name in ["two", "three"] {
        admin.servers().create_server(server(name)).await.unwrap();
    }
    let mut second = watch(&world.b, Some(seen.position)).await;
    let mut more = Vec::new();
    while more.len() < 2 {
        let message = tokio::time::timeout(DEADLINE, second.message()).await.unwrap();
        more.extend(message.unwrap().unwrap().records);
    }
    let positions: Vec<i64> = more.iter().map(|record| record.position).collect();
    assert!(
        positions.is_sorted() && positions[0] >= seen.position,
        "{positions:?}"
    );
    assert_eq!(more.len(), 2);
    // A watcher hears that its server goes away.
    world.b.drain.cancel();
    let ended = eventually(DEADLINE, "the watch ends", async || second.message().await.err()).await;
    assert_eq!(rpc::error::reason(&ended), Some(ErrorReason::ShuttingDown));
}

#[tokio::test]
async fn export_has_every_record_as_a_line_of_json() {
    let world = World::start().await;
    let admin = world.a.login(ADMIN).await;
    for number in 0..60 {
        let request = server(&format!("db {number}"));
        admin.servers().create_server(request).await.unwrap();
    }
    let export = async |after_position, max_records| {
        let request = ExportAuditRecordsRequest {
            filter: Some(of_method("CreateServer")),
            after_position,
            max_records,
        };
        let mut pieces = admin
            .audit()
            .export_audit_records(request)
            .await
            .unwrap()
            .into_inner();
        let (mut text, mut next) = (String::new(), 0);
        while let Some(piece) = pieces.message().await.unwrap() {
            text.push_str(std::str::from_utf8(&piece.data).unwrap());
            next = piece.next_position;
        }
        (text, next)
    };
    let lines = eventually(DEADLINE, "all are there", async || {
        let (text, next) = export(0, 0).await;
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        (lines.len() == 60).then_some((lines, next)).ok_or(text.len())
    })
    .await;
    assert_eq!(lines.1, 0, "there is no more");
    let record: serde_json::Value = serde_json::from_str(&lines.0[0]).unwrap();
    assert_eq!(record["method"], "pgmoor.server.v1.ServerService/CreateServer");
    assert_eq!(record["hash"].as_str().unwrap().len(), 64);
    // In two parts.
    let (first, next) = export(0, 50).await;
    assert_eq!(first.lines().count(), 50);
    let (second, end) = export(next, 50).await;
    assert_eq!((second.lines().count(), end), (10, 0));
    assert_eq!(format!("{first}{second}").lines().collect::<Vec<_>>(), lines.0);
}

#[tokio::test]
async fn stream_that_lasts_is_recorded_while_it_does_and_at_its_end() {
    let world = World::start().await;
    let admin = world.a.login(ADMIN).await;
    let watch = WatchAuditRecordsRequest::default();
    let mut stream = admin
        .audit()
        .watch_audit_records(watch)
        .await
        .unwrap()
        .into_inner();
    let read = async { while let Ok(Some(_)) = stream.message().await {} };
    let opened = async {
        let filter = AuditFilter {
            kinds: vec![AuditRecordKind::Stream.into()],
            ..of_method("WatchAuditRecords")
        };
        records(&admin, filter, 1).await.remove(0)
    };
    let opened = tokio::select! {
        () = read => panic!("the watch ended"),
        opened = opened => opened,
    };
    assert_eq!(opened.outcome, "OPEN");
    assert!(opened.duration.unwrap().seconds >= 10);
    drop(stream);
    let filter = AuditFilter {
        kinds: vec![AuditRecordKind::Call.into()],
        ..of_method("WatchAuditRecords")
    };
    let ended = records(&admin, filter, 1).await.remove(0);
    assert_eq!(
        (ended.outcome.as_str(), ended.correlation_id),
        ("CANCELLED", opened.correlation_id)
    );
}

#[tokio::test]
async fn record_has_the_revision_its_call_was_decided_by_and_not_a_later_one() {
    let world = World::start().await;
    let (first, other) = (world.a.login(ADMIN).await, world.b.login(ADMIN).await);
    let revision = async || {
        let query = "SELECT revision FROM pgmoor.counters WHERE name = 'policy'";
        let row = world.database.connect().await.query_one(query, &[]).await;
        row.unwrap().get::<_, i64>(0)
    };
    let opened_by = revision().await;
    let stream = first
        .audit()
        .watch_audit_records(WatchAuditRecordsRequest::default())
        .await
        .unwrap()
        .into_inner();
    // A change that neither instance reads a server for.
    let bob = world.member("bob").await;
    let create = CreateRoleBindingRequest {
        role_binding: Some(RoleBinding {
            role: "roles/auditor".to_owned(),
            member: bob.name,
            ..RoleBinding::default()
        }),
    };
    first.roles().create_role_binding(create).await.unwrap();
    let changed_to = revision().await;
    assert!(changed_to > opened_by);
    // Both hear of it.
    let mut writer = String::new();
    for caller in [&first, &other] {
        let of_another = |record: &AuditRecord| record.writer != writer;
        let heard = eventually(DEADLINE, "calls are decided by the change", async || {
            // Which leaves a record itself.
            let last = records(caller, of_method("ListAuditRecords"), 1).await.remove(0);
            match of_another(&last) && last.policy_revision == changed_to {
                true => Ok(last.writer),
                false => Err(format!("{last:?}")),
            }
        })
        .await;
        writer = heard;
    }
    drop(stream);
    let filter = AuditFilter {
        kinds: vec![AuditRecordKind::Call.into()],
        ..of_method("WatchAuditRecords")
    };
    let watched = records(&first, filter, 1).await.remove(0);
    assert!(watched.policy_revision <= opened_by, "{opened_by}: {watched:?}");
}

#[test]
fn records_are_written_within_a_second_unless_it_is_said_otherwise() {
    assert_eq!(LogOptions::default().flush_interval, Duration::from_secs(1));
}
