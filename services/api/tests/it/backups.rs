//! Backups and restores as their owner asks for them and gets them.

use std::path::PathBuf;

use domain::backup::{BackupRequest, BackupSelection, RestoreRequest};
use domain::operation::OperationKind;
use rpc::backup::v1::start_restore_request::Source;
use rpc::backup::v1::{
    Backup, DeleteBackupRequest, GetBackupRequest, ListBackupsRequest, StartBackupRequest,
    StartRestoreRequest, TableName,
};
use rpc::errors::v1::ErrorReason;
use rpc::operation::v1::CancelOperationRequest;
use rpc::settings::v1::setting_value::Kind;
use rpc::settings::v1::{Setting, SettingValue, UpdateSettingsRequest};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::files::{download, files_under, write_whole};
use crate::work::{Worker, server, start_backup, start_restore, wish};
use crate::world::{ADMIN, Caller, World, assert_fails};

const MISSING_BACKUP: &str = "backups/00000000-0000-4000-8000-000000000000";
const MISSING_SERVER: &str = "servers/00000000-0000-4000-8000-000000000000";

async fn get(caller: &Caller, name: &str) -> Result<Backup, Status> {
    let request = GetBackupRequest {
        name: name.to_owned(),
    };
    Ok(caller
        .backups()
        .get_backup(request)
        .await?
        .into_inner()
        .backup
        .unwrap())
}

async fn delete(caller: &Caller, name: &str) -> Result<(), Status> {
    let request = DeleteBackupRequest {
        name: name.to_owned(),
    };
    caller.backups().delete_backup(request).await.map(drop)
}

fn restore(source: Source, server: &str) -> StartRestoreRequest {
    StartRestoreRequest {
        source: Some(source),
        server: server.to_owned(),
        ..StartRestoreRequest::default()
    }
}

fn fields(status: &Status) -> Vec<String> {
    let violations = status.get_details_bad_request().unwrap().field_violations;
    violations.into_iter().map(|violation| violation.field).collect()
}

/// The one artifact in the object store.
fn artifact(world: &World) -> PathBuf {
    let files = files_under(world);
    let mut artifacts = files
        .into_iter()
        .filter(|path| path.to_string_lossy().contains("/artifacts/"));
    artifacts.next().expect("an artifact")
}

#[tokio::test]
async fn wish_reaches_the_worker_with_the_settings_in_force() {
    let world = World::start().await;
    let (a, b) = (world.a.login(ADMIN).await, world.b.login(ADMIN).await);
    let server = server(&a).await;
    let worker = Worker::of(&world).await;
    let first = StartBackupRequest {
        tables: vec![TableName {
            schema: "s.x".to_owned(),
            table: "--file=x".to_owned(),
        }],
        schemas: vec![],
        compression: Some(0),
        without_large_objects: true,
        database: "host=evil".to_owned(),
        ..wish(&server)
    };
    start_backup(&a, first).await.unwrap();
    let operation = worker.claim().await.operation;
    assert_eq!(
        (operation.kind, operation.database.as_str()),
        (OperationKind::Backup, "host=evil")
    );
    assert!(operation.backup_id.is_some());
    let table = ("s.x".parse().unwrap(), "--file=x".parse().unwrap());
    let expected = BackupRequest {
        selection: BackupSelection::Tables(vec![table]),
        compression: 0,
        large_objects: false,
    };
    assert_eq!(BackupRequest::from_json(&operation.request), Ok(expected));

    // Set through one instance, in force at once on the other.
    let setting = Setting {
        name: "backup.compression".to_owned(),
        value: Some(SettingValue {
            kind: Some(Kind::IntValue(9)),
        }),
        ..Setting::default()
    };
    let request = UpdateSettingsRequest {
        parent: "users/me".to_owned(),
        settings: vec![setting],
        ..UpdateSettingsRequest::default()
    };
    b.settings().update_settings(request).await.unwrap();
    start_backup(&a, wish(&server)).await.unwrap();
    let operation = worker.claim().await.operation;
    assert_eq!(operation.database.as_str(), "postgres");
    let expected = BackupRequest {
        selection: BackupSelection::Schemas(vec!["public".parse().unwrap()]),
        compression: 9,
        large_objects: true,
    };
    assert_eq!(BackupRequest::from_json(&operation.request), Ok(expected));
}

