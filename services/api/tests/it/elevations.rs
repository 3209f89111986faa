//! Elevations as they are asked for and decided upon, and who may not.

use domain::random::SystemRandom;
use domain::session::{PoolerId, SessionId, SessionName};
use rpc::access::v1::role_binding::Scope;
use rpc::access::v1::{
    AccessLevel, ApproveElevationRequest, CreateGrantRequest, CreateRoleBindingRequest, DenyElevationRequest,
    Elevation, ElevationState, EndElevationRequest, ExplainAccessRequest, GetElevationRequest, Grant,
    ListElevationsRequest, PolicyPreset, RequestElevationRequest, RequestElevationResponse, RoleBinding,
    ServerPolicy, UpdateServerPolicyRequest,
};
use rpc::audit::v1::{AuditFilter, AuditRecord, AuditRecordKind, ListAuditRecordsRequest};
use rpc::errors::v1::ErrorReason;
use rpc::query::v1::Session;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::sharing::server;
use crate::world::{ADMIN, AuditSetup, Caller, DEADLINE, Instance, World, assert_fails};

fn seconds(seconds: i64) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds, nanos: 0 })
}

async fn allow(owner: &Caller, server: &str, longest: i64) {
    let policy = UpdateServerPolicyRequest {
        server: server.to_owned(),
        preset: PolicyPreset::Production.into(),
        policy: Some(ServerPolicy {
            max_elevation: seconds(longest),
            ..ServerPolicy::default()
        }),
        etag: String::new(),
    };
    owner.grants().update_server_policy(policy).await.unwrap();
}

async fn grant(owner: &Caller, server: &str, member: &str, databases: &[&str]) {
    let grant = CreateGrantRequest {
        parent: server.to_owned(),
        grant: Some(Grant {
            member: member.to_owned(),
            access: AccessLevel::ReadOnly.into(),
            databases: databases.iter().map(|name| (*name).to_owned()).collect(),
            ..Grant::default()
        }),
    };
    owner.grants().create_grant(grant).await.unwrap();
}

async fn bind(admin: &Caller, role: &str, member: &str, server: &str) {
    let binding = CreateRoleBindingRequest {
        role_binding: Some(RoleBinding {
            role: role.to_owned(),
            member: member.to_owned(),
            scope: Some(Scope::Server(server.to_owned())),
            ..RoleBinding::default()
        }),
    };
    admin.roles().create_role_binding(binding).await.unwrap();
}

fn wish(databases: &[&str]) -> Elevation {
    Elevation {
        databases: databases.iter().map(|name| (*name).to_owned()).collect(),
        reason: "a wrong price".to_owned(),
        duration: seconds(60),
        ..Elevation::default()
    }
}

async fn request(caller: &Caller, server: &str, wish: Elevation) -> Result<RequestElevationResponse, Status> {
    let request = RequestElevationRequest {
        parent: server.to_owned(),
        elevation: Some(wish),
    };
    Ok(caller.elevations().request_elevation(request).await?.into_inner())
}

async fn approve(caller: &Caller, name: &str) -> Result<Elevation, Status> {
    let request = ApproveElevationRequest {
        name: name.to_owned(),
        etag: String::new(),
    };
    let approved = caller.elevations().approve_elevation(request).await?;
    Ok(approved.into_inner().elevation.unwrap())
}

async fn listed(caller: &Caller, states: &[ElevationState]) -> Vec<String> {
    let request = ListElevationsRequest {
        states: states.iter().map(|state| i32::from(*state)).collect(),
        ..ListElevationsRequest::default()
    };
    let listed = caller.elevations().list_elevations(request).await.unwrap();
    let listed = listed.into_inner().elevations;
    listed.into_iter().map(|elevation| elevation.name).collect()
}

