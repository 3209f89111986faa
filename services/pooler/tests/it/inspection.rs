//! What is found of a role's rights, on roles that have them.

use std::time::Duration;

use domain::access::{ServerPolicy, Tenancy};
use domain::id::CredentialId;
use domain::random::SystemRandom;
use harness::{Cluster, Login, eventually};
use rpc::query::v1::{OpenSessionRequest, Session, SessionAccess, SessionMode};
use rpc::server::v1::{
    Enforcement, EnforcementLevel, EnforcementReasonCode as Code, InspectServerRequest, Inspection,
    TestServerRequest,
};
use sealing::{Binding, Sealer};
use secrecy::SecretString;
use sessions::Sessions as _;
use store::inspection_policies::InspectionPolicy;
use store::servers::NewCredential;

use crate::support::{DEADLINE, World};
use domain::endpoint::SslMode;

/// A world whose role may only read, and does not yet: what everybody may is still there.
pub(crate) struct Reader {
    pub(crate) world: World,
    pub(crate) login: Login,
}

impl Reader {
    async fn new() -> Self {
        let cluster = Cluster::shared().await;
        let login = cluster.create_login("").await;
        let world = World::with(cluster, &login, SslMode::Disable).await;
        let reader = Self { world, login };
        reader
            .execute(
                "CREATE TABLE public.t (n int); CREATE VIEW public.v AS SELECT n FROM public.t; \
                 CREATE SEQUENCE public.s; CREATE EXTENSION dblink; REVOKE CREATE ON SCHEMA public FROM PUBLIC",
            )
            .await;
        reader
    }

    /// A world whose role can only read.
    pub(crate) async fn provisioned() -> Self {
        let reader = Self::new().await;
        reader
            .execute(
                "REVOKE TEMPORARY ON DATABASE {d} FROM PUBLIC; \
                 REVOKE EXECUTE ON FUNCTION lo_creat(int), lo_create(oid), lo_from_bytea(oid, bytea), \
                     lo_put(oid, bigint, bytea), lowrite(int, bytea), lo_truncate(int, int), \
                     lo_truncate64(int, bigint), lo_unlink(oid) FROM PUBLIC",
            )
            .await;
        reader.trust(&["extension:dblink"]).await;
        reader
    }

    /// Runs SQL as a superuser. `{r}` is the role, `{d}` the database.
    pub(crate) async fn execute(&self, sql: &str) {
        let target = &self.world.target;
        let sql = sql.replace("{r}", &self.login.user).replace("{d}", target.name());
        target.execute(&sql).await;
    }

    async fn trust(&self, functions: &[&str]) {
        let policy = InspectionPolicy {
            trusted_functions: functions.iter().map(|&name| name.to_owned()).collect(),
        };
        let set = self
            .world
            .store
            .inspection_policies()
            .set(self.world.server.id, &policy)
            .await;
        assert!(set.unwrap());
    }

    async fn inspect(&self) -> Inspection {
        inspect(&self.world, None).await
    }

    /// What goes beyond reading, with its objects.
    async fn beyond(&self) -> Vec<(Code, String)> {
        let found = self.inspect().await.read_only.unwrap();
        let level = if found.reasons.is_empty() {
            EnforcementLevel::Enforced
        } else {
            EnforcementLevel::BestEffort
        };
        assert_eq!(found.level(), level);
        assert_eq!(found.reason_count, found.reasons.len() as i64);
        reasons(&found)
    }
}

async fn inspect(world: &World, max_age: Option<prost_types::Duration>) -> Inspection {
    let request = InspectServerRequest {
        name: format!("servers/{}", world.server.id),
        max_age,
        ..InspectServerRequest::default()
    };
    let inspecting = world
        .pooler
        .inspect_server(&world.token, world.server.instance_id, request);
    inspecting.await.unwrap().inspection.unwrap()
}

fn reasons(found: &Enforcement) -> Vec<(Code, String)> {
    found
        .reasons
        .iter()
        .map(|reason| (reason.code(), reason.object.clone()))
        .collect()
}

