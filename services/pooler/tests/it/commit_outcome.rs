//! What became of a COMMIT, also where its answer was lost.

use domain::access::{ServerPolicy, Tenancy};
use domain::endpoint::{Endpoint, SslMode};
use domain::limits::Limit;
use domain::session::SessionName;
use futures::StreamExt as _;
use harness::{Cluster, ClusterOptions, eventually};
use rpc::errors::v1::ErrorReason;
use rpc::query::v1::OnLimit;
use rpc::query::v1::execution_event::Kind;
use rpc::query::v1::{
    Commit, CommitOutcome, Execution, ExecutionOutcome, GetTransactionOutcomeRequest, Transaction,
    TransactionCommitting, TransactionStatus,
};
use sessions::{EventStream, Sessions as _};
use tokio::time::Instant;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::cancelling::{request, start};
use crate::support::{
    DEADLINE, Run, World, one_message, reason, register, split, start_pooler_for, verifier,
};

/// A table whose rows with a note make their COMMIT wait for this lock.
const LOCK: i64 = 4711;

/// A world whose server never hears from its synchronous standby: what insists on it hangs in its COMMIT, having committed.
async fn lonely_world() -> World {
    let options = ClusterOptions::default()
        .setting("synchronous_standby_names", "nobody")
        .setting("synchronous_commit", "local");
    let cluster: &'static Cluster = Box::leak(Box::new(Cluster::start(options).await));
    World::with(cluster, &cluster.endpoint().superuser(), SslMode::Disable).await
}

const INSIST: &str = "BEGIN; SET LOCAL synchronous_commit TO 'on'; INSERT INTO t VALUES (1)";

async fn make_table(world: &World) {
    let sql = format!(
        "CREATE TABLE t (a int UNIQUE DEFERRABLE INITIALLY DEFERRED, note text); \
         CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
         PERFORM pg_advisory_xact_lock({LOCK}); RETURN NULL; END $$; \
         CREATE CONSTRAINT TRIGGER hold AFTER INSERT ON t DEFERRABLE INITIALLY DEFERRED \
         FOR EACH ROW WHEN (NEW.note IS NOT NULL) EXECUTE FUNCTION hold()"
    );
    world.target.execute(&sql).await;
}

async fn count(world: &World) -> i64 {
    let row = world
        .target
        .connect()
        .await
        .query_one("SELECT count(*) FROM t", &[])
        .await;
    row.unwrap().get(0)
}

async fn backend(world: &World, session: SessionName) -> i32 {
    world.describe(session).await.backend_pid
}

/// Waits until the backend is in the middle of its COMMIT.
async fn hangs(world: &World, pid: i32) {
    let outside = world.cluster.connect().await;
    eventually(DEADLINE, "the COMMIT hangs", async || {
        let sql = "SELECT query = 'COMMIT' AND wait_event IN ('SyncRep', 'advisory') FROM pg_stat_activity WHERE pid = $1";
        let row = outside.query_one(sql, &[&pid]).await.unwrap();
        row.get::<_, Option<bool>>(0) == Some(true)
    })
    .await;
}

/// Reads as far as a COMMIT that is announced.
async fn announced(stream: &mut EventStream) -> TransactionCommitting {
    loop {
        let message = tokio::time::timeout(DEADLINE, stream.next())
            .await
            .expect("no event in time");
        for event in message.unwrap().unwrap().events().unwrap() {
            if let Some(Kind::Committing(committing)) = event.kind {
                return committing;
            }
        }
    }
}

fn committing(run: &Run) -> Vec<&TransactionCommitting> {
    let all = run.kinds().filter_map(|kind| match kind {
        Kind::Committing(committing) => Some(committing),
        _ => None,
    });
    all.collect()
}

async fn last(world: &World, session: SessionName) -> Execution {
    world
        .pooler
        .get_last_execution(&world.token, session)
        .await
        .unwrap()
}

/// What became of the session's last COMMIT, once that is settled.
async fn settled(world: &World, session: SessionName) -> Commit {
    eventually(DEADLINE, "the COMMIT is settled", async || {
        let commit = last(world, session).await.commit.unwrap();
        (commit.outcome() != CommitOutcome::InProgress).then_some(commit)
    })
    .await
}

