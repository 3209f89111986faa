//! There are never more of something than there may be, however many add at once.

use std::collections::BTreeSet;

use domain::access::{Access, GrantLimits, Principal, Role, RoleName, Scope};
use domain::id::{GrantId, GroupId, RoleBindingId};
use domain::operation::{OperationKind, OperationOutcome};
use domain::random::SystemRandom;
use futures::future::join_all;
use store::grants::{GrantError, GrantTerms};
use store::groups::{MANUAL, UpdateGroupError};
use store::limits;
use store::operations::EnqueueError;
use store::role_bindings::{BindRoleError, NewRoleBinding};

use crate::support::{World, new_operation};

#[tokio::test]
async fn grants_on_a_server_end_at_their_limit() {
    let world = World::new().await;
    let server = world.any_server().await;
    let most = limits::GRANTS_OF_A_SERVER;
    // Two places are left.
    world
        .database
        .execute(&format!(
            "WITH people AS (INSERT INTO pgmoor.groups (id, display_name) \
               SELECT gen_random_uuid(), 'g' || n FROM generate_series(1, {most} - 2) AS n RETURNING id) \
             INSERT INTO pgmoor.server_grants (id, server_id, group_id, access, databases, limits) \
             SELECT gen_random_uuid(), '{}', p.id, 'read_only', '{{}}', '{{}}' FROM people AS p",
            server.id
        ))
        .await;
    let group = GroupId::generate(&SystemRandom);
    world
        .store
        .groups()
        .create(group, &"staff".parse().unwrap())
        .await
        .unwrap();
    let terms = GrantTerms {
        access: Access::ReadOnly,
        databases: BTreeSet::new(),
        limits: GrantLimits::NONE,
        expire_time: None,
    };
    let grant = async || {
        let id = GrantId::generate(&SystemRandom);
        let grants = world.store.grants();
        grants
            .create(id, server.id, Principal::Group(group), &terms)
            .await
    };
    let outcomes = join_all((0..6).map(|_| grant())).await;
    let made = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    assert_eq!(made, 2, "{outcomes:?}");
    for refused in outcomes.into_iter().filter_map(Result::err) {
        assert!(
            matches!(&refused, GrantError::LimitReached(reached) if reached.most == most),
            "{refused:?}"
        );
    }
}

#[tokio::test]
async fn roles_of_a_member_and_members_of_a_group_end_at_their_limits() {
    let world = World::new().await;
    let server = world.any_server().await;
    let group = GroupId::generate(&SystemRandom);
    let groups = world.store.groups();
    groups.create(group, &"staff".parse().unwrap()).await.unwrap();
    for member in [Principal::Group(group), Principal::User(server.owner_id)] {
        let bind = async || {
            let new = NewRoleBinding {
                id: RoleBindingId::generate(&SystemRandom),
                role: RoleName::BuiltIn(Role::Auditor),
                member,
                scope: Scope::Everywhere,
            };
            world.store.role_bindings().create(&new).await
        };
        for _ in 0..limits::BINDINGS_OF_A_MEMBER {
            bind().await.unwrap();
        }
        let refused = bind().await.unwrap_err();
        assert!(matches!(refused, BindRoleError::LimitReached(_)), "{refused:?}");
    }
    let fill = format!(
        "WITH people AS (INSERT INTO pgmoor.users (id, username, username_key, display_name) \
           SELECT gen_random_uuid(), 'u' || n, 'u' || n, 'u' FROM generate_series(1, {}) AS n RETURNING id) \
         INSERT INTO pgmoor.group_members (group_id, user_id, source) SELECT '{group}', p.id, '{MANUAL}' FROM people AS p",
        limits::MEMBERS_OF_A_GROUP - 1
    );
    world.database.execute(&fill).await;
    groups.add_member(group, server.owner_id, MANUAL).await.unwrap();
    // Again changes nothing, and is no more than there may be.
    groups.add_member(group, server.owner_id, MANUAL).await.unwrap();
    let other = world.user("another").await;
    let refused = groups.add_member(group, other.id, MANUAL).await.unwrap_err();
    assert!(
        matches!(refused, UpdateGroupError::LimitReached(_)),
        "{refused:?}"
    );
}

#[tokio::test]
async fn operations_of_a_user_that_have_not_ended_end_at_their_limit() {
    let world = World::new().await;
    let server = world.any_server().await;
    for _ in 0..limits::UNFINISHED_OPERATIONS_OF_A_USER - 1 {
        world
            .enqueue(&new_operation(&server, OperationKind::Backup))
            .await;
    }
    let last = [(); 4].map(|()| new_operation(&server, OperationKind::Backup));
    let outcomes = join_all(
        last.iter()
            .map(async |new| world.store.operations().enqueue(new).await),
    )
    .await;
    let made = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    assert_eq!(made, 1, "{outcomes:?}");
    for refused in outcomes.into_iter().filter_map(Result::err) {
        assert!(matches!(refused, EnqueueError::LimitReached(_)), "{refused:?}");
    }
    // One that ends makes room.
    let claimed = world.claim(std::time::Duration::from_secs(60)).await;
    let cancelled = OperationOutcome::Cancelled;
    world
        .store
        .operations()
        .finish(&claimed.attempt, &cancelled)
        .await
        .unwrap();
    world
        .enqueue(&new_operation(&server, OperationKind::Backup))
        .await;
}
