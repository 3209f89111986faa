//! Somebody writes for a while on a production server, as two people meet it through the balancer.

use std::time::Duration;

use e2e::{Client, World, reason};
use harness::eventually;
use rpc::access::v1::{
    AccessLevel, ApproveElevationRequest, CreateGrantRequest, Elevation, ElevationState, GetElevationRequest,
    Grant, PolicyPreset, RequestElevationRequest, ServerPolicy, UpdateServerPolicyRequest,
};
use rpc::audit::v1::{AuditFilter, AuditRecord, AuditRecordKind, ListAuditRecordsRequest};
use rpc::auth::v1::WhoAmIRequest;
use rpc::errors::v1::ErrorReason;
use rpc::query::v1::{GetSessionRequest, Session, SessionAccess, TransactionStatus};
use tonic::{Code, Status};

use crate::worlds::shared;

/// What users are promised.
const WITHIN: Duration = Duration::from_secs(5);
const SOON: Duration = Duration::from_secs(30);

async fn me(client: &Client) -> String {
    let answer = client.auth().who_am_i(WhoAmIRequest {}).await;
    answer.unwrap().into_inner().user
}

/// Makes a server one for production that somebody else may read.
async fn share(owner: &Client, server: &str, member: String) {
    let grant = CreateGrantRequest {
        parent: server.to_owned(),
        grant: Some(Grant {
            member,
            access: AccessLevel::ReadOnly.into(),
            ..Grant::default()
        }),
    };
    owner.grants().create_grant(grant).await.unwrap();
    let policy = UpdateServerPolicyRequest {
        server: server.to_owned(),
        preset: PolicyPreset::Production.into(),
        policy: Some(ServerPolicy {
            max_elevation: Some(prost_types::Duration {
                seconds: 60,
                nanos: 0,
            }),
            ..ServerPolicy::default()
        }),
        ..UpdateServerPolicyRequest::default()
    };
    owner.grants().update_server_policy(policy).await.unwrap();
}

async fn request(client: &Client, server: &str, seconds: i64, session: &str) -> Result<Elevation, Status> {
    let request = RequestElevationRequest {
        parent: server.to_owned(),
        elevation: Some(Elevation {
            reason: "a wrong price".to_owned(),
            duration: Some(prost_types::Duration { seconds, nanos: 0 }),
            session: session.to_owned(),
            ..Elevation::default()
        }),
    };
    let answer = client.elevations().request_elevation(request).await?;
    Ok(answer.into_inner().elevation.unwrap())
}

fn approve(elevation: &Elevation) -> ApproveElevationRequest {
    ApproveElevationRequest {
        name: elevation.name.clone(),
        etag: elevation.etag.clone(),
    }
}

async fn comes_to(client: &Client, session: &str, access: SessionAccess) -> Session {
    eventually(SOON, "the session's access changes", async || {
        let request = GetSessionRequest {
            name: session.to_owned(),
        };
        let session = client.query().get_session(request).await;
        let session = session
            .map_err(|status| reason::text(&status))?
            .into_inner()
            .session
            .unwrap();
        match session.access() == access {
            true => Ok(session),
            false => Err(format!("{session:?}")),
        }
    })
    .await
}

/// The records about a resource, as soon as there are some of these.
async fn records(world: &World, resource: &str, wanted: impl Fn(&[AuditRecord]) -> bool) -> Vec<AuditRecord> {
    let admin = world.superuser().await;
    let reader = admin.b();
    eventually(SOON, "the records are written", async || {
        let request = ListAuditRecordsRequest {
            filter: Some(AuditFilter {
                resource: resource.to_owned(),
                ..AuditFilter::default()
            }),
            page_size: 1000,
            ..ListAuditRecordsRequest::default()
        };
        let page = reader.audit().list_audit_records(request).await;
        let records = page.map_err(|status| reason::text(&status))?.into_inner().records;
        match wanted(&records) {
            true => Ok(records),
            false => Err(format!("{records:?}")),
        }
    })
    .await
}