async fn ask(world: &World, transaction: &Transaction) -> Result<(CommitOutcome, String), Status> {
    let request = GetTransactionOutcomeRequest {
        server: format!("servers/{}", world.server.id),
        transaction: Some(transaction.clone()),
    };
    let asked = world
        .pooler
        .get_transaction_outcome(&world.token, world.server.instance_id, request);
    let answer = asked.await?;
    Ok((answer.outcome(), answer.detail))
}

async fn outcome(world: &World, transaction: &Transaction) -> CommitOutcome {
    ask(world, transaction).await.unwrap().0
}

#[tokio::test]
async fn commit_tells_its_transaction_before_it_is_sent_and_its_outcome_afterwards() {
    let world = World::new().await;
    make_table(&world).await;
    for session in [world.open().await, world.open_auto().await] {
        let sql = "BEGIN; INSERT INTO t (note) VALUES (NULL); SELECT pg_current_xact_id(); COMMIT; SELECT 1";
        let run = world.run(session, sql).await;
        assert_eq!(run.outcome(), ExecutionOutcome::Succeeded);
        let announced = committing(&run);
        assert_eq!(announced.len(), 1);
        assert_eq!(announced[0].statement_index, 3);
        let transaction = announced[0].transaction.as_ref().unwrap();
        assert_eq!(Some(transaction.xid.to_string()), run.rows()[0][0]);
        assert_eq!(transaction.timeline, 1);
        let system = "SELECT system_identifier FROM pg_control_system()";
        assert_eq!(transaction.system_identifier, world.value(session, system).await);
        assert_eq!(outcome(&world, transaction).await, CommitOutcome::Committed);
        let place = |kind: fn(&Kind) -> bool| run.kinds().position(kind).unwrap();
        let committing = place(|kind| matches!(kind, Kind::Committing(_)));
        let committed =
            place(|kind| matches!(kind, Kind::StatementCompleted(done) if done.command_tag == "COMMIT"));
        assert!(committing < committed);
    }
}

#[tokio::test]
async fn last_execution_says_what_its_commit_came_to() {
    let world = World::new().await;
    make_table(&world).await;
    let session = world.open().await;
    world.run(session, "BEGIN; INSERT INTO t VALUES (1)").await;
    assert!(last(&world, session).await.commit.is_none());
    let committed = world
        .pooler
        .commit_transaction(&world.token, session)
        .await
        .unwrap();
    assert!(committed.error.is_none());
    let execution = last(&world, session).await;
    assert_eq!(execution.outcome(), ExecutionOutcome::Succeeded);
    let commit = execution.commit.unwrap();
    assert_eq!(commit.outcome(), CommitOutcome::Committed);
    assert_eq!(
        outcome(&world, &commit.transaction.unwrap()).await,
        CommitOutcome::Committed
    );

    // One that the server refuses.
    world.run(session, "BEGIN; INSERT INTO t VALUES (1)").await;
    let refused = world.run(session, "COMMIT").await;
    assert_eq!(refused.sqlstates(), ["23505"]);
    let commit = last(&world, session).await.commit.unwrap();
    assert_eq!(commit.outcome(), CommitOutcome::Aborted);
    assert_eq!(
        outcome(&world, &commit.transaction.unwrap()).await,
        CommitOutcome::Aborted
    );
    assert_eq!(count(&world).await, 1);
}

