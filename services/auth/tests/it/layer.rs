//! What the tower layer lets through to a handler, and how it refuses the rest.

use std::convert::Infallible;
use std::sync::Arc;

use auth::{AuthLayer, Bearer};
use domain::access::Caller;
use http::{Request, Response};
use rpc::errors::v1::ErrorReason;
use rpc::policy::PolicyTable;
use secrecy::{ExposeSecret as _, SecretString};
use tonic::{Code, Status};
use tower::{Layer as _, ServiceExt as _, service_fn};

use crate::support::World;

const WHO_AM_I: &str = "/pgmoor.auth.v1.AuthService/WhoAmI";
const LIST_USERS: &str = "/pgmoor.user.v1.UserService/ListUsers";
const LOGIN: &str = "/pgmoor.auth.v1.AuthService/LoginWithPassword";
const LEASE_SLOTS: &str = "/pgmoor.pooler.v1.PoolerService/LeaseSlots";

/// What a handler found.
#[derive(Debug, Default)]
struct Seen {
    caller: Option<Arc<Caller>>,
    bearer: Option<String>,
    authorization_left: bool,
}

#[derive(Debug, Clone)]
struct WorkerCertificate;

fn layer(world: &World) -> AuthLayer {
    let policies = PolicyTable::read(rpc::descriptors::ALL).unwrap();
    AuthLayer::new(&policies, Arc::clone(&world.api)).unwrap()
}

fn request(path: &str, authorization: &[&str]) -> Request<()> {
    let mut request = Request::builder().uri(path);
    for value in authorization {
        request = request.header("authorization", *value);
    }
    request.body(()).unwrap()
}

async fn send(layer: &AuthLayer, request: Request<()>) -> Result<Seen, Status> {
    let handler = service_fn(async |request: Request<()>| {
        let seen = Seen {
            caller: request.extensions().get().cloned(),
            bearer: request
                .extensions()
                .get::<Bearer>()
                .map(|bearer| bearer.expose().to_owned()),
            authorization_left: request.headers().contains_key("authorization"),
        };
        Ok::<_, Infallible>(Response::new(Some(seen)))
    });
    let response = layer.layer(handler).oneshot(request).await.unwrap();
    match Status::from_header_map(response.headers()) {
        Some(status) => {
            // Trailers-only, as the gRPC protocol wants it.
            assert_eq!(response.status(), 200);
            assert_eq!(response.headers()["content-type"], "application/grpc");
            assert!(response.body().is_none());
            Err(status)
        }
        None => Ok(response.into_body().unwrap()),
    }
}

async fn refusal(layer: &AuthLayer, request: Request<()>) -> (Code, Option<ErrorReason>) {
    let status = send(layer, request).await.unwrap_err();
    (status.code(), rpc::error::reason(&status))
}

fn bearer(token: &SecretString) -> String {
    format!("Bearer {}", token.expose_secret())
}

#[tokio::test]
async fn handler_gets_the_caller_and_the_token_and_no_authorization() {
    let world = World::new().await;
    let user = world.user("alice", false).await;
    let pair = world.login("alice").await;
    let seen = send(&layer(&world), request(WHO_AM_I, &[&bearer(&pair.access_token)]))
        .await
        .unwrap();
    assert_eq!(seen.caller.unwrap().user, user.id);
    assert_eq!(seen.bearer.as_deref(), Some(pair.access_token.expose_secret()));
    assert!(!seen.authorization_left);
}

#[tokio::test]
async fn anonymous_methods_need_nothing_and_health_and_reflection_neither() {
    let world = World::new().await;
    for path in [
        LOGIN,
        "/pgmoor.auth.v1.AuthService/RefreshToken",
        "/grpc.health.v1.Health/Check",
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    ] {
        for authorization in [[].as_slice(), &["Bearer expired.or.worse"]] {
            let seen = send(&layer(&world), request(path, authorization)).await.unwrap();
            assert!(seen.caller.is_none() && seen.bearer.is_none() && !seen.authorization_left);
        }
    }
}

#[tokio::test]
async fn call_without_good_credentials_is_refused_with_its_reason() {
    let world = World::new().await;
    world.user("alice", false).await;
    let token = bearer(&world.login("alice").await.access_token);
    let huge = format!("Bearer {}", "x".repeat(10_000));
    let missing = (Code::Unauthenticated, Some(ErrorReason::CredentialsMissing));
    let invalid = (Code::Unauthenticated, Some(ErrorReason::TokenInvalid));
    for (authorization, expected) in [
        ([].as_slice(), missing),
        (&["Basic YWxpY2U6eA=="], missing),
        (&["Bearer "], invalid),
        (&["Bearer nonsense"], invalid),
        (&[huge.as_str()], invalid),
        (&[token.as_str(), token.as_str()], invalid),
        (&[token.as_str(), "Bearer nonsense"], invalid),
    ] {
        assert_eq!(
            refusal(&layer(&world), request(WHO_AM_I, authorization)).await,
            expected
        );
    }
}

#[tokio::test]
async fn method_of_administrators_is_closed_to_members() {
    let world = World::new().await;
    world.user("root", true).await;
    world.user("alice", false).await;
    let (root, alice) = (world.login("root").await, world.login("alice").await);
    let layer = layer(&world);
    send(&layer, request(LIST_USERS, &[&bearer(&root.access_token)]))
        .await
        .unwrap();
    let denied = (Code::PermissionDenied, Some(ErrorReason::PermissionMissing));
    assert_eq!(
        refusal(&layer, request(LIST_USERS, &[&bearer(&alice.access_token)])).await,
        denied
    );
}

#[tokio::test]
async fn leasing_slots_is_for_workers_certificates_only() {
    let world = World::new().await;
    world.user("root", true).await;
    let token = bearer(&world.login("root").await.access_token);
    let denied = (Code::PermissionDenied, Some(ErrorReason::PermissionMissing));
    let as_worker = || {
        let mut request = request(LEASE_SLOTS, &[]);
        request.extensions_mut().insert(WorkerCertificate);
        request
    };
    let closed = layer(&world);
    assert_eq!(refusal(&closed, as_worker()).await, denied);
    let open = layer(&world).with_workers(Arc::new(|extensions| {
        extensions.get::<WorkerCertificate>().is_some()
    }));
    assert_eq!(refusal(&open, request(LEASE_SLOTS, &[&token])).await, denied);
    assert!(send(&open, as_worker()).await.unwrap().caller.is_none());
}

#[tokio::test]
async fn unknown_method_is_not_implemented_for_anybody() {
    let world = World::new().await;
    world.user("root", true).await;
    let token = bearer(&world.login("root").await.access_token);
    for path in [
        "/",
        "/pgmoor.user.v1.UserService/Nothing",
        "/pgmoor.user.v1.UserService/ListUsers/x",
        "/other.Service/X",
    ] {
        for authorization in [[].as_slice(), &[token.as_str()]] {
            let (code, _) = refusal(&layer(&world), request(path, authorization)).await;
            assert_eq!(code, Code::Unimplemented, "{path}");
        }
    }
}
