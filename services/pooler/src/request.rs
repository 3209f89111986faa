//! What a request asks for, checked: nothing reaches a server that it could misread.

use std::time::Duration;

use domain::access::Access;
use domain::credential::CredentialKind;
use domain::id::UserId;
use domain::name::Identifier;
use domain::sql::{self, StringSyntax};
use prost::Message as _;
use rpc::query;
use rpc::query::v1::{
    FetchMoreRequest, OnDisconnect, OnLimit, OpenSessionRequest, Script, ScriptMode, SessionMode,
};
use rpc::server::v1 as proto;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::error::PoolerError;
use crate::session::{Detaching, Plan, PortalUse};

/// Longest script, in bytes.
const MOST_SQL: usize = 16 * 1024 * 1024;
/// Most values: the protocol counts them in 16 bits.
const MOST_PARAMETERS: usize = 65_535;
/// Most run-time parameters of a session, and their bytes: a start-up packet holds 10,000 in all.
const MOST_STARTUP_PARAMETERS: usize = 32;
const MOST_STARTUP_BYTES: usize = 8_000;
const DAY: Duration = Duration::from_secs(24 * 3600);
const IDLE: Duration = Duration::from_secs(10 * 60);
const IDLE_IN_TRANSACTION: Duration = Duration::from_secs(5 * 60);
const QUEUE: Duration = Duration::from_secs(10);
const LONGEST_QUEUE: Duration = Duration::from_secs(120);
const LONGEST_GRACE: Duration = Duration::from_secs(600);

/// Run-time parameters that would make a session something else than it seems: its identity, the encoding its text is
/// read in, or the protocol it speaks.
const REFUSED_PARAMETERS: [&str; 9] = [
    "role",
    "session_authorization",
    "options",
    "user",
    "database",
    "application_name",
    "client_encoding",
    "replication",
    "is_superuser",
];

pub(crate) fn invalid(field: &'static str, description: impl Into<String>) -> PoolerError {
    PoolerError::InvalidField {
        field,
        description: description.into(),
    }
}

/// A wish for a session.
#[derive(Debug)]
pub(crate) struct Opening {
    pub(crate) mode: SessionMode,
    /// What it may do at most; nothing for all that its user may.
    pub(crate) access: Option<Access>,
    pub(crate) database: Option<Identifier>,
    pub(crate) parameters: Vec<(String, String)>,
    pub(crate) idle_timeout: Duration,
    pub(crate) idle_in_transaction_timeout: Duration,
    pub(crate) queue_timeout: Duration,
}

impl Opening {
    /// Checks a request.
    pub(crate) fn new(request: OpenSessionRequest) -> Result<Self, PoolerError> {
        let mode =
            SessionMode::try_from(request.mode).map_err(|_| invalid("mode", "is not a mode we know"))?;
        let (idle, in_transaction) = ("idle_timeout", "idle_in_transaction_timeout");
        Ok(Self {
            mode,
            access: access(request.access)?,
            database: database(&request.database)?,
            idle_timeout: limit(idle, request.idle_timeout, IDLE, DAY)?,
            idle_in_transaction_timeout: limit(
                in_transaction,
                request.idle_in_transaction_timeout,
                IDLE_IN_TRANSACTION,
                DAY,
            )?,
            queue_timeout: limit("queue_timeout", request.queue_timeout, QUEUE, LONGEST_QUEUE)?,
            parameters: startup_parameters(request.parameters)?,
        })
    }
}

/// What is asked for, nothing for as much as may be.
pub(crate) fn access(wish: i32) -> Result<Option<Access>, PoolerError> {
    match query::v1::SessionAccess::try_from(wish) {
        Ok(query::v1::SessionAccess::Unspecified) => Ok(None),
        Ok(query::v1::SessionAccess::ReadOnly) => Ok(Some(Access::ReadOnly)),
        Ok(query::v1::SessionAccess::ReadWrite) => Ok(Some(Access::ReadWrite)),
        Err(_) => Err(invalid("access", "is not an access we know")),
    }
}

/// A database's name, nothing for the server's own.
pub(crate) fn database(name: &str) -> Result<Option<Identifier>, PoolerError> {
    if name.is_empty() {
        return Ok(None);
    }
    name.parse()
        .map(Some)
        .map_err(|error: domain::name::InvalidName| invalid("database", error.to_string()))
}