#[tokio::test]
async fn wrong_wishes_name_every_wrong_field() {
    let world = World::start().await;
    let admin = world.a.login(ADMIN).await;
    let server = server(&admin).await;
    let table = |schema: &str, table: &str| TableName {
        schema: schema.to_owned(),
        table: table.to_owned(),
    };
    let wrong = [
        (
            StartBackupRequest {
                schemas: vec![],
                ..wish(&server)
            },
            vec!["schemas"],
        ),
        (
            StartBackupRequest {
                tables: vec![table("a", "b")],
                ..wish(&server)
            },
            vec!["schemas"],
        ),
        (
            StartBackupRequest {
                schemas: vec!["a".to_owned(), String::new(), "x".repeat(64)],
                compression: Some(10),
                request_id: "x".repeat(129),
                ..wish(&server)
            },
            vec!["request_id", "schemas[1]", "schemas[2]", "compression"],
        ),
        (
            StartBackupRequest {
                schemas: vec![],
                tables: vec![table("", "\0")],
                ..wish(&server)
            },
            vec!["tables[0].schema", "tables[0].table"],
        ),
        (
            StartBackupRequest {
                compression: Some(-1),
                ..wish(&server)
            },
            vec!["compression"],
        ),
        (
            StartBackupRequest {
                schemas: vec!["s".to_owned(); 1001],
                ..wish(&server)
            },
            vec!["schemas"],
        ),
        (
            StartBackupRequest {
                database: "a\0b".to_owned(),
                ..wish(&server)
            },
            vec!["database"],
        ),
        (wish("servers/x"), vec!["server"]),
    ];
    for (request, expected) in wrong {
        let outcome = start_backup(&admin, request).await;
        let status = assert_fails(outcome, Code::InvalidArgument, ErrorReason::InvalidField);
        assert_eq!(fields(&status), expected);
    }
    let nothing = StartRestoreRequest {
        server: server.clone(),
        ..StartRestoreRequest::default()
    };
    let outcome = start_restore(&admin, nothing).await;
    let status = assert_fails(outcome, Code::InvalidArgument, ErrorReason::InvalidField);
    assert_eq!(fields(&status), ["backup"]);
    for file in [
        "users/me/files/../x",
        "users/me/files/",
        "/etc/passwd",
        "users/me",
    ] {
        let outcome = start_restore(&admin, restore(Source::File(file.to_owned()), &server)).await;
        let status = assert_fails(outcome, Code::InvalidArgument, ErrorReason::InvalidField);
        assert_eq!(fields(&status), ["file"]);
    }
}

