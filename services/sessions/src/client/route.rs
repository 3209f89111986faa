//! Which pooler to ask about an instance.
//!
//! Its owner, where it has one; else the one that rendezvous hashing proposes (D. Thaler, C. Ravishankar, 1998), so that
//! all API instances propose the same one and few instances move when poolers come and go.

use domain::id::InstanceId;
use domain::session::{PoolerId, SessionName};

use crate::directory::{PoolerEntry, Snapshot};

/// The first to ask.
pub(super) fn first(snapshot: &Snapshot, instance: InstanceId) -> Option<&PoolerEntry> {
    let owner = snapshot.owners.get(&instance);
    let owner = owner.and_then(|owner| snapshot.poolers.iter().find(|entry| entry.pooler == *owner));
    owner.or_else(|| next(snapshot, instance, &[]))
}

/// Somebody to ask about a session whose pooler is not there, and who was not asked yet.
pub(super) fn any<'a>(
    snapshot: &'a Snapshot,
    session: SessionName,
    asked: &[PoolerId],
) -> Option<&'a PoolerEntry> {
    // The same for every session on a server: they come to live in one place.
    next(snapshot, InstanceId::from_uuid(session.server.as_uuid()), asked)
}

/// The best of those that take something new and were not asked yet.
pub(super) fn next<'a>(
    snapshot: &'a Snapshot,
    instance: InstanceId,
    asked: &[PoolerId],
) -> Option<&'a PoolerEntry> {
    snapshot
        .poolers
        .iter()
        .filter(|entry| entry.takes_new_sessions && !asked.contains(&entry.pooler))
        .max_by_key(|entry| rank(instance, entry.pooler))
}

/// Who of these is asked first about an instance that nobody owns.
pub fn proposed(instance: InstanceId, poolers: impl IntoIterator<Item = PoolerId>) -> Option<PoolerId> {
    poolers.into_iter().max_by_key(|pooler| rank(instance, *pooler))
}

fn rank(instance: InstanceId, pooler: PoolerId) -> (u64, PoolerId) {
    (weight(instance, pooler), pooler)
}

/// FNV-1a over both names, mixed (splitmix64): every process and every version has to come to the same number.
fn weight(instance: InstanceId, pooler: PoolerId) -> u64 {
    let uuid = instance.as_uuid();
    let bytes = uuid
        .as_bytes()
        .iter()
        .chain(&pooler.0.to_be_bytes())
        .copied()
        .collect::<Vec<_>>();
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mixed = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::id::IncarnationId;
    use domain::random::SeededRandom;

    fn snapshot(poolers: impl IntoIterator<Item = u16>) -> Snapshot {
        let random = SeededRandom::new(1);
        let poolers = poolers.into_iter().map(|pooler| PoolerEntry {
            pooler: PoolerId(pooler),
            incarnation: IncarnationId::generate(&random),
            address: format!("pooler-{pooler}:1"),
            takes_new_sessions: true,
            is_alive: true,
        });
        Snapshot {
            poolers: poolers.collect(),
            ..Snapshot::default()
        }
    }

    fn instances() -> Vec<InstanceId> {
        let random = SeededRandom::new(2);
        (0..3000).map(|_| InstanceId::generate(&random)).collect()
    }

    #[test]
    fn instances_are_spread_evenly() {
        let snapshot = snapshot(1..=3);
        for pooler in 1..=3 {
            let own = instances()
                .iter()
                .filter(|id| first(&snapshot, **id).unwrap().pooler.0 == pooler)
                .count();
            assert!((850..1150).contains(&own), "{own} of 3000");
        }
    }

    #[test]
    fn only_the_instances_of_a_pooler_that_left_move() {
        let (before, after) = (snapshot(1..=3), snapshot([1, 3]));
        for id in instances() {
            let (old, new) = (
                first(&before, id).unwrap().pooler,
                first(&after, id).unwrap().pooler,
            );
            assert!(old == new || old == PoolerId(2));
        }
    }

    #[test]
    fn owner_is_asked_first_even_while_it_drains() {
        let mut snapshot = snapshot(1..=3);
        let id = instances()[0];
        let proposed = first(&snapshot, id).unwrap().pooler;
        let owner = PoolerId(if proposed.0 == 1 { 2 } else { 1 });
        snapshot.owners.insert(id, owner);
        for entry in &mut snapshot.poolers {
            entry.takes_new_sessions = entry.pooler != owner;
        }
        assert_eq!(first(&snapshot, id).unwrap().pooler, owner);
        assert_eq!(next(&snapshot, id, &[owner]).unwrap().pooler, proposed);
        assert_eq!(
            next(&snapshot, id, &[PoolerId(1), PoolerId(2), PoolerId(3)]),
            None
        );
    }
}