async fn open(world: &World, mode: SessionMode, access: SessionAccess) -> Session {
    let opened = world.try_open(OpenSessionRequest {
        mode: mode.into(),
        access: access.into(),
        ..world.open_request()
    });
    opened.await.unwrap()
}

#[tokio::test]
async fn superuser_is_best_effort_for_one_reason() {
    let world = World::new().await;
    let found = inspect(&world, None).await;
    assert_eq!(found.database, world.target.name());
    for enforcement in [found.read_only.unwrap(), found.tenancy.unwrap()] {
        assert_eq!(enforcement.level(), EnforcementLevel::BestEffort);
        let [reason] = &*enforcement.reasons else {
            panic!("{enforcement:?}")
        };
        assert_eq!(reason.code(), Code::Superuser);
        assert!(reason.text.ends_with("is a superuser"));
    }
    // A test of the server looks too.
    let request = TestServerRequest {
        name: format!("servers/{}", world.server.id),
        ..Default::default()
    };
    let tested = world
        .pooler
        .test_server(&world.token, world.server.instance_id, request)
        .await
        .unwrap();
    let found = tested.inspection.unwrap().read_only.unwrap();
    assert_eq!(found.level(), EnforcementLevel::BestEffort);
}

#[tokio::test]
async fn role_without_grants_still_has_what_everybody_may() {
    let reader = Reader::new().await;
    let beyond = reader.beyond().await;
    let codes: Vec<_> = beyond.iter().map(|(code, _)| *code).collect();
    let has = |code| codes.contains(&code);
    assert!(
        has(Code::Temporary) && has(Code::LargeObjectFunction) && has(Code::UntrustedFunction),
        "{beyond:?}"
    );
    let lo = (Code::LargeObjectFunction, "lo_create(oid)".to_owned());
    assert!(beyond.contains(&lo), "{beyond:?}");
    let dblink = (
        Code::UntrustedFunction,
        "public.dblink_exec(text,text)".to_owned(),
    );
    assert!(beyond.contains(&dblink), "{beyond:?}");
    assert!(!has(Code::TableWrite) && !has(Code::SchemaCreate), "{beyond:?}");
}

