//! A program's secrets, its processes and its backends.

use std::os::unix::fs::MetadataExt;

use domain::backup::BackupSelection;
use harness::eventually;
use target::tools::{DumpOptions, ToolProcess};

use crate::world::{DEADLINE, World, name, superuser, target};

/// A pg_dump that waits for a lock for as long as the connection lives.
async fn waiting_dump(
    world: &World,
    application_name: &str,
) -> (harness::Connection, ToolProcess, target::tools::ToolEnvironment) {
    let database = name(&format!("lock {application_name}"));
    let blocker = world.database(&database).await;
    blocker.batch_execute("CREATE TABLE t (x int)").await.unwrap();
    blocker.batch_execute("BEGIN; LOCK t").await.unwrap();
    let environment = world.environment(&database, application_name);
    let options = DumpOptions {
        selection: BackupSelection::Schemas(vec![name("public")]),
        compression: 0,
        large_objects: false,
    };
    let arguments = options.arguments(world.tool.version.major);
    let process = ToolProcess::spawn(&world.tool.pg_dump(), &arguments, Some(&environment), None).unwrap();
    eventually(DEADLINE, "pg_dump waits for the lock", async || {
        let query = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = $1 AND wait_event_type = 'Lock')";
        world.cluster.connect().await.query_one(query, &[&application_name]).await.unwrap().get::<_, bool>(0)
    })
    .await;
    (blocker, process, environment)
}

#[tokio::test]
async fn password_is_in_a_private_file_only() {
    let world = World::new().await;
    let (_blocker, process, environment) = waiting_dump(&world, "secrets").await;
    let password = &world.cluster.endpoint().password;
    let id = process.id().unwrap();
    for file in ["cmdline", "environ"] {
        let content = std::fs::read(format!("/proc/{id}/{file}")).unwrap();
        let content = String::from_utf8_lossy(&content);
        assert!(
            content.contains("dbname=") || content.contains("PGPASSFILE="),
            "{content}"
        );
        assert!(!content.contains(password.as_str()), "{file} has the password");
        // The environment is made from nothing.
        assert!(!content.contains("CARGO"), "{content}");
    }
    assert!(!format!("{environment:?}").contains(password.as_str()));
    let directory = environment.directory().to_owned();
    assert_eq!(std::fs::metadata(&directory).unwrap().mode() & 0o777, 0o700);
    assert_eq!(
        std::fs::metadata(directory.join("passfile")).unwrap().mode() & 0o777,
        0o600
    );
    drop((process, environment));
    assert!(!directory.exists());
}

#[tokio::test]
async fn ended_program_is_gone_with_its_backends() {
    let world = World::new().await;
    let (_blocker, mut process, _environment) = waiting_dump(&world, "ending").await;
    let questions = target(&world.resolved, &superuser(world.cluster), "asking")
        .questions()
        .await
        .unwrap();
    assert_eq!(questions.count_backends("ending").await.unwrap(), 1);
    let status = process.end(std::time::Duration::from_secs(10)).await.unwrap();
    assert!(!status.success());
    questions.end_backends("ending", DEADLINE).await.unwrap();
    assert_eq!(questions.count_backends("ending").await.unwrap(), 0);
}

#[tokio::test]
async fn backends_of_a_killed_program_are_ended_and_no_others() {
    let world = World::new().await;
    let (_blocker, process, _environment) = waiting_dump(&world, "killed").await;
    let id = process.id().unwrap();
    drop(process);
    eventually(DEADLINE, "the program is gone", async || {
        // Reaped in the background, or a zombie until then.
        std::fs::read_to_string(format!("/proc/{id}/stat")).map_or(true, |stat| stat.contains(") Z "))
    })
    .await;
    let stranger = world.cluster.create_login("").await;
    let endpoint = world.cluster.endpoint();
    let other = endpoint.connect(&stranger, "postgres").await;
    other
        .batch_execute("SET application_name = 'killed'")
        .await
        .unwrap();
    let questions = target(&world.resolved, &superuser(world.cluster), "killed")
        .questions()
        .await
        .unwrap();
    // The backend waits for a lock and does not notice that its client is gone.
    assert_eq!(questions.end_backends("killed", DEADLINE).await.unwrap(), 1);
    assert_eq!(questions.count_backends("killed").await.unwrap(), 0);
    other.batch_execute("SELECT 1").await.unwrap();
}