#[tokio::test]
async fn request_that_is_sent_again_gets_its_operation() {
    let world = World::start().await;
    let (a, b) = (world.a.login(ADMIN).await, world.b.login(ADMIN).await);
    let server = server(&a).await;
    let request = StartBackupRequest {
        request_id: "once".to_owned(),
        ..wish(&server)
    };
    let (first, second) = tokio::join!(
        start_backup(&a, request.clone()),
        start_backup(&b, request.clone())
    );
    let name = first.unwrap().name;
    assert_eq!(second.unwrap().name, name);
    assert_eq!(start_backup(&b, request.clone()).await.unwrap().name, name);

    let other = StartBackupRequest {
        without_large_objects: true,
        ..request.clone()
    };
    let status = assert_fails(
        start_backup(&b, other).await,
        Code::InvalidArgument,
        ErrorReason::RequestIdReused,
    );
    assert_eq!(fields(&status), ["request_id"]);
    // Without an id, and another user's id, are requests of their own.
    let anew = start_backup(&a, wish(&server)).await.unwrap().name;
    assert_ne!(anew, name);
    let member = world.member("alice").await.caller;
    let theirs = StartBackupRequest {
        server: crate::work::server(&member).await,
        ..request.clone()
    };
    assert_ne!(start_backup(&member, theirs).await.unwrap().name, name);

    let backup = Worker::of(&world).await.back_up(b"PGDMP").await;
    let request = StartRestoreRequest {
        request_id: "once".to_owned(),
        ..restore(Source::Backup(backup.clone()), &server)
    };
    let outcome = start_restore(&a, request.clone()).await;
    assert_fails(outcome, Code::InvalidArgument, ErrorReason::RequestIdReused);
    let request = StartRestoreRequest {
        request_id: "put back".to_owned(),
        ..request
    };
    let queued = start_restore(&a, request.clone()).await.unwrap();
    assert_eq!(
        (queued.kind(), &queued.backup),
        (rpc::operation::v1::OperationKind::Restore, &backup)
    );
    assert_eq!(start_restore(&b, request).await.unwrap(), queued);
}

#[tokio::test]
async fn what_is_foreign_is_as_good_as_missing() {
    let world = World::start().await;
    let admin = world.a.login(ADMIN).await;
    let member = world.member("alice").await.caller;
    let (server, theirs) = (server(&admin).await, crate::work::server(&member).await);
    start_backup(&admin, wish(&server)).await.unwrap();
    let backup = Worker::of(&world).await.back_up(b"PGDMP").await;
    let file = write_whole(&admin, "users/me/files/a.dump", b"PGDMP")
        .await
        .unwrap()
        .name;
    let missing_file = file.replace("a.dump", "b.dump");
    let mut answers = Vec::new();
    for (server, backup, file) in [
        (server.as_str(), backup.as_str(), file.as_str()),
        (MISSING_SERVER, MISSING_BACKUP, missing_file.as_str()),
    ] {
        let outcomes = [
            start_backup(&member, wish(server)).await.map(drop),
            start_restore(&member, restore(Source::Backup(backup.to_owned()), &theirs))
                .await
                .map(drop),
            start_restore(&member, restore(Source::File(file.to_owned()), &theirs))
                .await
                .map(drop),
            get(&member, backup).await.map(drop),
            delete(&member, backup).await,
            download(&member, backup, 0).await.map(drop),
        ];
        answers.push(outcomes.map(|outcome| {
            let status = assert_fails(outcome, Code::NotFound, ErrorReason::ResourceNotFound);
            let info = status.get_details_resource_info().unwrap();
            (status.message().to_owned(), info.resource_type, info.description)
        }));
    }
    assert_eq!(answers[0], answers[1]);
    let listed = member
        .backups()
        .list_backups(ListBackupsRequest::default())
        .await
        .unwrap();
    assert!(listed.into_inner().backups.is_empty());
    assert_eq!(get(&admin, &backup).await.unwrap().name, backup);
}