#[tokio::test]
async fn elevation_goes_as_far_as_policy_and_own_rights_allow() {
    let world = World::start().await;
    let admin = world.a.login(ADMIN).await;
    let (alice, bob) = (world.member("alice").await, world.member("bob").await);
    // The instance is there then.
    server(&admin, "first").await;
    let shop = server(&alice.caller, "shop").await;
    let unseen = request(&bob.caller, &shop, wish(&[])).await;
    assert_fails(unseen, Code::NotFound, ErrorReason::ResourceNotFound);
    grant(&alice.caller, &shop, &bob.name, &["orders"]).await;
    // No server that there was before has any.
    let none = request(&bob.caller, &shop, wish(&[])).await;
    assert_fails(none, Code::PermissionDenied, ErrorReason::PolicyForbids);
    allow(&alice.caller, &shop, 60).await;
    let elsewhere = request(&bob.caller, &shop, wish(&["orders", "people"])).await;
    assert_fails(elsewhere, Code::PermissionDenied, ErrorReason::DatabaseNotAllowed);
    for wrong in [
        Elevation {
            duration: seconds(61),
            ..wish(&[])
        },
        Elevation {
            duration: seconds(0),
            ..wish(&[])
        },
        Elevation {
            duration: None,
            ..wish(&[])
        },
        Elevation {
            reason: " ".to_owned(),
            ..wish(&[])
        },
        Elevation {
            reason: "x".repeat(1001),
            ..wish(&[])
        },
        Elevation {
            session: "servers/x/sessions/y".to_owned(),
            ..wish(&[])
        },
        wish(&["a\0b"]),
    ] {
        let refused = request(&bob.caller, &shop, wrong).await;
        assert_fails(refused, Code::InvalidArgument, ErrorReason::InvalidField);
    }
    // The form is right, and the pooler says that it is no session of theirs.
    let session = SessionName {
        server: shop.strip_prefix("servers/").unwrap().parse().unwrap(),
        session: SessionId::generate(PoolerId(1), &SystemRandom),
    };
    let named = Elevation {
        session: session.to_string(),
        ..wish(&["orders"])
    };
    let refused = request(&bob.caller, &shop, named.clone()).await;
    assert_fails(refused, Code::NotFound, ErrorReason::ResourceNotFound);
    let there = Session {
        name: session.to_string(),
        ..Session::default()
    };
    world.a.sessions.sessions.lock().unwrap().push(there);
    let asked = request(&bob.caller, &shop, named).await.unwrap();
    assert_eq!(asked.elevation.unwrap().session, session.to_string());
    for _ in 0..2 {
        request(&bob.caller, &shop, wish(&["orders"])).await.unwrap();
    }
    let many = request(&bob.caller, &shop, wish(&["orders"])).await;
    assert_fails(many, Code::ResourceExhausted, ErrorReason::LimitReached);
}

#[tokio::test]
async fn nobody_approves_their_own_and_a_decision_stands() {
    let world = World::start().await;
    let admin = world.a.login(ADMIN).await;
    let (alice, bob, carol) = (
        world.member("alice").await,
        world.member("bob").await,
        world.member("carol").await,
    );
    server(&admin, "first").await;
    let shop = server(&alice.caller, "shop").await;
    allow(&alice.caller, &shop, 60).await;
    grant(&alice.caller, &shop, &bob.name, &[]).await;
    grant(&alice.caller, &shop, &carol.name, &[]).await;
    let asked = request(&bob.caller, &shop, wish(&[]))
        .await
        .unwrap()
        .elevation
        .unwrap();
    assert_eq!(
        (asked.state(), &asked.user),
        (ElevationState::Requested, &bob.name)
    );
    let (denied, hidden) = (Code::PermissionDenied, Code::NotFound);
    assert_fails(
        approve(&bob.caller, &asked.name).await,
        denied,
        ErrorReason::SelfApproval,
    );
    // A share in the use of a server lets nobody decide, nor see who wants what.
    assert_fails(
        approve(&carol.caller, &asked.name).await,
        hidden,
        ErrorReason::ResourceNotFound,
    );
    assert_fails(
        approve(&admin, &asked.name).await,
        hidden,
        ErrorReason::ResourceNotFound,
    );
    assert_eq!(listed(&carol.caller, &[]).await, Vec::<String>::new());
    assert_eq!(listed(&alice.caller, &[]).await, [asked.name.as_str()]);
    bind(&admin, "roles/operator", &carol.name, &shop).await;
    assert_eq!(
        listed(&carol.caller, &[ElevationState::Requested]).await,
        [asked.name.as_str()]
    );
    // The owner's own, and an approver's own, are somebody else's to decide.
    let own = request(&alice.caller, &shop, wish(&[]))
        .await
        .unwrap()
        .elevation
        .unwrap();
    assert_fails(
        approve(&alice.caller, &own.name).await,
        denied,
        ErrorReason::SelfApproval,
    );

    let approved = approve(&carol.caller, &asked.name).await.unwrap();
    assert_eq!(
        (approved.state(), &approved.decided_by),
        (ElevationState::Active, &carol.name)
    );
    let again = assert_fails(
        approve(&carol.caller, &asked.name).await,
        Code::FailedPrecondition,
        ErrorReason::ElevationState,
    );
    let info = again.get_details_error_info().unwrap();
    assert_eq!(info.metadata["state"], "ACTIVE");
    let explain = ExplainAccessRequest {
        principal: "users/me".to_owned(),
        resource: shop.clone(),
        permission: "sessions.use".to_owned(),
        ..ExplainAccessRequest::default()
    };
    let explained = bob
        .caller
        .roles()
        .explain_access(explain)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(explained.access, "read_write");
    assert!(
        explained
            .rules
            .iter()
            .any(|rule| rule.rule == "elevation" && rule.name == asked.name)
    );

    let end = EndElevationRequest {
        name: asked.name.clone(),
        etag: approved.etag,
    };
    let ended = bob
        .caller
        .elevations()
        .end_elevation(end)
        .await
        .unwrap()
        .into_inner()
        .elevation
        .unwrap();
    assert_eq!(
        (ended.state(), &ended.ended_by),
        (ElevationState::Ended, &bob.name)
    );
    let deny = DenyElevationRequest {
        name: own.name.clone(),
        etag: String::new(),
    };
    let refused = carol
        .caller
        .elevations()
        .deny_elevation(deny)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(refused.elevation.unwrap().state(), ElevationState::Denied);
    let get = GetElevationRequest { name: own.name };
    let unseen = bob.caller.elevations().get_elevation(get).await;
    assert_fails(unseen, hidden, ErrorReason::ResourceNotFound);
    // What the policy does not allow any more is not approved either.
    let late = request(&bob.caller, &shop, wish(&[]))
        .await
        .unwrap()
        .elevation
        .unwrap();
    allow(&alice.caller, &shop, 59).await;
    assert_fails(
        approve(&alice.caller, &late.name).await,
        denied,
        ErrorReason::PolicyForbids,
    );
    allow(&alice.caller, &shop, 0).await;
    assert_fails(
        approve(&alice.caller, &late.name).await,
        denied,
        ErrorReason::PolicyForbids,
    );
}

