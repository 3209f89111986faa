//! What tools see without credentials: health, reflection, gRPC-Web.

use prost::Message as _;
use prost_types::FileDescriptorProto;
use rpc::errors::v1::ErrorReason;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_prost::ProstCodec;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

use crate::world::{Instance, World, assert_fails};

async fn health(instance: &Instance, service: &str) -> Result<ServingStatus, tonic::Status> {
    let request = HealthCheckRequest {
        service: service.to_owned(),
    };
    let response = HealthClient::new(instance.channel.clone()).check(request).await?;
    Ok(response.into_inner().status())
}

async fn reflected(instance: &Instance, ask: MessageRequest) -> Result<MessageResponse, tonic::Status> {
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(ask),
    };
    let requests = tokio_stream::iter([request]);
    let mut client = ServerReflectionClient::new(instance.channel.clone());
    let mut answers = client.server_reflection_info(requests).await?.into_inner();
    let answer = answers.message().await?.expect("an answer");
    Ok(answer.message_response.expect("a response"))
}

#[tokio::test]
async fn query_service_serves_while_a_pooler_lives() {
    let world = World::start().await;
    let query = "pgmoor.query.v1.QueryService";
    let settings = "pgmoor.settings.v1.SettingsService";
    assert_eq!(health(&world.a, query).await.unwrap(), ServingStatus::NotServing);
    assert_eq!(health(&world.a, settings).await.unwrap(), ServingStatus::Serving);
    assert_eq!(health(&world.a, "").await.unwrap(), ServingStatus::Serving);
    world.a.health.set_pooler_live(true).await;
    assert_eq!(health(&world.a, query).await.unwrap(), ServingStatus::Serving);
    world.a.health.set_draining().await;
    for service in [query, settings, ""] {
        assert_eq!(
            health(&world.a, service).await.unwrap(),
            ServingStatus::NotServing,
            "{service}"
        );
    }
    assert_eq!(
        health(&world.b, "no.Such").await.unwrap_err().code(),
        Code::NotFound
    );
}

#[tokio::test]
async fn reflection_shows_the_public_services_and_error_details_only() {
    let world = World::start().await;
    let listed = reflected(&world.a, MessageRequest::ListServices(String::new()))
        .await
        .unwrap();
    let MessageResponse::ListServicesResponse(listed) = listed else {
        panic!("{listed:?}")
    };
    let services: Vec<_> = listed.service.into_iter().map(|service| service.name).collect();
    for service in [
        "pgmoor.auth.v1.AuthService",
        "pgmoor.query.v1.QueryService",
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
    ] {
        assert!(services.contains(&service.to_owned()), "{services:?}");
    }
    assert!(
        !services.iter().any(|service| service.contains("pooler")),
        "{services:?}"
    );
    for symbol in [
        "google.rpc.ErrorInfo",
        "pgmoor.errors.v1.ErrorReason",
        "pgmoor.options.v1.MethodPolicy",
    ] {
        let found = MessageRequest::FileContainingSymbol(symbol.to_owned());
        let MessageResponse::FileDescriptorResponse(files) = reflected(&world.a, found).await.unwrap() else {
            panic!("{symbol}")
        };
        FileDescriptorProto::decode(files.file_descriptor_proto[0].as_slice()).unwrap();
    }
    let pooler = MessageRequest::FileContainingSymbol("pgmoor.pooler.v1.PoolerService".to_owned());
    assert_eq!(
        reflected(&world.a, pooler).await.unwrap_err().code(),
        Code::NotFound
    );
}

#[tokio::test]
async fn old_tools_find_reflection_v1alpha() {
    use tonic_reflection::pb::v1alpha as old;
    let world = World::start().await;
    let request = old::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(old::server_reflection_request::MessageRequest::ListServices(
            String::new(),
        )),
    };
    let mut client = old::server_reflection_client::ServerReflectionClient::new(world.a.channel.clone());
    let mut answers = client
        .server_reflection_info(tokio_stream::iter([request]))
        .await
        .unwrap()
        .into_inner();
    assert!(answers.message().await.unwrap().is_some());
}

#[tokio::test]
async fn grpc_web_over_http_1_is_answered_on_the_same_port() {
    let world = World::start().await;
    let address = world.a.address.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!(
        "POST /grpc.health.v1.Health/Check HTTP/1.1\r\nhost: {address}\r\n\
         content-type: application/grpc-web+proto\r\n\
         x-grpc-web: 1\r\ncontent-length: 5\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    // An empty message: no compression, length 0.
    stream.write_all(&[0; 5]).await.unwrap();
    let mut response = Vec::new();
    stream.read_to_end(&mut response).await.unwrap();
    let text = String::from_utf8_lossy(&response);
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    assert!(text.contains("grpc-status:0"), "{text}");
}

#[tokio::test]
async fn unknown_method_is_unimplemented() {
    let world = World::start().await;
    let mut client = tonic::client::Grpc::new(world.a.channel.clone());
    client.ready().await.unwrap();
    let path = http::uri::PathAndQuery::from_static("/pgmoor.pooler.v1.PoolerService/LeaseSlots");
    let outcome = client
        .unary::<HealthCheckRequest, HealthCheckRequest, _>(
            tonic::Request::new(HealthCheckRequest::default()),
            path,
            ProstCodec::default(),
        )
        .await;
    let code = outcome.unwrap_err().code();
    // The pooler's methods are known to the policy and served nowhere here.
    assert!(
        matches!(code, Code::Unimplemented | Code::PermissionDenied),
        "{code:?}"
    );
}

#[tokio::test]
async fn request_that_does_not_decode_or_is_too_large_is_the_callers_mistake() {
    let world = World::start().await;
    let login = "/pgmoor.auth.v1.AuthService/LoginWithPassword";
    // Field 1 as a number, where the message has a text.
    for sent in [vec![0x08, 0x07], vec![0; 5 * 1024 * 1024]] {
        let mut client = tonic::client::Grpc::new(world.a.channel.clone());
        client.ready().await.unwrap();
        let path = http::uri::PathAndQuery::from_static(login);
        let sent = rpc::events::EncodedEvents::from_encoded(sent.into());
        let outcome = client
            .unary::<_, HealthCheckRequest, _>(tonic::Request::new(sent), path, ProstCodec::default())
            .await;
        assert_fails(outcome, Code::InvalidArgument, ErrorReason::InvalidField);
    }
}