#[tokio::test]
async fn backup_is_read_downloaded_and_deleted_through_the_other_instance() {
    let world = World::start().await;
    let (a, b) = (world.a.login(ADMIN).await, world.b.login(ADMIN).await);
    let server = server(&a).await;
    let operation = start_backup(&a, wish(&server)).await.unwrap();
    let dump: Vec<u8> = (0..3_000_000u32).flat_map(u32::to_le_bytes).collect();
    let name = Worker::of(&world).await.back_up(&dump).await;
    assert_eq!(name, operation.backup);
    let backup = get(&b, &name).await.unwrap();
    assert_eq!(
        (
            &backup.server,
            backup.database.as_str(),
            backup.schemas.as_slice()
        ),
        (&server, "postgres", &["public".to_owned()][..])
    );
    assert_eq!((backup.size_bytes, backup.sha256.len()), (12_000_000, 64));
    assert_eq!(
        (&backup.operation, backup.owner.clone()),
        (&operation.name, format!("users/{}", world.admin))
    );
    let listed = b
        .backups()
        .list_backups(ListBackupsRequest::default())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(listed.backups, [backup]);

    let (size, content) = download(&b, &name, 0).await.unwrap();
    assert!(size == 12_000_000 && content == dump);
    let (size, rest) = download(&a, &name, 11_999_990).await.unwrap();
    assert_eq!((size, rest.as_slice()), (12_000_000, &dump[11_999_990..]));

    let restoring = start_restore(&a, restore(Source::Backup(name.clone()), &server))
        .await
        .unwrap();
    let refused = assert_fails(
        delete(&b, &name).await,
        Code::FailedPrecondition,
        ErrorReason::ResourceInUse,
    );
    let holders = refused.get_details_precondition_failure().unwrap().violations;
    assert_eq!(
        holders.iter().map(|it| it.subject.as_str()).collect::<Vec<_>>(),
        [restoring.name.as_str()]
    );
    b.operations()
        .cancel_operation(CancelOperationRequest { name: restoring.name })
        .await
        .unwrap();
    delete(&b, &name).await.unwrap();
    assert_eq!(files_under(&world), Vec::<PathBuf>::new());
    for outcome in [get(&a, &name).await.map(drop), delete(&a, &name).await] {
        assert_fails(outcome, Code::NotFound, ErrorReason::ResourceNotFound);
    }
    assert_fails(
        download(&a, &name, 0).await,
        Code::NotFound,
        ErrorReason::ResourceNotFound,
    );
}

#[tokio::test]
async fn damaged_artifact_is_not_passed_on_as_whole() {
    let world = World::start().await;
    let admin = world.a.login(ADMIN).await;
    let server = server(&admin).await;
    start_backup(&admin, wish(&server)).await.unwrap();
    let name = Worker::of(&world).await.back_up(&[7; 100_000]).await;
    let artifact = artifact(&world);
    let mut content = std::fs::read(&artifact).unwrap();
    content[50_000] = 0;
    std::fs::write(&artifact, &content).unwrap();
    let altered = download(&admin, &name, 0).await;
    assert_fails(altered, Code::FailedPrecondition, ErrorReason::ArtifactInvalid);
    std::fs::write(&artifact, &content[..99_999]).unwrap();
    let truncated = download(&admin, &name, 10).await;
    assert_fails(truncated, Code::FailedPrecondition, ErrorReason::ArtifactInvalid);
    std::fs::remove_file(&artifact).unwrap();
    let missing = download(&admin, &name, 0).await;
    assert_fails(missing, Code::FailedPrecondition, ErrorReason::ArtifactInvalid);
}

#[tokio::test]
async fn restore_of_a_file_reaches_the_worker() {
    let world = World::start().await;
    let admin = world.a.login(ADMIN).await;
    let server = server(&admin).await;
    write_whole(&admin, "users/me/files/dumps/shop.dump", b"PGDMP")
        .await
        .unwrap();
    let request = StartRestoreRequest {
        clean: true,
        database: "shop".to_owned(),
        ..restore(
            Source::File(format!("users/{}/files/dumps/shop.dump", world.admin)),
            &server,
        )
    };
    let queued = start_restore(&admin, request).await.unwrap();
    assert_eq!((queued.backup.as_str(), queued.database.as_str()), ("", "shop"));
    let operation = Worker::of(&world).await.claim().await.operation;
    let expected = RestoreRequest {
        file: Some("dumps/shop.dump".parse().unwrap()),
        clean: true,
        single_transaction: false,
    };
    assert_eq!(RestoreRequest::from_json(&operation.request), Ok(expected));
    let absent = restore(Source::File("users/me/files/dumps/none.dump".to_owned()), &server);
    let outcome = start_restore(&admin, absent).await;
    assert_fails(outcome, Code::NotFound, ErrorReason::ResourceNotFound);
}
