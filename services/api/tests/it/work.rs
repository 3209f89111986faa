//! Background work as tests arrange it: servers to work on, operations asked for through the API, and a
//! worker's hand.

use std::time::Duration;

use domain::backup::BackupRequest;
use domain::id::{BackupId, IncarnationId};
use domain::operation::OperationOutcome;
use domain::random::SystemRandom;
use harness::Cluster;
use rpc::backup::v1::{StartBackupRequest, StartRestoreRequest};
use rpc::operation::v1::{GetOperationRequest, Operation};
use rpc::server::v1::{CreateServerRequest, Endpoint, Server};
use storage::{ArtifactKey, Artifacts};
use store::Store;
use store::backups::{Artifact, NewBackup, TableName};
use store::operations::{Attempt, Claimed};
use tonic::Status;

use crate::world::{Caller, World, connect, object_store};

const LEASE: Duration = Duration::from_secs(600);

/// Registers a server of the caller and returns its name.
pub async fn server(caller: &Caller) -> String {
    let server = Server {
        display_name: "target".to_owned(),
        username: "app".to_owned(),
        endpoints: vec![Endpoint {
            host: "10.1.2.3".to_owned(),
            port: 0,
        }],
        ..Server::default()
    };
    let request = CreateServerRequest {
        server: Some(server),
        password: String::new(),
        validate_only: false,
    };
    caller
        .servers()
        .create_server(request)
        .await
        .unwrap()
        .into_inner()
        .server
        .unwrap()
        .name
}

/// A wish for a backup of schema `public`.
pub fn wish(server: &str) -> StartBackupRequest {
    StartBackupRequest {
        server: server.to_owned(),
        schemas: vec!["public".to_owned()],
        ..StartBackupRequest::default()
    }
}

pub async fn start_backup(caller: &Caller, request: StartBackupRequest) -> Result<Operation, Status> {
    Ok(caller
        .backups()
        .start_backup(request)
        .await?
        .into_inner()
        .operation
        .unwrap())
}

pub async fn start_restore(caller: &Caller, request: StartRestoreRequest) -> Result<Operation, Status> {
    Ok(caller
        .backups()
        .start_restore(request)
        .await?
        .into_inner()
        .operation
        .unwrap())
}

pub async fn get(caller: &Caller, name: &str) -> Result<Operation, Status> {
    let request = GetOperationRequest {
        name: name.to_owned(),
    };
    Ok(caller
        .operations()
        .get_operation(request)
        .await?
        .into_inner()
        .operation
        .unwrap())
}

/// What a worker does, by hand.
pub struct Worker {
    pub store: Store,
    artifacts: Artifacts,
    incarnation: IncarnationId,
}

impl Worker {
    pub async fn of(world: &World) -> Self {
        let login = Cluster::shared()
            .await
            .create_login("IN ROLE pgmoor_worker")
            .await;
        let random = std::sync::Arc::new(SystemRandom);
        Self {
            store: connect(&world.database.url_as(&login)).await,
            artifacts: Artifacts::new(object_store(&world.objects), random),
            incarnation: IncarnationId::generate(&SystemRandom),
        }
    }

    /// Takes the oldest operation that is queued.
    pub async fn claim(&self) -> Claimed {
        self.store
            .operations()
            .claim(self.incarnation, LEASE)
            .await
            .unwrap()
            .expect("a queued operation")
    }

    pub async fn log(&self, attempt: &Attempt, text: &[u8]) {
        self.store.operations().append_log(attempt, text).await.unwrap();
    }

    pub async fn finish(&self, attempt: &Attempt, outcome: OperationOutcome) {
        self.store.operations().finish(attempt, &outcome).await.unwrap();
    }

    /// Carries the oldest queued backup out: `content` is its artifact.
    pub async fn back_up(&self, content: &[u8]) -> String {
        let Claimed { attempt, operation } = self.claim().await;
        let request = BackupRequest::from_json(&operation.request).unwrap();
        let id: BackupId = operation.backup_id.unwrap();
        let key = ArtifactKey::new(id, operation.id, attempt.number);
        let mut writer = self.artifacts.begin(&key).await.unwrap();
        writer.write(content.to_vec().into()).await.unwrap();
        let fingerprint = writer.finish().await.unwrap();
        let table = |(schema, table): &(_, _)| TableName {
            schema: Clone::clone(schema),
            table: Clone::clone(table),
        };
        let backup = NewBackup {
            id,
            schemas: request.selection.schemas().to_vec(),
            tables: request.selection.tables().iter().map(table).collect(),
            artifact: Artifact {
                storage_key: key.as_str().to_owned(),
                size_bytes: fingerprint.size,
                sha256: *fingerprint.sha256.as_bytes(),
            },
            tool_version: "15.1".to_owned(),
            server_version: "15.2".to_owned(),
        };
        self.store
            .operations()
            .finish_backup(&attempt, &backup)
            .await
            .unwrap();
        format!("backups/{id}")
    }
}
