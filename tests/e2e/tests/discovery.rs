//! What a client finds out by itself: reflection and health.

use std::collections::BTreeSet;

use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::{v1, v1alpha};

use crate::worlds::shared;

/// The services every client may see.
const PUBLIC: [&str; 11] = [
    "pgmoor.auth.v1.AuthService",
    "pgmoor.backup.v1.BackupService",
    "pgmoor.catalog.v1.CatalogService",
    "pgmoor.operation.v1.OperationService",
    "pgmoor.pool.v1.PoolService",
    "pgmoor.query.v1.QueryService",
    "pgmoor.server.v1.InstanceService",
    "pgmoor.server.v1.ServerService",
    "pgmoor.settings.v1.SettingsService",
    "pgmoor.storage.v1.StorageService",
    "pgmoor.user.v1.UserService",
];

fn check(services: &BTreeSet<String>) {
    for service in PUBLIC {
        assert!(services.contains(service), "{service} is not among {services:?}");
    }
    assert!(services.contains("grpc.health.v1.Health"), "{services:?}");
    let internal = services.iter().find(|service| service.contains("pooler"));
    assert_eq!(internal, None);
}

#[tokio::test]
async fn reflection_v1_lists_every_public_service_and_never_the_pooler() {
    use v1::server_reflection_client::ServerReflectionClient;
    use v1::server_reflection_request::MessageRequest;
    use v1::server_reflection_response::MessageResponse;

    let mut client = ServerReflectionClient::new(shared().await.world.anonymous().channel());
    let ask = |request| v1::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(request),
    };
    let requests = [
        ask(MessageRequest::ListServices(String::new())),
        ask(MessageRequest::FileContainingSymbol(
            "pgmoor.query.v1.QueryService".to_owned(),
        )),
        ask(MessageRequest::FileContainingSymbol(
            "google.rpc.ErrorInfo".to_owned(),
        )),
        ask(MessageRequest::FileContainingSymbol(
            "pgmoor.pooler.v1.PoolerService".to_owned(),
        )),
    ];
    let stream = client.server_reflection_info(tokio_stream::iter(requests)).await;
    let mut stream = stream.unwrap().into_inner();
    let mut answer = async || stream.message().await.unwrap().unwrap().message_response.unwrap();
    let MessageResponse::ListServicesResponse(listed) = answer().await else {
        panic!("no list of services")
    };
    check(&listed.service.into_iter().map(|service| service.name).collect());
    assert!(matches!(
        answer().await,
        MessageResponse::FileDescriptorResponse(_)
    ));
    assert!(matches!(
        answer().await,
        MessageResponse::FileDescriptorResponse(_)
    ));
    let internal = stream.message().await;
    let hidden = match internal {
        Ok(Some(response)) => matches!(response.message_response, Some(MessageResponse::ErrorResponse(_))),
        Ok(None) => false,
        Err(status) => status.code() == tonic::Code::NotFound,
    };
    assert!(hidden, "the pooler's service can be described");
}

#[tokio::test]
async fn reflection_v1alpha_lists_every_public_service_and_never_the_pooler() {
    use v1alpha::server_reflection_client::ServerReflectionClient;
    use v1alpha::server_reflection_request::MessageRequest;
    use v1alpha::server_reflection_response::MessageResponse;

    let mut client = ServerReflectionClient::new(shared().await.world.anonymous().channel());
    let request = v1alpha::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let stream = client.server_reflection_info(tokio_stream::iter([request])).await;
    let message = stream.unwrap().into_inner().message().await.unwrap().unwrap();
    let Some(MessageResponse::ListServicesResponse(listed)) = message.message_response else {
        panic!("no list of services: {message:?}")
    };
    check(&listed.service.into_iter().map(|service| service.name).collect());
}

#[tokio::test]
async fn every_public_service_tells_its_health() {
    let world = &shared().await.world;
    for api in world.apis() {
        let mut client = HealthClient::new(e2e::Client::anonymous(&api.url()).channel());
        for service in PUBLIC.into_iter().chain([""]) {
            let service = service.to_owned();
            let request = HealthCheckRequest {
                service: service.clone(),
            };
            let health = client
                .check(request)
                .await
                .unwrap_or_else(|status| panic!("{service}: {status}"));
            assert_eq!(health.into_inner().status(), ServingStatus::Serving, "{service}");
        }
        let service = "no.such.Service".to_owned();
        let unknown = client.check(HealthCheckRequest { service }).await.unwrap_err();
        assert_eq!(unknown.code(), tonic::Code::NotFound);
    }
}
