//! What bears on what users may do, and that lists show what the rules say.

use std::collections::BTreeSet;

use domain::access::{
    Access, GrantLimits, Ownership, Permission, PermissionSet, Principal, Role, RoleName, Scope,
    ServerPolicy, Tenancy, decide,
};
use domain::id::{GrantId, GroupId, RoleBindingId, RoleId, ServerId, UserId};
use domain::random::SystemRandom;
use store::grants::{GrantError, GrantTerms};
use store::groups::{MANUAL, UpdateGroupError};
use store::instances::InstanceScope;
use store::page::{PageRequest, PageSize};
use store::role_bindings::{BindRoleError, NewRoleBinding, RoleBindingFilter};
use store::roles::RoleError;
use store::servers::{Server, ServerChange};
use store::users::User;
use time::OffsetDateTime;

use crate::support::World;

fn terms() -> GrantTerms {
    GrantTerms {
        access: Access::ReadWrite,
        databases: BTreeSet::new(),
        limits: GrantLimits::NONE,
        expire_time: None,
    }
}

impl World {
    async fn group(&self, name: &str, members: &[&User]) -> GroupId {
        let id = GroupId::generate(&SystemRandom);
        let groups = self.store.groups();
        groups.create(id, &name.parse().unwrap()).await.unwrap();
        for member in members {
            groups.add_member(id, member.id, MANUAL).await.unwrap();
        }
        id
    }

    async fn bind(&self, role: RoleName, member: Principal, scope: Scope) -> RoleBindingId {
        let new = NewRoleBinding {
            id: RoleBindingId::generate(&SystemRandom),
            role,
            member,
            scope,
        };
        self.store.role_bindings().create(&new).await.unwrap().id
    }

    async fn grant(&self, server: &Server, member: Principal, terms: &GrantTerms) -> GrantId {
        let id = GrantId::generate(&SystemRandom);
        let grants = self.store.grants();
        grants.create(id, server.id, member, terms).await.unwrap().id
    }

    /// What the rules say of every server.
    async fn decided(&self, user: UserId, servers: &[&Server]) -> BTreeSet<ServerId> {
        let pairs: Vec<_> = servers.iter().map(|server| (user, server.id)).collect();
        let facts = self.store.access().all_server_facts(&pairs).await.unwrap();
        assert_eq!(facts.len(), servers.len());
        let seen = facts.into_iter().filter(|(_, facts)| {
            let decision = decide(facts, None, facts.read_time);
            decision.permissions.contains(Permission::ServersRead)
        });
        seen.map(|((_, server), _)| server).collect()
    }

    /// What is listed, in pages of one.
    async fn listed(&self, user: UserId) -> BTreeSet<ServerId> {
        let mut request = PageRequest {
            size: PageSize::new(1),
            after: None,
        };
        let mut listed = BTreeSet::new();
        loop {
            let page = self.store.servers().list(user, &request).await.unwrap();
            assert!(
                page.items.len() == 1 || page.next.is_none(),
                "a page that is not full"
            );
            for server in page.items {
                assert!(listed.insert(server.id), "a server twice");
            }
            request.after = page.next;
            if request.after.is_none() {
                return listed;
            }
        }
    }
}

