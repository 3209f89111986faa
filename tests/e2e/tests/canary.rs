//! A full run of what people do, with secrets and data that cannot be mistaken for anything else, and then a look at
//! everything the run left: none of them may be where it does not belong.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use e2e::recording::{Part, Recorder};
use e2e::secrets::Secrets;
use e2e::world::{Caller, SUPERUSER, create_server};
use e2e::{Client, World, WorldOptions, leaks};
use harness::{Process, eventually, random};
use rpc::audit::v1::{AuditFilter, ExportAuditRecordsRequest, ListAuditRecordsRequest};
use rpc::auth::v1::{CreateApiTokenRequest, ExchangeTokenRequest, RefreshTokenRequest, WhoAmIRequest};
use rpc::backup::v1::start_restore_request::Source;
use rpc::backup::v1::{StartBackupRequest, StartRestoreRequest, TableName};
use rpc::operation::v1::{Operation, OperationState, ReadOperationLogRequest};
use rpc::query::v1::{
    CopyInRequest, CopyInStart, ExecuteRequest, Parameter, RunQueryRequest, Script, copy_in_request,
    parameter,
};
use rpc::server::v1::{
    DeletePersonalCredentialRequest, ExportServersRequest, SetPersonalCredentialRequest,
    SetServerPasswordRequest, TestServerRequest,
};
use rpc::user::v1::{CreateUserRequest, SetPasswordRequest, User};
use serde_json::json;
use tonic_reflection::pb::v1 as reflection;

use crate::files::{download, upload};
use crate::single_sign_on::arrangement::{Arrangement, arrange_in};

const SOON: Duration = Duration::from_secs(30);

/// The methods that hand tokens out.
const HAND_OUT_TOKENS: [&str; 4] = ["LoginWithPassword", "PollLogin", "RefreshToken", "CreateApiToken"];

/// The services whose answers are the users' own data.
const SHOW_CONTENTS: [&str; 2] = ["pgmoor.query.v1.QueryService", "pgmoor.storage.v1.StorageService"];

/// Files that keep secrets; beside them those with the URLs of the config database.
const KEEP_SECRETS: [&str; 4] = ["opening.key", "login.key", "superuser.password", "pgmoor.toml"];

/// What a run left in one place.
struct Left {
    place: String,
    bytes: Vec<u8>,
    /// Whether what people store and ask may be there: secrets may not, wherever it is.
    contents: bool,
    /// Something that has to be there, or it was not looked at.
    marker: String,
}

impl Left {
    fn new(place: impl Into<String>, bytes: impl Into<Vec<u8>>, marker: impl Into<String>) -> Self {
        Self {
            place: place.into(),
            bytes: bytes.into(),
            contents: false,
            marker: marker.into(),
        }
    }

    fn with_contents(mut self) -> Self {
        self.contents = true;
        self
    }
}

/// Somebody who works, what they work on, and the data by which it is known.
struct Run<'a> {
    world: &'a World,
    caller: Caller,
    username: String,
    server: String,
    contents: Secrets,
}

