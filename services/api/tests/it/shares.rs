//! Nobody who has an account takes all the room there is.

use std::time::Duration;

use audit::LogOptions;
use audit::buffer::WhenFull;
use futures::StreamExt as _;
use futures::stream;
use http::uri::PathAndQuery;
use rpc::auth::v1::{CreateApiTokenRequest, CreateApiTokenResponse};
use rpc::errors::v1::ErrorReason;
use rpc::storage::v1::upload_file_request::Kind;
use rpc::storage::v1::{UploadFileRequest, UploadStart};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tonic::Code;
use tonic::client::Grpc;
use tonic_prost::ProstCodec;

use crate::work::server;
use crate::world::{ADMIN, AuditSetup, DEADLINE, World, assert_fails};

/// A share of the smallest size.
const SHARE: usize = 64;

#[tokio::test]
async fn calls_of_others_go_on_when_one_user_opens_all_they_can() {
    let world = World::start_with(AuditSetup {
        options: LogOptions {
            capacity: 2 * SHARE,
            when_full: WhenFull::Refuse,
            loss_window: Duration::from_secs(3600),
            ..LogOptions::default()
        },
        ..AuditSetup::default()
    })
    .await;
    let alice = world.member("alice").await.caller;
    let admin = world.a.login(ADMIN).await;
    let mut uploads = JoinSet::new();
    // Calls whose only message never comes.
    for _ in 0..SHARE / 2 {
        let mut client = Grpc::new(alice.authorized());
        uploads.spawn(async move {
            client.ready().await.unwrap();
            let path = PathAndQuery::from_static("/pgmoor.auth.v1.AuthService/CreateApiToken");
            let messages = tonic::Request::new(stream::pending::<CreateApiTokenRequest>());
            let codec = ProstCodec::<CreateApiTokenRequest, CreateApiTokenResponse>::default();
            client.client_streaming(messages, path, codec).await.map(drop)
        });
    }
    // Uploads that never come to their end.
    for number in 0..=SHARE / 2 {
        let mut files = alice.files();
        let start = UploadStart {
            name: format!("users/me/files/{number}"),
            ..UploadStart::default()
        };
        let start = UploadFileRequest {
            kind: Some(Kind::Start(start)),
        };
        let messages = stream::iter([start]).chain(stream::pending());
        uploads.spawn(async move { files.upload_file(messages).await.map(drop) });
    }
    let first = timeout(DEADLINE, uploads.join_next())
        .await
        .expect("one is refused");
    let status = assert_fails(
        first.unwrap().unwrap(),
        Code::ResourceExhausted,
        ErrorReason::TooManyCalls,
    );
    assert!(status.message().contains("64"), "{status:?}");
    server(&admin).await;
    // What needs no record goes on for herself, too.
    let request = rpc::server::v1::ListServersRequest::default();
    alice.servers().list_servers(request.clone()).await.unwrap();
    // And everything when calls have ended.
    uploads.shutdown().await;
    harness::eventually(DEADLINE, "there is room again", async || {
        let list = CreateApiTokenRequest {
            display_name: "one".to_owned(),
            ..CreateApiTokenRequest::default()
        };
        alice.auth().create_api_token(list).await.map(drop)
    })
    .await;
}
