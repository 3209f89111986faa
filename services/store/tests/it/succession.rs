//! Sessions and connections that one pooler leaves to the next. All with the pooler's own role.

use std::time::Duration;

use domain::access::Access;
use domain::credential::CredentialKind;
use domain::id::{IncarnationId, InstanceId};
use domain::pin::{Pin, Pins};
use domain::random::SystemRandom;
use domain::session::{PoolerId, SessionId};
use store::Store;
use store::instance_owners::{Claim, Claimant};
use store::instances::{Facts, Recognised};
use store::servers::Server;
use store::sessions::{Mode, Parting, Session, Standing, Taking};
use store::succession::{Connection, SlotLease};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::support::{HOUR, World};

fn process() -> IncarnationId {
    IncarnationId::generate(&SystemRandom)
}

/// What the last execution of each was asked for with.
const REQUEST: Uuid = Uuid::from_u128(7);

fn session(server: &Server) -> Session {
    Session {
        id: SessionId::generate(PoolerId(1), &SystemRandom),
        server_id: server.id,
        instance_id: server.instance_id,
        owner_id: server.owner_id,
        mode: Mode::Auto,
        access: Access::ReadOnly,
        follows_elevations: true,
        database: "post\"gres".parse().unwrap(),
        username: "app".parse().unwrap(),
        parameters: vec![("search_path".to_owned(), "a, b".to_owned())],
        idle_timeout: Duration::from_mins(10),
        idle_in_transaction_timeout: Duration::from_mins(5),
        queue_timeout: Duration::from_millis(1500),
        incarnation: 1,
        untold: false,
        pins: Pins::NONE,
        request: None,
        create_time: OffsetDateTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000),
    }
}

fn standing(session: &Session, pins: Pins) -> Standing {
    Standing {
        id: session.id,
        incarnation: 1,
        untold: false,
        pins,
        request: Some(REQUEST),
    }
}

fn connection(server: &Server, backend_pid: i32) -> Connection {
    Connection {
        instance_id: server.instance_id,
        backend_pid,
        backend_start: OffsetDateTime::UNIX_EPOCH + Duration::from_micros(1_700_000_000_123_456),
        server_id: server.id,
        credential: CredentialKind::Shared,
    }
}

async fn claim(store: &Store, instance: InstanceId, incarnation: IncarnationId, lease: Duration) -> Claim {
    let claimant = Claimant {
        pooler_id: PoolerId(1),
        incarnation,
        lease,
        patience: Some(Duration::ZERO),
    };
    store.instance_owners().claim(instance, claimant).await.unwrap()
}

#[tokio::test]
async fn session_goes_on_as_it_was_where_it_was_parked_and_is_recovered_where_not() {
    let world = World::new().await;
    let server = world.any_server().await;
    let (store, _) = world.store_as("pgmoor_pooler").await;
    let sessions = store.sessions();
    let (from, to) = (process(), process());
    let (parked, left, lost) = (session(&server), session(&server), session(&server));
    let all = [parked.clone(), left.clone(), lost.clone()];
    assert_eq!(sessions.record(from, &all).await.unwrap().len(), 3);
    // Only its holder says anything of a session.
    let setting = Pins::NONE.with(Pin::Setting);
    sessions.note(to, &[standing(&left, setting)]).await.unwrap();
    let nobodys = Parting {
        standing: standing(&left, Pins::NONE),
        loss: None,
    };
    assert!(sessions.park(to, &[nobodys]).await.unwrap().is_empty());
    sessions.forget(to, &[left.id]).await.unwrap();
    sessions.note(from, &[standing(&left, setting)]).await.unwrap();
    let partings = [
        Parting {
            standing: standing(&parked, Pins::NONE),
            loss: None,
        },
        Parting {
            standing: standing(&lost, setting),
            loss: Some("drained"),
        },
    ];
    assert_eq!(sessions.park(from, &partings).await.unwrap().len(), 2);
    assert!(sessions.whereabouts(parked.id).await.unwrap().unwrap().parked);

    let taken = sessions
        .take(server.instance_id, from, to, Taking::Parked, 10)
        .await
        .unwrap();
    assert_eq!(taken.len(), 2);
    let of = |id| taken.iter().find(|taken| taken.session.id == id).unwrap();
    let parked = Session {
        request: Some(REQUEST),
        ..parked
    };
    assert_eq!((&of(parked.id).session, &of(parked.id).loss), (&parked, &None));
    assert_eq!(of(lost.id).loss.as_deref(), Some("drained"));
    let taken = sessions
        .take(server.instance_id, from, to, Taking::All, 10)
        .await
        .unwrap();
    let [recovered] = taken.as_slice() else {
        panic!("{taken:?}")
    };
    let wanted = Session {
        incarnation: 2,
        untold: true,
        pins: setting,
        ..left
    };
    assert_eq!((&recovered.session, recovered.parked), (&wanted, false));
    let found = sessions.whereabouts(left.id).await.unwrap().unwrap();
    assert_eq!((found.holder, found.parked), (to, false));
    sessions.forget(to, &[parked.id, left.id, lost.id]).await.unwrap();
    assert_eq!(sessions.whereabouts(left.id).await.unwrap(), None);
}

