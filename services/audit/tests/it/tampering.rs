//! What somebody does to the trail who may do anything in the database.

use audit::chain::Broken;
use audit::{Filter, Kind};
use harness::{Cluster, eventually};
use tokio_postgres::error::SqlState;

use crate::world::{DEADLINE, World, often};

#[tokio::test]
async fn change_of_any_column_that_a_writer_wrote_is_found() {
    let world = World::new().await;
    let connection = world.database.connect().await;
    let columns = connection
        .query(
            "SELECT column_name::text, udt_name::text FROM information_schema.columns \
             WHERE table_schema = 'pgmoor' AND table_name = 'audit_records' \
             AND column_name NOT IN ('writer', 'sequence', 'position', 'insert_time')",
            &[],
        )
        .await
        .unwrap();
    assert!(columns.len() > 25, "{}", columns.len());
    for column in columns {
        let (name, kind): (String, String) = (column.get(0), column.get(1));
        let value = match (name.as_str(), kind.as_str()) {
            ("writer_role", _) => "'worker'",
            ("kind", _) => "'execution'",
            (_, "text") => "'changed'",
            (_, "_text") => "ARRAY['servers/changed']",
            (_, "bytea") => "sha256('changed')",
            (_, "uuid") => "'00000000-0000-4000-8000-000000000001'",
            (_, "timestamptz") => "time + interval '1 microsecond'",
            (_, "int2" | "int8") => "7777",
            other => panic!("{other:?}"),
        };
        let writer = world.trail(5).await;
        assert_eq!(world.verify(writer).await.unwrap().records, 7);
        let sql = format!(
            "UPDATE pgmoor.audit_records SET {name} = {value} WHERE writer = '{writer}' AND sequence = 3"
        );
        connection.batch_execute(&sql).await.unwrap();
        let broken = world.verify(writer).await.unwrap_err();
        let wanted = [
            Broken::Altered { sequence: 3 },
            Broken::Format {
                sequence: 3,
                format: 7777,
            },
        ];
        assert!(wanted.contains(&broken), "{name}: {broken:?}");
    }
}

#[tokio::test]
async fn records_that_are_deleted_moved_or_put_in_are_found() {
    let world = World::new().await;
    let connection = world.database.connect().await;
    let rows = "pgmoor.audit_records";
    let copy = "INSERT INTO pgmoor.audit_records SELECT (r).* FROM (SELECT r FROM pgmoor.audit_records AS r";
    for (done, wanted) in [
        (
            format!("DELETE FROM {rows} WHERE writer = $w AND sequence = 3"),
            Broken::Missing {
                expected: 3,
                found: 4,
            },
        ),
        (
            format!("DELETE FROM {rows} WHERE writer = $w AND sequence < 3"),
            Broken::Missing {
                expected: 1,
                found: 3,
            },
        ),
        // Two change places.
        (
            format!(
                "UPDATE {rows} SET sequence = -sequence + 1000 WHERE writer = $w AND sequence IN (3, 4); \
                 UPDATE {rows} SET sequence = sequence - 993 WHERE writer = $w AND sequence = 997; \
                 UPDATE {rows} SET sequence = sequence - 993 WHERE writer = $w AND sequence = 996"
            ),
            Broken::Altered { sequence: 3 },
        ),
        // One is taken out, and the rest closes up.
        (
            format!(
                "DELETE FROM {rows} WHERE writer = $w AND sequence = 7; \
                 UPDATE {rows} SET sequence = 7 WHERE writer = $w AND sequence = 6"
            ),
            Broken::Missing {
                expected: 6,
                found: 7,
            },
        ),
        // One is put in.
        (
            format!(
                "{copy} WHERE writer = $w AND sequence = 7) AS one ON CONFLICT DO NOTHING; \
                 UPDATE {rows} SET sequence = 8 WHERE writer = $w AND sequence = 7; \
                 INSERT INTO {rows} (writer, sequence, writer_role, position, format, previous_hash, hash, kind, time, \
                 correlation_id, username, provider, credential, address, method, resources, session, database_name, \
                 role_name, statement_fingerprint, statement, outcome, reason, sqlstate, commit_outcome, row_count, \
                 byte_count, duration_us, policy_revision, count) \
                 SELECT writer, 7, writer_role, position, format, previous_hash, hash, 'call', time, correlation_id, \
                 username, provider, credential, address, method, resources, session, database_name, role_name, \
                 statement_fingerprint, statement, outcome, reason, sqlstate, commit_outcome, row_count, byte_count, \
                 duration_us, policy_revision, count FROM {rows} WHERE writer = $w AND sequence = 8"
            ),
            Broken::Altered { sequence: 7 },
        ),
    ] {
        let writer = world.trail(5).await;
        let sql = done.replace("$w", &format!("'{writer}'"));
        connection.batch_execute(&sql).await.expect(&sql);
        assert_eq!(world.verify(writer).await.unwrap_err(), wanted, "{sql}");
    }
}