#[tokio::test]
async fn lists_show_the_servers_that_the_rules_let_see_and_full_pages_of_them() {
    let world = World::new().await;
    let (ann, bob, carol, dora) = (
        world.user("ann").await,
        world.user("bob").await,
        world.user("carol").await,
        world.user("dora").await,
    );
    let mut servers = Vec::new();
    // Of two owners, with the same names, some in another group.
    for owner in [&ann, &bob] {
        for name in ["one", "two", "three"] {
            let server = world.server(owner, name, &format!("{name}.example.com")).await;
            let group = (name == "three").then(|| "prod".parse().unwrap());
            let change = ServerChange {
                group,
                ..ServerChange::default()
            };
            servers.push(world.store.servers().update(server.id, &change).await.unwrap());
        }
    }
    let team = world.group("team", &[&carol, &dora]).await;
    let owners = world.group("owners", &[&dora]).await;
    let handed = ServerChange {
        owner: Some(Principal::Group(owners)),
        ..ServerChange::default()
    };
    world
        .store
        .servers()
        .update(servers[0].id, &handed)
        .await
        .unwrap();
    world.grant(&servers[1], Principal::Group(team), &terms()).await;
    world
        .grant(&servers[1], Principal::User(carol.id), &terms())
        .await;
    let expired = GrantTerms {
        expire_time: Some(OffsetDateTime::UNIX_EPOCH + time::Duration::days(1)),
        ..terms()
    };
    world
        .grant(&servers[4], Principal::User(carol.id), &expired)
        .await;
    let blind = RoleId::generate(&SystemRandom);
    let name = "blind".parse().unwrap();
    let uses = PermissionSet::of(&[Permission::ServersUse]);
    world.store.roles().create(blind, &name, uses).await.unwrap();
    let (carol_, auditor) = (Principal::User(carol.id), RoleName::BuiltIn(Role::Auditor));
    world
        .bind(RoleName::Custom(blind), carol_, Scope::Server(servers[3].id))
        .await;
    let prod_of_bob = Scope::ServerGroup {
        owner: Principal::User(bob.id),
        group: "prod".parse().unwrap(),
    };
    world.bind(auditor, Principal::Group(team), prod_of_bob).await;
    let all: Vec<&Server> = servers.iter().collect();
    for user in [&ann, &bob, &carol, &dora] {
        let (decided, listed) = (world.decided(user.id, &all).await, world.listed(user.id).await);
        assert_eq!(decided, listed, "{}", user.username);
    }
    let seen = |indices: &[usize]| -> BTreeSet<ServerId> {
        indices.iter().map(|index| servers[*index].id).collect()
    };
    // Who handed a server over has it no more.
    assert_eq!(world.listed(ann.id).await, seen(&[1, 2]));
    assert_eq!(world.listed(carol.id).await, seen(&[1, 5]));
    assert_eq!(world.listed(dora.id).await, seen(&[0, 1, 5]));
    // The instances behind them, and no others.
    let instances = world.store.instances();
    let page = PageRequest::default();
    let behind = instances
        .list(InstanceScope::ServersOf(carol.id), &page)
        .await
        .unwrap();
    assert_eq!(behind.items.len(), 2);
    assert!(
        instances
            .is_seen_by(servers[5].instance_id, carol.id)
            .await
            .unwrap()
    );
    assert!(
        !instances
            .is_seen_by(servers[0].instance_id, carol.id)
            .await
            .unwrap()
    );
    // Everywhere is everywhere.
    world.bind(auditor, carol_, Scope::Everywhere).await;
    assert_eq!(world.listed(carol.id).await.len(), servers.len());
    assert_eq!(world.decided(carol.id, &all).await.len(), servers.len());
}

#[tokio::test]
async fn facts_are_all_that_bears_on_a_user_and_a_server_and_have_their_revision() {
    let world = World::new().await;
    let (ann, bob) = (world.user("ann").await, world.user("bob").await);
    let server = world.server(&ann, "one", "a").await;
    let facts = async || {
        let facts = world.store.access().server_facts(bob.id, server.id).await;
        facts.unwrap().unwrap()
    };
    let nothing = facts().await;
    assert_eq!(nothing.ownership, Ownership::None);
    assert_eq!((nothing.grants.len(), nothing.bindings.len()), (0, 0));
    let mut narrow = terms();
    narrow.databases.insert("a\"b".parse().unwrap());
    narrow.limits.result_rows = Some(5);
    narrow.expire_time = Some(OffsetDateTime::UNIX_EPOCH + time::Duration::seconds(4_000_000_000));
    world.grant(&server, Principal::User(bob.id), &narrow).await;
    let granted = facts().await;
    assert!(granted.revision > nothing.revision);
    assert_eq!(world.store.access().revision().await.unwrap(), granted.revision);
    let grant = &granted.grants[0];
    assert_eq!(grant.databases, narrow.databases);
    assert_eq!(grant.limits, narrow.limits);
    assert_eq!(grant.expire_time, narrow.expire_time);
    let policy = ServerPolicy::production(Tenancy::Multi {
        databases: narrow.databases.clone(),
    });
    let servers = world.store.servers();
    let set = servers
        .set_policy(server.id, &policy, Some(&server.etag))
        .await
        .unwrap();
    assert_eq!(set.policy, policy);
    assert_eq!(facts().await.policy, policy);
    let access = world.store.access();
    let missing = access
        .server_facts(bob.id, ServerId::generate(&SystemRandom))
        .await;
    assert!(missing.unwrap().is_none());
}