#[tokio::test]
async fn each_right_that_goes_beyond_reading_is_found() {
    let reader = Reader::provisioned().await;
    assert_eq!(reader.beyond().await, []);
    let writer = reader.world.cluster.create_login("").await.user;
    for (grant, revoke, expected) in [
        ("GRANT SELECT ON public.t TO {r}", "SELECT 1", vec![]),
        ("GRANT pg_read_all_data TO {r}", "SELECT 1", vec![]),
        (
            "GRANT INSERT ON public.t TO {r}",
            "REVOKE INSERT ON public.t FROM {r}",
            vec![(Code::TableWrite, "public.t")],
        ),
        (
            "GRANT UPDATE (n) ON public.t TO {r}",
            "REVOKE UPDATE (n) ON public.t FROM {r}",
            vec![(Code::TableWrite, "public.t")],
        ),
        (
            "GRANT DELETE ON public.v TO PUBLIC",
            "REVOKE DELETE ON public.v FROM PUBLIC",
            vec![(Code::TableWrite, "public.v")],
        ),
        (
            "GRANT TRIGGER ON public.t TO {r}",
            "REVOKE TRIGGER ON public.t FROM {r}",
            vec![(Code::TableWrite, "public.t")],
        ),
        (
            "GRANT USAGE ON SEQUENCE public.s TO {r}",
            "REVOKE USAGE ON SEQUENCE public.s FROM {r}",
            vec![(Code::SequenceWrite, "public.s")],
        ),
        (
            "GRANT CREATE ON SCHEMA public TO {r}",
            "REVOKE CREATE ON SCHEMA public FROM {r}",
            vec![(Code::SchemaCreate, "public")],
        ),
        (
            "GRANT CREATE ON DATABASE {d} TO {r}",
            "REVOKE CREATE ON DATABASE {d} FROM {r}",
            vec![(Code::DatabaseCreate, "{d}")],
        ),
        (
            "GRANT TEMPORARY ON DATABASE {d} TO {r}",
            "REVOKE TEMPORARY ON DATABASE {d} FROM {r}",
            vec![(Code::Temporary, "{d}")],
        ),
        (
            "ALTER SEQUENCE public.s OWNER TO {r}",
            "ALTER SEQUENCE public.s OWNER TO CURRENT_USER",
            vec![
                (Code::Owner, "sequence public.s"),
                (Code::SequenceWrite, "public.s"),
            ],
        ),
        (
            "GRANT {w} TO {r}",
            "REVOKE {w} FROM {r}",
            vec![(Code::RoleMember, "{w}")],
        ),
        (
            "GRANT pg_execute_server_program TO {r}",
            "REVOKE pg_execute_server_program FROM {r}",
            vec![(Code::RoleMember, "pg_execute_server_program")],
        ),
        (
            "ALTER ROLE {r} NOINHERIT",
            "ALTER ROLE {r} INHERIT",
            vec![(Code::RoleMember, "pg_read_all_data")],
        ),
        (
            "ALTER ROLE {r} CREATEDB",
            "ALTER ROLE {r} NOCREATEDB",
            vec![(Code::CreateDatabase, "{r}")],
        ),
        (
            "ALTER ROLE {r} CREATEROLE",
            "ALTER ROLE {r} NOCREATEROLE",
            vec![(Code::CreateRole, "{r}")],
        ),
        (
            "ALTER ROLE {r} REPLICATION",
            "ALTER ROLE {r} NOREPLICATION",
            vec![(Code::Replication, "{r}")],
        ),
        (
            "ALTER ROLE {r} BYPASSRLS",
            "ALTER ROLE {r} NOBYPASSRLS",
            vec![(Code::BypassRowSecurity, "{r}")],
        ),
        (
            "GRANT EXECUTE ON FUNCTION lo_create(oid) TO {r}",
            "REVOKE EXECUTE ON FUNCTION lo_create(oid) FROM {r}",
            vec![(Code::LargeObjectFunction, "lo_create(oid)")],
        ),
        (
            "CREATE FUNCTION public.d(int) RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1'",
            "DROP FUNCTION public.d(int)",
            vec![(Code::SecurityDefinerFunction, "public.d(integer)")],
        ),
        (
            "CREATE FUNCTION public.i() RETURNS int LANGUAGE sql AS 'SELECT 1'",
            "DROP FUNCTION public.i()",
            vec![],
        ),
        (
            "GRANT USAGE ON FOREIGN DATA WRAPPER dblink_fdw TO {r}",
            "REVOKE USAGE ON FOREIGN DATA WRAPPER dblink_fdw FROM {r}",
            vec![(Code::ForeignServer, "dblink_fdw")],
        ),
        (
            "CREATE SERVER far FOREIGN DATA WRAPPER dblink_fdw; CREATE USER MAPPING FOR PUBLIC SERVER far",
            "DROP SERVER far CASCADE",
            vec![(Code::ForeignServer, "far")],
        ),
        (
            "GRANT ALTER SYSTEM ON PARAMETER work_mem TO {r}",
            "REVOKE ALTER SYSTEM ON PARAMETER work_mem FROM {r}",
            vec![(Code::AlterSystem, "work_mem")],
        ),
    ] {
        let named = |text: &str| {
            text.replace("{w}", &writer)
                .replace("{r}", &reader.login.user)
                .replace("{d}", reader.world.target.name())
        };
        reader.execute(&named(grant)).await;
        let expected: Vec<_> = expected
            .iter()
            .map(|(code, object)| (*code, named(object)))
            .collect();
        assert_eq!(reader.beyond().await, expected, "{grant}");
        reader.execute(&named(revoke)).await;
    }
    assert_eq!(reader.beyond().await, []);
    // Of what there is much, some is told, and how much there is.
    reader
        .execute("GRANT INSERT ON ALL TABLES IN SCHEMA public TO {r}")
        .await;
    reader
        .execute(
            "DO $$ BEGIN FOR n IN 1..150 LOOP EXECUTE format('CREATE TABLE public.x%s ()', n); \
                  EXECUTE format('GRANT INSERT ON public.x%s TO {r}', n); END LOOP; END $$",
        )
        .await;
    let found = reader.inspect().await.read_only.unwrap();
    assert_eq!((found.reasons.len(), found.reason_count), (100, 152));
}

