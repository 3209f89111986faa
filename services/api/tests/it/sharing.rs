//! Groups, roles, grants and policies, and who may give what.

use rpc::access::v1::{
    AccessLevel, AddGroupMemberRequest, CreateGrantRequest, CreateGroupRequest, CreateRoleBindingRequest,
    CreateRoleRequest, DeleteGroupRequest, DeleteRoleBindingRequest, ExplainAccessRequest,
    ExplainAccessResponse, GetServerPolicyRequest, Grant, GrantLimits, Group, ListGroupMembersRequest,
    ListGroupsRequest, ListRoleBindingsRequest, ListRolesRequest, PolicyPreset, RemoveGroupMemberRequest,
    Role, RoleBinding, RuleEffect, ServerPolicy, Tenancy, UpdateGrantRequest, UpdateServerPolicyRequest,
};
use rpc::errors::v1::ErrorReason;
use rpc::server::v1::{CreateServerRequest, Endpoint, GetServerRequest, Server, UpdateServerRequest};
use rpc::user::v1::{ListUsersRequest, UpdateUserRequest, User};
use tonic::Code;

use crate::world::{ADMIN, Caller, DEADLINE, World, assert_fails};

/// Registers a server under that name.
pub async fn server(caller: &Caller, name: &str) -> String {
    let server = Server {
        display_name: name.to_owned(),
        endpoints: vec![Endpoint {
            host: "db.example.com".to_owned(),
            port: 5432,
        }],
        username: "app".to_owned(),
        ..Server::default()
    };
    let request = CreateServerRequest {
        server: Some(server),
        ..CreateServerRequest::default()
    };
    let created = caller.servers().create_server(request).await.unwrap();
    created.into_inner().server.unwrap().name
}

fn grant(server: &str, member: &str, access: AccessLevel) -> CreateGrantRequest {
    CreateGrantRequest {
        parent: server.to_owned(),
        grant: Some(Grant {
            member: member.to_owned(),
            access: access.into(),
            ..Grant::default()
        }),
    }
}

fn binding(role: &str, member: &str) -> CreateRoleBindingRequest {
    CreateRoleBindingRequest {
        role_binding: Some(RoleBinding {
            role: role.to_owned(),
            member: member.to_owned(),
            ..RoleBinding::default()
        }),
    }
}

async fn group(admin: &Caller, name: &str) -> String {
    let request = CreateGroupRequest {
        group: Some(Group {
            display_name: name.to_owned(),
            ..Group::default()
        }),
    };
    let created = admin.groups().create_group(request).await.unwrap();
    created.into_inner().group.unwrap().name
}

async fn explain(
    caller: &Caller,
    principal: &str,
    server: &str,
    permission: &str,
) -> Result<ExplainAccessResponse, tonic::Status> {
    let request = ExplainAccessRequest {
        principal: principal.to_owned(),
        resource: server.to_owned(),
        permission: permission.to_owned(),
        ..ExplainAccessRequest::default()
    };
    let explained = caller.roles().explain_access(request).await;
    explained.map(tonic::Response::into_inner)
}

/// Makes somebody have a role everywhere, and waits until both instances know.
async fn make(world: &World, admin: &Caller, role: &str, member: &str, caller: &Caller) {
    admin
        .roles()
        .create_role_binding(binding(role, member))
        .await
        .unwrap();
    for instance in [&world.a, &world.b] {
        let caller = instance.with_token(caller.token.as_deref().unwrap());
        harness::eventually(DEADLINE, "the role is known", async || {
            caller
                .roles()
                .list_roles(ListRolesRequest::default())
                .await
                .map(drop)
        })
        .await;
    }
}