#[tokio::test]
async fn member_asks_another_approves_and_the_same_session_writes_until_the_time_is_over() {
    let world = &shared().await.world;
    let (owner, member) = tokio::join!(world.create_user(), world.create_user());
    let (owner, member) = (&owner.balanced, &member.balanced);
    let server = world.register_target(owner).await;
    let made = owner.open_session(&server).await.unwrap();
    let table = format!("elevated_{}", made.backend_pid);
    owner
        .execute(&made.name, &format!("CREATE TABLE {table} (n int)"))
        .await
        .unwrap();
    owner.close_session(&made).await.unwrap();
    share(owner, &server, me(member).await).await;
    let insert = |n: i32| format!("INSERT INTO {table} VALUES ({n})");

    let session = member.open_auto(&server).await.unwrap();
    assert_eq!(session.access(), SessionAccess::ReadOnly);
    let session = session.name;
    let refused = member.execute(&session, &insert(1)).await.unwrap();
    assert_eq!(refused.sqlstate(), "25006");

    // Nobody asks in the name of somebody else's session.
    let others = owner.open_auto(&server).await.unwrap();
    let named = request(member, &server, 15, &others.name).await;
    reason::expect(named, Code::NotFound, ErrorReason::ResourceNotFound);
    owner.close_session(&others).await.unwrap();
    let asked = request(member, &server, 15, &session).await.unwrap();
    assert_eq!(asked.session, session);
    assert_eq!(
        (asked.state(), &asked.user),
        (ElevationState::Requested, &me(member).await)
    );
    let own = member.elevations().approve_elevation(approve(&asked)).await;
    reason::expect(own, Code::PermissionDenied, ErrorReason::SelfApproval);
    let stranger = world.create_user().await;
    let unseen = stranger.a().elevations().approve_elevation(approve(&asked)).await;
    reason::expect(unseen, Code::NotFound, ErrorReason::ResourceNotFound);
    let refused = member.execute(&session, &insert(1)).await.unwrap();
    assert_eq!(refused.sqlstate(), "25006");

    let approved = owner
        .elevations()
        .approve_elevation(approve(&asked))
        .await
        .unwrap();
    let approved = approved.into_inner().elevation.unwrap();
    assert_eq!(
        (approved.state(), &approved.decided_by),
        (ElevationState::Active, &me(owner).await)
    );
    let raised = comes_to(member, &session, SessionAccess::ReadWrite).await;
    assert_eq!(raised.elevated_until, approved.expire_time);
    member.execute(&session, &insert(1)).await.unwrap();
    let open = format!("BEGIN; {}", insert(2));
    let open = member.execute(&session, &open).await.unwrap();
    assert_eq!(open.transaction_status(), TransactionStatus::InTransaction);

    let fallen = comes_to(member, &session, SessionAccess::ReadOnly).await;
    assert_eq!(fallen.transaction_status(), TransactionStatus::Idle);
    let told = member.execute(&session, "COMMIT").await;
    let told = told.map(drop);
    reason::expect(told, Code::Aborted, ErrorReason::ElevationEnded);
    let refused = member.execute(&session, &insert(3)).await.unwrap();
    assert_eq!(refused.sqlstate(), "25006");
    let all = format!("SELECT string_agg(n::text, ',') FROM {table}");
    assert_eq!(member.execute(&session, &all).await.unwrap().value(), "1");
    eventually(WITHIN, "it is called expired", async || {
        let get = GetElevationRequest {
            name: asked.name.clone(),
        };
        let state = owner.elevations().get_elevation(get).await.unwrap().into_inner();
        let state = state.elevation.unwrap().state();
        (state == ElevationState::Expired)
            .then_some(())
            .ok_or(state.as_str_name())
    })
    .await;

    let method = |record: &AuditRecord| record.method.rsplit('/').next().unwrap_or_default().to_owned();
    let is_expiry = |record: &AuditRecord| record.kind() == AuditRecordKind::Elevation;
    let found = records(world, &asked.name, |records| {
        records.iter().any(is_expiry)
            && records
                .iter()
                .filter(|record| record.kind() == AuditRecordKind::Execution)
                .count()
                >= 2
    })
    .await;
    let calls = |name: &str| -> Vec<(String, String)> {
        let calls = found
            .iter()
            .filter(|record| record.kind() == AuditRecordKind::Call && method(record) == name);
        calls
            .map(|record| (record.user.clone(), record.outcome.clone()))
            .collect()
    };
    let approvals = calls("ApproveElevation");
    assert!(
        approvals.contains(&(me(owner).await, "OK".to_owned())),
        "{approvals:?}"
    );
    assert!(
        approvals.contains(&(me(member).await, "PERMISSION_DENIED".to_owned())),
        "{approvals:?}"
    );
    let expired: Vec<_> = found.iter().filter(|record| is_expiry(record)).collect();
    assert_eq!(expired.len(), 1, "{expired:?}");
    assert_eq!(
        (expired[0].outcome.as_str(), &expired[0].user),
        ("EXPIRED", &me(member).await)
    );
    // What was allowed by it says so; what came before and after it does not.
    let executions = found
        .iter()
        .filter(|record| record.kind() == AuditRecordKind::Execution);
    assert_eq!(executions.count(), 2, "{found:?}");
    let asked_for = records(world, &server, |records| {
        records
            .iter()
            .any(|record| method(record) == "RequestElevation" && record.outcome == "OK")
    });
    asked_for.await;
}
