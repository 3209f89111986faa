//! What poolers show, paged and with those that did not answer; and what administrators have them do.

use domain::session::PoolerId;
use rpc::errors::v1::ErrorReason;
use rpc::pool::v1::{
    Client, DrainPoolerRequest, KillBackendRequest, KillSessionRequest, ListBackendsRequest,
    ListBudgetsRequest, ListClientsRequest, ListPoolersRequest, ListPoolsRequest, ListStatsRequest,
    ListWaitersRequest, PauseInstanceRequest, Pool, ReconnectInstanceRequest, ResumeInstanceRequest,
};
use rpc::pooler::v1::ShowPoolerResponse;
use rpc::server::v1::{CreateServerRequest, Endpoint, GetInstanceRequest, Server};
use tonic::Code;

use crate::world::{ADMIN, Caller, World, assert_fails};

const SESSION: &str = "servers/00000000-0000-4000-8000-000000000001/sessions/aaaaaaaaaaaaaaaaaaaaaaa";

/// Registers a server and returns its instance.
async fn instance(admin: &Caller) -> String {
    let server = Server {
        display_name: "db".to_owned(),
        username: "app".to_owned(),
        endpoints: vec![Endpoint {
            host: "db.example.com".to_owned(),
            port: 0,
        }],
        ..Server::default()
    };
    let request = CreateServerRequest {
        server: Some(server),
        ..CreateServerRequest::default()
    };
    let created = admin.servers().create_server(request).await.unwrap();
    created.into_inner().server.unwrap().instance
}

fn client(number: usize, instance: &str) -> Client {
    Client {
        name: format!("servers/s/sessions/{number:03}"),
        instance: instance.to_owned(),
        ..Client::default()
    }
}