/// The records of elevations that expired.
async fn expiries(admin: &Caller) -> Vec<AuditRecord> {
    let filter = AuditFilter {
        kinds: vec![AuditRecordKind::Elevation.into()],
        ..AuditFilter::default()
    };
    let request = ListAuditRecordsRequest {
        filter: Some(filter),
        ..ListAuditRecordsRequest::default()
    };
    let listed = admin.audit().list_audit_records(request).await.unwrap();
    listed.into_inner().records
}

#[tokio::test]
async fn expiry_that_an_instance_did_not_live_to_write_down_is_written_down_by_another() {
    // What the instances leave in their trails is not written before they die.
    let world = World::start_with(AuditSetup {
        is_written: false,
        ..AuditSetup::default()
    })
    .await;
    let admin = world.a.login(ADMIN).await;
    let (alice, bob) = (world.member("alice").await, world.member("bob").await);
    server(&admin, "first").await;
    let shop = server(&alice.caller, "shop").await;
    allow(&alice.caller, &shop, 60).await;
    grant(&alice.caller, &shop, &bob.name, &[]).await;
    let asked = request(&bob.caller, &shop, wish(&[])).await.unwrap();
    let asked = asked.elevation.unwrap().name;
    approve(&alice.caller, &asked).await.unwrap();
    let World {
        a,
        b,
        database,
        objects,
        ..
    } = world;
    let change = async |sql| database.execute(sql).await;
    change("UPDATE pgmoor.elevations SET expire_time = clock_timestamp()").await;
    let outside = database.connect().await;
    harness::eventually(DEADLINE, "an instance takes the expiry", async || {
        let sql = "SELECT FROM pgmoor.elevations WHERE state = 'expired'";
        !outside.query(sql, &[]).await.unwrap().is_empty()
    })
    .await;
    drop((a, b));
    // The time is over that they had for the record.
    change("UPDATE pgmoor.elevations SET record_due = clock_timestamp()").await;

    let other = Instance::join(&database, &objects, &AuditSetup::default()).await;
    let admin = other.with_token(admin.token.as_deref().unwrap());
    let records = harness::eventually(DEADLINE, "the expiry is recorded", async || {
        let records = expiries(&admin).await;
        (!records.is_empty()).then_some(records)
    })
    .await;
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].outcome, "EXPIRED");
    assert!(records[0].resources.contains(&asked));
    harness::eventually(DEADLINE, "the record is known to be written", async || {
        let sql = "SELECT FROM pgmoor.elevations WHERE record_due IS NULL";
        !outside.query(sql, &[]).await.unwrap().is_empty()
    })
    .await;
    assert_eq!(expiries(&admin).await.len(), 1);
}
