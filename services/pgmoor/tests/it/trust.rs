//! An API instance and a pooler as two processes: they trust each other, and one call is one trace.

use harness::Process;
use rpc::auth::v1::LoginWithPasswordRequest;
use rpc::auth::v1::auth_service_client::AuthServiceClient;
use rpc::query::v1::ListSessionsRequest;
use rpc::query::v1::query_service_client::QueryServiceClient;
use tonic::transport::{Channel, Endpoint};

use crate::command::SOON;
use crate::world::World;

/// Somebody who is logged in.
struct Caller {
    channel: Channel,
    token: String,
}

impl Caller {
    async fn log_in(world: &World) -> Self {
        let made = world.run(&["admin", "create-user", "--username", "ann", "--administrator"]);
        let password = made
            .lines()
            .find_map(|line| line.strip_prefix("password: "))
            .unwrap()
            .to_owned();
        let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{}", world.port)).unwrap();
        let channel = endpoint.connect().await.unwrap();
        let request = LoginWithPasswordRequest {
            username: "ann".to_owned(),
            password,
        };
        let answer = AuthServiceClient::new(channel.clone())
            .login_with_password(request)
            .await
            .unwrap();
        Self {
            channel,
            token: answer.into_inner().tokens.unwrap().access_token,
        }
    }

    /// A call that the pooler has to answer.
    async fn list_sessions(&self) -> Result<usize, tonic::Status> {
        let request = ListSessionsRequest {
            parent: "servers/-".to_owned(),
            ..ListSessionsRequest::default()
        };
        let mut request = tonic::Request::new(request);
        request
            .metadata_mut()
            .insert("authorization", format!("Bearer {}", self.token).parse().unwrap());
        let answer = QueryServiceClient::new(self.channel.clone())
            .list_sessions(request)
            .await?;
        Ok(answer.into_inner().sessions.len())
    }
}

async fn trace_of_list_sessions(process: &Process) -> String {
    let line = process
        .wait_for_line("\"rpc.method\":\"ListSessions\"", SOON)
        .await;
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(line["grpc.status"], "Ok", "{line}");
    line["span"]["trace.id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn call_through_both_processes_is_one_trace() {
    let mut world = World::of("api").await;
    let mut beside = world.beside("pooler").await;
    for world in [&mut world, &mut beside] {
        world.set("PGMOOR_TELEMETRY__LOG_FORMAT", "json");
    }
    let pooler = beside.serve().await;
    let api = world.serve().await;
    let caller = Caller::log_in(&world).await;
    assert_eq!(caller.list_sessions().await.unwrap(), 0);
    assert_eq!(
        trace_of_list_sessions(&api).await,
        trace_of_list_sessions(&pooler).await
    );
}

#[tokio::test]
async fn api_does_not_hand_a_token_to_a_pooler_of_another_authority() {
    let (world, mut stranger) = (World::of("api").await, World::of("pooler").await);
    let beside = world.beside("pooler").await;
    // It may write to the config database, but its certificate is another authority's.
    stranger.set(
        "PGMOOR_CONFIG_DATABASE_URL",
        beside.variable("PGMOOR_CONFIG_DATABASE_URL"),
    );
    let running = stranger.serve().await;
    let api = world.serve().await;
    let caller = Caller::log_in(&world).await;
    // How a list with a pooler missing is answered is tested where it is made.
    let _ = caller.list_sessions().await;
    api.wait_for_line("a pooler cannot be reached", SOON).await;
    assert!(
        !running.log_text().contains("ListSessions"),
        "{}",
        running.log_text()
    );
}
