//! Scripts give through pgmoor what `psql -f` gives on the server itself: the same columns, values, tags, notices and
//! errors, in both modes, through both API instances and both poolers.

use std::path::{Path, PathBuf};
use std::time::Duration;

use e2e::{Client, Target, World, WorldOptions, reason};
use harness::programs::{postgres_program, search_path};
use harness::{Database, Process, eventually};
use rpc::pool::v1::DrainPoolerRequest;
use rpc::query::v1::execution_event::Kind;
use rpc::query::v1::{
    CloseSessionRequest, ExecuteRequest, OnError, OpenSessionRequest, Script, ScriptMode, ServerMessage,
    SessionMode, value,
};

const SOON: Duration = Duration::from_secs(30);
const NULL: &str = "(null)";

/// What a script gave: results as psql writes them to standard output, messages as it writes them to standard error.
#[derive(Debug, Default, PartialEq, Eq)]
struct Transcript {
    results: Vec<String>,
    messages: Vec<String>,
}

/// A script as psql reads it, and as Execute takes it: the data of its COPYs apart.
struct Corpus {
    name: String,
    path: PathBuf,
    sql: String,
    copy_input: Vec<Vec<u8>>,
}

impl Corpus {
    fn read(path: PathBuf) -> Self {
        let text = std::fs::read_to_string(&path).unwrap();
        let (mut sql, mut copy_input) = (String::new(), Vec::new());
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            sql.push_str(line);
            sql.push('\n');
            if line.starts_with("COPY") && line.contains("FROM STDIN") {
                let data = lines.by_ref().take_while(|line| *line != "\\.");
                // psql sends nothing where the server refuses the statement, and neither do we.
                copy_input.push(
                    data.map(|line| format!("{line}\n"))
                        .collect::<String>()
                        .into_bytes(),
                );
            }
        }
        // psql reads lines: the end of the last one is not part of what it sends.
        sql.pop();
        Self {
            name: path.file_stem().unwrap().to_string_lossy().into_owned(),
            path,
            sql,
            copy_input,
        }
    }

    fn all() -> Vec<Self> {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/parity");
        let mut files: Vec<_> = std::fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "sql"))
            .collect();
        files.sort();
        assert!(files.len() >= 8, "{files:?}");
        files.into_iter().map(Self::read).collect()
    }
}

/// A database of the target's role, with nothing in it.
async fn database(target: &Target) -> Database {
    let database = target.cluster().create_database().await;
    let sql = format!(
        "ALTER DATABASE {} OWNER TO {}",
        database.name(),
        target.login().user
    );
    database.execute(&sql).await;
    database
}

async fn psql(target: &Target, corpus: &Corpus, stop: bool) -> Transcript {
    let database = database(target).await;
    let process = Process::builder(postgres_program("psql"))
        .args([
            "--no-psqlrc",
            "--no-align",
            "--set",
            "VERBOSITY=verbose",
            "--set",
            "SHOW_CONTEXT=always",
        ])
        .args([
            "--set",
            if stop {
                "ON_ERROR_STOP=1"
            } else {
                "ON_ERROR_STOP=0"
            },
        ])
        .args(["--pset", &format!("null={NULL}"), "--file"])
        .arg(&corpus.path)
        .args([
            "--host",
            "127.0.0.1",
            "--port",
            &target.cluster().port().to_string(),
        ])
        .args(["--username", &target.login().user, database.name()])
        .env_clear()
        .env("PATH", search_path())
        .env("PGPASSWORD", &target.login().password)
        .env("LC_ALL", "C.UTF-8")
        .spawn();
    process.wait_exit(SOON).await;
    let results = process.stdout_text().lines().map(ToOwned::to_owned).collect();
    let mut messages = Vec::new();
    let stderr = process.stderr_text();
    let mut lines = stderr.lines().peekable();
    while let Some(line) = lines.next() {
        // `psql:file:line: ERROR:  42P01: …`, then where in the text, then details; last where in the server's source.
        let line = line
            .strip_prefix("psql:")
            .and_then(|rest| rest.splitn(3, ':').nth(2))
            .map_or(line, str::trim_start);
        if line.starts_with("LINE ") {
            // The caret is on the next line.
            lines.next();
        } else if !line.starts_with("LOCATION:") {
            messages.push(line.to_owned());
        }
    }
    Transcript { results, messages }
}

