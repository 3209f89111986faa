//! Who serves what, and where the config database itself is.

use domain::id::{IncarnationId, InstanceId};
use domain::random::SystemRandom;
use store::directory::Directory;
use store::poolers::{NewPooler, ProtocolRange};

use crate::support::{HOUR, World};

async fn register(world: &World, address: &str) -> store::poolers::Pooler {
    let new = NewPooler {
        incarnation: IncarnationId::generate(&SystemRandom),
        address: address.to_owned(),
        wire_address: None,
        protocol: ProtocolRange { min: 1, max: 1 },
        lease: HOUR,
    };
    world.store.poolers().register(&new).await.unwrap()
}

#[tokio::test]
async fn directory_has_the_live_poolers_and_what_they_own() {
    let world = World::new().await;
    let (here, gone) = (
        register(&world, "here:7710").await,
        register(&world, "gone:7710").await,
    );
    let owned = [&here, &gone].map(|pooler| (InstanceId::generate(&SystemRandom), pooler));
    for (instance, pooler) in &owned {
        let sql = format!(
            "INSERT INTO pgmoor.instances (id, endpoints, tls_mode) VALUES ('{instance}', '[]', 'disable'); \
             INSERT INTO pgmoor.instance_owners (instance_id, pooler_id, incarnation, term, lease_until) \
             VALUES ('{instance}', {}, '{}', 1, clock_timestamp() + interval '1 hour')",
            pooler.id.0, pooler.incarnation
        );
        world.database.execute(&sql).await;
    }
    world
        .database
        .execute("UPDATE pgmoor.poolers SET lease_until = '-infinity' WHERE address = 'gone:7710'")
        .await;

    let (store, _) = world.store_as("pgmoor_api").await;
    let expected = Directory {
        poolers: vec![here.clone()],
        owners: vec![(owned[0].0, here.id)],
    };
    assert_eq!(store.directory().await.unwrap(), expected);
}

#[tokio::test]
async fn addresses_are_those_of_the_url() {
    let world = World::new().await;
    let port = world.database.endpoint().port;
    let addresses = world.store.addresses().await.unwrap();
    assert_eq!(addresses, [std::net::SocketAddr::from(([127, 0, 0, 1], port))]);
}

#[tokio::test]
async fn login_has_the_rights_of_its_group_only() {
    let world = World::new().await;
    let (store, _) = world.store_as("pgmoor_pooler").await;
    assert_eq!(store.group_roles().await.unwrap(), ["pgmoor_pooler"]);
    assert_eq!(
        world.store.group_roles().await.unwrap(),
        store::migrate::GROUP_ROLES,
        "a superuser has all rights"
    );
}