#[tokio::test]
async fn every_lone_commit_is_announced_and_no_other() {
    let world = World::new().await;
    make_table(&world).await;
    let session = world.open().await;
    let run = world
        .run(session, "BEGIN; INSERT INTO t VALUES (1); COMMIT AND CHAIN")
        .await;
    assert_eq!(
        run.finished().transaction_status(),
        TransactionStatus::InTransaction
    );
    assert!(committing(&run)[0].transaction.is_some());
    // Nothing is written in the one that follows.
    let run = world.execute(session, one_message("/* done */ END;")).await;
    assert_eq!(
        (run.tags(), committing(&run)[0].transaction.clone()),
        (vec!["COMMIT"], None)
    );
    let commit = last(&world, session).await.commit.unwrap();
    assert_eq!(
        (commit.outcome(), commit.transaction),
        (CommitOutcome::Committed, None)
    );
    for script in [
        // Nothing to commit, not alone, and failed.
        split("COMMIT"),
        one_message("BEGIN; INSERT INTO t VALUES (2); COMMIT"),
        split("INSERT INTO t VALUES (3)"),
        split("BEGIN; ROLLBACK"),
    ] {
        let run = world.execute(session, script).await;
        assert_eq!(run.outcome(), ExecutionOutcome::Succeeded);
        assert!(committing(&run).is_empty());
        assert!(last(&world, session).await.commit.is_none());
    }
    world.run(session, "BEGIN; SELECT 1/0").await;
    let run = world.run(session, "COMMIT").await;
    assert_eq!((run.tags(), committing(&run).len()), (vec!["ROLLBACK"], 0));
    // Also where results are suspended at their limits.
    world.run(session, "BEGIN; INSERT INTO t VALUES (4)").await;
    let mut suspending = split("COMMIT");
    suspending.max_rows = Some(1);
    suspending.set_on_limit(OnLimit::Suspend);
    let run = world.execute(session, suspending).await;
    assert_eq!((run.tags(), committing(&run).len()), (vec!["COMMIT"], 1));
}

#[tokio::test]
async fn commit_whose_answer_was_lost_is_found_to_have_taken_effect() {
    let world = lonely_world().await;
    make_table(&world).await;
    for session in [world.open().await, world.open_auto().await] {
        world.run(session, INSIST).await;
        let pid = backend(&world, session).await;
        let (name, mut stream) = start(&world, session, request("COMMIT")).await;
        let transaction = announced(&mut stream).await.transaction.unwrap();
        hangs(&world, pid).await;
        let running = last(&world, session).await;
        assert!(running.running);
        assert_eq!(running.commit.unwrap().outcome(), CommitOutcome::InProgress);
        assert_eq!(outcome(&world, &transaction).await, CommitOutcome::InProgress);
        world.cluster.kill_backend(pid).await;
        let ended = stream.collect::<Vec<_>>().await;
        assert!(ended.iter().all(Result::is_ok));
        let commit = settled(&world, session).await;
        assert_eq!(
            (commit.outcome(), commit.detail),
            (CommitOutcome::Committed, String::new())
        );
        assert_eq!(commit.transaction.as_ref(), Some(&transaction));
        let execution = world.pooler.get_execution(&world.token, name).await.unwrap();
        assert_eq!(execution.outcome(), ExecutionOutcome::Lost);
        assert_eq!(outcome(&world, &transaction).await, CommitOutcome::Committed);
        assert_eq!(count(&world).await, 1);
        world.target.execute("DELETE FROM t").await;
    }
}

#[tokio::test]
async fn lost_commit_transaction_says_which_execution_to_ask_about() {
    let world = World::new().await;
    make_table(&world).await;
    let holder = world.target.connect().await;
    holder
        .query_one("SELECT pg_advisory_lock($1)", &[&LOCK])
        .await
        .unwrap();
    let other = world.other_user().await;
    for session in [world.open().await, world.open_auto().await] {
        world
            .run(session, "BEGIN; INSERT INTO t VALUES (1, 'wait')")
            .await;
        let pid = backend(&world, session).await;
        let (answer, ()) = tokio::join!(world.pooler.commit_transaction(&world.token, session), async {
            hangs(&world, pid).await;
            world.cluster.kill_backend(pid).await;
        });
        let lost = answer.unwrap_err();
        assert_eq!(
            (lost.code(), reason(&lost)),
            (Code::Unknown, ErrorReason::OutcomeUnknown)
        );
        let execution = lost.get_details_error_info().unwrap().metadata["execution"].clone();
        let commit = settled(&world, session).await;
        assert_eq!(commit.outcome(), CommitOutcome::Aborted);
        assert_eq!(last(&world, session).await.name, execution);
        let named = world
            .pooler
            .get_execution(&world.token, execution.parse().unwrap())
            .await
            .unwrap();
        assert_eq!(named.outcome(), ExecutionOutcome::Lost);
        assert_eq!(named.commit.unwrap().outcome(), CommitOutcome::Aborted);
        assert_eq!(count(&world).await, 0);
        // Nobody else learns of it.
        let refused = world
            .pooler
            .get_last_execution(&other, session)
            .await
            .unwrap_err();
        assert_eq!(reason(&refused), ErrorReason::ResourceNotFound);
    }
}

