//! A call can be followed from the client through the API to the pooler.

use std::time::Duration;

use harness::eventually;
use rpc::query::v1::{RunQueryRequest, Script};
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
