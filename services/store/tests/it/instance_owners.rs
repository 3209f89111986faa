//! Ownerships of instances.

use std::time::Duration;

use domain::id::{IncarnationId, InstanceId};
use domain::random::SystemRandom;
use domain::session::PoolerId;
use futures::future::join_all;
use harness::{Cluster, ClusterOptions, eventually};
use store::instance_owners::{Claim, ClaimError, Claimant, Ownership, RenewError};
use store::poolers::{NewPooler, ProtocolRange};
use store::{Store, migrate};

use crate::support::{DEADLINE, HOUR, World, connect, new_server, new_user};

fn claimant(pooler_id: u16, lease: Duration) -> Claimant {
    Claimant {
        pooler_id: PoolerId(pooler_id),
        incarnation: IncarnationId::generate(&SystemRandom),
        lease,
        patience: Some(Duration::ZERO),
    }
}

async fn own(store: &Store, instance: InstanceId, claimant: Claimant) -> Ownership {
    match store.instance_owners().claim(instance, claimant).await.unwrap() {
        Claim::Owned { ownership, .. } => ownership,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn of_claimants_at_once_one_owns() {
    let world = World::new().await;
    let instance = world.instance("a").await;
    let owners = world.store.instance_owners();
    let claims = join_all((1..=5).map(|id| owners.claim(instance, claimant(id, HOUR)))).await;
    let claims: Vec<_> = claims.into_iter().map(Result::unwrap).collect();
    let owned: Vec<_> = claims
        .iter()
        .filter_map(|claim| match claim {
            Claim::Owned {
                ownership,
                predecessor: None,
            } => Some(ownership),
            _ => None,
        })
        .collect();
    let [owner] = owned.as_slice() else {
        panic!("{claims:?}")
    };
    assert_eq!(owner.term, 1);
    for claim in &claims {
        if let Claim::Held(holder) = claim {
            assert_eq!(holder.incarnation, owner.incarnation);
        }
    }
    assert_eq!(
        claims
            .iter()
            .filter(|claim| matches!(claim, Claim::Held(_)))
            .count(),
        4
    );
}

#[tokio::test]
async fn of_claimants_of_a_lapsed_lease_one_takes_over() {
    let world = World::new().await;
    let instance = world.instance("a").await;
    let first = own(&world.store, instance, claimant(1, Duration::ZERO)).await;
    let owners = world.store.instance_owners();
    let claims = join_all((2..=6).map(|id| owners.claim(instance, claimant(id, HOUR)))).await;
    let mut taken = Vec::new();
    for claim in claims {
        if let Claim::Owned {
            ownership,
            predecessor,
        } = claim.unwrap()
        {
            assert_eq!(predecessor.unwrap().incarnation, first.incarnation);
            taken.push(ownership);
        }
    }
    let [owner] = taken.as_slice() else {
        panic!("{taken:?}")
    };
    assert_eq!(owner.term, 2);
    let error = owners
        .renew(instance, first.incarnation, first.term, HOUR)
        .await
        .unwrap_err();
    assert!(matches!(error, RenewError::Superseded));
    assert!(
        !owners
            .release(instance, first.incarnation, first.term)
            .await
            .unwrap()
    );
}

#[tokio::test]
async fn lapsed_owner_that_nobody_replaced_goes_on_in_its_term() {
    let world = World::new().await;
    let instance = world.instance("a").await;
    let lapsed = claimant(1, Duration::ZERO);
    let first = own(&world.store, instance, lapsed).await;
    assert!(first.lapsed);
    let owners = world.store.instance_owners();
    let renewed = owners
        .renew(instance, first.incarnation, first.term, HOUR)
        .await
        .unwrap();
    assert_eq!((renewed.term, renewed.lapsed), (first.term, false));
    assert_eq!(
        own(
            &world.store,
            instance,
            Claimant {
                lease: HOUR,
                ..lapsed
            }
        )
        .await
        .term,
        first.term
    );
}

#[tokio::test]
async fn released_instance_is_claimed_without_a_predecessor() {
    let world = World::new().await;
    let instance = world.instance("a").await;
    let first = own(&world.store, instance, claimant(1, HOUR)).await;
    let owners = world.store.instance_owners();
    assert!(
        owners
            .release(instance, first.incarnation, first.term)
            .await
            .unwrap()
    );
    assert!(owners.owner_of(instance).await.unwrap().is_none());
    let error = owners
        .renew(instance, first.incarnation, first.term, HOUR)
        .await
        .unwrap_err();
    assert!(matches!(error, RenewError::Superseded));
    let claim = owners.claim(instance, claimant(2, HOUR)).await.unwrap();
    let Claim::Owned {
        ownership,
        predecessor: None,
    } = claim
    else {
        panic!("{claim:?}")
    };
    assert_eq!(ownership.term, first.term + 1);
}

#[tokio::test]
async fn owner_is_found_with_its_address() {
    let world = World::new().await;
    let instance = world.instance("a").await;
    let owners = world.store.instance_owners();
    assert!(owners.owner_of(instance).await.unwrap().is_none());
    let new = NewPooler {
        incarnation: IncarnationId::generate(&SystemRandom),
        address: "pooler:7000".to_owned(),
        wire_address: None,
        protocol: ProtocolRange { min: 1, max: 1 },
        lease: HOUR,
    };
    let pooler = world.store.poolers().register(&new).await.unwrap();
    let lapsed = Claimant {
        pooler_id: pooler.id,
        incarnation: pooler.incarnation,
        lease: Duration::ZERO,
        patience: Some(Duration::ZERO),
    };
    let owned = own(&world.store, instance, lapsed).await;
    let owner = owners.owner_of(instance).await.unwrap().unwrap();
    assert_eq!((owner.ownership.term, owner.ownership.lapsed), (owned.term, true));
    assert_eq!(owner.address.as_deref(), Some("pooler:7000"));
    world
        .store
        .poolers()
        .deregister(pooler.incarnation)
        .await
        .unwrap();
    assert_eq!(owners.owner_of(instance).await.unwrap().unwrap().address, None);
}

#[tokio::test]
async fn renewing_all_leaves_out_what_was_lost() {
    let world = World::new().await;
    let (kept, lost) = (world.instance("a").await, world.instance("b").await);
    let owner = claimant(1, Duration::ZERO);
    own(&world.store, kept, owner).await;
    own(&world.store, lost, owner).await;
    own(&world.store, lost, claimant(2, HOUR)).await;
    let renewed = world
        .store
        .instance_owners()
        .renew_all(owner.incarnation, HOUR)
        .await
        .unwrap();
    assert_eq!(
        renewed
            .iter()
            .map(|ownership| ownership.instance_id)
            .collect::<Vec<_>>(),
        [kept]
    );
    assert!(!renewed[0].lapsed);
}

#[tokio::test]
async fn instance_that_does_not_exist_is_not_claimed() {
    let world = World::new().await;
    let nothing = InstanceId::generate(&SystemRandom);
    let error = world
        .store
        .instance_owners()
        .claim(nothing, claimant(1, HOUR))
        .await
        .unwrap_err();
    assert!(matches!(error, ClaimError::InstanceNotFound));
}

#[tokio::test]
async fn nobody_takes_over_for_one_lease_after_the_primary_changed() {
    const LEASE: Duration = Duration::from_secs(3);
    let primary = Cluster::start(ClusterOptions::default()).await;
    migrate::run(&primary.url().into()).await.unwrap();
    let before = connect(&primary.url()).await.unwrap();
    let user = before.users().create(new_user("ann", false)).await.unwrap();
    let server = before
        .servers()
        .create(&new_server(user.id, "one", "a"), None)
        .await
        .unwrap();
    let owner = claimant(1, Duration::ZERO);
    own(&before, server.instance_id, owner).await;
    let standby = Cluster::standby_of(&primary).await;
    primary.stop().await;
    standby.promote().await;
    let after = connect(&standby.url()).await.unwrap();
    let owners = after.instance_owners();
    let other = claimant(2, LEASE);
    let claim = owners.claim(server.instance_id, other).await.unwrap();
    let Claim::Withheld { retry_after } = claim else {
        panic!("{claim:?}")
    };
    assert!(
        retry_after <= LEASE && retry_after > Duration::ZERO,
        "{retry_after:?}"
    );
    // The owner itself goes on.
    own(&after, server.instance_id, owner).await;
    eventually(DEADLINE, "the takeover after one lease", async || {
        matches!(
            owners.claim(server.instance_id, other).await,
            Ok(Claim::Owned { .. })
        )
    })
    .await;
}

#[tokio::test]
async fn lapsed_lease_is_taken_over_by_those_only_who_are_patient_enough() {
    let world = World::new().await;
    let instance = world.instance("a").await;
    let first = own(&world.store, instance, claimant(1, Duration::ZERO)).await;
    let owners = world.store.instance_owners();
    for patience in [None, Some(HOUR)] {
        let impatient = Claimant {
            patience,
            ..claimant(2, HOUR)
        };
        let claim = owners.claim(instance, impatient).await.unwrap();
        assert!(matches!(claim, Claim::Held(ref held) if held.incarnation == first.incarnation));
    }
    // What was given back is anybody's.
    assert!(
        owners
            .release(instance, first.incarnation, first.term)
            .await
            .unwrap()
    );
    let impatient = Claimant {
        patience: None,
        ..claimant(2, HOUR)
    };
    assert_eq!(own(&world.store, instance, impatient).await.term, 2);
}