#[tokio::test]
async fn commit_that_wrote_nothing_has_nothing_to_lose() {
    let world = World::new().await;
    make_table(&world).await;
    let session = world.open().await;
    world
        .run(session, "BEGIN READ ONLY; SELECT count(*) FROM t")
        .await;
    let pid = backend(&world, session).await;
    let run = world.run(session, "COMMIT").await;
    assert_eq!(committing(&run)[0].transaction, None);
    let commit = last(&world, session).await.commit.unwrap();
    assert_eq!(commit.outcome(), CommitOutcome::Committed);
    // A session that has ended still tells of its last execution.
    world.cluster.kill_backend(pid).await;
    eventually(DEADLINE, "the session is gone", async || {
        world.pooler.get_session(&world.token, session).await.err()
    })
    .await;
    let commit = last(&world, session).await.commit.unwrap();
    assert_eq!(commit.outcome(), CommitOutcome::Committed);
}

#[tokio::test]
async fn role_that_may_not_ask_commits_all_the_same() {
    let world = World::new().await;
    make_table(&world).await;
    let login = world.cluster.create_login("").await;
    let (rich, poor) = (&login.user, format!("{}_poor", login.user));
    let revoke = |function: &str| {
        format!(
            "REVOKE EXECUTE ON FUNCTION {function}() FROM PUBLIC; GRANT EXECUTE ON FUNCTION {function}() TO {rich}"
        )
    };
    world
        .target
        .execute(&format!(
            "CREATE ROLE {poor}; GRANT {poor} TO {rich}; GRANT ALL ON t TO {rich}, {poor}; {}; {}",
            revoke("pg_current_xact_id_if_assigned"),
            revoke("txid_current_if_assigned"),
        ))
        .await;
    let server = world
        .register("limited", world.target.name(), &login, SslMode::Disable)
        .await;
    let open = async || {
        let request = rpc::query::v1::OpenSessionRequest {
            server: format!("servers/{}", server.id),
            ..world.open_request()
        };
        crate::support::name(&world.try_open(request).await.unwrap())
    };
    // The connection was made by one who may, and the role changed since.
    let session = open().await;
    let run = world
        .run(
            session,
            &format!("BEGIN; INSERT INTO t VALUES (1); SET ROLE {poor}; COMMIT"),
        )
        .await;
    assert_eq!(
        (run.outcome(), run.sqlstates()),
        (ExecutionOutcome::Succeeded, vec![])
    );
    assert_eq!(run.tags().last(), Some(&"COMMIT"));
    assert!(committing(&run).is_empty());
    assert_eq!(count(&world).await, 1);
    // Their own savepoints are left alone.
    world.run(session, "RESET ROLE").await;
    let sql = format!(
        "BEGIN; INSERT INTO t VALUES (2); SAVEPOINT pgmoor_before_commit; INSERT INTO t VALUES (3); \
         SET ROLE {poor}; COMMIT"
    );
    let run = world.run(session, &sql).await;
    assert_eq!(run.outcome(), ExecutionOutcome::Succeeded);
    assert_eq!(count(&world).await, 3);
    // One who never might.
    let revoked = format!(
        "REVOKE EXECUTE ON FUNCTION pg_current_xact_id_if_assigned(), txid_current_if_assigned() FROM {rich}"
    );
    world.target.execute(&revoked).await;
    let session = open().await;
    let run = world
        .run(session, "BEGIN; INSERT INTO t VALUES (4); COMMIT")
        .await;
    assert_eq!(run.outcome(), ExecutionOutcome::Succeeded);
    assert!(committing(&run).is_empty());
    let commit = last(&world, session).await.commit.unwrap();
    assert_eq!(
        (commit.outcome(), commit.transaction),
        (CommitOutcome::Committed, None)
    );
    let pid = backend(&world, session).await;
    let holder = world.target.connect().await;
    holder
        .query_one("SELECT pg_advisory_lock($1)", &[&LOCK])
        .await
        .unwrap();
    world
        .run(session, "BEGIN; INSERT INTO t VALUES (5, 'wait')")
        .await;
    let (answer, ()) = tokio::join!(world.pooler.commit_transaction(&world.token, session), async {
        hangs(&world, pid).await;
        world.cluster.kill_backend(pid).await;
    });
    assert_eq!(reason(&answer.unwrap_err()), ErrorReason::OutcomeUnknown);
    let commit = settled(&world, session).await;
    assert_eq!(commit.outcome(), CommitOutcome::Unknown);
    assert!(commit.detail.contains("may not ask"), "{}", commit.detail);
}