#[tokio::test]
async fn session_of_a_deleted_server_is_not_written_down() {
    let world = World::new().await;
    let server = world.any_server().await;
    let (kept, gone) = (session(&server), session(&server));
    let gone = Session {
        server_id: domain::id::ServerId::generate(&SystemRandom),
        ..gone
    };
    let recorded = world
        .store
        .sessions()
        .record(process(), &[kept.clone(), gone])
        .await
        .unwrap();
    assert_eq!(recorded.into_iter().collect::<Vec<_>>(), [kept.id]);
}

#[tokio::test]
async fn session_is_written_down_while_its_instance_turns_out_to_be_another() {
    let world = World::new().await;
    let user = world.user("ann").await;
    let (one, two) = (
        world.server(&user, "one", "a").await,
        world.server(&user, "two", "b").await,
    );
    // A transaction sees what others do as it was when it looked first.
    let (merging, outside) = (world.database.connect().await, world.database.connect().await);
    let (from, into) = (two.instance_id, one.instance_id);
    let merge = format!(
        "BEGIN; UPDATE pgmoor.servers SET instance_id = '{into}' WHERE instance_id = '{from}'; \
         UPDATE pgmoor.instance_endpoints SET instance_id = '{into}' WHERE instance_id = '{from}'; \
         DELETE FROM pgmoor.instances WHERE id = '{from}'"
    );
    merging.batch_execute(&merge).await.unwrap();
    let (store, _) = world.store_as("pgmoor_pooler").await;
    let new = session(&two);
    let record = async {
        let sessions = store.sessions();
        sessions.record(process(), std::slice::from_ref(&new)).await
    };
    let commit = async {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
                   AND wait_event_type = 'Lock'";
        harness::eventually(Duration::from_secs(30), "it waits for the merge", async || {
            let waiting: i64 = outside.query_one(sql, &[]).await.unwrap().get(0);
            waiting == 1
        })
        .await;
        merging.batch_execute("COMMIT").await.unwrap();
    };
    let (recorded, ()) = tokio::join!(record, commit);
    assert_eq!(recorded.unwrap().len(), 1);
    let found = store.sessions().whereabouts(new.id).await.unwrap().unwrap();
    assert_eq!(found.instance_id, into);
}