#[tokio::test]
async fn nobody_gives_what_they_do_not_have() {
    let world = World::start().await;
    let admin = world.a.login(ADMIN).await;
    let alice = world.member("alice").await;
    let role = |permissions: &[&str]| CreateRoleRequest {
        role: Some(Role {
            display_name: permissions.join("-"),
            permissions: permissions.iter().map(|one| (*one).to_owned()).collect(),
            ..Role::default()
        }),
    };
    let keeper = role(&[
        "roles.update",
        "roles.read",
        "groups.update",
        "users.update",
        "users.read",
    ]);
    let keeper = admin
        .roles()
        .create_role(keeper)
        .await
        .unwrap()
        .into_inner()
        .role
        .unwrap();
    make(&world, &admin, &keeper.name, &alice.name, &alice.caller).await;
    let (code, why) = (Code::PermissionDenied, ErrorReason::EscalationDenied);
    let alice_ = &alice.caller;
    assert_fails(
        alice_.roles().create_role(role(&["pools.update"])).await,
        code,
        why,
    );
    alice_.roles().create_role(role(&["users.read"])).await.unwrap();
    let bound = alice_
        .roles()
        .create_role_binding(binding("roles/administrator", &alice.name))
        .await;
    assert_fails(bound, code, why);
    let bound = alice_
        .roles()
        .create_role_binding(binding(&keeper.name, &alice.name))
        .await;
    bound.unwrap();
    // A group that has more is no way round.
    let operators = group(&admin, "operators").await;
    let bound = admin
        .roles()
        .create_role_binding(binding("roles/operator", &operators))
        .await
        .unwrap();
    let join = AddGroupMemberRequest {
        group: operators.clone(),
        user: alice.name.clone(),
    };
    assert_fails(alice_.groups().add_group_member(join.clone()).await, code, why);
    let operator = bound.into_inner().role_binding.unwrap().name;
    let taken = alice_
        .roles()
        .delete_role_binding(DeleteRoleBindingRequest { name: operator })
        .await;
    assert_fails(taken, code, why);
    // Nor is making somebody an administrator, or disabling one.
    for user in [
        User {
            name: alice.name.clone(),
            administrator: true,
            ..User::default()
        },
        User {
            name: format!("users/{}", world.admin),
            disabled: true,
            ..User::default()
        },
    ] {
        let request = UpdateUserRequest {
            user: Some(user),
            update_mask: None,
        };
        assert_fails(alice_.users().update_user(request).await, code, why);
    }
    admin.groups().add_group_member(join).await.unwrap();
}

#[tokio::test]
async fn role_that_is_bound_and_taken_away_holds_and_ends_on_both_instances() {
    let world = World::start().await;
    let admin = world.a.login(ADMIN).await;
    let alice = world.member("alice").await;
    let there = world.b.with_token(alice.caller.token.as_deref().unwrap());
    let list = async || there.users().list_users(ListUsersRequest::default()).await;
    assert_fails(
        list().await,
        Code::PermissionDenied,
        ErrorReason::PermissionMissing,
    );
    let bound = admin
        .roles()
        .create_role_binding(binding("roles/auditor", &alice.name))
        .await;
    let bound = bound.unwrap().into_inner().role_binding.unwrap();
    harness::eventually(crate::world::REVOCATION_DEADLINE, "it holds", async || {
        list().await.map(drop)
    })
    .await;
    let filtered = ListRoleBindingsRequest {
        member: alice.name.clone(),
        ..ListRoleBindingsRequest::default()
    };
    let listed = there.roles().list_role_bindings(filtered).await.unwrap();
    assert_eq!(listed.into_inner().role_bindings, std::slice::from_ref(&bound));
    let taken = DeleteRoleBindingRequest { name: bound.name };
    admin.roles().delete_role_binding(taken).await.unwrap();
    harness::eventually(crate::world::REVOCATION_DEADLINE, "it ends", async || {
        let answer = list().await.map(drop);
        answer.err().map(drop).ok_or("it holds still")
    })
    .await;
}