#[tokio::test]
async fn old_functions_do_where_the_new_ones_may_not_be_executed() {
    let world = World::new().await;
    make_table(&world).await;
    let login = world.cluster.create_login("").await;
    let sql = format!(
        "GRANT ALL ON t TO {}; REVOKE EXECUTE ON FUNCTION pg_current_xact_id_if_assigned(), \
         pg_xact_status(xid8) FROM PUBLIC",
        login.user
    );
    world.target.execute(&sql).await;
    let server = world
        .register("older", world.target.name(), &login, SslMode::Disable)
        .await;
    let open = rpc::query::v1::OpenSessionRequest {
        server: format!("servers/{}", server.id),
        ..world.open_request()
    };
    let session = crate::support::name(&world.try_open(open).await.unwrap());
    let run = world
        .run(session, "BEGIN; INSERT INTO t VALUES (1); COMMIT")
        .await;
    let request = GetTransactionOutcomeRequest {
        server: format!("servers/{}", server.id),
        transaction: committing(&run)[0].transaction.clone(),
    };
    let answer = world
        .pooler
        .get_transaction_outcome(&world.token, server.instance_id, request)
        .await
        .unwrap();
    assert_eq!(answer.outcome(), CommitOutcome::Committed);
}

#[tokio::test]
async fn after_a_crash_only_what_is_certain_is_said() {
    let world = lonely_world().await;
    make_table(&world).await;
    let mut told = Vec::new();
    let holder = world.target.connect().await;
    holder
        .query_one("SELECT pg_advisory_lock($1)", &[&LOCK])
        .await
        .unwrap();
    for open in [INSIST, "BEGIN; INSERT INTO t VALUES (2, 'wait')"] {
        let session = world.open().await;
        world.run(session, open).await;
        let pid = backend(&world, session).await;
        let (_, mut stream) = start(&world, session, request("COMMIT")).await;
        let transaction = announced(&mut stream).await.transaction.unwrap();
        hangs(&world, pid).await;
        told.push((session, transaction, stream));
    }
    world.cluster.crash().await;
    for (session, ..) in &told {
        let commit = last(&world, *session).await.commit.unwrap();
        // While it is away nobody knows.
        assert!([CommitOutcome::Unknown, CommitOutcome::InProgress].contains(&commit.outcome()));
    }
    world.cluster.start_again().await;
    let mut outcomes = Vec::new();
    for (session, transaction, _) in &told {
        let found = eventually(DEADLINE, "the server answers", async || {
            ask(&world, transaction).await
        })
        .await;
        let last = last(&world, *session).await.commit.unwrap();
        assert_eq!((last.outcome(), last.detail), found);
        outcomes.push(found);
    }
    // The first has taken effect, but its id alone does not prove it.
    assert_eq!(count(&world).await, 1);
    assert_eq!(outcomes[0].0, CommitOutcome::Unknown);
    assert!(outcomes[0].1.contains("crashed"), "{}", outcomes[0].1);
    assert_eq!(outcomes[1].0, CommitOutcome::Aborted);
}