#[tokio::test]
async fn functions_and_operators_of_a_database_take_no_part_in_the_inspection() {
    let reader = Reader::provisioned().await;
    reader
        .execute(
            "CREATE SCHEMA evil; GRANT USAGE ON SCHEMA evil TO {r}; \
             CREATE FUNCTION evil.has_table_privilege(name, oid, text) RETURNS bool LANGUAGE sql AS 'SELECT false'; \
             CREATE FUNCTION evil.never(oid, oid) RETURNS bool LANGUAGE sql AS 'SELECT false'; \
             CREATE OPERATOR evil.= (LEFTARG = oid, RIGHTARG = oid, FUNCTION = evil.never); \
             ALTER ROLE {r} IN DATABASE {d} SET search_path = evil, pg_catalog; \
             GRANT INSERT ON public.t TO {r}",
        )
        .await;
    assert_eq!(reader.beyond().await, [(Code::TableWrite, "public.t".to_owned())]);
}

#[tokio::test]
async fn tenant_is_best_effort_while_it_may_connect_elsewhere() {
    let reader = Reader::provisioned().await;
    let found = reader.inspect().await.tenancy.unwrap();
    assert_eq!(found.level(), EnforcementLevel::BestEffort);
    let beyond = reasons(&found);
    for database in ["postgres", "template1"] {
        assert!(
            beyond.contains(&(Code::DatabaseConnect, database.to_owned())),
            "{beyond:?}"
        );
    }
    let own = reader.world.target.name();
    assert!(beyond.iter().all(|(_, object)| object != own), "{beyond:?}");
    // What its access policy allows is allowed, and nothing else.
    let databases = ["postgres", "template1"].map(|name| name.parse().unwrap()).into();
    let policy = ServerPolicy::staging(Tenancy::Multi { databases });
    let servers = reader.world.store.servers();
    servers
        .set_policy(reader.world.server.id, &policy, None)
        .await
        .unwrap();
    let elsewhere = InspectServerRequest {
        name: format!("servers/{}", reader.world.server.id),
        database: "postgres".to_owned(),
        ..InspectServerRequest::default()
    };
    let (token, instance) = (&reader.world.token, reader.world.server.instance_id);
    let found = reader
        .world
        .pooler
        .inspect_server(token, instance, elsewhere)
        .await;
    let beyond = reasons(&found.unwrap().inspection.unwrap().tenancy.unwrap());
    let names = |object: &str| beyond.iter().any(|(_, name)| name == object);
    assert!(
        names(own) && !names("postgres") && !names("template1"),
        "{beyond:?}"
    );
    servers
        .set_policy(reader.world.server.id, &ServerPolicy::default(), None)
        .await
        .unwrap();
    reader.execute("ALTER ROLE {r} CREATEDB").await;
    let beyond = reasons(&reader.inspect().await.tenancy.unwrap());
    assert!(
        beyond.contains(&(Code::CreateDatabase, reader.login.user.clone())),
        "{beyond:?}"
    );
}

#[tokio::test]
async fn read_only_session_says_what_its_role_is_kept_from() {
    let reader = Reader::provisioned().await;
    let world = &reader.world;
    reader.execute("GRANT INSERT ON public.t TO {r}").await;
    let pinned = open(world, SessionMode::Pinned, SessionAccess::ReadOnly).await;
    let found = pinned.enforcement.unwrap();
    assert_eq!(reasons(&found), [(Code::TableWrite, "public.t".to_owned())]);
    assert!(found.check_time.is_some());
    let writing = open(world, SessionMode::Pinned, SessionAccess::ReadWrite).await;
    assert!(writing.enforcement.is_none());
    // What was found is what every session of the role says, from the next look on.
    reader.execute("REVOKE INSERT ON public.t FROM {r}").await;
    reader.inspect().await;
    let again = world
        .describe(pinned.name.parse().unwrap())
        .await
        .enforcement
        .unwrap();
    assert_eq!(again.level(), EnforcementLevel::Enforced);
}

