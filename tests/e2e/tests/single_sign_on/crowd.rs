//! Many at once.

use futures::future::join_all;
use futures::stream::{self, StreamExt as _};
use serde_json::json;

use super::arrangement::arrange;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_logins_of_two_people_through_two_providers_never_cross() {
    let here = arrange(
        &[
            json!({ "ann": { "preferred_username": "ann-at-0" }, "bob": { "preferred_username": "bob-at-0" } }),
            json!({ "ann": { "preferred_username": "ann-at-1" }, "bob": { "preferred_username": "bob-at-1" } }),
        ],
        "",
        "auto_create = true",
    )
    .await;
    let people = [(0, "ann"), (0, "bob"), (1, "ann"), (1, "bob")];
    // All are begun before the first one ends.
    let client = here.world.anonymous();
    let begun = join_all((0..200).map(|number| {
        let (provider, login) = people[number % people.len()];
        let client = &client;
        async move {
            let begun = super::arrangement::begin(client, &format!("idp-{provider}"))
                .await
                .unwrap();
            (provider, login, begun)
        }
    }))
    .await;
    let ended = stream::iter(begun)
        .map(|(provider, login, begun)| {
            let (here, client) = (&here, &client);
            async move {
                here.browse_and_confirm(provider, &begun, login).await;
                let tokens = super::arrangement::poll(client, &begun).await.unwrap();
                let who = here.who(&tokens).await;
                assert_eq!(who.username, format!("{login}-at-{provider}"));
                who.user
            }
        })
        .buffer_unordered(32)
        .collect::<Vec<_>>()
        .await;
    assert_eq!(ended.len(), 200);
    let users: std::collections::BTreeSet<_> = ended.into_iter().collect();
    assert_eq!(users.len(), 4, "{users:?}");
}
