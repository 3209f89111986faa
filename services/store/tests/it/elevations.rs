//! Elevations: who sees them, how they change, and what they are for decisions.

use std::collections::BTreeSet;
use std::time::Duration;

use domain::access::{
    Access, Permission, PermissionSet, Principal, Role, RoleName, Scope, ServerPolicy, Tenancy, decide,
};
use domain::id::{ElevationId, RoleBindingId, RoleId, UserId};
use domain::random::SystemRandom;
use harness::eventually;
use store::elevations::{
    ElevationChange, ElevationError, ElevationFilter, ElevationState, ElevationWish, MAX_OPEN,
    ServerElevation,
};
use store::page::{PageRequest, PageSize};
use store::role_bindings::NewRoleBinding;
use store::servers::Server;
use store::users::User;

use crate::support::{DEADLINE, HOUR, World};

const APPROVE: ElevationChange = ElevationChange::Approve { longest: HOUR };

fn wish(seconds: u64) -> ElevationWish {
    ElevationWish {
        databases: BTreeSet::new(),
        reason: "a wrong price".to_owned(),
        duration: Duration::from_secs(seconds),
        session: String::new(),
    }
}

impl World {
    async fn request(&self, server: &Server, user: &User, seconds: u64) -> ServerElevation {
        self.try_request(server, user, &wish(seconds)).await.unwrap()
    }

    async fn try_request(
        &self,
        server: &Server,
        user: &User,
        wish: &ElevationWish,
    ) -> Result<ServerElevation, ElevationError> {
        let id = ElevationId::generate(&SystemRandom);
        self.store
            .elevations()
            .request(id, server.id, user.id, wish)
            .await
    }

    async fn change(
        &self,
        elevation: &ServerElevation,
        by: &User,
        change: ElevationChange,
    ) -> Result<ServerElevation, ElevationError> {
        let elevations = self.store.elevations();
        elevations
            .change(elevation.server, elevation.id, by.id, change, None)
            .await
    }

    /// What is listed to a user, in pages of one.
    async fn elevations_of(&self, user: UserId, filter: &ElevationFilter) -> Vec<ElevationId> {
        let mut request = PageRequest {
            size: PageSize::new(1),
            after: None,
        };
        let mut listed = Vec::new();
        loop {
            let page = self
                .store
                .elevations()
                .list(user, filter, &request)
                .await
                .unwrap();
            assert!(
                page.items.len() == 1 || page.next.is_none(),
                "a page that is not full"
            );
            listed.extend(page.items.iter().map(|elevation| elevation.id));
            request.after = page.next;
            if request.after.is_none() {
                return listed;
            }
        }
    }
}

#[tokio::test]
async fn elevation_is_approved_by_another_and_counts_until_it_is_ended() {
    let world = World::new().await;
    let (ann, bob) = (world.user("ann").await, world.user("bob").await);
    let server = world.server(&bob, "one", "a").await;
    let policy = ServerPolicy {
        max_elevation: Some(HOUR),
        ..ServerPolicy::production(Tenancy::Single)
    };
    world
        .store
        .servers()
        .set_policy(server.id, &policy, None)
        .await
        .unwrap();
    let new = NewRoleBinding {
        id: RoleBindingId::generate(&SystemRandom),
        role: RoleName::BuiltIn(Role::Member),
        member: Principal::User(ann.id),
        scope: Scope::Server(server.id),
    };
    world.store.role_bindings().create(&new).await.unwrap();
    let revision = async || world.store.access().revision().await.unwrap();
    let decided = async || {
        let facts = world
            .store
            .access()
            .server_facts(ann.id, server.id)
            .await
            .unwrap()
            .unwrap();
        decide(&facts, Some(&"orders".parse().unwrap()), facts.read_time)
    };

    let before = revision().await;
    let asked = world.request(&server, &ann, 600).await;
    // That somebody asks changes nothing.
    assert_eq!(revision().await, before);
    assert_eq!(
        (asked.state, asked.user, asked.decided),
        (ElevationState::Requested, ann.id, None)
    );
    assert_eq!(decided().await.elevated, None);
    let own = world.change(&asked, &ann, APPROVE).await.unwrap_err();
    assert!(matches!(own, ElevationError::OwnApproval), "{own:?}");
    let short = ElevationChange::Approve {
        longest: Duration::from_secs(599),
    };
    let long = world.change(&asked, &bob, short).await.unwrap_err();
    assert!(matches!(long, ElevationError::TooLong), "{long:?}");

    let before = revision().await;
    let active = world.change(&asked, &bob, APPROVE).await.unwrap();
    assert_eq!(active.state, ElevationState::Active);
    let (by, time) = active.decided.unwrap();
    assert_eq!(
        (by, active.expire_time - time),
        (Some(bob.id), time::Duration::seconds(600))
    );
    assert!(revision().await > before);
    let decision = decided().await;
    assert_eq!(
        (decision.access, decision.unelevated),
        (Access::ReadWrite, Access::ReadOnly)
    );
    assert_eq!(decision.elevated.unwrap().by, active.id);
    for change in [APPROVE, ElevationChange::Deny] {
        let again = world.change(&asked, &bob, change).await.unwrap_err();
        assert!(
            matches!(again, ElevationError::State(ElevationState::Active)),
            "{again:?}"
        );
    }
    let stale = world.store.elevations();
    let stale = stale
        .change(
            server.id,
            asked.id,
            bob.id,
            ElevationChange::End,
            Some(&asked.etag),
        )
        .await;
    assert!(matches!(stale, Err(ElevationError::EtagMismatch)), "{stale:?}");

    let before = revision().await;
    let ended = world.change(&active, &ann, ElevationChange::End).await.unwrap();
    assert_eq!(
        (ended.state, ended.ended.unwrap().0),
        (ElevationState::Ended, Some(ann.id))
    );
    assert!(revision().await > before);
    assert_eq!(decided().await.access, Access::ReadOnly);
    let again = world
        .change(&active, &ann, ElevationChange::End)
        .await
        .unwrap_err();
    assert!(
        matches!(again, ElevationError::State(ElevationState::Ended)),
        "{again:?}"
    );
}