#[tokio::test]
async fn outcome_of_another_timeline_is_unknown() {
    let options = ClusterOptions::default();
    let primary: &'static Cluster = Box::leak(Box::new(Cluster::start(options).await));
    let login = primary.endpoint().superuser();
    let world = World::with(primary, &login, SslMode::Disable).await;
    make_table(&world).await;
    let standby = Cluster::standby_of(primary).await;
    let session = world.open().await;
    let run = world
        .run(session, "BEGIN; INSERT INTO t VALUES (1); COMMIT")
        .await;
    let transaction = committing(&run)[0].transaction.clone().unwrap();
    standby.catch_up_with(primary).await;
    world.pooler.drain(Instant::now()).await;

    // Another pooler answers as well.
    let ports = [primary.port(), standby.port()];
    let pooler = start_pooler_for(
        &world.store,
        &ports,
        &world.opening_key,
        verifier(&world.store).await,
    )
    .await;
    let endpoint = Endpoint::new("127.0.0.1", standby.port().into()).unwrap();
    let (store, key, database) = (&world.store, &world.opening_key, world.target.name());
    let server = register(
        store,
        key,
        world.user,
        "standby",
        database,
        &login,
        endpoint,
        SslMode::Disable,
    )
    .await;
    let ask = async |server: &store::servers::Server| {
        let request = GetTransactionOutcomeRequest {
            server: format!("servers/{}", server.id),
            transaction: Some(transaction.clone()),
        };
        let answer = pooler
            .get_transaction_outcome(&world.token, server.instance_id, request)
            .await
            .unwrap();
        (answer.outcome(), answer.detail)
    };
    assert_eq!(ask(&world.server).await.0, CommitOutcome::Committed);
    let (outcome, why) = ask(&server).await;
    assert_eq!(outcome, CommitOutcome::Unknown);
    assert!(why.contains("standby"), "{why}");
    let open = rpc::query::v1::OpenSessionRequest {
        server: format!("servers/{}", server.id),
        ..Default::default()
    };
    let opened = pooler.open_session(&world.token, server.instance_id, open).await;
    standby.promote().await;
    let (outcome, why) = ask(&server).await;
    assert_eq!(outcome, CommitOutcome::Unknown);
    assert!(why.contains("timeline"), "{why}");

    // A connection to the standby has outlived the promotion, and learns of it.
    let session = crate::support::name(&opened.unwrap());
    let sql = "BEGIN; INSERT INTO t VALUES (2); COMMIT";
    let run = Run::read(pooler.execute(&world.token, session, request(sql)).await.unwrap()).await;
    let told = committing(&run)[0].transaction.clone().unwrap();
    assert_eq!(told.timeline, 2);
    let request = GetTransactionOutcomeRequest {
        server: format!("servers/{}", server.id),
        transaction: Some(told),
    };
    let answer = pooler
        .get_transaction_outcome(&world.token, server.instance_id, request)
        .await;
    assert_eq!(answer.unwrap().outcome(), CommitOutcome::Committed);
}

#[tokio::test]
async fn question_for_an_outcome_keeps_to_the_budget() {
    let world = World::new().await;
    make_table(&world).await;
    world.set_budget(1, 0).await;
    world.set_limits(&[(Limit::QueryWaitTimeout, 1)]).await;
    let session = world.open().await;
    let run = world
        .run(session, "BEGIN; INSERT INTO t VALUES (1); COMMIT")
        .await;
    let told = committing(&run)[0].transaction.clone().unwrap();
    let refused = ask(&world, &told).await.unwrap_err();
    assert_eq!(reason(&refused), ErrorReason::BudgetExhausted);
    world.pooler.close_session(&world.token, session).await.unwrap();
    assert_eq!(outcome(&world, &told).await, CommitOutcome::Committed);
    // And its own connection is given back.
    eventually(DEADLINE, "there is room for a session", async || {
        world.try_open(world.open_request()).await.ok()
    })
    .await;
}