impl Run<'_> {
    /// A secret that is nowhere but where the test puts it.
    fn secret(&self, what: &str) -> String {
        let secret = random::password();
        self.world.secrets().remember(what, &secret);
        secret
    }

    /// Data of a user's.
    fn content(&self, what: &str) -> String {
        let content = random::password();
        self.contents.remember(what, &content);
        content
    }

    async fn log_in_wrongly(&self) {
        let anonymous = self.world.anonymous();
        for username in [SUPERUSER, &self.username, "nobody"] {
            let wrong = self.secret("a wrong password");
            anonymous.log_in(username, &wrong).await.unwrap_err();
        }
        let refresh_token = self.secret("a wrong refresh token");
        let request = RefreshTokenRequest { refresh_token };
        anonymous.auth().refresh_token(request).await.unwrap_err();
        for token in [
            self.secret("a wrong token"),
            format!("pgmoor_{}", self.secret("a wrong API token")),
            format!("eyJhbGciOiJub25lIn0.{}.x", self.secret("a forged token")),
        ] {
            let client = anonymous.with_token(&token);
            client.open_session(&self.server).await.unwrap_err();
            let request = ExchangeTokenRequest { token: token.clone() };
            anonymous.auth().exchange_token(request).await.unwrap_err();
        }
    }

    /// Logs in with a provider, and again with what that gave.
    async fn log_in_with_a_provider(&self, here: &Arrangement) {
        let mut tokens = here.log_in(0, "ann").await.unwrap();
        for _ in 0..2 {
            self.world
                .secrets()
                .remember("an access token", &tokens.access_token);
            self.world
                .secrets()
                .remember("a refresh token", &tokens.refresh_token);
            let client = self.world.anonymous().with_token(&tokens.access_token);
            client.auth().who_am_i(WhoAmIRequest {}).await.unwrap();
            let request = RefreshTokenRequest {
                refresh_token: tokens.refresh_token,
            };
            let refreshed = client.auth().refresh_token(request).await.unwrap();
            tokens = refreshed.into_inner().tokens.unwrap();
        }
    }

    async fn change_passwords(&self) {
        let request = SetPasswordRequest {
            name: "users/me".to_owned(),
            current_password: self.secret("a wrong current password"),
            new_password: self.secret("a password that was not taken"),
        };
        self.caller.a().users().set_password(request).await.unwrap_err();
        let request = CreateUserRequest {
            user: Some(User {
                username: self.username.clone(),
                ..User::default()
            }),
            password: self.secret("the password of a user who was there already"),
        };
        let admin = self.world.superuser().await;
        admin.b().users().create_user(request).await.unwrap_err();
        let request = CreateApiTokenRequest {
            display_name: "canary".to_owned(),
            ..CreateApiTokenRequest::default()
        };
        let made = self.caller.b().auth().create_api_token(request).await.unwrap();
        let token = made.into_inner().token;
        self.world.secrets().remember("an API token", &token);
        let with_token = self.world.anonymous().with_token(&token);
        let session = with_token.open_session(&self.server).await.unwrap();
        with_token.close_session(&session).await.unwrap();
    }

    async fn give_wrong_server_passwords(&self) {
        let wrong = self.secret("a wrong server password");
        let server = create_server(self.caller.a(), self.world.target_server(), &wrong).await;
        let name = server.unwrap();
        let request = TestServerRequest {
            name: name.clone(),
            ..TestServerRequest::default()
        };
        self.caller.b().servers().test_server(request).await.unwrap_err();
        self.caller.balanced.open_session(&name).await.unwrap_err();
        let request = SetServerPasswordRequest {
            name,
            password: self.world.target().login().password.clone(),
        };
        self.caller
            .a()
            .servers()
            .set_server_password(request)
            .await
            .unwrap();
        let request = SetServerPasswordRequest {
            name: "servers/00000000-0000-7000-8000-000000000000".to_owned(),
            password: self.secret("the password of no server"),
        };
        self.caller
            .a()
            .servers()
            .set_server_password(request)
            .await
            .unwrap_err();
        for password in [
            self.secret("a wrong personal password"),
            self.secret("another wrong personal password"),
        ] {
            let request = SetPersonalCredentialRequest {
                name: self.server.clone(),
                role: random::name("role"),
                password,
            };
            self.caller
                .a()
                .servers()
                .set_personal_credential(request)
                .await
                .unwrap();
            self.caller.b().open_session(&self.server).await.unwrap_err();
        }
        let request = DeletePersonalCredentialRequest {
            name: self.server.clone(),
        };
        self.caller
            .b()
            .servers()
            .delete_personal_credential(request)
            .await
            .unwrap();
        let request = ExportServersRequest {};
        self.caller.b().servers().export_servers(request).await.unwrap();
    }

    async fn query(&self) {
        let session = self.caller.a().open_session(&self.server).await.unwrap();
        let run = async |sql: String| self.caller.b().execute(&session.name, &sql).await.unwrap();
        run("CREATE TABLE canary (cage text CHECK (cage <> 'none'))".to_owned()).await;
        run(format!(
            "INSERT INTO canary VALUES ('{}')",
            self.content("a literal")
        ))
        .await;
        run(format!(
            "SELECT '{}'::int",
            self.content("a value that is no number")
        ))
        .await;
        run(format!("SELEC {}", self.content("a word of a syntax error"))).await;
        run(format!(
            "DO $$ BEGIN RAISE NOTICE '{}'; END $$",
            self.content("a notice")
        ))
        .await;
        run(format!("NOTIFY canary, '{}'", self.content("a notification"))).await;
        run(format!("SET application_name = '{}'", self.content("a setting"))).await;
        let secret = self.content("the password of a role");
        let role = random::name("role");
        run(format!("CREATE ROLE {role} PASSWORD '{secret}'")).await;
        let parameters = vec![Parameter {
            kind: Some(parameter::Kind::Text(self.content("a parameter"))),
            type_oid: 25,
        }];
        let request = ExecuteRequest {
            session: session.name.clone(),
            script: Some(Script {
                sql: "INSERT INTO canary VALUES ($1), ('none')".to_owned(),
                parameters,
                ..Script::default()
            }),
            ..ExecuteRequest::default()
        };
        let refused = e2e::Running::start(self.caller.a(), request).await.unwrap();
        assert_eq!(refused.finish().await.unwrap().sqlstate(), "23514");
        let start = copy_in_request::Kind::Start(CopyInStart {
            session: session.name.clone(),
            sql: "COPY canary FROM STDIN".to_owned(),
            ..CopyInStart::default()
        });
        for line in [
            format!("{}\n", self.content("a copied row")),
            format!("{}\ttoo many\n", self.content("a row that does not fit")),
        ] {
            let pieces = [start.clone(), copy_in_request::Kind::Data(line.into())];
            let pieces = pieces.map(|kind| CopyInRequest { kind: Some(kind) });
            let _ = self.caller.a().query().copy_in(tokio_stream::iter(pieces)).await;
        }
        let request = RunQueryRequest {
            server: self.server.clone(),
            script: Some(Script {
                sql: format!("SELECT *, '{}' FROM canary", self.content("a literal of a query")),
                ..Script::default()
            }),
            ..RunQueryRequest::default()
        };
        let answer = self.caller.balanced.query().run_query(request).await.unwrap();
        assert!(
            !self.contents.found_in(&format!("{answer:?}")).is_empty(),
            "{answer:?}"
        );
        self.caller.a().close_session(&session).await.unwrap();
    }

    /// The logs of both operations.
    async fn back_up_and_restore(&self) -> String {
        let request = StartBackupRequest {
            server: self.server.clone(),
            tables: vec![TableName {
                schema: "public".to_owned(),
                table: "canary".to_owned(),
            }],
            ..StartBackupRequest::default()
        };
        let started = self.caller.a().backups().start_backup(request).await.unwrap();
        let backup = succeeded(self.caller.b(), started.into_inner().operation).await;
        let request = RunQueryRequest {
            server: self.server.clone(),
            script: Some(Script {
                sql: "DROP TABLE canary".to_owned(),
                ..Script::default()
            }),
            ..RunQueryRequest::default()
        };
        self.caller.b().query().run_query(request).await.unwrap();
        let request = StartRestoreRequest {
            source: Some(Source::Backup(backup.backup.clone())),
            server: self.server.clone(),
            ..StartRestoreRequest::default()
        };
        let started = self.caller.b().backups().start_restore(request).await.unwrap();
        let restore = succeeded(self.caller.a(), started.into_inner().operation).await;
        let mut logs = String::new();
        for name in [backup.name, restore.name] {
            let request = ReadOperationLogRequest {
                name,
                offset: 0,
                limit: 1 << 20,
            };
            let read = self.caller.a().operations().read_operation_log(request).await;
            logs += &read.unwrap().into_inner().text;
        }
        logs
    }

    async fn keep_files(&self) {
        let name = "users/me/files/canary.sql";
        let content = self.content("a file");
        upload(self.caller.a(), name, content.as_bytes()).await.unwrap();
        assert_eq!(
            download(self.caller.b(), name, 0).await.unwrap(),
            content.as_bytes()
        );
    }

    /// Everything of the audit trail, as a list and as an export.
    async fn audit(&self, admin: &Caller) -> Vec<Left> {
        let what = "the audit trail has what was done last";
        eventually(SOON, what, async || {
            let request = ListAuditRecordsRequest {
                filter: Some(AuditFilter::default()),
                page_size: 1000,
                page_token: String::new(),
            };
            let page = admin.a().audit().list_audit_records(request).await;
            let text = format!("{:?}", page.map_err(|status| format!("{status:?}"))?);
            if text.contains("DownloadFile") {
                Ok(())
            } else {
                Err("not yet".to_owned())
            }
        })
        .await;
        let mut lefts = Vec::new();
        let mut page_token = String::new();
        let mut listed = String::new();
        loop {
            let request = ListAuditRecordsRequest {
                filter: Some(AuditFilter::default()),
                page_size: 1000,
                page_token,
            };
            let page = admin
                .a()
                .audit()
                .list_audit_records(request)
                .await
                .unwrap()
                .into_inner();
            listed += &format!("{:?}", page.records);
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        lefts.push(Left::new("the audit trail", listed, &self.server));
        let request = ExportAuditRecordsRequest::default();
        let exported = admin.b().audit().export_audit_records(request).await.unwrap();
        let (mut stream, mut bytes) = (exported.into_inner(), Vec::new());
        while let Some(piece) = stream.message().await.unwrap() {
            bytes.extend_from_slice(&piece.data);
        }
        lefts.push(Left::new("the export of the audit trail", bytes, &self.server));
        lefts
    }

    /// Every row of the config database.
    async fn stored(&self) -> Vec<Left> {
        let connection = self.world.config_database().database().connect().await;
        let sql = "SELECT table_name::text FROM information_schema.tables \
                   WHERE table_schema = 'pgmoor' AND table_type = 'BASE TABLE'";
        let mut lefts = Vec::new();
        for table in connection.query(sql, &[]).await.unwrap() {
            let table: String = table.get(0);
            let sql = format!("SELECT string_agg(t::text, E'\\n') FROM pgmoor.{table} AS t");
            let rows: Option<String> = connection.query_one(&sql, &[]).await.unwrap().get(0);
            lefts.push(Left::new(
                format!("table {table} of the config database"),
                rows.unwrap_or_default(),
                "",
            ));
        }
        assert!(lefts.len() > 20, "{}", lefts.len());
        lefts
    }

    /// What reflection says of every service.
    async fn described(&self) -> Left {
        use reflection::server_reflection_client::ServerReflectionClient;
        use reflection::server_reflection_request::MessageRequest;
        use reflection::server_reflection_response::MessageResponse;

        let mut client = ServerReflectionClient::new(self.world.anonymous().channel());
        let mut ask = async |requests: Vec<MessageRequest>| {
            let requests = requests
                .into_iter()
                .map(|request| reflection::ServerReflectionRequest {
                    host: String::new(),
                    message_request: Some(request),
                });
            let requests: Vec<_> = requests.collect();
            let asked = client.server_reflection_info(tokio_stream::iter(requests)).await;
            let (mut stream, mut answers) = (asked.unwrap().into_inner(), Vec::new());
            while let Some(answer) = stream.message().await.unwrap() {
                answers.push(answer.message_response.unwrap());
            }
            answers
        };
        let listed = ask(vec![MessageRequest::ListServices(String::new())]).await;
        let [MessageResponse::ListServicesResponse(services)] = listed.as_slice() else {
            panic!("no list of services: {listed:?}")
        };
        let symbols = services.service.iter().map(|service| service.name.clone());
        let answers = ask(symbols.map(MessageRequest::FileContainingSymbol).collect()).await;
        let mut bytes = Vec::new();
        for answer in answers {
            let MessageResponse::FileDescriptorResponse(files) = answer else {
                panic!("a service that is listed is not described: {answer:?}")
            };
            bytes.extend(files.file_descriptor_proto.concat());
        }
        Left::new("what reflection says", bytes, "ExecuteRequest")
    }
}

