//! Settings in layers.

use std::collections::BTreeMap;

use domain::id::UserId;
use domain::random::SystemRandom;
use futures::future::join_all;
use serde_json::{Value, json};
use store::settings::{Layer, ResetScope, SettingChange, UpdateSettingsError};
use store::{Etag, Store};

use crate::support::{DEADLINE, World};

fn changes<const N: usize>(changes: [(&str, Option<Value>); N]) -> BTreeMap<String, Option<Value>> {
    changes
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

async fn set(store: &Store, layer: Layer, name: &str, value: Value) -> i64 {
    store
        .settings()
        .update(layer, &changes([(name, Some(value))]), None)
        .await
        .unwrap()
        .revision
}

#[tokio::test]
async fn layers_are_apart() {
    let world = World::new().await;
    let user = Layer::User(world.user("ann").await.id);
    set(&world.store, user, "query.row_limit", json!(10)).await;
    set(&world.store, Layer::Defaults, "query.row_limit", json!("20s")).await;
    for (layer, value) in [(user, json!(10)), (Layer::Defaults, json!("20s"))] {
        let layer = world.store.settings().layer(layer).await.unwrap();
        assert_eq!(layer.values["query.row_limit"].value, value);
    }
}

#[tokio::test]
async fn of_two_updates_with_one_etag_one_wins() {
    let world = World::new().await;
    let layer = Layer::User(world.user("ann").await.id);
    let settings = world.store.settings();
    let etag = settings.layer(layer).await.unwrap().etag;
    let (one, two) = (changes([("a", Some(json!(1)))]), changes([("a", Some(json!(2)))]));
    let (one, two) = tokio::join!(
        settings.update(layer, &one, Some(&etag)),
        settings.update(layer, &two, Some(&etag))
    );
    let (winner, loser) = if one.is_ok() { (one, two) } else { (two, one) };
    assert!(matches!(loser.unwrap_err(), UpdateSettingsError::EtagMismatch));
    assert_eq!(settings.layer(layer).await.unwrap().etag, winner.unwrap().etag);
}

#[tokio::test]
async fn first_writers_of_a_layer_wait_for_each_other() {
    let world = World::new().await;
    for round in 0..40 {
        let layer = Layer::User(world.user(&format!("user-{round}")).await.id);
        let settings = world.store.settings();
        let change = changes([("a", Some(json!(round)))]);
        for outcome in join_all((0..4).map(|_| settings.update(layer, &change, None))).await {
            outcome.unwrap();
        }
    }
}

#[tokio::test]
async fn refused_update_changes_nothing() {
    let world = World::new().await;
    let settings = world.store.settings();
    set(&world.store, Layer::Defaults, "a", json!(1)).await;
    let before = settings.layer(Layer::Defaults).await.unwrap();
    let change = changes([("a", Some(json!(2))), ("b", Some(json!(3)))]);
    let error = settings
        .update(Layer::Defaults, &change, Some(&Etag::new("0")))
        .await
        .unwrap_err();
    assert!(matches!(error, UpdateSettingsError::EtagMismatch));
    assert_eq!(settings.layer(Layer::Defaults).await.unwrap(), before);
}

#[tokio::test]
async fn a_change_has_one_revision_and_an_idle_one_none() {
    let world = World::new().await;
    let settings = world.store.settings();
    let change = changes([("a", Some(json!(1))), ("b", Some(json!([])))]);
    let first = settings.update(Layer::Defaults, &change, None).await.unwrap();
    let values = settings.layer(Layer::Defaults).await.unwrap().values;
    assert!(
        values.values().all(|value| value.revision == first.revision),
        "{values:?}"
    );
    let again = settings.update(Layer::Defaults, &change, None).await.unwrap();
    assert!(again.changed.is_empty());
    assert_eq!((again.revision, again.etag), (first.revision, first.etag));
    assert_eq!(settings.revision().await.unwrap(), first.revision);
}

#[tokio::test]
async fn reset_is_seen_by_watchers() {
    let world = World::new().await;
    let settings = world.store.settings();
    let change = changes([
        ("a", Some(json!(1))),
        ("b", Some(json!(2))),
        ("c", Some(json!(3))),
    ]);
    let set = settings.update(Layer::Defaults, &change, None).await.unwrap();
    let names = ["a".to_owned(), "unset".to_owned()];
    let one = settings
        .reset(Layer::Defaults, ResetScope::Names(&names), Some(&set.etag))
        .await
        .unwrap();
    assert_eq!(one.changed.into_iter().collect::<Vec<_>>(), ["a"]);
    let all = settings
        .reset(Layer::Defaults, ResetScope::All, None)
        .await
        .unwrap();
    assert_eq!(all.changed.into_iter().collect::<Vec<_>>(), ["b", "c"]);
    let since = settings.since(&[Layer::Defaults], set.revision).await.unwrap();
    let seen: Vec<_> = since
        .changes
        .iter()
        .map(|change| (change.name.as_str(), change.value.clone()))
        .collect();
    assert_eq!(seen, [("a", None), ("b", None), ("c", None)]);
    assert!(settings.layer(Layer::Defaults).await.unwrap().values.is_empty());
}

#[tokio::test]
async fn several_changes_of_one_setting_arrive_as_the_last() {
    let world = World::new().await;
    for value in 1..=3 {
        set(&world.store, Layer::Defaults, "a", json!(value)).await;
    }
    let since = world.store.settings().since(&[Layer::Defaults], 0).await.unwrap();
    let last = SettingChange {
        layer: Layer::Defaults,
        name: "a".to_owned(),
        value: Some(json!(3)),
        revision: 3,
    };
    assert_eq!((since.changes, since.revision), (vec![last], 3));
}

#[tokio::test]
async fn watcher_of_one_layer_moves_on_past_the_changes_of_others() {
    let world = World::new().await;
    let user = Layer::User(world.user("ann").await.id);
    let revision = set(&world.store, user, "a", json!(1)).await;
    let since = world.store.settings().since(&[Layer::Defaults], 0).await.unwrap();
    assert!(since.changes.is_empty());
    assert_eq!(since.revision, revision);
}

#[tokio::test]
async fn watcher_misses_nothing_while_many_write_at_once() {
    const WRITES: i64 = 60;
    let world = World::new().await;
    let mut layers = vec![Layer::Defaults];
    for name in ["ann", "bob"] {
        layers.push(Layer::User(world.user(name).await.id));
    }
    let store = &world.store;
    let write = join_all(layers.iter().map(|layer| async move {
        for index in 0..WRITES / 3 {
            set(store, *layer, &format!("setting{index}"), json!(index)).await;
        }
    }));
    let watch = tokio::time::timeout(DEADLINE, async {
        let mut seen = Vec::new();
        let mut revision = 0;
        while revision < WRITES {
            let since = store.settings().since(&layers, revision).await.unwrap();
            assert!(since.changes.iter().all(|change| change.revision > revision));
            seen.extend(since.changes.iter().map(|change| change.revision));
            revision = since.revision;
            tokio::task::yield_now().await;
        }
        seen
    });
    let (_, seen) = tokio::join!(write, watch);
    assert_eq!(seen.expect("all were seen"), (1..=WRITES).collect::<Vec<_>>());
}

#[tokio::test]
async fn layer_needs_a_user() {
    let world = World::new().await;
    let layer = Layer::User(UserId::generate(&SystemRandom));
    let error = world
        .store
        .settings()
        .update(layer, &changes([("a", Some(json!(1)))]), None)
        .await
        .unwrap_err();
    assert!(matches!(error, UpdateSettingsError::UserNotFound));
}
