//! The audit trail of a whole deployment: two API instances, a pooler, nginx, and what an operator sees of it.

use std::ffi::OsStr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use e2e::{Client, World, WorldOptions, reason};
use harness::{Process, eventually, pgmoor_binary};
use rpc::audit::v1::audit_service_client::AuditServiceClient;
use rpc::audit::v1::{AuditFilter, AuditRecord, AuditRecordKind, AuditWriterRole, ListAuditRecordsRequest};
use rpc::auth::v1::WhoAmIRequest;
use rpc::errors::v1::ErrorReason;
use rpc::query::v1::{ExecuteRequest, Parameter, Script, parameter};
use tonic::Request;

use crate::worlds::shared;

const SOON: Duration = Duration::from_secs(30);

/// The records that match, newest first, as soon as `enough` says so.
async fn records(
    reader: &Client,
    filter: AuditFilter,
    enough: impl Fn(&[AuditRecord]) -> bool,
) -> Vec<AuditRecord> {
    eventually(SOON, "the records are written", async || {
        let mut request = Request::new(ListAuditRecordsRequest {
            filter: Some(filter.clone()),
            page_size: 1000,
            page_token: String::new(),
        });
        let token = format!("Bearer {}", reader.token().unwrap());
        request
            .metadata_mut()
            .insert("authorization", token.parse().unwrap());
        let mut client = AuditServiceClient::new(reader.channel());
        let page = client.list_audit_records(request).await;
        let records = page.map_err(|status| reason::text(&status))?.into_inner().records;
        if enough(&records) {
            Ok(records)
        } else {
            Err(format!("{records:?}"))
        }
    })
    .await
}

/// Runs `pgmoor admin verify-audit`: whether it was content, and what it said.
async fn verify(world: &World, heads: Option<&Path>) -> (bool, String) {
    let configuration = world.config_database().commands_configuration();
    let mut words = vec![
        OsStr::new("admin"),
        "verify-audit".as_ref(),
        "--config".as_ref(),
        configuration.as_os_str(),
    ];
    if let Some(heads) = heads {
        words.extend([OsStr::new("--heads"), heads.as_os_str()]);
    }
    let process = Process::builder(pgmoor_binary()).args(words).spawn();
    let exit = process.wait_exit(SOON).await;
    (exit.success(), process.log_text())
}

#[tokio::test]
async fn call_through_nginx_leaves_two_records_with_one_correlation_id() {
    const TRACE: &str = "7bf92f3577b34da6a3ce929d0e0e4731";
    let world = &shared().await.world;
    let caller = world.create_user().await;
    let server = world.register_target(&caller.balanced).await;
    let session = caller.a().open_session(&server).await.unwrap();
    let canary = harness::random::password();
    world.secrets().remember("a parameter of a statement", &canary);
    let mut request = Request::new(ExecuteRequest {
        session: session.name.clone(),
        script: Some(Script {
            sql: "SELECT $1".to_owned(),
            parameters: vec![Parameter {
                kind: Some(parameter::Kind::Text(canary)),
                type_oid: 25,
            }],
            ..Script::default()
        }),
        ..ExecuteRequest::default()
    });
    let traceparent = format!("00-{TRACE}-00f067aa0ba902b7-01");
    request
        .metadata_mut()
        .insert("traceparent", traceparent.parse().unwrap());
    // What a client claims about where it is.
    request
        .metadata_mut()
        .insert("x-forwarded-for", "192.0.2.66".parse().unwrap());
    let mut stream = caller
        .balanced
        .query()
        .execute(request)
        .await
        .unwrap()
        .into_inner();
    while stream.message().await.unwrap().is_some() {}

    let admin = world.superuser().await;
    let filter = AuditFilter {
        correlation_id: TRACE.to_owned(),
        ..AuditFilter::default()
    };
    let found = records(admin.b(), filter, |records| records.len() >= 2).await;
    assert_eq!(found.len(), 2, "{found:?}");
    let of = |role: AuditWriterRole| {
        let mut found = found.iter().filter(|record| record.writer_role() == role);
        found.next().expect("a record of each role").clone()
    };
    let (api, pooler) = (of(AuditWriterRole::Api), of(AuditWriterRole::Pooler));
    assert_eq!((&api.user, &api.session), (&pooler.user, &pooler.session));
    assert_eq!(api.session, session.name);
    assert_eq!(api.credential, pooler.credential);
    assert_eq!((api.outcome.as_str(), api.address.as_str()), ("OK", "127.0.0.1"));
    assert!(api.byte_count > 0, "{api:?}");
    assert_eq!((pooler.outcome.as_str(), pooler.row_count), ("SUCCEEDED", 1));
    assert_eq!(
        (pooler.database, pooler.role),
        (session.database.clone(), session.username.clone())
    );
    assert_eq!(pooler.statement_fingerprint.len(), 16);
    caller.a().close_session(&session).await.unwrap();

    // Nothing that was ever secret here is in the trail.
    let rows = world
        .config_database()
        .database()
        .connect()
        .await
        .query("SELECT r::text FROM pgmoor.audit_records AS r", &[])
        .await
        .unwrap();
    assert!(rows.len() > 10);
    let trail: String = rows.iter().map(|row| row.get::<_, String>(0)).collect();
    assert_eq!(world.secrets().found_in(&trail), Vec::<String>::new());
}