#[tokio::test]
async fn expired_elevation_is_called_so_at_once_and_told_to_one_only() {
    let world = World::new().await;
    let (ann, bob) = (world.user("ann").await, world.user("bob").await);
    let server = world.server(&bob, "one", "a").await;
    let active = world.request(&server, &ann, 1).await;
    world.change(&active, &bob, APPROVE).await.unwrap();
    let elevations = world.store.elevations();
    assert_eq!(elevations.expire().await.unwrap(), []);
    eventually(DEADLINE, "it expires", async || {
        let state = elevations.get(server.id, active.id).await.unwrap().unwrap().state;
        (state == ElevationState::Expired)
            .then_some(())
            .ok_or(state.as_str())
    })
    .await;
    let over = world
        .change(&active, &bob, ElevationChange::End)
        .await
        .unwrap_err();
    assert!(
        matches!(over, ElevationError::State(ElevationState::Expired)),
        "{over:?}"
    );
    let (one, other) = tokio::join!(elevations.expire(), elevations.expire());
    let told: Vec<_> = one.unwrap().into_iter().chain(other.unwrap()).collect();
    assert_eq!(told.iter().map(|told| told.id).collect::<Vec<_>>(), [active.id]);
    assert!(told[0].decided.is_some());
    assert_eq!(
        elevations.prune(Duration::ZERO).await.unwrap(),
        0,
        "it is not recorded"
    );
    elevations.recorded(&[active.id]).await.unwrap();
    assert_eq!(elevations.expire().await.unwrap(), []);
    assert_eq!(elevations.prune(HOUR).await.unwrap(), 0);
    assert_eq!(elevations.prune(Duration::ZERO).await.unwrap(), 1);
}

#[tokio::test]
async fn expired_elevation_is_told_again_where_its_record_is_not_known_to_be_written() {
    let world = World::new().await;
    let (ann, bob) = (world.user("ann").await, world.user("bob").await);
    let server = world.server(&bob, "one", "a").await;
    let asked = world.request(&server, &ann, 60).await;
    let change = async |sql| world.database.execute(sql).await;
    change("UPDATE pgmoor.elevations SET expire_time = clock_timestamp()").await;
    let elevations = world.store.elevations();
    let told = async || {
        let told = elevations.expire().await.unwrap();
        told.iter().map(|told| told.id).collect::<Vec<_>>()
    };
    assert_eq!(told().await, [asked.id]);
    assert_eq!(told().await, [], "who was told has a while");
    change("UPDATE pgmoor.elevations SET record_due = clock_timestamp()").await;
    assert_eq!(told().await, [asked.id]);
    assert_eq!(told().await, []);
    elevations.recorded(&[asked.id]).await.unwrap();
    change("UPDATE pgmoor.elevations SET expire_time = clock_timestamp()").await;
    assert_eq!(told().await, []);
}

