//! Notifications of sessions that LISTEN.

use futures::StreamExt as _;
use rpc::query::v1::watch_session_response::Kind;
use sessions::{NotificationStream, Sessions as _};
use tokio::time::timeout;

use crate::support::{DEADLINE, World};

async fn next(watch: &mut NotificationStream) -> Option<Kind> {
    let message = timeout(DEADLINE, watch.next())
        .await
        .expect("no message in time")?;
    message.unwrap().kind
}

async fn notification(watch: &mut NotificationStream) -> (String, String) {
    match next(watch).await {
        Some(Kind::Notification(notification)) => (notification.channel, notification.payload),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn watcher_hears_what_is_notified_between_and_during_executions() {
    let world = World::new().await;
    for session in [world.open().await, world.open_auto().await] {
        world.run(session, "LISTEN jobs").await;
        let mut watch = world.pooler.watch_session(&world.token, session).await.unwrap();
        assert!(matches!(next(&mut watch).await, Some(Kind::Started(_))));
        let outside = world.target.connect().await;
        outside.batch_execute("NOTIFY jobs, 'one'").await.unwrap();
        assert_eq!(
            notification(&mut watch).await,
            ("jobs".to_owned(), "one".to_owned())
        );
        world.run(session, "NOTIFY jobs, 'two'").await;
        assert_eq!(notification(&mut watch).await.1, "two");
        // While a look at the backend is under way, or before it.
        world
            .run(
                session,
                "BEGIN; NOTIFY jobs, 'three'; SET work_mem = '7MB'; COMMIT",
            )
            .await;
        assert_eq!(notification(&mut watch).await.1, "three");
        world.pooler.close_session(&world.token, session).await.unwrap();
        assert!(next(&mut watch).await.is_none());
    }
}

#[tokio::test]
async fn only_the_owner_watches() {
    let world = World::new().await;
    let session = world.open_auto().await;
    let other = world.other_user().await;
    let refused = world.pooler.watch_session(&other, session).await.err().unwrap();
    assert_eq!(
        crate::support::reason(&refused),
        rpc::errors::v1::ErrorReason::ResourceNotFound
    );
}
