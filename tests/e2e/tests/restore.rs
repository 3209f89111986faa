//! Restores of what is no backup, and what they leave alone.

use e2e::{Client, reason};
use rpc::backup::v1::start_restore_request::Source;
use rpc::backup::v1::{StartBackupRequest, StartRestoreRequest};
use rpc::errors::v1::ErrorReason;
use rpc::operation::v1::OperationState;
use tonic::Code;

use crate::files::{download, upload};
use crate::worlds::shared;

/// Restores a file over what is there, and expects to be told that it is none that can be restored.
async fn expect_refused(client: &Client, server: &str, file: &str) {
    let request = StartRestoreRequest {
        source: Some(Source::File(file.to_owned())),
        server: server.to_owned(),
        // Were it begun, it would lose what is there: no transaction brings it back.
        clean: true,
        ..StartRestoreRequest::default()
    };
    let started = match client.backups().start_restore(request).await {
        Ok(response) => response.into_inner().operation.unwrap(),
        // What can be seen at once may be told at once.
        Err(status) => {
            let expected = (Code::FailedPrecondition, ErrorReason::ArtifactInvalid);
            assert_eq!(reason::of(&status), expected, "{}", reason::text(&status));
            return;
        }
    };
    let ended = client.operation_ended(&started.name).await.unwrap();
    assert_eq!(ended.state(), OperationState::Failed, "{ended:?}");
    let error = ended.error.unwrap();
    assert_eq!(error.reason, "ARTIFACT_INVALID", "{file}: {}", error.message);
}

#[tokio::test]
async fn truncated_or_foreign_file_is_refused_and_nothing_is_lost() {
    let world = &shared().await.world;
    let caller = world.create_user().await;
    let server = world.register_target(caller.a()).await;
    let schema = harness::random::name("restore");
    let owner = &world.target().login().user;
    let database = world.target().database();
    database
        .execute(&format!(
            "CREATE SCHEMA {schema} AUTHORIZATION {owner}; SET ROLE {owner}; \
             CREATE TABLE {schema}.t AS SELECT n, repeat(md5(n::text), 20) AS text FROM generate_series(1, 5000) AS n"
        ))
        .await;
    let checksum = async || -> String {
        let sql = format!("SELECT count(*) || md5(string_agg(text, '' ORDER BY n)) FROM {schema}.t");
        database
            .connect()
            .await
            .query_one(&sql, &[])
            .await
            .unwrap()
            .get(0)
    };
    let before = checksum().await;

    let request = StartBackupRequest {
        server: server.clone(),
        schemas: vec![schema.clone()],
        ..StartBackupRequest::default()
    };
    let started = caller
        .a()
        .backups()
        .start_backup(request)
        .await
        .unwrap()
        .into_inner();
    let backup = caller
        .b()
        .operation_ended(&started.operation.unwrap().name)
        .await
        .unwrap();
    assert_eq!(backup.state(), OperationState::Succeeded, "{backup:?}");
    let artifact = download(caller.b(), &backup.backup, 0).await.unwrap();
    assert!(artifact.starts_with(b"PGDMP"));

    let mut altered = artifact.clone();
    altered[7] ^= 0xff;
    for (name, content) in [
        ("truncated.dump", &artifact[..artifact.len() / 2]),
        ("header-only.dump", &artifact[..11]),
        ("altered.dump", &altered),
        ("foreign.dump", b"#!/bin/sh\necho this is no dump\n"),
        ("empty.dump", b""),
    ] {
        let name = format!("users/me/files/{name}");
        upload(caller.a(), &name, content).await.unwrap();
        expect_refused(caller.b(), &server, &name).await;
        assert_eq!(checksum().await, before, "{name} changed the database");
    }

    // What can be restored is, over what is there.
    upload(caller.a(), "users/me/files/good.dump", &artifact)
        .await
        .unwrap();
    database
        .execute(&format!("DELETE FROM {schema}.t WHERE n % 2 = 0"))
        .await;
    let request = StartRestoreRequest {
        source: Some(Source::File("users/me/files/good.dump".to_owned())),
        server,
        clean: true,
        single_transaction: true,
        ..StartRestoreRequest::default()
    };
    let started = caller
        .b()
        .backups()
        .start_restore(request)
        .await
        .unwrap()
        .into_inner();
    let restored = caller
        .a()
        .operation_ended(&started.operation.unwrap().name)
        .await
        .unwrap();
    assert_eq!(restored.state(), OperationState::Succeeded, "{restored:?}");
    assert_eq!(checksum().await, before);
    assert!(world.workers().iter().all(e2e::RoleProcess::is_running));
}