/// Looks at the command lines and environments of all processes until it is told to stop.
struct Looks {
    stop: Arc<AtomicBool>,
    rounds: Arc<AtomicUsize>,
    thread: std::thread::JoinHandle<Vec<String>>,
}

impl Looks {
    fn start(here: &Arc<Arrangement>) -> Self {
        let here = Arc::clone(here);
        let (stop, rounds) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (told, counted) = (Arc::clone(&stop), Arc::clone(&rounds));
        let thread = std::thread::spawn(move || {
            let (mut found, mut processes) = (Vec::new(), leaks::Processes::default());
            while !told.load(Ordering::Relaxed) {
                found.extend(processes.look(here.world.secrets()));
                counted.fetch_add(1, Ordering::Relaxed);
                // Programs of a worker live for tens of milliseconds at least.
                std::thread::sleep(Duration::from_millis(20));
            }
            found
        });
        Self { stop, rounds, thread }
    }

    fn finish(self) -> (usize, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        let found = self.thread.join().unwrap();
        (self.rounds.load(Ordering::Relaxed), found)
    }
}

async fn succeeded(client: &Client, started: Option<Operation>) -> Operation {
    let operation = client.operation_ended(&started.unwrap().name).await.unwrap();
    assert_eq!(operation.state(), OperationState::Succeeded, "{operation:?}");
    operation
}

