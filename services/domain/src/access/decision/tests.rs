//! Properties of decisions, over facts of any kind.

use proptest::prelude::*;
use uuid::Uuid;

use super::super::Tenancy;
use super::*;

const NOW: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

fn name(text: &str) -> Identifier {
    text.parse().unwrap()
}

fn databases() -> impl Strategy<Value = BTreeSet<Identifier>> {
    proptest::collection::btree_set(
        proptest::sample::select(vec![name("a"), name("b"), name("c")]),
        0..3,
    )
}

fn access() -> impl Strategy<Value = Access> {
    proptest::sample::select(vec![Access::ReadOnly, Access::ReadWrite])
}

fn permissions() -> impl Strategy<Value = PermissionSet> {
    proptest::sample::subsequence(Permission::ALL, 0..8).prop_map(|some| some.into_iter().collect())
}

fn grant() -> impl Strategy<Value = Grant> {
    let expire = proptest::option::of(-5i64..5);
    let rows = proptest::option::of(1u64..10);
    (any::<u128>(), access(), databases(), rows, expire).prop_map(
        |(id, access, databases, result_rows, expire)| Grant {
            id: GrantId::from_uuid(Uuid::from_u128(id)),
            access,
            databases,
            limits: {
                let mut limits = GrantLimits::NONE;
                limits.result_rows = result_rows;
                limits
            },
            expire_time: expire.map(|seconds| NOW + time::Duration::seconds(seconds)),
        },
    )
}

fn binding() -> impl Strategy<Value = Bound> {
    (any::<u128>(), permissions()).prop_map(|(id, permissions)| Bound {
        id: RoleBindingId::from_uuid(Uuid::from_u128(id)),
        role: RoleName::BuiltIn(Role::Member),
        permissions,
    })
}

fn elevation() -> impl Strategy<Value = Elevation> {
    (any::<u128>(), databases(), -5i64..5).prop_map(|(id, databases, expire)| Elevation {
        id: ElevationId::from_uuid(Uuid::from_u128(id)),
        databases,
        expire_time: NOW + time::Duration::seconds(expire),
    })
}

fn policy() -> impl Strategy<Value = ServerPolicy> {
    (
        access(),
        proptest::option::of(databases()),
        any::<bool>(),
        any::<bool>(),
        proptest::option::of(1u64..10),
    )
        .prop_map(|(ceiling, databases, backups, restores, longest)| ServerPolicy {
            environment: String::new(),
            ceiling,
            tenancy: databases.map_or(Tenancy::Single, |databases| Tenancy::Multi { databases }),
            backups,
            restores,
            max_elevation: longest.map(std::time::Duration::from_secs),
            ..ServerPolicy::default()
        })
}

fn ownership() -> impl Strategy<Value = Ownership> {
    proptest::sample::select(vec![
        Ownership::None,
        Ownership::User,
        Ownership::Group(GroupId::from_uuid(Uuid::nil())),
    ])
}

prop_compose! {
    fn facts()(
        disabled in proptest::bool::weighted(0.1),
        ownership in ownership(),
        bindings in proptest::collection::vec(binding(), 0..3),
        grants in proptest::collection::vec(grant(), 0..4),
        elevations in proptest::collection::vec(elevation(), 0..3),
        policy in policy(),
    ) -> ServerFacts {
        ServerFacts {
            user: UserId::from_uuid(Uuid::nil()),
            disabled, ownership, bindings, grants, elevations, policy, revision: 1, read_time: NOW,
        }
    }
}

fn database() -> impl Strategy<Value = Option<Identifier>> {
    proptest::option::of(proptest::sample::select(vec![name("a"), name("b"), name("z")]))
}

fn nobody() -> ServerFacts {
    ServerFacts {
        user: UserId::from_uuid(Uuid::nil()),
        disabled: false,
        ownership: Ownership::None,
        bindings: Vec::new(),
        grants: Vec::new(),
        elevations: Vec::new(),
        policy: ServerPolicy::default(),
        revision: 1,
        read_time: NOW,
    }
}