#[tokio::test]
async fn end_that_is_cut_off_a_living_chain_is_found_with_the_next_record() {
    let world = World::new().await;
    let process = world.process(Cluster::shared().await, often()).await;
    let write = async |number| {
        process.call(number);
        eventually(DEADLINE, "the record is written", async || {
            let filter = Filter {
                kinds: vec![Kind::Call],
                ..Filter::default()
            };
            let kept = world.store.audit().after(0, &filter, 100).await.unwrap();
            let found = kept.iter().any(|kept| kept.record.entry.row_count == number);
            found.then_some(()).ok_or(kept.len())
        })
        .await;
    };
    for number in 1..=3 {
        write(number).await;
    }
    let connection = world.database.connect().await;
    let sql = format!(
        "DELETE FROM pgmoor.audit_records WHERE writer = '{}' AND sequence >= 3",
        process.id
    );
    connection.batch_execute(&sql).await.unwrap();
    // Until then it looks as if the writer had died after its second record.
    assert_eq!(world.verify(process.id).await.unwrap().head().0, 2);
    write(4).await;
    let broken = world.verify(process.id).await.unwrap_err();
    assert_eq!(
        broken,
        Broken::Missing {
            expected: 3,
            found: 5
        }
    );
}

#[tokio::test]
async fn killed_process_leaves_a_sound_chain_without_an_end() {
    let world = World::new().await;
    let ended = world.trail(3).await;
    assert!(world.verify(ended).await.unwrap().ended());
    let process = world.process(Cluster::shared().await, often()).await;
    process.call(1);
    eventually(DEADLINE, "the record is written", async || {
        let verifier = world.verify(process.id).await.unwrap();
        (verifier.records == 2).then_some(()).ok_or(verifier.records)
    })
    .await;
    process.kill();
    assert!(!world.verify(process.id).await.unwrap().ended());
}

#[tokio::test]
async fn processes_add_records_and_can_do_nothing_else() {
    let world = World::new().await;
    let writer = world.trail(1).await;
    let cluster = Cluster::shared().await;
    for group in ["pgmoor_api", "pgmoor_pooler", "pgmoor_worker"] {
        let login = cluster.create_login(&format!("IN ROLE {group}")).await;
        let connection = world.database.connect_as(&login).await;
        let mut statements = vec![
            format!("UPDATE pgmoor.audit_records SET outcome = 'OK' WHERE writer = '{writer}'"),
            format!("DELETE FROM pgmoor.audit_records WHERE writer = '{writer}'"),
            "TRUNCATE pgmoor.audit_records".to_owned(),
            "DELETE FROM pgmoor.audit_anchors".to_owned(),
            "INSERT INTO pgmoor.audit_anchors VALUES (gen_random_uuid(), 1, sha256(''), now())".to_owned(),
            "INSERT INTO pgmoor.audit_records (writer, sequence, insert_time) VALUES (gen_random_uuid(), 1, now())"
                .to_owned(),
        ];
        if group != "pgmoor_api" {
            statements.push("SELECT * FROM pgmoor.audit_records".to_owned());
            statements.push("SELECT * FROM pgmoor.audit_anchors".to_owned());
        }
        if group != "pgmoor_worker" {
            statements.push("SELECT pgmoor.cut_audit('1 day', 10)".to_owned());
        }
        for statement in statements {
            let error = connection.batch_execute(&statement).await.expect_err(&statement);
            assert_eq!(
                error.code(),
                Some(&SqlState::INSUFFICIENT_PRIVILEGE),
                "{group}: {statement}"
            );
        }
    }
}