async fn pgmoor(
    client: &Client,
    server: &str,
    target: &Target,
    corpus: &Corpus,
    mode: SessionMode,
    stop: bool,
) -> Transcript {
    let database = database(target).await;
    let request = OpenSessionRequest {
        server: server.to_owned(),
        database: database.name().to_owned(),
        mode: mode.into(),
        ..OpenSessionRequest::default()
    };
    let session = client
        .query()
        .open_session(request)
        .await
        .unwrap()
        .into_inner()
        .session
        .unwrap()
        .name;
    let request = ExecuteRequest {
        session: session.clone(),
        script: Some(Script {
            sql: corpus.sql.clone(),
            mode: ScriptMode::Split.into(),
            on_error: if stop { OnError::Stop } else { OnError::Continue }.into(),
            max_rows: Some(0),
            copy_input: corpus.copy_input.iter().cloned().map(Into::into).collect(),
            ..Script::default()
        }),
        ..ExecuteRequest::default()
    };
    let mut stream = client.query().execute(request).await.unwrap().into_inner();
    let mut transcript = Transcript::default();
    let (mut rows, mut copied) = (None, Vec::new());
    while let Some(message) = stream
        .message()
        .await
        .unwrap_or_else(|status| panic!("{}", reason::text(&status)))
    {
        for event in message.events().unwrap() {
            match event.kind.unwrap() {
                Kind::Columns(columns) => {
                    let names = columns.columns.iter().map(|column| column.name.as_str());
                    transcript.results.push(names.collect::<Vec<_>>().join("|"));
                    rows = Some(0_u64);
                }
                Kind::Rows(batch) => {
                    for row in batch.rows {
                        let values = row.values.iter().map(|value| match value.kind.as_ref().unwrap() {
                            value::Kind::Text(text) => text.clone(),
                            value::Kind::Null(_) => NULL.to_owned(),
                            other => panic!("{other:?}"),
                        });
                        transcript.results.extend(
                            values
                                .collect::<Vec<_>>()
                                .join("|")
                                .lines()
                                .map(ToOwned::to_owned),
                        );
                        rows = rows.map(|rows| rows + 1);
                    }
                }
                Kind::CopyOutStarted(_) => copied.clear(),
                Kind::CopyData(data) => copied.extend_from_slice(&data.data),
                Kind::StatementCompleted(completed) => match rows.take() {
                    Some(rows) => {
                        let plural = if rows == 1 { "" } else { "s" };
                        transcript.results.push(format!("({rows} row{plural})"));
                        // What was changed is told beside what was returned of it.
                        if ["INSERT", "UPDATE", "DELETE"]
                            .iter()
                            .any(|verb| completed.command_tag.starts_with(verb))
                        {
                            transcript.results.push(completed.command_tag);
                        }
                    }
                    // psql shows the data of a COPY TO STDOUT in place of its tag.
                    None if !copied.is_empty() => {
                        let text = String::from_utf8(std::mem::take(&mut copied)).unwrap();
                        transcript.results.extend(text.lines().map(ToOwned::to_owned));
                    }
                    None if completed.command_tag.is_empty() => {}
                    None => transcript.results.push(completed.command_tag),
                },
                Kind::Notice(notice) => transcript.messages.extend(lines(&notice.message.unwrap())),
                Kind::SqlError(error) => {
                    // Rows that came before the error are shown by nobody.
                    if rows.take().is_some() {
                        transcript.results.pop();
                    }
                    transcript.messages.extend(lines(&error.message.unwrap()));
                }
                _ => {}
            }
        }
    }
    client
        .query()
        .close_session(CloseSessionRequest { name: session })
        .await
        .unwrap();
    transcript
}

/// A message as psql writes it with `VERBOSITY=verbose`.
fn lines(message: &ServerMessage) -> Vec<String> {
    let mut text = format!("{}:  {}: {}", message.severity, message.sqlstate, message.message);
    let parts = [
        ("DETAIL", &message.detail),
        ("HINT", &message.hint),
        ("QUERY", &message.internal_query),
        ("CONTEXT", &message.r#where),
        ("SCHEMA NAME", &message.schema),
        ("TABLE NAME", &message.table),
        ("COLUMN NAME", &message.column),
        ("DATATYPE NAME", &message.data_type),
        ("CONSTRAINT NAME", &message.constraint),
    ];
    for (name, part) in parts {
        if !part.is_empty() {
            text.push_str(&format!("\n{name}:  {part}"));
        }
    }
    text.lines().map(ToOwned::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scripts_give_what_psql_gives() {
    let world = World::start(WorldOptions {
        poolers: 2,
        workers: 0,
        ..WorldOptions::default()
    })
    .await;
    let caller = world.create_administrator().await;
    let server = world.register_target(caller.a()).await;
    let target = world.target();
    let mut expected = Vec::new();
    for corpus in Corpus::all() {
        for stop in [false, true] {
            let transcript = psql(target, &corpus, stop).await;
            assert!(
                transcript.results.len() > 3 || stop,
                "{}: {transcript:?}",
                corpus.name
            );
            expected.push((Corpus::read(corpus.path.clone()), stop, transcript));
        }
    }
    for pooler in ["one", "the other"] {
        for (corpus, stop, expected) in &expected {
            for (client, mode) in [(caller.a(), SessionMode::Pinned), (caller.b(), SessionMode::Auto)] {
                let found = pgmoor(client, &server, target, corpus, mode, *stop).await;
                let what = format!("{} ({mode:?}, stop {stop}, on {pooler} pooler)", corpus.name);
                assert_eq!(found.results, expected.results, "results of {what}");
                assert_eq!(found.messages, expected.messages, "messages of {what}");
            }
        }
        if pooler == "one" {
            change_pooler(&world, caller.a(), &server).await;
        }
    }
}

/// Has the pooler that owns the instance give it to the other one.
async fn change_pooler(world: &World, client: &Client, server: &str) {
    let config = world.config_database().database().connect().await;
    let owner = async || {
        let row = config
            .query_opt(
                "SELECT pooler_id FROM pgmoor.instance_owners WHERE NOT released",
                &[],
            )
            .await
            .unwrap();
        row.map(|row| row.get::<_, i16>(0))
    };
    let before = owner().await.unwrap();
    let request = DrainPoolerRequest {
        name: format!("poolers/{before}"),
    };
    client.pools().drain_pooler(request).await.unwrap();
    eventually(SOON, "the other pooler serves", async || {
        let opened = client
            .open_auto(server)
            .await
            .map_err(|status| reason::text(&status))?;
        client
            .close_session(&opened)
            .await
            .map_err(|status| reason::text(&status))?;
        let now = owner().await;
        (now.is_some() && now != Some(before))
            .then_some(())
            .ok_or(format!("{now:?} does"))
    })
    .await;
}