proptest! {
    #[test]
    fn without_a_rule_everything_is_denied(policy in policy(), database in database()) {
        let facts = ServerFacts { policy, ..nobody() };
        let decision = decide(&facts, database.as_ref(), NOW);
        prop_assert!(decision.permissions.is_empty());
        for permission in Permission::ALL {
            prop_assert_eq!(decision.check(*permission), Err(Denial::Hidden));
        }
    }

    #[test]
    fn one_grant_more_takes_nothing_away(facts in facts(), grant in grant(), database in database()) {
        let before = decide(&facts, database.as_ref(), NOW);
        let mut more = facts.clone();
        more.grants.push(grant);
        let after = decide(&more, database.as_ref(), NOW);
        prop_assert!(before.permissions.is_within(after.permissions));
        if before.permissions.contains(Permission::SessionsUse) {
            prop_assert!(before.access <= after.access);
            let rows = |decision: &Decision| decision.limits.result_rows.unwrap_or(u64::MAX);
            prop_assert!(rows(&before) <= rows(&after));
            prop_assert!(before.databases.is_within(&after.databases));
        }
    }

    #[test]
    fn one_binding_more_takes_nothing_away(facts in facts(), binding in binding(), database in database()) {
        let before = decide(&facts, database.as_ref(), NOW);
        let mut more = facts.clone();
        more.bindings.push(binding);
        let after = decide(&more, database.as_ref(), NOW);
        prop_assert!(before.permissions.is_within(after.permissions));
        if before.permissions.contains(Permission::SessionsUse) {
            prop_assert!(before.access <= after.access);
        }
    }

    #[test]
    fn expired_grant_is_as_good_as_none(facts in facts(), database in database()) {
        let mut without = facts.clone();
        without.grants.retain(|grant| !grant.has_expired(NOW));
        let (with, without) = (decide(&facts, database.as_ref(), NOW), decide(&without, database.as_ref(), NOW));
        prop_assert_eq!(with.permissions, without.permissions);
        prop_assert_eq!(with.access, without.access);
        prop_assert_eq!(with.limits, without.limits);
        prop_assert!(with.expire_time.is_none_or(|expire| expire > NOW));
    }

    #[test]
    fn ceiling_caps_everybody_who_is_not_elevated(facts in facts(), database in database()) {
        let decision = decide(&facts, database.as_ref(), NOW);
        prop_assert!(decision.unelevated <= facts.policy.ceiling);
        let capped = decision.elevated.is_none();
        prop_assert!(!capped || decision.access == decision.unelevated);
        if facts.policy.ceiling == Access::ReadOnly && capped || !facts.policy.restores {
            prop_assert!(!decision.permissions.contains(Permission::BackupsRestore));
        }
        if !facts.policy.backups {
            prop_assert!(!decision.permissions.contains(Permission::BackupsCreate));
        }
    }

    #[test]
    fn no_use_of_a_database_that_policy_or_grants_leave_out(facts in facts(), asked in database()) {
        let Some(asked) = asked else { return Ok(()) };
        let decision = decide(&facts, Some(&asked), NOW);
        if decision.permissions.contains(Permission::SessionsUse) {
            prop_assert!(facts.policy.allows_database(&asked));
            prop_assert!(decision.databases.contains(&asked));
        }
    }

    #[test]
    fn elevation_lets_write_who_may_use_the_database_and_gives_nothing_else(
        facts in facts(), elevation in elevation(), database in database(),
    ) {
        let before = decide(&facts, database.as_ref(), NOW);
        let mut more = facts.clone();
        more.elevations.push(elevation.clone());
        let after = decide(&more, database.as_ref(), NOW);
        let restore = PermissionSet::of(&[Permission::BackupsRestore]);
        prop_assert_eq!(before.permissions.minus(restore), after.permissions.minus(restore));
        prop_assert!(before.permissions.is_within(after.permissions));
        prop_assert_eq!(before.unelevated, after.unelevated);
        prop_assert_eq!(&before.databases, &after.databases);
        let here = match &database {
            Some(database) => elevation.databases.is_empty() || elevation.databases.contains(database),
            None => elevation.databases.is_empty(),
        };
        let counts = here
            && !elevation.has_expired(NOW)
            && facts.policy.max_elevation.is_some()
            && before.permissions.contains(Permission::SessionsUse);
        if counts {
            prop_assert_eq!(after.access, Access::ReadWrite);
            prop_assert!(after.elevated.is_some_and(|elevated| elevated.until >= elevation.expire_time));
        } else {
            prop_assert_eq!(before.access, after.access);
            prop_assert_eq!(before.elevated, after.elevated);
        }
    }

    #[test]
    fn without_an_elevation_that_lasts_nobody_is_elevated(facts in facts(), database in database()) {
        let mut over = facts.clone();
        over.elevations.retain(|elevation| elevation.has_expired(NOW));
        let decision = decide(&over, database.as_ref(), NOW);
        prop_assert_eq!(decision.elevated, None);
        prop_assert_eq!(decision.access, decision.unelevated);
        let ends = facts.elevations.iter().map(|elevation| elevation.expire_time).max();
        let later = ends.unwrap_or(NOW).max(NOW);
        prop_assert_eq!(decide(&facts, database.as_ref(), later).elevated, None);
    }

    #[test]
    fn disabled_user_may_do_nothing(facts in facts(), database in database()) {
        let facts = ServerFacts { disabled: true, ..facts };
        prop_assert!(decide(&facts, database.as_ref(), NOW).permissions.is_empty());
    }

    #[test]
    fn grant_gives_use_and_no_say(grants in proptest::collection::vec(grant(), 0..4), database in database()) {
        let facts = ServerFacts { grants, ..nobody() };
        let decision = decide(&facts, database.as_ref(), NOW);
        prop_assert!(decision.permissions.is_within(GRANTED));
    }
}

