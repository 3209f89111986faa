//! What the layer does to a call, and what that costs.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::Arc;

use ::audit::{AuditLog, LogOptions, WriterRole};
use domain::clock::SystemClock;
use domain::random::SystemRandom;
use http_body_util::BodyExt as _;
use prost::Message as _;
use rpc::policy::PolicyTable;
use rpc::query::v1::{ExecuteRequest, Script};
use tokio::time::Instant;

use super::*;

/// Answers with what it is asked, and that all is well.
#[derive(Clone)]
struct Echo;

impl Service<Request<Body>> for Echo {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let trailers = http::HeaderMap::from_iter([(
            http::HeaderName::from_static("grpc-status"),
            http::HeaderValue::from_static("0"),
        )]);
        let body = request.into_body().with_trailers(ready(Some(Ok(trailers))));
        ready(Ok(Response::new(Body::new(body))))
    }
}

fn layer() -> (AuditedLayer, AuditLog) {
    let policies = PolicyTable::read(rpc::descriptors::ALL).unwrap();
    let methods = Methods::read(rpc::descriptors::PUBLIC, &policies).unwrap();
    let options = LogOptions {
        capacity: 200_000,
        ..LogOptions::default()
    };
    let (log, _writer) = AuditLog::new(
        WriterRole::Api,
        options,
        Arc::new(SystemClock),
        Arc::new(SystemRandom),
    );
    let audit = Audit {
        log: log.clone(),
        trusted_hops: TrustedHops::default(),
    };
    (AuditedLayer::new(audit, methods), log)
}

fn request(sql: &str) -> Request<Body> {
    let message = ExecuteRequest {
        session: "servers/a/sessions/b".to_owned(),
        script: Some(Script {
            sql: sql.to_owned(),
            ..Script::default()
        }),
        ..ExecuteRequest::default()
    };
    let mut frame = vec![0; 5];
    frame.extend(message.encode_to_vec());
    let length = u32::try_from(frame.len() - 5).unwrap().to_be_bytes();
    frame[1..5].copy_from_slice(&length);
    let body = http_body_util::Full::new(bytes::Bytes::from(frame));
    Request::post("/pgmoor.query.v1.QueryService/Execute")
        .body(Body::new(body))
        .unwrap()
}

async fn pass(
    service: &mut impl Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    sql: &str,
) -> usize {
    let response = service.call(request(sql)).await.unwrap();
    response.into_body().collect().await.unwrap().to_bytes().len()
}

/// With `--nocapture` it says what a call costs.
#[tokio::test]
async fn bodies_pass_the_layer_unchanged() {
    const CALLS: usize = 2000;
    let (layer, log) = layer();
    let (mut bare, mut audited) = (Echo, layer.layer(Echo));
    for (what, sql) in [
        ("a short statement", "SELECT 1".to_owned()),
        ("1 MiB", "x".repeat(1 << 20)),
    ] {
        let calls = if sql.len() > 1000 { 50 } else { CALLS };
        let mut medians = Vec::new();
        for round in 0..2 {
            let mut times = Vec::new();
            let mut length = 0;
            for _ in 0..calls {
                let started = Instant::now();
                length = if round == 0 {
                    pass(&mut bare, &sql).await
                } else {
                    pass(&mut audited, &sql).await
                };
                times.push(started.elapsed());
            }
            assert!(length > sql.len());
            times.sort_unstable();
            medians.push(times[calls / 2]);
        }
        println!(
            "{what}: {:?} bare, {:?} with the layer, median of {calls}",
            medians[0], medians[1]
        );
    }
    assert_eq!(log.figures().buffered, CALLS + 50, "every call has its record");
}