/// How long to wait for a connection, in milliseconds; 0 for the default.
pub(crate) fn queue_timeout(milliseconds: i64) -> Result<Duration, PoolerError> {
    match u64::try_from(milliseconds).map(Duration::from_millis) {
        Ok(Duration::ZERO) => Ok(QUEUE),
        Ok(wait) if wait <= LONGEST_QUEUE => Ok(wait),
        _ => Err(invalid("queue_timeout_ms", "must be 0 to 120000")),
    }
}

/// Nothing for a negative one. The conversion itself negates them, which the smallest number does not survive.
fn duration(given: prost_types::Duration) -> Option<Duration> {
    (given.seconds >= 0)
        .then(|| Duration::try_from(given).ok())
        .flatten()
}

fn limit(
    field: &'static str,
    given: Option<prost_types::Duration>,
    default: Duration,
    most: Duration,
) -> Result<Duration, PoolerError> {
    let Some(given) = given else { return Ok(default) };
    match duration(given) {
        Some(given) if !given.is_zero() && given <= most => Ok(given),
        _ => Err(invalid(
            field,
            format!("must be more than 0 and at most {} s", most.as_secs()),
        )),
    }
}

fn startup_parameters(
    given: std::collections::HashMap<String, String>,
) -> Result<Vec<(String, String)>, PoolerError> {
    const FIELD: &str = "parameters";
    if given.len() > MOST_STARTUP_PARAMETERS {
        return Err(invalid(
            FIELD,
            format!("at most {MOST_STARTUP_PARAMETERS} are allowed"),
        ));
    }
    let bytes: usize = given
        .iter()
        .map(|(name, value)| name.len() + value.len() + 2)
        .sum();
    if bytes > MOST_STARTUP_BYTES {
        return Err(invalid(
            FIELD,
            format!("at most {MOST_STARTUP_BYTES} bytes are allowed in all"),
        ));
    }
    let mut parameters: Vec<_> = given.into_iter().collect();
    parameters.sort_unstable();
    for (name, value) in &parameters {
        let shown: String = name.chars().take(64).collect();
        let refused = REFUSED_PARAMETERS
            .iter()
            .any(|refused| name.eq_ignore_ascii_case(refused));
        let well_formed = name.starts_with(|first: char| first.is_ascii_alphabetic())
            && name
                .chars()
                .all(|char| char.is_ascii_alphanumeric() || char == '_' || char == '.');
        if refused || !well_formed {
            return Err(invalid(
                FIELD,
                format!("{shown:?} is not a parameter that may be set"),
            ));
        }
        if value.contains('\0') {
            return Err(invalid(
                FIELD,
                format!("the value of {shown:?} contains a NUL byte"),
            ));
        }
    }
    Ok(parameters)
}

/// How old an answer may be; nothing: not at all.
pub(crate) fn max_age(given: Option<prost_types::Duration>) -> Result<Duration, PoolerError> {
    match given.map(duration) {
        None => Ok(Duration::ZERO),
        Some(Some(age)) if age <= DAY => Ok(age),
        Some(_) => Err(invalid("max_age", "must be 0 to 86400 s")),
    }
}

/// Which credential is meant; nothing where it is not stated. Personal is the caller's own.
pub(crate) fn credential(given: i32, caller: UserId) -> Result<Option<CredentialKind>, PoolerError> {
    match proto::CredentialKind::try_from(given) {
        Ok(proto::CredentialKind::Unspecified) => Ok(None),
        Ok(proto::CredentialKind::Shared) => Ok(Some(CredentialKind::Shared)),
        Ok(proto::CredentialKind::ReadOnly) => Ok(Some(CredentialKind::ReadOnly)),
        Ok(proto::CredentialKind::Personal) => Ok(Some(CredentialKind::Personal(caller))),
        Err(_) => Err(invalid("credential", "is not a known value")),
    }
}

/// What follows when nobody reads what an execution says.
#[derive(Debug)]
pub(crate) struct Attendance {
    pub(crate) detaching: Detaching,
    /// Whether what was read is kept for others.
    pub(crate) kept: bool,
}