#[tokio::test]
async fn outcome_is_asked_for_in_the_transactions_own_database_by_who_may_use_it() {
    let world = World::new().await;
    make_table(&world).await;
    // A role of a tenant: it has nothing to do in the maintenance database.
    let login = world.cluster.create_login("").await;
    let role = &login.user;
    let maintenance = world.cluster.create_database().await;
    let close = format!("REVOKE CONNECT ON DATABASE {} FROM PUBLIC", maintenance.name());
    maintenance.execute(&close).await;
    world.target.execute(&format!("GRANT ALL ON t TO {role}")).await;
    let server = world
        .register("tenant", maintenance.name(), &login, SslMode::Disable)
        .await;
    let request = rpc::query::v1::OpenSessionRequest {
        server: format!("servers/{}", server.id),
        database: world.target.name().to_owned(),
        ..world.open_request()
    };
    let session = crate::support::name(&world.try_open(request).await.unwrap());
    let run = world
        .run(session, "BEGIN; INSERT INTO t VALUES (1); COMMIT")
        .await;
    let told = committing(&run)[0].transaction.clone().unwrap();
    assert_eq!(told.database, world.target.name());
    let ask = async |transaction: &Transaction| {
        let request = GetTransactionOutcomeRequest {
            server: format!("servers/{}", server.id),
            transaction: Some(transaction.clone()),
        };
        let asked = world
            .pooler
            .get_transaction_outcome(&world.token, server.instance_id, request);
        asked.await.map(|answer| answer.outcome())
    };
    assert_eq!(ask(&told).await.unwrap(), CommitOutcome::Committed);
    let elsewhere = Transaction {
        database: String::new(),
        ..told.clone()
    };
    let refused = ask(&elsewhere).await.unwrap_err();
    assert_eq!(reason(&refused), ErrorReason::TargetRefused);

    // Access is decided upon for that database.
    let policy = ServerPolicy {
        tenancy: Tenancy::Multi {
            databases: [world.target.name().parse().unwrap()].into(),
        },
        ..ServerPolicy::default()
    };
    let servers = world.store.servers();
    servers.set_policy(server.id, &policy, None).await.unwrap();
    assert_eq!(ask(&told).await.unwrap(), CommitOutcome::Committed);
    for database in ["", "postgres"] {
        let elsewhere = Transaction {
            database: database.to_owned(),
            ..told.clone()
        };
        let refused = ask(&elsewhere).await.unwrap_err();
        assert_eq!(reason(&refused), ErrorReason::DatabaseNotAllowed, "{database}");
    }
}

#[tokio::test]
async fn transactions_that_nobody_was_told_of_are_nobodys() {
    let world = World::new().await;
    make_table(&world).await;
    let session = world.open().await;
    let run = world
        .run(session, "BEGIN; INSERT INTO t VALUES (1); COMMIT")
        .await;
    let told = committing(&run)[0].transaction.clone().unwrap();
    let other_cluster = Transaction {
        system_identifier: "1".to_owned(),
        ..told.clone()
    };
    let (outcome, why) = ask(&world, &other_cluster).await.unwrap();
    assert_eq!(outcome, CommitOutcome::Unknown);
    assert!(why.contains("another cluster"), "{why}");
    for wrong in [
        Transaction::default(),
        Transaction {
            xid: 0,
            ..told.clone()
        },
        Transaction {
            xid: u64::MAX,
            ..told.clone()
        },
        Transaction {
            system_identifier: "1'; SELECT 1".to_owned(),
            ..told.clone()
        },
    ] {
        let refused = ask(&world, &wrong).await.unwrap_err();
        assert_eq!(reason(&refused), ErrorReason::InvalidField);
    }
    let request = GetTransactionOutcomeRequest {
        server: format!("servers/{}", world.server.id),
        transaction: Some(told),
    };
    let other = world.other_user().await;
    let asked = world
        .pooler
        .get_transaction_outcome(&other, world.server.instance_id, request);
    assert_eq!(reason(&asked.await.unwrap_err()), ErrorReason::ResourceNotFound);
}