#[tokio::test]
async fn every_predecessor_is_remembered_until_it_is_known_to_be_gone() {
    let world = World::new().await;
    let server = world.any_server().await;
    let (store, _) = world.store_as("pgmoor_pooler").await;
    let (instance, succession) = (server.instance_id, store.succession());
    let (first, second, third) = (process(), process(), process());
    claim(&store, instance, first, Duration::ZERO).await;
    succession
        .record(first, &[connection(&server, 1), connection(&server, 2)], &[])
        .await
        .unwrap();
    let lease = SlotLease {
        operation: "operations/x".to_owned(),
        instance_id: instance,
        slots: 2,
    };
    succession.record_lease(first, &lease).await.unwrap();
    assert_eq!(succession.claimable(second).await.unwrap(), [instance]);
    assert_eq!(succession.claimable(first).await.unwrap(), []);
    claim(&store, instance, second, Duration::ZERO).await;
    claim(&store, instance, third, HOUR).await;
    assert_eq!(succession.claimable(second).await.unwrap(), []);
    assert_eq!(succession.inherited(third).await.unwrap(), [instance]);
    let left = succession.forerunners(instance, third).await.unwrap();
    let of = |who: IncarnationId| left.iter().find(|left| left.incarnation == who).unwrap();
    assert!(of(first).may_open && of(second).may_open);
    assert_eq!(
        of(first).connections,
        [connection(&server, 1), connection(&server, 2)]
    );
    assert_eq!(of(first).leased_slots, 0, "no such operation runs");

    succession
        .bury(first, &[connection(&server, 1), connection(&server, 2)])
        .await
        .unwrap();
    succession.settle(instance, first).await.unwrap();
    succession.bury_leases(instance, first).await.unwrap();
    let left = succession.forerunners(instance, third).await.unwrap();
    assert_eq!(left.len(), 1);
    succession.settle(instance, second).await.unwrap();
    assert_eq!(succession.inherited(third).await.unwrap(), []);
}

#[tokio::test]
async fn owner_that_gave_back_may_open_nothing_and_what_it_has_is_counted() {
    let world = World::new().await;
    let server = world.any_server().await;
    let (store, _) = world.store_as("pgmoor_pooler").await;
    let (first, second) = (process(), process());
    let instance = server.instance_id;
    claim(&store, instance, first, HOUR).await;
    let succession = store.succession();
    succession
        .record(first, &[connection(&server, 1)], &[])
        .await
        .unwrap();
    store.instance_owners().release(instance, first, 1).await.unwrap();
    claim(&store, instance, second, HOUR).await;
    let left = succession.forerunners(instance, second).await.unwrap();
    assert_eq!(
        (left.len(), left[0].may_open, left[0].connections.len()),
        (1, false, 1)
    );
    succession
        .record(first, &[], &[connection(&server, 1)])
        .await
        .unwrap();
    assert_eq!(succession.inherited(second).await.unwrap(), []);
}

#[tokio::test]
async fn what_was_left_goes_along_when_instances_turn_out_to_be_one() {
    let world = World::new().await;
    let user = world.user("ann").await;
    let (one, two) = (
        world.server(&user, "one", "a").await,
        world.server(&user, "two", "b").await,
    );
    let (store, _) = world.store_as("pgmoor_pooler").await;
    let (first, second) = (process(), process());
    for server in [&one, &two] {
        claim(&store, server.instance_id, first, Duration::ZERO).await;
        claim(&store, server.instance_id, second, HOUR).await;
    }
    let succession = store.succession();
    succession
        .record(first, &[connection(&two, 1)], &[])
        .await
        .unwrap();
    let moved = session(&two);
    store
        .sessions()
        .record(first, std::slice::from_ref(&moved))
        .await
        .unwrap();
    let facts = Facts {
        system_identifier: "7".to_owned(),
        postmaster_start_time: OffsetDateTime::UNIX_EPOCH,
        server_version: "15".to_owned(),
    };
    let instances = store.instances();
    instances.recognise(one.instance_id, &facts).await.unwrap();
    let merged = instances.recognise(two.instance_id, &facts).await.unwrap();
    assert_eq!(merged, Recognised::MergedInto(one.instance_id));
    let left = succession.forerunners(one.instance_id, second).await.unwrap();
    assert_eq!(
        (left.len(), left[0].connections.len(), left[0].sessions),
        (1, 1, 1)
    );
    let found = store.sessions().whereabouts(moved.id).await.unwrap().unwrap();
    assert_eq!(found.instance_id, one.instance_id);
    // Its pooler, which may know it by the old name only, can still take it off the record.
    succession
        .record(first, &[], &[connection(&two, 1)])
        .await
        .unwrap();
    let left = succession.forerunners(one.instance_id, second).await.unwrap();
    assert!(left[0].connections.is_empty());
}
