//! What it costs that a call says who makes it: the smallest call with a token next to one that needs none.

use anyhow::Context as _;
use e2e::world::Caller;
use e2e::{Client, World};
use rpc::auth::v1::{CreateApiTokenRequest, WhoAmIRequest};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::Effort;
use crate::execute::{Job, rate};
use crate::report::{median, ratio, table, whole};

const CONNECTIONS: [usize; 2] = [1, 8];

pub(crate) async fn measure(world: &World, caller: &Caller, effort: Effort) -> anyhow::Result<()> {
    let access_token = caller.a().token().context("a caller has a token")?.to_owned();
    let request = CreateApiTokenRequest {
        display_name: "bench".to_owned(),
        ..CreateApiTokenRequest::default()
    };
    let api_token = caller
        .a()
        .auth()
        .create_api_token(request)
        .await?
        .into_inner()
        .token;

    println!("## A call that says who makes it\n");
    println!(
        "Calls a second to one API instance, median of {} rounds. *Anonymous* is a health check, which passes the same",
        effort.execute_rounds
    );
    println!("layers and asks nothing; the others are WhoAmI, whose handler is counted in.\n");
    let mut rows = Vec::new();
    for connections in CONNECTIONS {
        let mut anonymous_jobs = anonymous_jobs(world, connections);
        let mut access_jobs = who_am_i_jobs(world, connections, &access_token);
        let mut api_jobs = who_am_i_jobs(world, connections, &api_token);
        let (mut anonymous, mut access, mut api) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..effort.execute_rounds {
            eprintln!("Authentication, {connections} connections, round {}", round + 1);
            anonymous.push(rate(&mut anonymous_jobs, effort.execute_time).await?);
            access.push(rate(&mut access_jobs, effort.execute_time).await?);
            api.push(rate(&mut api_jobs, effort.execute_time).await?);
        }
        let (anonymous, access, api) = (median(anonymous), median(access), median(api));
        rows.push(vec![
            connections.to_string(),
            whole(anonymous),
            whole(access),
            whole(api),
            ratio(access / anonymous),
            ratio(api / anonymous),
        ]);
    }
    let header = [
        "connections",
        "anonymous",
        "access token",
        "API token",
        "access token / anonymous",
        "API token / anonymous",
    ];
    table(&header, &rows);
    Ok(())
}

fn anonymous_jobs(world: &World, connections: usize) -> Vec<Job> {
    jobs(connections, || {
        let client = HealthClient::new(Client::anonymous(&world.apis()[0].url()).channel());
        Box::new(move |_| {
            let mut client = client.clone();
            Box::pin(async move { Ok(client.check(HealthCheckRequest::default()).await.map(drop)?) })
        })
    })
}

fn who_am_i_jobs(world: &World, connections: usize, token: &str) -> Vec<Job> {
    jobs(connections, || {
        let client = Client::anonymous(&world.apis()[0].url()).with_token(token);
        Box::new(move |_| {
            let client = client.clone();
            Box::pin(async move { Ok(client.auth().who_am_i(WhoAmIRequest {}).await.map(drop)?) })
        })
    })
}

fn jobs(count: usize, job: impl Fn() -> Job) -> Vec<Job> {
    std::iter::repeat_with(job).take(count).collect()
}
