//! A chain is of the process that began it: nobody else who may write to the trail adds to it or speaks in its name.

use audit::WriterRole;
use domain::id::IncarnationId;
use domain::random::SystemRandom;
use harness::{Cluster, eventually};
use tokio_postgres::error::SqlState;

use crate::world::{DEADLINE, Process, World, often};

/// What a process of the version before sends, without a secret.
fn plain(writer: IncarnationId, role: &str, sequence: i64) -> String {
    format!(
        "INSERT INTO pgmoor.audit_records (writer, sequence, writer_role, position, format, previous_hash, hash, kind, time, \
         correlation_id, username, provider, credential, address, method, resources, session, database_name, role_name, \
         statement_fingerprint, statement, outcome, reason, sqlstate, commit_outcome, row_count, byte_count, duration_us, \
         policy_revision, count) VALUES ('{writer}', {sequence}, '{role}', 1, 1, sha256(''), sha256(''), 'call', now(), '', \
         'mallory', '', '', '', '', '{{}}', '', '', '', '', '', '', '', '', '', 0, 0, 0, 0, 0)"
    )
}

/// What a process sends that guesses at the secret.
fn appended(writer: IncarnationId, role: &str) -> String {
    format!("SELECT pgmoor.append_audit('{writer}', '{role}', 'a guess', '[]')")
}

async fn written(world: &World, process: &Process, count: usize) {
    eventually(DEADLINE, "the records are there", async || {
        let kept = world.trail_now().await.chain(process.id, 0, 100).await.unwrap();
        (kept.len() >= count).then_some(()).ok_or(kept.len())
    })
    .await;
}

#[tokio::test]
async fn nobody_but_the_process_itself_adds_to_its_chain() {
    let world = World::new().await;
    let cluster = Cluster::shared().await;
    let process = world.process(cluster, often()).await;
    process.call(1);
    written(&world, &process, 2).await;
    // A worker, and another process of the same role.
    for (group, roles) in [
        ("pgmoor_worker", ["api", "pooler", "worker"].as_slice()),
        ("pgmoor_pooler", &["pooler"]),
    ] {
        let login = cluster.create_login(&format!("IN ROLE {group}")).await;
        let connection = world.database.connect_as(&login).await;
        for role in roles {
            for statement in [plain(process.id, role, 3), appended(process.id, role)] {
                let error = connection.batch_execute(&statement).await.expect_err(&statement);
                let code = error.code();
                assert_eq!(
                    code,
                    Some(&SqlState::INSUFFICIENT_PRIVILEGE),
                    "{group}: {error:?}"
                );
            }
        }
    }
    // It goes on, and its chain is its own.
    process.call(2);
    written(&world, &process, 3).await;
    let id = process.end().await;
    let verifier = world.verify(id).await.unwrap();
    assert_eq!((verifier.records, verifier.ended()), (4, true));
}

#[tokio::test]
async fn process_writes_in_the_name_of_its_own_role_only() {
    let world = World::new().await;
    let cluster = Cluster::shared().await;
    let roles = ["api", "pooler", "worker"];
    for own in roles {
        let login = cluster.create_login(&format!("IN ROLE pgmoor_{own}")).await;
        let connection = world.database.connect_as(&login).await;
        for role in roles {
            for is_plain in [true, false] {
                let writer = IncarnationId::generate(&SystemRandom);
                let statement = if is_plain {
                    plain(writer, role, 1)
                } else {
                    appended(writer, role)
                };
                let outcome = connection.batch_execute(&statement).await;
                let entered = world.trail_now().await.writer(writer).await.unwrap();
                if role == own {
                    outcome.unwrap();
                    let entered = entered.expect("it is entered");
                    assert_eq!(
                        (entered.role.as_str(), entered.login.as_str()),
                        (own, login.user.as_str())
                    );
                } else {
                    let error = outcome.expect_err(&statement);
                    assert_eq!(error.code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE), "{error:?}");
                    assert_eq!(entered, None);
                }
            }
        }
    }
}

#[tokio::test]
async fn writer_is_entered_with_its_role_and_nobody_reads_what_it_shows() {
    let world = World::new().await;
    let id = world.trail(1).await;
    let entered = world.trail_now().await.writer(id).await.unwrap().unwrap();
    assert_eq!(entered.role, WriterRole::Pooler);
    let cluster = Cluster::shared().await;
    for group in ["pgmoor_api", "pgmoor_pooler", "pgmoor_worker"] {
        let login = cluster.create_login(&format!("IN ROLE {group}")).await;
        let connection = world.database.connect_as(&login).await;
        for statement in [
            "SELECT secret_hash FROM pgmoor.audit_writers",
            "UPDATE pgmoor.audit_writers SET secret_hash = NULL",
            "DELETE FROM pgmoor.audit_writers",
            "INSERT INTO pgmoor.audit_writers (writer, writer_role, login) VALUES (gen_random_uuid(), 'api', 'x')",
        ] {
            let error = connection.batch_execute(statement).await.expect_err(statement);
            assert_eq!(
                error.code(),
                Some(&SqlState::INSUFFICIENT_PRIVILEGE),
                "{group}: {statement}"
            );
        }
    }
}