#[tokio::test]
async fn roles_bound_everywhere_are_a_users_by_themselves_and_by_their_groups() {
    let world = World::new().await;
    let (ann, bob) = (world.user("ann").await, world.user("bob").await);
    let team = world.group("team", &[&bob]).await;
    let id = RoleId::generate(&SystemRandom);
    let own = PermissionSet::of(&[Permission::UsersRead]);
    let role = world
        .store
        .roles()
        .create(id, &"readers".parse().unwrap(), own)
        .await
        .unwrap();
    let binding = world
        .bind(RoleName::Custom(id), Principal::Group(team), Scope::Everywhere)
        .await;
    let server = world.server(&ann, "one", "a").await;
    let operator = RoleName::BuiltIn(Role::Operator);
    world
        .bind(operator, Principal::User(bob.id), Scope::Server(server.id))
        .await;
    let everywhere = async || {
        let of = world.store.access().everywhere(&[ann.id, bob.id]).await.unwrap();
        assert!(!of.contains_key(&ann.id));
        of.get(&bob.id).copied().unwrap_or_default()
    };
    assert_eq!(everywhere().await, own);
    let more = PermissionSet::of(&[Permission::PoolsRead]);
    let roles = world.store.roles();
    roles
        .update(id, None, Some(more), Some(&role.etag))
        .await
        .unwrap();
    assert_eq!(everywhere().await, more);
    assert!(matches!(roles.delete(id, None).await, Err(RoleError::Bound)));
    assert!(world.store.role_bindings().delete(binding).await.unwrap());
    roles.delete(id, None).await.unwrap();
    assert_eq!(everywhere().await, PermissionSet::NONE);
}

#[tokio::test]
async fn what_is_not_there_cannot_be_named() {
    let world = World::new().await;
    let ann = world.user("ann").await;
    let server = world.server(&ann, "one", "a").await;
    let nobody = Principal::User(UserId::generate(&SystemRandom));
    let grants = world.store.grants();
    let id = GrantId::generate(&SystemRandom);
    let made = grants.create(id, server.id, nobody, &terms()).await;
    assert!(matches!(made, Err(GrantError::MemberNotFound)));
    let new = |role, member, scope| NewRoleBinding {
        id: RoleBindingId::generate(&SystemRandom),
        role,
        member,
        scope,
    };
    let ann_ = Principal::User(ann.id);
    let no_role = RoleName::Custom(RoleId::generate(&SystemRandom));
    let bindings = world.store.role_bindings();
    let bound = bindings.create(&new(no_role, ann_, Scope::Everywhere)).await;
    assert!(matches!(bound, Err(BindRoleError::RoleNotFound)));
    let nowhere = Scope::Server(ServerId::generate(&SystemRandom));
    let auditor = RoleName::BuiltIn(Role::Auditor);
    let bound = bindings.create(&new(auditor, ann_, nowhere)).await;
    assert!(matches!(bound, Err(BindRoleError::ScopeNotFound)));
    let filter = RoleBindingFilter::default();
    let none = bindings.list(&filter, &PageRequest::default()).await.unwrap();
    assert!(none.items.is_empty());
    // A group that owns something stays.
    let team = world.group("team", &[&ann]).await;
    let handed = ServerChange {
        owner: Some(Principal::Group(team)),
        ..ServerChange::default()
    };
    world.store.servers().update(server.id, &handed).await.unwrap();
    let deleted = world.store.groups().delete(team, None).await;
    assert!(matches!(deleted, Err(UpdateGroupError::OwnsServers)));
    let gives = world.store.groups().gives(team).await.unwrap();
    assert!(gives.contains(Permission::SessionsUse));
}

#[tokio::test]
async fn only_the_api_changes_who_may_what() {
    let world = World::new().await;
    let ann = world.user("ann").await;
    let server = world.server(&ann, "one", "a").await;
    for group in ["pgmoor_pooler", "pgmoor_worker"] {
        let (store, login) = world.store_as(group).await;
        assert!(
            store
                .access()
                .server_facts(ann.id, server.id)
                .await
                .unwrap()
                .is_some()
        );
        store.access().revision().await.unwrap();
        store.access().everywhere(&[ann.id]).await.unwrap();
        let connection = world.database.connect_as(&login).await;
        for statement in [
            "INSERT INTO pgmoor.group_members (group_id, user_id) SELECT id, id FROM pgmoor.users",
            "DELETE FROM pgmoor.role_bindings",
            "UPDATE pgmoor.server_grants SET access = 'read_write'",
            "UPDATE pgmoor.roles SET permissions = '{}'",
            "UPDATE pgmoor.servers SET policy = '{}'",
            "UPDATE pgmoor.servers SET owner_group_id = NULL",
        ] {
            let error = connection.batch_execute(statement).await.expect_err(statement);
            assert_eq!(error.as_db_error().unwrap().code().code(), "42501", "{statement}");
        }
    }
}