/// Checks how an execution is to be attended.
pub(crate) fn attendance(
    on_disconnect: OnDisconnect,
    grace: Option<prost_types::Duration>,
) -> Result<Attendance, PoolerError> {
    let grace = match grace.map(duration) {
        None => Duration::ZERO,
        Some(Some(grace)) if grace <= LONGEST_GRACE => grace,
        Some(_) => return Err(invalid("disconnect_grace", "must be 0 to 600 s")),
    };
    let detaching = match on_disconnect {
        OnDisconnect::Continue => Detaching::Continue,
        OnDisconnect::Unspecified | OnDisconnect::Cancel => Detaching::Cancel { grace },
    };
    let kept = detaching
        != Detaching::Cancel {
            grace: Duration::ZERO,
        };
    Ok(Attendance { detaching, kept })
}

/// What a call was made with, so that it can be repeated: its id, bound to what it asks for. Not to what settings fill in, which
/// may have changed when it is sent again.
pub(crate) fn request_id(id: &str, script: Option<&Script>) -> Result<Option<Uuid>, PoolerError> {
    if id.is_empty() {
        return Ok(None);
    }
    let id = Uuid::parse_str(id).map_err(|_| invalid("request_id", "must be a UUID"))?;
    let mut hash = Sha256::new();
    hash.update(id.as_bytes());
    if let Some(script) = script {
        // Each with its length, so that no two wishes look alike.
        let mut part = |bytes: &[u8]| {
            hash.update((bytes.len() as u64).to_be_bytes());
            hash.update(bytes);
        };
        part(script.sql.as_bytes());
        script
            .parameters
            .iter()
            .for_each(|parameter| part(&parameter.encode_to_vec()));
        script.copy_input.iter().for_each(|data| part(data));
    }
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash.finalize()[..16]);
    Ok(Some(Uuid::from_bytes(bytes)))
}

/// Checks a script.
pub(crate) fn plan(script: Option<Script>) -> Result<Plan, PoolerError> {
    let script = script.ok_or_else(|| invalid("script", "must be given"))?;
    check_sql("script.sql", &script.sql)?;
    if script.parameters.len() > MOST_PARAMETERS {
        return Err(invalid(
            "script.parameters",
            format!("at most {MOST_PARAMETERS} are allowed"),
        ));
    }
    for parameter in &script.parameters {
        use rpc::query::v1::parameter::Kind;
        match &parameter.kind {
            Some(Kind::Text(text)) if text.contains('\0') => {
                return Err(invalid("script.parameters", "a value contains a NUL byte"));
            }
            Some(Kind::Text(_) | Kind::Null(true)) => {}
            Some(Kind::Null(false)) | None => {
                return Err(invalid("script.parameters", "each must be text, or NULL"));
            }
        }
    }
    if !script.copy_input.is_empty() && script.mode() == ScriptMode::OneMessage {
        return Err(invalid("script.copy_input", "needs SCRIPT_MODE_SPLIT"));
    }
    if script.max_rows.is_some_and(|rows| rows < 0) {
        return Err(invalid("script.max_rows", "must not be negative"));
    }
    if script.max_bytes.is_some_and(|bytes| bytes < 0) {
        return Err(invalid("script.max_bytes", "must not be negative"));
    }
    if script.page_size < 0 {
        return Err(invalid("script.page_size", "must not be negative"));
    }
    if script.on_limit() == OnLimit::Suspend {
        check_suspendable(&script)?;
    }
    let timeout = statement_timeout("script.statement_timeout", script.statement_timeout)?;
    Ok(Plan::new(script, timeout))
}

/// Checks a script that is to be sent by the extended protocol.
fn check_suspendable(script: &Script) -> Result<(), PoolerError> {
    const FIELD: &str = "script.on_limit";
    if script.mode() == ScriptMode::OneMessage {
        return Err(invalid(FIELD, "ON_LIMIT_SUSPEND needs SCRIPT_MODE_SPLIT"));
    }
    if !script.copy_input.is_empty() {
        return Err(invalid(
            "script.copy_input",
            "cannot be given with ON_LIMIT_SUSPEND",
        ));
    }
    // How its strings are read only the session knows. What is cut wrongly here the server refuses.
    let is_one = |strings| {
        let mut pieces = sql::Script::new(&script.sql);
        let statements = std::iter::from_fn(|| pieces.next_piece(strings));
        statements.filter(|piece| !piece.statement.is_empty()).count() == 1
    };
    if is_one(StringSyntax::Standard) || is_one(StringSyntax::Escape) {
        Ok(())
    } else {
        Err(invalid(FIELD, "ON_LIMIT_SUSPEND needs a script of one statement"))
    }
}

