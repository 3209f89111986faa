//! The pooler behind gRPC and mutual TLS, through the client that API instances and workers use.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use domain::session::PoolerId;
use futures::StreamExt as _;
use harness::eventually;
use pooler::grpc::service;
use pooler::{PeerPolicy, Pooler};
use rcgen::string::Ia5String;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use rpc::errors::v1::ErrorReason;
use rpc::pooler::v1::LeaseSlotsRequest;
use rpc::pooler::v1::lease_slots_response::Kind as LeaseKind;
use rpc::query::v1::copy_in_request::Kind as CopyInKind;
use rpc::query::v1::{
    CopyInRequest, CopyInStart, ExecuteRequest, ExecutionOutcome, OnDisconnect, SessionState,
};
use sessions::Sessions as _;
use sessions::client::PoolerClient;
use sessions::directory::{Directory, PoolerEntry, Snapshot};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::Status;
use tonic::transport::{Certificate, ClientTlsConfig, Identity, Server, ServerTlsConfig};

use crate::support::{DEADLINE, Run, World, name, reason, split, start_pooler, verifier};

/// Certificates as the roles of pgmoor have them.
struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self {
            pem,
            issuer: Issuer::new(params, key),
        }
    }

    fn issue(&self, uri: &str) -> Identity {
        let mut params = CertificateParams::new(vec!["pgmoor.internal".to_owned()]).unwrap();
        params
            .subject_alt_names
            .push(SanType::URI(Ia5String::try_from(uri).unwrap()));
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        Identity::from_pem(certificate, key.serialize_pem())
    }

    fn client(&self, directory: &Directory, uri: Option<&str>) -> PoolerClient {
        let mut tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(&self.pem))
            .domain_name("pgmoor.internal");
        if let Some(uri) = uri {
            tls = tls.identity(self.issue(uri));
        }
        PoolerClient::new(directory.clone(), Some(tls), |_| {})
    }

    /// Serves a pooler until the set is dropped.
    async fn serve(&self, pooler: &Pooler, servers: &mut JoinSet<()>) -> PoolerEntry {
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)))
            .await
            .unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let tls = ServerTlsConfig::new()
            .identity(self.issue("pgmoor://pooler/one"))
            .client_ca_root(Certificate::from_pem(&self.pem));
        let router = Server::builder()
            .tls_config(tls)
            .unwrap()
            .add_service(service(pooler.clone(), PeerPolicy::Certificates));
        servers.spawn(async move {
            router
                .serve_with_incoming(TcpListenerStream::new(listener))
                .await
                .unwrap();
        });
        PoolerEntry {
            is_alive: true,
            pooler: pooler.id(),
            incarnation: pooler.incarnation(),
            address,
            takes_new_sessions: true,
        }
    }
}

struct Remote {
    world: World,
    authority: Authority,
    directory: Directory,
    servers: JoinSet<()>,
    client: PoolerClient,
}

impl Remote {
    async fn new() -> Self {
        let (world, authority, directory) = (World::new().await, Authority::new(), Directory::default());
        let mut servers = JoinSet::new();
        let entry = authority.serve(&world.pooler, &mut servers).await;
        directory.replace(Snapshot {
            poolers: vec![entry],
            ..Snapshot::default()
        });
        let client = authority.client(&directory, Some("pgmoor://api/one"));
        Self {
            world,
            authority,
            directory,
            servers,
            client,
        }
    }

    async fn open(&self) -> domain::session::SessionName {
        let (token, instance) = (&self.world.token, self.world.server.instance_id);
        name(
            &self
                .client
                .open_session(token, instance, self.world.open_request())
                .await
                .unwrap(),
        )
    }

    async fn run(&self, session: domain::session::SessionName, sql: &str) -> Run {
        let request = ExecuteRequest {
            session: session.to_string(),
            script: Some(split(sql)),
            ..Default::default()
        };
        Run::read(
            self.client
                .execute(&self.world.token, session, request)
                .await
                .unwrap(),
        )
        .await
    }
}

fn lease(world: &World) -> LeaseSlotsRequest {
    LeaseSlotsRequest {
        held: false,
        instance: format!("instances/{}", world.server.instance_id),
        count: 1,
        operation: "operations/x".to_owned(),
        user: format!("users/{}", world.user),
    }
}

#[tokio::test]
async fn session_is_used_over_the_network_as_in_the_process() {
    let remote = Remote::new().await;
    let token = &remote.world.token;
    let session = remote.open().await;
    assert_eq!(remote.run(session, "SELECT 1").await.messages, 1);
    let begun = remote
        .client
        .begin_transaction(token, session, Default::default())
        .await
        .unwrap();
    assert_eq!(begun.name, session.to_string());
    assert_eq!(
        remote.run(session, "CREATE TABLE t (a int)").await.outcome(),
        ExecutionOutcome::Succeeded
    );
    assert!(
        remote
            .client
            .commit_transaction(token, session)
            .await
            .unwrap()
            .error
            .is_none()
    );
    assert_eq!(remote.client.list_sessions(token, None).await.unwrap().len(), 1);
    let rows = remote
        .run(session, "SELECT repeat('x', 300000) FROM generate_series(1, 20)")
        .await;
    assert_eq!(rows.finished().row_count, 20);
    remote.client.close_session(token, session).await.unwrap();
    let gone = remote.client.get_session(token, session).await.unwrap_err();
    assert_eq!(reason(&gone), ErrorReason::SessionStateLost);
}

