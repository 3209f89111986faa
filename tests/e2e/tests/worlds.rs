//! The worlds that tests share, so that few processes are started.

use std::panic::AssertUnwindSafe;

use e2e::{World, WorldOptions};
use futures::FutureExt as _;
use harness::ClusterOptions;
use tokio::sync::{Mutex, MutexGuard, OnceCell};

use crate::receiver::Receiver;

/// A world for tests that disturb nobody, with a receiver of its traces.
#[derive(Debug)]
pub(crate) struct Shared {
    /// The world. Nothing in it is killed.
    pub(crate) world: World,
    /// What its processes traced.
    pub(crate) traces: Receiver,
}

/// What the first test that needs it makes, once; none where that failed, so that the other tests fail at
/// once.
type Made<T> = OnceCell<Option<T>>;

/// Two API instances, and an egress policy that allows everything, so that what is denied is denied always.
pub(crate) async fn shared() -> &'static Shared {
    static SHARED: Made<Shared> = OnceCell::const_new();
    once(&SHARED, async || {
        let traces = Receiver::start();
        let world = World::start(WorldOptions {
            egress_allow: vec!["0.0.0.0/0".to_owned(), "::/0".to_owned()],
            otlp_endpoint: Some(traces.endpoint()),
            ..WorldOptions::default()
        })
        .await;
        Shared { world, traces }
    })
    .await
}

/// A world for one test at a time: one that measures, or kills what it starts again. Its config database logs
/// every statement. Leave it as it was.
pub(crate) async fn alone() -> MutexGuard<'static, World> {
    static ALONE: Made<Mutex<World>> = OnceCell::const_new();
    let world = once(&ALONE, async || {
        let world = World::start(WorldOptions {
            workers: 0,
            config_cluster: ClusterOptions::default().setting("log_statement", "all"),
            ..WorldOptions::default()
        });
        Mutex::new(world.await)
    });
    world.await.lock().await
}

async fn once<T>(made: &'static Made<T>, make: impl AsyncFnOnce() -> T) -> &'static T {
    // The test that makes it reports its panic itself, on standard error.
    let made = made.get_or_init(async || AssertUnwindSafe(make()).catch_unwind().await.ok());
    let made = made.await.as_ref();
    made.expect("the world could not be started; the first test that needed it says why")
}