#[tokio::test]
async fn instance_that_is_killed_under_load_leaves_a_gap_and_nothing_that_looks_touched() {
    const WINDOW: Duration = Duration::from_secs(5);
    let mut world = World::start(WorldOptions {
        workers: 0,
        audit_loss_window: Some("5s".to_owned()),
        ..WorldOptions::default()
    })
    .await;
    let caller = world.superuser().await;
    let server = world.register_target(caller.a()).await;
    let session = caller.b().open_auto(&server).await.unwrap();
    let (stop, client, name) = (
        Arc::new(AtomicBool::new(false)),
        caller.b().clone(),
        session.name.clone(),
    );
    let (stopping, begun) = (Arc::clone(&stop), Instant::now());
    let worked = Arc::new(AtomicU64::new(0));
    let working = Arc::clone(&worked);
    // When each that was done began and ended.
    let load = tokio::task::JoinSet::from_iter([async move {
        let mut done = Vec::new();
        while !stopping.load(Ordering::Relaxed) {
            let started = Instant::now();
            match client.execute(&name, "SELECT 1").await {
                Ok(_) => done.push((started, Instant::now())),
                // Then the machine is slow: nothing is done that might be lost.
                Err(status) if reason::of(&status).1 == ErrorReason::AuditUnavailable => continue,
                Err(_) => break,
            }
            working.store(begun.elapsed().as_secs(), Ordering::Relaxed);
        }
        done
    }]);
    let executed = AuditFilter {
        method: "pgmoor.query.v1.QueryService/Execute".to_owned(),
        ..AuditFilter::default()
    };
    let written = records(caller.a(), executed, |records| records.len() >= 20).await;
    let killed = written[0].writer.clone();
    eventually(4 * SOON, "more is done than may be lost", async || {
        let worked = worked.load(Ordering::Relaxed);
        (worked > 2 * WINDOW.as_secs()).then_some(()).ok_or(worked)
    })
    .await;
    world.apis_mut()[1].kill9().await;
    stop.store(true, Ordering::Relaxed);
    let done = load.join_all().await.remove(0);

    let (content, text) = verify(&world, None).await;
    assert!(content, "{text}");
    assert!(!text.contains("TAMPERED"), "{text}");
    // What is lost is what was let in within the window after the first that is.
    let database = world.config_database().database().connect().await;
    let query = "SELECT count(*) FROM pgmoor.audit_records WHERE writer = $1::text::uuid AND outcome = 'OK' \
                 AND method = 'pgmoor.query.v1.QueryService/Execute'";
    let written: i64 = database.query_one(query, &[&killed]).await.unwrap().get(0);
    let written = usize::try_from(written).unwrap();
    assert!(written <= done.len() + 1, "{written} of {}", done.len());
    let lost = done.get(written..).unwrap_or_default();
    if let (Some((_, first)), Some((last, _))) = (lost.first(), lost.last()) {
        assert!(
            last.saturating_duration_since(*first) <= WINDOW,
            "{} of {} are lost: {lost:?}",
            lost.len(),
            done.len()
        );
    }

    // The killed one has no closing record; once it is silent for a while the report says so.
    let age = format!(
        "UPDATE pgmoor.audit_records SET insert_time = insert_time - interval '1 hour' WHERE writer = '{killed}'"
    );
    database.batch_execute(&age).await.unwrap();
    let heads = world.config_database().url_file("heads");
    let (content, text) = verify(&world, Some(&heads)).await;
    let line = text.lines().find(|line| line.starts_with(&killed)).unwrap();
    assert!(
        content && line.contains("sound") && line.contains("GAP at the end"),
        "{text}"
    );

    // Cutting its end off looks the same, but not to who knows where it ended.
    let cut = format!(
        "DELETE FROM pgmoor.audit_records WHERE writer = '{killed}' AND sequence > \
         (SELECT max(sequence) - 3 FROM pgmoor.audit_records WHERE writer = '{killed}')"
    );
    database.batch_execute(&cut).await.unwrap();
    let (content, text) = verify(&world, None).await;
    assert!(content, "{text}");
    let (content, text) = verify(&world, Some(&heads)).await;
    assert!(!content && text.contains("TAMPERED WITH"), "{text}");

    // A record that is changed is found by everybody.
    let change = format!(
        "UPDATE pgmoor.audit_records SET username = 'mallory' WHERE writer = '{killed}' AND sequence = 5"
    );
    database.batch_execute(&change).await.unwrap();
    let (content, text) = verify(&world, None).await;
    assert!(!content && text.contains("record 5 was altered"), "{text}");
    world.apis_mut()[1].start_again().await;
}

#[tokio::test]
async fn role_that_is_stopped_closes_its_chain() {
    let mut world = World::start(WorldOptions {
        poolers: 0,
        workers: 0,
        ..WorldOptions::default()
    })
    .await;
    let caller = world.superuser().await;
    caller.b().auth().who_am_i(WhoAmIRequest {}).await.unwrap();
    assert!(world.apis_mut()[1].stop().await);
    let ended = AuditFilter {
        kinds: vec![AuditRecordKind::Stop.into()],
        ..AuditFilter::default()
    };
    let closed = records(caller.a(), ended, |records| !records.is_empty()).await;
    let (content, text) = verify(&world, None).await;
    let line = text
        .lines()
        .find(|line| line.starts_with(&closed[0].writer))
        .unwrap();
    assert!(content && line.ends_with("ended"), "{text}");

    // A chain is as good as the process that is known to have begun it.
    let database = world.config_database().database().connect().await;
    let writer = &closed[0].writer;
    for (change, found) in [
        (
            "SET writer_role = 'worker'",
            "its writer is a process of role worker",
        ),
        (
            "SET writer = gen_random_uuid()",
            "no process of pgmoor ever wrote it",
        ),
    ] {
        let change = format!("UPDATE pgmoor.audit_writers {change} WHERE writer = '{writer}'");
        database.batch_execute(&change).await.unwrap();
        let (content, text) = verify(&world, None).await;
        assert!(!content && text.contains(found), "{text}");
    }
    world.apis_mut()[1].start_again().await;
}