#[tokio::test]
async fn reader_that_hangs_up_is_noticed_across_the_network() {
    let remote = Remote::new().await;
    let session = remote.open().await;
    let request = ExecuteRequest {
        session: session.to_string(),
        script: Some(split("SELECT pg_sleep(60)")),
        on_disconnect: OnDisconnect::Cancel.into(),
        ..Default::default()
    };
    let mut stream = remote
        .client
        .execute(&remote.world.token, session, request)
        .await
        .unwrap();
    stream.next().await.unwrap().unwrap();
    drop(stream);
    eventually(DEADLINE, "the session is idle", async || {
        let session = remote
            .client
            .get_session(&remote.world.token, session)
            .await
            .unwrap();
        session.state() == SessionState::Idle
    })
    .await;
}

#[tokio::test]
async fn copy_that_breaks_off_on_the_way_is_not_committed() {
    let remote = Remote::new().await;
    let token = &remote.world.token;
    let session = remote.open().await;
    remote.run(session, "CREATE TABLE t (a int)").await;
    let start = CopyInStart {
        session: session.to_string(),
        sql: "COPY t FROM STDIN".to_owned(),
        ..Default::default()
    };
    let start = || {
        Ok(CopyInRequest {
            kind: Some(CopyInKind::Start(start.clone())),
        })
    };
    let data = || {
        Ok(CopyInRequest {
            kind: Some(CopyInKind::Data(Bytes::from_static(b"1\n"))),
        })
    };
    let whole = futures::stream::iter([start(), data(), data()]).boxed();
    let response = remote.client.copy_in(token, session, whole).await.unwrap();
    assert_eq!(response.row_count, 2);
    let broken = futures::stream::iter([start(), data(), Err(Status::cancelled("gone"))]).boxed();
    let failed = remote.client.copy_in(token, session, broken).await.unwrap_err();
    assert_eq!(failed.message(), "gone");
    eventually(DEADLINE, "the session is idle", async || {
        remote.client.get_session(token, session).await.unwrap().state() == SessionState::Idle
    })
    .await;
    // And one whose caller goes away while the data flows.
    let endless = futures::stream::iter([start(), data()])
        .chain(futures::stream::pending())
        .boxed();
    let given_up = remote.client.copy_in(token, session, endless);
    assert!(
        tokio::time::timeout(Duration::from_millis(300), given_up)
            .await
            .is_err()
    );
    eventually(DEADLINE, "the session is idle", async || {
        remote.client.get_session(token, session).await.unwrap().state() == SessionState::Idle
    })
    .await;
    assert_eq!(
        remote.run(session, "SELECT count(*) FROM t").await.rows(),
        [[Some("2".to_owned())]]
    );
}

#[tokio::test]
async fn certificate_decides_what_a_peer_may_ask() {
    let remote = Remote::new().await;
    let (token, instance) = (&remote.world.token, remote.world.server.instance_id);
    let worker = remote
        .authority
        .client(&remote.directory, Some("pgmoor://worker/one"));
    let stranger = remote
        .authority
        .client(&remote.directory, Some("pgmoor://nobody/one"));
    for client in [&worker, &stranger] {
        let refused = client.list_sessions(token, None).await.unwrap_err();
        assert_eq!(reason(&refused), ErrorReason::PermissionMissing);
    }
    for client in [&remote.client, &stranger] {
        let refused = client
            .lease_slots(instance, lease(&remote.world))
            .await
            .err()
            .unwrap();
        assert_eq!(reason(&refused), ErrorReason::PermissionMissing);
    }
    let mut slots = worker.lease_slots(instance, lease(&remote.world)).await.unwrap();
    assert_eq!(
        slots.next().await.unwrap().unwrap().kind,
        Some(LeaseKind::Granted(true))
    );
    // Without a certificate there is no connection at all.
    let anonymous = remote.authority.client(&remote.directory, None);
    let refused = anonymous
        .get_session(token, remote.open().await)
        .await
        .unwrap_err();
    assert_eq!(reason(&refused), ErrorReason::PoolerUnavailable);
}

#[tokio::test]
async fn caller_is_sent_on_to_the_owner() {
    let mut remote = Remote::new().await;
    remote.open().await;
    let verifier = verifier(&remote.world.store).await;
    let world = &remote.world;
    let other = start_pooler(&world.store, world.cluster, &world.opening_key, verifier).await;
    let entry = remote.authority.serve(&other, &mut remote.servers).await;
    let mut poolers = remote.directory.snapshot().poolers.clone();
    poolers.push(entry);
    // The directory is behind: it takes the other pooler for the owner.
    let owners = [(world.server.instance_id, other.id())].into_iter().collect();
    remote.directory.replace(Snapshot { poolers, owners });
    let session = remote.open().await;
    assert_eq!(session.session.pooler_hint(), remote.world.pooler.id());
}

#[tokio::test]
async fn pooler_that_is_gone_is_unavailable_soon() {
    let remote = Remote::new().await;
    let (token, session) = (&remote.world.token, remote.open().await);
    let mut poolers = remote.directory.snapshot().poolers.clone();
    // Nobody listens there any more.
    poolers[0].address = format!("127.0.0.1:{}", harness::free_port());
    remote.directory.replace(Snapshot {
        poolers: poolers.clone(),
        ..Snapshot::default()
    });
    let asking = remote.client.get_session(token, session);
    let refused = tokio::time::timeout(Duration::from_secs(10), asking)
        .await
        .unwrap()
        .unwrap_err();
    assert_eq!(reason(&refused), ErrorReason::PoolerUnavailable);
    poolers[0].pooler = PoolerId(poolers[0].pooler.0 + 1);
    remote.directory.replace(Snapshot {
        poolers,
        ..Snapshot::default()
    });
    let refused = remote.client.get_session(token, session).await.unwrap_err();
    assert_eq!(reason(&refused), ErrorReason::PoolerUnavailable);
}