#[tokio::test]
async fn members_see_their_own_groups_and_groups_may_own_servers() {
    let world = World::start().await;
    let admin = world.a.login(ADMIN).await;
    let (alice, bob) = (world.member("alice").await, world.member("bob").await);
    let team = group(&admin, "team").await;
    server(&admin, "first").await;
    let shop = server(&alice.caller, "shop").await;
    let hand_over = |owner: &str| UpdateServerRequest {
        server: Some(Server {
            name: shop.clone(),
            owner: owner.to_owned(),
            ..Server::default()
        }),
        update_mask: None,
    };
    // To a group one is not in, and to others, nobody hands anything over.
    for owner in [&team, &bob.name] {
        let handed = alice.caller.servers().update_server(hand_over(owner)).await;
        assert_fails(handed, Code::InvalidArgument, ErrorReason::InvalidField);
    }
    for user in [&alice.name, &bob.name] {
        let join = AddGroupMemberRequest {
            group: team.clone(),
            user: user.clone(),
        };
        admin.groups().add_group_member(join).await.unwrap();
    }
    let handed = alice
        .caller
        .servers()
        .update_server(hand_over(&team))
        .await
        .unwrap();
    assert_eq!(handed.into_inner().server.unwrap().owner, team);
    let get = || GetServerRequest { name: shop.clone() };
    bob.caller.servers().get_server(get()).await.unwrap();
    let groups = bob
        .caller
        .groups()
        .list_groups(ListGroupsRequest::default())
        .await
        .unwrap();
    assert_eq!(groups.into_inner().groups.len(), 1);
    let members = ListGroupMembersRequest {
        parent: team.clone(),
        ..ListGroupMembersRequest::default()
    };
    let members = bob
        .caller
        .groups()
        .list_group_members(members)
        .await
        .unwrap()
        .into_inner();
    let named: Vec<_> = members
        .members
        .iter()
        .map(|member| member.username.as_str())
        .collect();
    assert_eq!(named, ["alice", "bob"]);
    let delete = DeleteGroupRequest {
        name: team.clone(),
        etag: String::new(),
    };
    let deleted = admin.groups().delete_group(delete).await;
    assert_fails(deleted, Code::FailedPrecondition, ErrorReason::ResourceInUse);
    // Who leaves the group has nothing of it.
    let leave = RemoveGroupMemberRequest {
        group: team.clone(),
        user: alice.name.clone(),
    };
    admin.groups().remove_group_member(leave).await.unwrap();
    let gone = alice.caller.servers().get_server(get()).await;
    assert_fails(gone, Code::NotFound, ErrorReason::ResourceNotFound);
}

#[tokio::test]
async fn preset_is_a_policy_and_a_policy_holds_the_owner() {
    let world = World::start().await;
    let admin = world.a.login(ADMIN).await;
    let shop = server(&admin, "shop").await;
    let update = |preset: PolicyPreset, policy: ServerPolicy| UpdateServerPolicyRequest {
        server: shop.clone(),
        preset: preset.into(),
        policy: Some(policy),
        etag: String::new(),
    };
    let several = ServerPolicy {
        tenancy: Tenancy::MultiTenant.into(),
        databases: vec!["orders".to_owned()],
        ..ServerPolicy::default()
    };
    let set = admin
        .grants()
        .update_server_policy(update(PolicyPreset::Production, several.clone()))
        .await;
    let set = set.unwrap().into_inner().policy.unwrap();
    assert_eq!(set.environment, "production");
    assert_eq!(set.access_ceiling(), AccessLevel::ReadOnly);
    assert!(set.backups_forbidden && set.restores_forbidden);
    let read = GetServerPolicyRequest { server: shop.clone() };
    let read = admin.grants().get_server_policy(read).await.unwrap().into_inner();
    assert_eq!(read.policy, Some(set));
    let backup = |database: &str| rpc::backup::v1::StartBackupRequest {
        server: shop.clone(),
        database: database.to_owned(),
        schemas: vec!["public".to_owned()],
        ..Default::default()
    };
    let refused = admin.backups().start_backup(backup("orders")).await;
    assert_fails(refused, Code::PermissionDenied, ErrorReason::PolicyForbids);
    let refused = admin.backups().start_backup(backup("other")).await;
    assert_fails(refused, Code::PermissionDenied, ErrorReason::DatabaseNotAllowed);
    let staging = update(PolicyPreset::Staging, ServerPolicy::default());
    admin.grants().update_server_policy(staging).await.unwrap();
    admin.backups().start_backup(backup("other")).await.unwrap();
    let nothing = ServerPolicy {
        tenancy: Tenancy::MultiTenant.into(),
        ..ServerPolicy::default()
    };
    let wrong = admin
        .grants()
        .update_server_policy(update(PolicyPreset::Unspecified, nothing))
        .await;
    assert_fails(wrong, Code::InvalidArgument, ErrorReason::InvalidField);
}