#[test]
fn read_only_grant_for_one_database_does_not_widen_another() {
    let grant = |access, databases: &[&str]| Grant {
        id: GrantId::from_uuid(Uuid::nil()),
        access,
        databases: databases.iter().copied().map(name).collect(),
        limits: GrantLimits::NONE,
        expire_time: None,
    };
    let facts = ServerFacts {
        grants: vec![grant(Access::ReadOnly, &[]), grant(Access::ReadWrite, &["a"])],
        ..nobody()
    };
    assert_eq!(decide(&facts, Some(&name("a")), NOW).access, Access::ReadWrite);
    assert_eq!(decide(&facts, Some(&name("b")), NOW).access, Access::ReadOnly);
}

#[test]
fn denial_says_what_is_in_the_way() {
    let facts = ServerFacts {
        ownership: Ownership::User,
        policy: ServerPolicy::production(Tenancy::Multi {
            databases: BTreeSet::from([name("a")]),
        }),
        ..nobody()
    };
    let there = decide(&facts, Some(&name("a")), NOW);
    assert_eq!(there.check(Permission::SessionsUse), Ok(()));
    assert_eq!(there.check(Permission::BackupsCreate), Err(Denial::Policy));
    assert_eq!(there.check(Permission::UsersRead), Err(Denial::Missing));
    let elsewhere = decide(&facts, Some(&name("b")), NOW);
    assert_eq!(elsewhere.check(Permission::SessionsUse), Err(Denial::Database));
    assert_eq!(elsewhere.check(Permission::ServersUpdate), Ok(()));
    let seen = ServerFacts {
        bindings: vec![Bound {
            id: RoleBindingId::from_uuid(Uuid::nil()),
            role: RoleName::BuiltIn(Role::Auditor),
            permissions: Role::Auditor.permissions(),
        }],
        ..nobody()
    };
    let seen = decide(&seen, None, NOW);
    assert_eq!(seen.check(Permission::ServersRead), Ok(()));
    assert_eq!(seen.check(Permission::ServersUse), Err(Denial::Missing));
}
