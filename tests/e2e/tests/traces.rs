//! A call can be followed from the client through the API to the pooler.

use std::time::Duration;

use e2e::World;
use harness::eventually;
use rpc::auth::v1::WhoAmIRequest;
use rpc::query::v1::{ExecuteRequest, RunQueryRequest, Script};
use tonic::Request;

use crate::worlds::shared;

#[tokio::test]
async fn call_is_one_trace_across_api_and_pooler() {
    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    let shared = shared().await;
    let caller = shared.world.create_user().await;
    let server = shared.world.register_target(&caller.balanced).await;
    let mut request = Request::new(RunQueryRequest {
        server,
        script: Some(Script {
            sql: "SELECT 1".to_owned(),
            ..Script::default()
        }),
        ..RunQueryRequest::default()
    });
    // W3C trace context: version, trace, parent, sampled.
    let traceparent = format!("00-{TRACE}-00f067aa0ba902b7-01");
    request
        .metadata_mut()
        .insert("traceparent", traceparent.parse().unwrap());
    caller.balanced.query().run_query(request).await.unwrap();

    let trace_id: Vec<u8> = (0..TRACE.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&TRACE[at..at + 2], 16).unwrap())
        .collect();
    let what = "spans of API and pooler arrive in the client's trace";
    eventually(Duration::from_secs(20), what, async || {
        let spans = shared.traces.spans_of(&trace_id);
        let from = |role: &str| spans.iter().any(|span| span.service.contains(role));
        if from("api") && from("pooler") {
            Ok(())
        } else {
            Err(format!("{spans:?}"))
        }
    })
    .await;
    let spans = shared.traces.spans_of(&trace_id);
    assert!(
        spans.iter().any(|span| span.name.contains("RunQuery")),
        "{spans:?}"
    );
}

#[tokio::test]
async fn closing_lines_of_an_execute_say_who_where_and_in_which_trace() {
    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    let shared = shared().await;
    let caller = shared.world.create_user().await;
    let server = shared.world.register_target(&caller.balanced).await;
    let session = caller.balanced.open_session(&server).await.unwrap();
    let mut request = Request::new(ExecuteRequest {
        session: session.name.clone(),
        script: Some(Script {
            sql: "SELECT 1".to_owned(),
            ..Script::default()
        }),
        ..ExecuteRequest::default()
    });
    let traceparent = format!("00-{TRACE}-b7ad6b7169203331-01");
    request
        .metadata_mut()
        .insert("traceparent", traceparent.parse().unwrap());
    let mut events = caller
        .balanced
        .query()
        .execute(request)
        .await
        .unwrap()
        .into_inner();
    while events.message().await.unwrap().is_some() {}

    let answer = caller.balanced.auth().who_am_i(WhoAmIRequest {}).await;
    let user = answer.unwrap().into_inner().user;
    let id = session.name.rsplit('/').next().unwrap();
    for (role, ids) in [
        (
            "api",
            ["trace.id", "user.id", "server.id", "session.id"].as_slice(),
        ),
        (
            "pooler",
            &["trace.id", "user.id", "server.id", "session.id", "execution.id"],
        ),
    ] {
        let line = eventually(Duration::from_secs(20), "a closing line is written", async || {
            closing_line(&shared.world, role, TRACE).ok_or("none yet")
        })
        .await;
        for name in ids {
            assert!(line["span"][name].is_string(), "{name} is not in {line}");
        }
        assert_eq!(line["span"]["session.id"], id);
        assert_eq!(
            user,
            format!("users/{}", line["span"]["user.id"].as_str().unwrap())
        );
        assert_eq!(line["grpc.status"], "Ok");
    }
}

/// The closing line of the only call in a trace that a process of that role answered.
fn closing_line(world: &World, role: &str, trace: &str) -> Option<serde_json::Value> {
    let logs = world.logs().into_iter().filter(|(name, _)| name.contains(role));
    let lines: Vec<serde_json::Value> = logs
        .flat_map(|(_, text)| text.lines().map(str::to_owned).collect::<Vec<_>>())
        .filter_map(|line| serde_json::from_str(&line).ok())
        .filter(|line: &serde_json::Value| line["message"] == "call finished")
        .filter(|line| line["span"]["trace.id"] == trace)
        .collect();
    assert!(lines.len() < 2, "{lines:?}");
    lines.into_iter().next()
}