#[tokio::test]
async fn grants_are_made_changed_and_explained() {
    let world = World::start().await;
    let admin = world.a.login(ADMIN).await;
    let (alice, bob) = (world.member("alice").await, world.member("bob").await);
    server(&admin, "first").await;
    let shop = server(&alice.caller, "shop").await;
    let unseen = explain(&bob.caller, "users/me", &shop, "sessions.use").await;
    assert_fails(unseen, Code::NotFound, ErrorReason::ResourceNotFound);
    let made = alice
        .caller
        .grants()
        .create_grant(grant(&shop, &bob.name, AccessLevel::ReadOnly))
        .await;
    let made = made.unwrap().into_inner().grant.unwrap();
    // Who has a grant does not pass it on, nor sees the others.
    let passed = bob
        .caller
        .grants()
        .create_grant(grant(&shop, "users/me", AccessLevel::ReadWrite))
        .await;
    assert_fails(passed, Code::PermissionDenied, ErrorReason::PermissionMissing);
    let change = UpdateGrantRequest {
        grant: Some(Grant {
            name: made.name.clone(),
            limits: Some(GrantLimits {
                result_rows: Some(10),
                ..GrantLimits::default()
            }),
            ..Grant::default()
        }),
        update_mask: None,
    };
    let changed = alice
        .caller
        .grants()
        .update_grant(change)
        .await
        .unwrap()
        .into_inner();
    let changed = changed.grant.unwrap();
    assert_eq!(changed.access(), AccessLevel::ReadOnly);
    assert_eq!(changed.limits.unwrap().result_rows, Some(10));

    let method = "pgmoor.query.v1.QueryService/OpenSession";
    let explained = explain(&bob.caller, "users/me", &shop, method).await.unwrap();
    assert!(explained.allowed && explained.permission == "sessions.use");
    assert_eq!(explained.access, "read_only");
    let rule = &explained.rules[0];
    assert_eq!((rule.rule.as_str(), rule.effect()), ("grant", RuleEffect::Allows));
    assert_eq!(rule.name, made.name);
    let explained = explain(&bob.caller, "users/me", &shop, "servers.update")
        .await
        .unwrap();
    assert!(!explained.allowed);
    assert_eq!(explained.rules.last().unwrap().rule, "default");
    let other = explain(&bob.caller, &alice.name, &shop, "servers.update").await;
    assert_fails(other, Code::PermissionDenied, ErrorReason::PermissionMissing);
    let explained = explain(&admin, &alice.name, &shop, "servers.update")
        .await
        .unwrap();
    assert_eq!(explained.rules[0].rule, "owner");
    let wrong = explain(&admin, &alice.name, &shop, "servers.fly").await;
    assert_fails(wrong, Code::InvalidArgument, ErrorReason::InvalidField);
    // A role that has grants.update alone is no way to grant oneself use.
    let keeper = CreateRoleRequest {
        role: Some(Role {
            display_name: "keeper".to_owned(),
            permissions: vec!["servers.read".to_owned(), "grants.update".to_owned()],
            ..Role::default()
        }),
    };
    let keeper = admin
        .roles()
        .create_role(keeper)
        .await
        .unwrap()
        .into_inner()
        .role
        .unwrap();
    admin
        .roles()
        .create_role_binding(binding(&keeper.name, &bob.name))
        .await
        .unwrap();
    let widened = bob
        .caller
        .grants()
        .create_grant(grant(&shop, "users/me", AccessLevel::ReadWrite))
        .await;
    assert_fails(widened, Code::PermissionDenied, ErrorReason::EscalationDenied);
}