#[tokio::test]
async fn lists_come_in_pages_and_name_who_did_not_answer() {
    let world = World::start().await;
    let admin = world.a.login(ADMIN).await;
    let instance = instance(&admin).await;
    let poolers = &world.a.sessions;
    *poolers.shown.lock().unwrap() = ShowPoolerResponse {
        clients: (0..5).rev().map(|number| client(number, &instance)).collect(),
        pools: vec![Pool {
            cl_active: 3,
            ..Pool::default()
        }],
        ..ShowPoolerResponse::default()
    };
    *poolers.silent.lock().unwrap() = vec![PoolerId(7)];
    let (mut names, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = ListClientsRequest {
            page_size: 2,
            page_token,
            instance: instance.clone(),
        };
        let page = admin.pools().list_clients(request).await.unwrap().into_inner();
        assert_eq!(page.unreachable_poolers, ["poolers/7"]);
        names.extend(page.clients.into_iter().map(|client| client.name));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    let wanted: Vec<_> = (0..5).map(|number| client(number, "").name).collect();
    assert_eq!(names, wanted);
    // Another instance has none.
    let request = ListClientsRequest {
        instance: "instances/00000000-0000-4000-8000-000000000009".to_owned(),
        ..ListClientsRequest::default()
    };
    let others = admin.pools().list_clients(request).await.unwrap().into_inner();
    assert!(others.clients.is_empty());
    let request = ListClientsRequest {
        instance: "nonsense".to_owned(),
        ..ListClientsRequest::default()
    };
    let wrong = admin.pools().list_clients(request).await;
    assert_fails(wrong, Code::InvalidArgument, ErrorReason::InvalidField);
    let pools = admin
        .pools()
        .list_pools(ListPoolsRequest::default())
        .await
        .unwrap();
    assert_eq!(pools.into_inner().pools[0].cl_active, 3);
    // The pooler decides itself who asks.
    assert!(
        poolers
            .tokens
            .lock()
            .unwrap()
            .contains(admin.token.as_ref().unwrap())
    );
}

#[tokio::test]
async fn member_lists_their_own_and_commands_nothing() {
    let world = World::start().await;
    let member = world.member("alice").await.caller;
    let mut pools = member.pools();
    pools.list_pools(ListPoolsRequest::default()).await.unwrap();
    pools.list_clients(ListClientsRequest::default()).await.unwrap();
    pools.list_backends(ListBackendsRequest::default()).await.unwrap();
    pools.list_budgets(ListBudgetsRequest::default()).await.unwrap();
    let name = || "instances/00000000-0000-4000-8000-000000000009".to_owned();
    let refused = [
        pools.list_stats(ListStatsRequest::default()).await.map(drop),
        pools.list_poolers(ListPoolersRequest::default()).await.map(drop),
        pools.list_waiters(ListWaitersRequest::default()).await.map(drop),
        pools
            .pause_instance(PauseInstanceRequest { name: name() })
            .await
            .map(drop),
        pools
            .resume_instance(ResumeInstanceRequest { name: name() })
            .await
            .map(drop),
        pools
            .reconnect_instance(ReconnectInstanceRequest { name: name() })
            .await
            .map(drop),
        pools
            .drain_pooler(DrainPoolerRequest {
                name: "poolers/1".to_owned(),
            })
            .await
            .map(drop),
        pools
            .kill_session(KillSessionRequest {
                name: SESSION.to_owned(),
            })
            .await
            .map(drop),
        pools
            .kill_backend(KillBackendRequest {
                name: name() + "/backends/1",
            })
            .await
            .map(drop),
    ];
    for refused in refused {
        assert_fails(refused, Code::PermissionDenied, ErrorReason::PermissionMissing);
    }
    assert!(world.a.sessions.commands.lock().unwrap().is_empty());
}

#[tokio::test]
async fn pause_is_written_down_and_told_to_poolers() {
    let world = World::start().await;
    let admin = world.a.login(ADMIN).await;
    let name = instance(&admin).await;
    let etag = async || {
        let request = GetInstanceRequest { name: name.clone() };
        let instance = admin
            .instances()
            .get_instance(request)
            .await
            .unwrap()
            .into_inner();
        instance.instance.unwrap().etag
    };
    let before = etag().await;
    let request = PauseInstanceRequest { name: name.clone() };
    admin.pools().pause_instance(request).await.unwrap();
    assert_ne!(etag().await, before);
    let budgets = async || {
        let listed = admin.pools().list_budgets(ListBudgetsRequest::default()).await;
        listed.unwrap().into_inner().budgets
    };
    // Nobody owns it, and its budget is shown all the same.
    let budget = budgets().await.remove(0);
    assert!(budget.paused && budget.pause_time.is_some());
    assert_eq!((budget.max_connections, budget.pooler.as_str()), (20, ""));
    let request = ResumeInstanceRequest { name: name.clone() };
    admin.pools().resume_instance(request).await.unwrap();
    assert!(!budgets().await[0].paused);
    let request = ReconnectInstanceRequest { name: name.clone() };
    let reconnected = admin.pools().reconnect_instance(request).await.unwrap();
    assert_eq!(reconnected.into_inner().backends, 3);
    let id = name.strip_prefix("instances/").unwrap();
    let told = world.a.sessions.commands.lock().unwrap().clone();
    let wanted = [
        format!("refresh {id}"),
        format!("refresh {id}"),
        format!("reconnect {id}"),
    ];
    assert_eq!(told, wanted);

    let name = "instances/00000000-0000-4000-8000-000000000009".to_owned();
    let missing = admin.pools().pause_instance(PauseInstanceRequest { name }).await;
    assert_fails(missing, Code::NotFound, ErrorReason::ResourceNotFound);
}

#[tokio::test]
async fn what_nobody_has_is_not_found_unless_somebody_was_silent() {
    let world = World::start().await;
    let admin = world.a.login(ADMIN).await;
    let kill = async || {
        let name = SESSION.to_owned();
        admin.pools().kill_session(KillSessionRequest { name }).await
    };
    assert_fails(kill().await, Code::NotFound, ErrorReason::ResourceNotFound);
    *world.a.sessions.silent.lock().unwrap() = vec![PoolerId(7)];
    assert_fails(kill().await, Code::Unavailable, ErrorReason::PoolerUnavailable);
    *world.a.sessions.found.lock().unwrap() = true;
    kill().await.unwrap();
    let name = "instances/00000000-0000-4000-8000-000000000009/backends/41".to_owned();
    admin
        .pools()
        .kill_backend(KillBackendRequest { name })
        .await
        .unwrap();
    let name = "poolers/3".to_owned();
    admin
        .pools()
        .drain_pooler(DrainPoolerRequest { name })
        .await
        .unwrap();
    for wrong in [
        "",
        "instances/x/backends/1",
        "instances/00000000-0000-4000-8000-000000000009/backends/x",
    ] {
        let name = wrong.to_owned();
        let refused = admin.pools().kill_backend(KillBackendRequest { name }).await;
        assert_fails(refused, Code::InvalidArgument, ErrorReason::InvalidField);
    }
    let told = world.a.sessions.commands.lock().unwrap().clone();
    let wanted = ["kill 00000000-0000-4000-8000-000000000009 41", "drain 3"];
    assert_eq!(told[told.len() - 2..], wanted);
}