#[tokio::test]
async fn policy_that_takes_elevations_back_ends_them_and_one_that_allows_less_shortens_them() {
    let world = World::new().await;
    let (ann, bob) = (world.user("ann").await, world.user("bob").await);
    let server = world.server(&bob, "one", "a").await;
    let set = async |longest: Option<u64>| {
        let policy = ServerPolicy {
            max_elevation: longest.map(Duration::from_secs),
            ..ServerPolicy::production(Tenancy::Single)
        };
        let servers = world.store.servers();
        servers.set_policy(server.id, &policy, None).await.unwrap();
    };
    let now = async |id| {
        let elevations = world.store.elevations();
        elevations.get(server.id, id).await.unwrap().unwrap()
    };
    set(Some(3600)).await;
    let active = world.request(&server, &ann, 3600).await;
    world.change(&active, &bob, APPROVE).await.unwrap();
    let asked = world.request(&server, &ann, 60).await;
    set(Some(600)).await;
    let shorter = now(active.id).await;
    let length = shorter.expire_time - shorter.decided.unwrap().1;
    assert_eq!(
        (shorter.state, length),
        (ElevationState::Active, time::Duration::seconds(600))
    );
    assert_eq!(now(asked.id).await, asked);
    set(None).await;
    // And one that allows them again brings none back.
    set(Some(3600)).await;
    for id in [active.id, asked.id] {
        assert_eq!(now(id).await.state, ElevationState::Ended);
    }
}

#[tokio::test]
async fn user_has_few_open_wishes_at_a_time_whoever_asks_at_once() {
    let world = World::new().await;
    let (ann, bob) = (world.user("ann").await, world.user("bob").await);
    let (server, other) = (
        world.server(&bob, "one", "a").await,
        world.server(&bob, "two", "a").await,
    );
    let wish = wish(60);
    let all = futures::future::join_all((0..6).map(|_| world.try_request(&server, &ann, &wish))).await;
    let made = all.iter().filter(|made| made.is_ok()).count();
    assert_eq!(made, MAX_OPEN as usize);
    assert!(all.iter().all(|made| {
        !made
            .as_ref()
            .is_err_and(|error| !matches!(error, ElevationError::LimitReached(_)))
    }));
    world.request(&other, &ann, 60).await;
    let first = all.iter().find_map(|made| made.as_ref().ok()).unwrap();
    world.change(first, &bob, ElevationChange::Deny).await.unwrap();
    world.request(&server, &ann, 60).await;
}

#[tokio::test]
async fn elevations_are_listed_to_who_asked_and_to_who_may_approve_them() {
    let world = World::new().await;
    let (ann, bob, carol, dora) = (
        world.user("ann").await,
        world.user("bob").await,
        world.user("carol").await,
        world.user("dora").await,
    );
    let (one, two) = (
        world.server(&bob, "one", "a").await,
        world.server(&bob, "two", "a").await,
    );
    let first = world.request(&one, &ann, 60).await;
    let second = world.request(&two, &ann, 60).await;
    let third = world.request(&one, &carol, 60).await;
    let bind = async |role, user: &User, scope| {
        let new = NewRoleBinding {
            id: RoleBindingId::generate(&SystemRandom),
            role,
            member: Principal::User(user.id),
            scope,
        };
        world.store.role_bindings().create(&new).await.unwrap();
    };
    // Who sees a server does not see who wants what there.
    bind(RoleName::BuiltIn(Role::Auditor), &dora, Scope::Everywhere).await;
    bind(RoleName::BuiltIn(Role::Member), &dora, Scope::Everywhere).await;
    let all = ElevationFilter::default();
    assert_eq!(world.elevations_of(ann.id, &all).await, [first.id, second.id]);
    assert_eq!(
        world.elevations_of(bob.id, &all).await,
        [first.id, second.id, third.id]
    );
    assert_eq!(world.elevations_of(carol.id, &all).await, [third.id]);
    assert_eq!(world.elevations_of(dora.id, &all).await, []);
    let approver = RoleId::generate(&SystemRandom);
    let approves = PermissionSet::of(&[Permission::ElevationsApprove]);
    world
        .store
        .roles()
        .create(approver, &"approver".parse().unwrap(), approves)
        .await
        .unwrap();
    bind(RoleName::Custom(approver), &dora, Scope::Server(one.id)).await;
    assert_eq!(world.elevations_of(dora.id, &all).await, [first.id, third.id]);
    bind(RoleName::BuiltIn(Role::Operator), &carol, Scope::Server(two.id)).await;
    assert_eq!(world.elevations_of(carol.id, &all).await, [second.id, third.id]);
    world.change(&first, &bob, ElevationChange::Deny).await.unwrap();
    let open = ElevationFilter {
        server: Some(one.id),
        states: vec![ElevationState::Requested, ElevationState::Active],
    };
    assert_eq!(world.elevations_of(bob.id, &open).await, [third.id]);
    // Whom the rules let decide is who has them listed.
    for user in [&ann, &bob, &carol, &dora] {
        for elevation in [&first, &second, &third] {
            let facts = world.store.access().server_facts(user.id, elevation.server).await;
            let facts = facts.unwrap().unwrap();
            let decision = decide(&facts, None, facts.read_time);
            let may =
                decision.permissions.contains(Permission::ElevationsApprove) || elevation.user == user.id;
            let listed = world.elevations_of(user.id, &all).await.contains(&elevation.id);
            assert_eq!(may, listed, "{}: {elevation:?}", user.username);
        }
    }
}