/// Every file beneath a directory, but those that the test has put there to keep secrets in.
fn files(directory: &Path, lefts: &mut Vec<Left>) {
    for entry in std::fs::read_dir(directory).unwrap().flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_string_lossy();
        if path.is_dir() {
            files(&path, lefts);
        } else if !KEEP_SECRETS.contains(&&*name) && !name.ends_with(".url") {
            // A socket or a file that has gone has nothing to say.
            let bytes = std::fs::read(&path).unwrap_or_default();
            lefts.push(Left::new(format!("the file {name}"), bytes, "").with_contents());
        }
    }
}

/// What the world's callers were answered, but for the tokens that they asked for.
fn answered(recorder: &Recorder) -> Vec<Left> {
    let answers = recorder.answers().into_iter().filter(|answer| {
        let method = answer.method.rsplit('/').next().unwrap_or_default();
        answer.part == Part::Headers || !HAND_OUT_TOKENS.contains(&method)
    });
    let lefts = answers.map(|answer| {
        let shows = SHOW_CONTENTS
            .iter()
            .any(|service| answer.method.contains(service));
        let mut left = Left::new(
            format!("{:?} of {}", answer.part, answer.method),
            answer.bytes,
            "",
        );
        left.contents = shows && answer.part == Part::Body;
        left
    });
    lefts.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_run_leaves_no_secret_and_no_data_where_they_do_not_belong() {
    let recorder = Recorder::default();
    let options = WorldOptions {
        log_level: "debug".to_owned(),
        recorder: Some(recorder.clone()),
        ..WorldOptions::default()
    };
    let accounts = [json!({ "ann": { "preferred_username": "ann" } })];
    let here = Arc::new(arrange_in(options, &accounts, "", "auto_create = true").await);
    let world = &here.world;
    let looks = Looks::start(&here);
    let caller = world.create_administrator().await;
    let server = world.register_target(caller.a()).await;
    let who = caller.a().auth().who_am_i(WhoAmIRequest {}).await;
    let run = Run {
        world,
        caller,
        username: who.unwrap().into_inner().username,
        server,
        contents: Secrets::default(),
    };
    run.log_in_wrongly().await;
    run.log_in_with_a_provider(&here).await;
    run.change_passwords().await;
    run.give_wrong_server_passwords().await;
    run.query().await;
    let operations = run.back_up_and_restore().await;
    run.keep_files().await;
    let (rounds, mut found) = looks.finish();

    let admin = world.superuser().await;
    let mut lefts = run.audit(&admin).await;
    lefts.extend(run.stored().await);
    lefts.push(run.described().await);
    lefts.push(Left::new("the logs of operations", operations, "canary"));
    for process in world.apis().iter().chain(world.poolers()).chain(world.workers()) {
        let page = process.scrape().await.unwrap();
        lefts.push(Left::new(
            format!("the metrics of {}", process.name()),
            page,
            "pgmoor_",
        ));
    }
    let answers = answered(&recorder);
    assert!(answers.len() > 50, "{}", answers.len());
    lefts.extend(answers);
    for (place, log) in world.logs() {
        let theirs = place == "the log of the target";
        let mut left = Left::new(place, log, "");
        // PostgreSQL logs the statements that fail.
        left.contents = theirs;
        lefts.push(left);
    }
    files(world.directory(), &mut lefts);

    let mut looked = 0;
    for left in &lefts {
        let marker = left.marker.as_bytes();
        let marked = marker.is_empty() || memchr::memmem::find(&left.bytes, marker).is_some();
        assert!(marked, "{} lacks {:?}", left.place, left.marker);
        looked += left.bytes.len();
        let mut what = world.secrets().found_in_bytes(&left.bytes);
        if !left.contents {
            what.extend(run.contents.found_in_bytes(&left.bytes));
        }
        found.extend(what.into_iter().map(|what| format!("{what} in {}", left.place)));
    }
    found.sort();
    found.dedup();
    println!(
        "{} secrets and {} pieces of data, in {} places with {looked} bytes, and in the command lines and environments \
         of all processes {rounds} times",
        world.secrets().count(),
        run.contents.count(),
        lefts.len(),
    );
    assert_eq!(found, Vec::<String>::new());

    // What is looked for is found where it is.
    let contents = lefts.iter().filter(|left| left.contents);
    let seen = contents.filter(|left| !run.contents.found_in_bytes(&left.bytes).is_empty());
    assert!(seen.count() > 3);
    let planted = Secrets::default();
    let (argument, variable) = (random::password(), random::password());
    planted.remember("an argument", &argument);
    planted.remember("a variable", &variable);
    let _process = Process::builder("sh")
        .args(["-c", "sleep 60; true", &argument])
        .env("CANARY", &variable)
        .spawn();
    eventually(SOON, "the planted ones are found", async || {
        let found = leaks::in_processes(&planted);
        let all = ["an argument", "a variable"].map(|what| found.iter().any(|found| found.starts_with(what)));
        if all == [true, true] {
            Ok(())
        } else {
            Err(found.join("; "))
        }
    })
    .await;
}