#[tokio::test]
async fn shared_session_comes_to_know_what_its_role_is_kept_from() {
    let reader = Reader::provisioned().await;
    let world = &reader.world;
    let session = open(world, SessionMode::Auto, SessionAccess::ReadOnly).await;
    let name = session.name.parse().unwrap();
    let found = eventually(DEADLINE, "the role was looked at", async || {
        let enforcement = world.describe(name).await.enforcement.unwrap();
        enforcement.check_time.map(|_| enforcement)
    })
    .await;
    assert_eq!(found.level(), EnforcementLevel::Enforced);
}

#[tokio::test]
async fn finding_is_kept_until_it_is_old_or_something_changes() {
    let reader = Reader::provisioned().await;
    let world = &reader.world;
    let hour = Some(prost_types::Duration {
        seconds: 3600,
        nanos: 0,
    });
    let time = |inspection: Inspection| {
        let time = inspection.read_only.unwrap().check_time.unwrap();
        Duration::new(time.seconds as u64, time.nanos as u32)
    };
    let first = time(inspect(world, None).await);
    assert_eq!(time(inspect(world, hour).await), first);
    reader.trust(&["extension:dblink", "public.f()"]).await;
    let second = time(inspect(world, hour).await);
    assert!(second > first);
    let binding = Binding {
        kind: domain::credential::CredentialKind::Shared,
        server: world.server.id,
        username: &reader.login.user,
        destination: &world.server.destination,
    };
    let password = SecretString::from(reader.login.password.clone());
    let sealed = Sealer::new(world.opening_key.sealing_key())
        .seal(&binding, &password, &SystemRandom)
        .unwrap();
    let credential = NewCredential {
        id: CredentialId::generate(&SystemRandom),
        sealed: sealed.bytes,
        key_id: sealed.key.to_string(),
    };
    let servers = world.store.servers();
    let etag = servers.get(world.server.id).await.unwrap().unwrap().etag;
    servers
        .set_credential(world.server.id, Some(&credential), &etag)
        .await
        .unwrap();
    let third = time(inspect(world, hour).await);
    assert!(third > second);
    assert_eq!(time(inspect(world, hour).await), third);
    assert!(time(inspect(world, None).await) > third);
}

#[tokio::test]
async fn session_opens_also_where_the_server_does_not_say_what_its_role_may_do() {
    let reader = Reader::provisioned().await;
    let world = &reader.world;
    let mut blocker = world.target.connect().await;
    let blocking = blocker.transaction().await.unwrap();
    // One that a starting backend has no catalog cache of: it opens those of which it has one where their cache file is out of date.
    let lock = "LOCK TABLE pg_catalog.pg_depend IN ACCESS EXCLUSIVE MODE";
    blocking.batch_execute(lock).await.unwrap();
    let session = open(world, SessionMode::Pinned, SessionAccess::ReadOnly).await;
    let found = session.enforcement.unwrap();
    assert_eq!(reasons(&found), [(Code::NotInspected, String::new())]);
    assert!(found.check_time.is_none());
    assert_eq!(world.value(session.name.parse().unwrap(), "SELECT 1").await, "1");
    // It is not tried again with the next session, which so need not wait.
    let next = open(world, SessionMode::Pinned, SessionAccess::ReadOnly);
    let next = tokio::time::timeout(Duration::from_secs(5), next).await.unwrap();
    assert_eq!(next.enforcement.unwrap().level(), EnforcementLevel::BestEffort);
    blocking.rollback().await.unwrap();
    // Who asks for it gets it.
    reader.inspect().await;
    let found = world
        .describe(session.name.parse().unwrap())
        .await
        .enforcement
        .unwrap();
    assert_eq!(found.level(), EnforcementLevel::Enforced);
}
