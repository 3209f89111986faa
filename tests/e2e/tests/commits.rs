//! What became of a COMMIT whose answer was lost, through whichever API instance and pooler is left.

use std::time::Duration;

use e2e::{Client, Running, World, WorldOptions, reason};
use harness::{ClusterOptions, eventually};
use rpc::errors::v1::ErrorReason;
use rpc::query::v1::{
    CommitOutcome, CommitTransactionRequest, ExecutionOutcome, GetExecutionRequest,
    GetTransactionOutcomeRequest, Session, Transaction,
};
use tonic::{Code, Status};

use crate::takeover::owner;

const SOON: Duration = Duration::from_secs(60);
/// A lock that the COMMIT of a transaction waits for which inserts a row with a note.
const LOCK: i64 = 4711;
/// What insists on the synchronous standby hangs in its COMMIT, having committed.
const INSIST: &str = "BEGIN; SET LOCAL synchronous_commit TO 'on'; INSERT INTO t VALUES (1)";
const HELD_BACK: &str = "BEGIN; INSERT INTO t VALUES (2, 'wait')";

/// A world whose target never hears from its synchronous standby.
async fn lonely_world(poolers: usize) -> World {
    World::start(WorldOptions {
        poolers,
        workers: 0,
        takeover: Some(("3s".to_owned(), "4s".to_owned())),
        target_cluster: ClusterOptions::default()
            .setting("synchronous_standby_names", "nobody")
            .setting("synchronous_commit", "local"),
        ..WorldOptions::default()
    })
    .await
}

async fn make_table(world: &World) {
    let sql = format!(
        "CREATE TABLE t (a int, note text); GRANT ALL ON t TO {}; \
         CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
         PERFORM pg_advisory_xact_lock({LOCK}); RETURN NULL; END $$; \
         CREATE CONSTRAINT TRIGGER hold AFTER INSERT ON t DEFERRABLE INITIALLY DEFERRED \
         FOR EACH ROW WHEN (NEW.note IS NOT NULL) EXECUTE FUNCTION hold()",
        world.target().login().user
    );
    world.target().database().execute(&sql).await;
}

/// Waits until the backend is in the middle of its COMMIT.
async fn hangs(world: &World, pid: i32) {
    let outside = world.target().cluster().connect().await;
    eventually(SOON, "the COMMIT hangs", async || {
        let sql = "SELECT query = 'COMMIT' AND wait_event IN ('SyncRep', 'advisory') \
                   FROM pg_stat_activity WHERE pid = $1";
        let row = outside.query_one(sql, &[&pid]).await.unwrap();
        row.get::<_, Option<bool>>(0) == Some(true)
    })
    .await;
}

async fn count(world: &World, a: i32) -> i64 {
    let outside = world.target().database().connect().await;
    let row = outside
        .query_one("SELECT count(*) FROM t WHERE a = $1", &[&a])
        .await;
    row.unwrap().get(0)
}

/// Begins what `open` says and sends its COMMIT. Returns once that hangs, with what was announced.
async fn commit(world: &World, client: &Client, session: &Session, open: &str) -> (Running, Transaction) {
    client.execute(&session.name, open).await.unwrap();
    let mut running = client.start(&session.name, "COMMIT").await.unwrap();
    while running.transaction().is_none() {
        assert!(running.next().await.unwrap(), "the COMMIT was not announced");
    }
    hangs(world, running.backend_pid()).await;
    let transaction = running.transaction().unwrap().clone();
    (running, transaction)
}

async fn outcome(client: &Client, server: &str, transaction: &Transaction) -> Result<CommitOutcome, Status> {
    let request = GetTransactionOutcomeRequest {
        server: server.to_owned(),
        transaction: Some(transaction.clone()),
    };
    let answer = client.query().get_transaction_outcome(request).await?;
    Ok(answer.into_inner().outcome())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outcome_of_a_commit_is_found_after_its_pooler_and_its_api_instance_were_killed() {
    let mut world = lonely_world(2).await;
    make_table(&world).await;
    let caller = world.create_administrator().await;
    let server = world.register_target(caller.a()).await;
    let (a, b) = (caller.a().clone(), caller.b().clone());
    let holder = world.target().database().connect().await;
    holder
        .query_one("SELECT pg_advisory_lock($1)", &[&LOCK])
        .await
        .unwrap();
    let sessions = [
        a.open_session(&server).await.unwrap(),
        a.open_auto(&server).await.unwrap(),
    ];
    let (committing, committed) = commit(&world, &a, &sessions[0], INSIST).await;
    let (held, rolled_back) = commit(&world, &a, &sessions[1], HELD_BACK).await;
    for transaction in [&committed, &rolled_back] {
        assert_eq!(
            outcome(&b, &server, transaction).await.unwrap(),
            CommitOutcome::InProgress
        );
    }

    let owner = owner(&world).await.unwrap();
    world.poolers_mut()[owner].kill9().await;
    world.apis_mut()[0].kill9().await;
    for running in [committing, held] {
        assert!(running.finish().await.is_err());
    }
    for (transaction, what, row) in [
        (&committed, CommitOutcome::Committed, 1),
        (&rolled_back, CommitOutcome::Aborted, 2),
    ] {
        eventually(SOON, "the outcome is known", async || {
            match outcome(&b, &server, transaction).await {
                Ok(CommitOutcome::InProgress) => Err("in progress".to_owned()),
                Ok(found) => {
                    assert_eq!(found, what);
                    Ok(())
                }
                Err(status) if status.code() == Code::Unavailable => Err(reason::text(&status)),
                Err(status) => panic!("{}", reason::text(&status)),
            }
        })
        .await;
        assert_eq!(
            count(&world, row).await,
            i64::from(what == CommitOutcome::Committed)
        );
    }
    // The transaction is nobody else's to ask about.
    let other = world.create_user().await;
    let refused = outcome(other.b(), &server, &committed).await;
    reason::expect(refused, Code::NotFound, ErrorReason::ResourceNotFound);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commit_whose_backend_was_lost_can_be_asked_about_through_the_other_instance() {
    let world = lonely_world(1).await;
    make_table(&world).await;
    let caller = world.create_administrator().await;
    let server = world.register_target(caller.a()).await;
    let (a, b) = (caller.a().clone(), caller.b().clone());
    for session in [
        a.open_session(&server).await.unwrap(),
        a.open_auto(&server).await.unwrap(),
    ] {
        let opened = a.execute(&session.name, INSIST).await.unwrap();
        let request = CommitTransactionRequest {
            session: session.name.clone(),
        };
        let mut client = a.query();
        let (answer, ()) = tokio::join!(client.commit_transaction(request), async {
            hangs(&world, opened.backend_pid).await;
            world.target().cluster().kill_backend(opened.backend_pid).await;
        });
        let lost = reason::expect(answer, Code::Unknown, ErrorReason::OutcomeUnknown);
        let execution = reason::metadata(&lost, "execution").unwrap();
        for name in [execution.clone(), format!("{}/executions/-", session.name)] {
            let found = eventually(SOON, "the outcome is known", async || {
                let request = GetExecutionRequest { name: name.clone() };
                let answer = b.query().get_execution(request).await.unwrap().into_inner();
                let found = answer.execution.unwrap();
                let outcome = found.commit.as_ref().unwrap().outcome();
                (outcome != CommitOutcome::InProgress).then_some(found)
            })
            .await;
            assert_eq!(found.name, execution);
            assert_eq!(found.outcome(), ExecutionOutcome::Lost);
            assert_eq!(found.commit.unwrap().outcome(), CommitOutcome::Committed);
        }
    }
    assert_eq!(count(&world, 1).await, 2);
}