/// Checks a wish for more of a suspended execution.
pub(crate) fn more(request: &FetchMoreRequest) -> Result<Plan, PoolerError> {
    for (field, limit) in [("max_rows", request.max_rows), ("max_bytes", request.max_bytes)] {
        if limit.is_some_and(|limit| limit < 0) {
            return Err(invalid(field, "must not be negative"));
        }
    }
    let page_size = usize::try_from(request.page_size);
    Ok(Plan {
        page: page_size.map_err(|_| invalid("page_size", "must not be negative"))?,
        ..Plan::of_portal(PortalUse::GoOn {
            max_rows: request.max_rows,
            max_bytes: request.max_bytes,
        })
    })
}

/// Checks the text of a statement.
pub(crate) fn check_sql(field: &'static str, sql: &str) -> Result<(), PoolerError> {
    if sql.len() > MOST_SQL {
        return Err(invalid(field, format!("must be at most {MOST_SQL} bytes")));
    }
    if sql.contains('\0') {
        return Err(invalid(field, "contains a NUL byte"));
    }
    Ok(())
}

/// The limit of a statement; nothing for none.
pub(crate) fn statement_timeout(
    field: &'static str,
    given: Option<prost_types::Duration>,
) -> Result<Option<Duration>, PoolerError> {
    let Some(given) = given else { return Ok(None) };
    let given = duration(given).ok_or_else(|| invalid(field, "must not be negative"))?;
    Ok(Some(given).filter(|limit| !limit.is_zero()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(request: OpenSessionRequest) -> Result<Opening, PoolerError> {
        Opening::new(request)
    }

    fn opening(parameters: &[(&str, &str)]) -> Result<Opening, PoolerError> {
        let parameters = parameters
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        opened(OpenSessionRequest {
            parameters,
            ..Default::default()
        })
    }

    fn field<T: std::fmt::Debug>(result: Result<T, PoolerError>) -> &'static str {
        match result {
            Err(PoolerError::InvalidField { field, .. }) => field,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn session_starts_with_ordinary_parameters_only() {
        let good = opening(&[("search_path", "a, b"), ("myapp.user", "x"), ("TimeZone", "UTC")]).unwrap();
        assert_eq!(good.parameters.len(), 3);
        for name in [
            "role",
            "ROLE",
            "options",
            "client_encoding",
            "a b",
            "",
            "_pq_.x",
            "x=y",
            "1",
        ] {
            assert_eq!(field(opening(&[(name, "x")])), "parameters", "{name}");
        }
        assert_eq!(field(opening(&[("search_path", "a\0b")])), "parameters");
        assert_eq!(
            field(opening(&[("search_path", &"x".repeat(9_000))])),
            "parameters"
        );
    }

    #[test]
    fn limits_have_defaults_and_bounds() {
        let defaults = opening(&[]).unwrap();
        assert_eq!((defaults.idle_timeout, defaults.queue_timeout), (IDLE, QUEUE));
        let long = Some(prost_types::Duration {
            seconds: 121,
            nanos: 0,
        });
        let request = OpenSessionRequest {
            queue_timeout: long,
            ..Default::default()
        };
        assert_eq!(field(opened(request)), "queue_timeout");
        for (seconds, nanos) in [(-1, 0), (0, -1), (i64::MIN, i32::MIN), (i64::MAX, i32::MAX)] {
            let request = OpenSessionRequest {
                idle_timeout: Some(prost_types::Duration { seconds, nanos }),
                ..Default::default()
            };
            assert_eq!(field(opened(request)), "idle_timeout");
        }
    }

    #[test]
    fn nul_never_reaches_a_server() {
        let script = |sql: &str| {
            Some(Script {
                sql: sql.into(),
                ..Default::default()
            })
        };
        assert_eq!(field(plan(script("select '\0'"))), "script.sql");
        assert_eq!(field(plan(None)), "script");
        assert_eq!(field(database("a\0b")), "database");
        assert!(database("host=evil").is_ok());
    }
}
