//! What PostgreSQL itself keeps a role from, as it says on a connection of that role, and what of that is known.
//!
//! The questions run with a `search_path` of their own, so that no function or operator of the database takes part.

mod counts;
mod stored;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use domain::access::Tenancy;
use domain::credential::CredentialKind;
use domain::id::{CredentialId, InstanceId, ServerId};
use domain::name::Identifier;
use parking_lot::Mutex;
use pgconn::{Connection, Event};
use rpc::server::v1::{
    self as proto, Enforcement, EnforcementLevel, EnforcementReason, EnforcementReasonCode as Code,
};
use store::inspection_policies::InspectionPolicy;
use store::servers::{Credential, Server};
use time::OffsetDateTime;
use tokio::time::timeout;

pub(crate) use self::counts::{Bound, Counts, InspectionFigures};
use crate::error::TargetError;
use crate::facts::text;
use crate::timestamp::timestamp;

const READ_ONLY: &str = include_str!("inspection/read_only.sql");
const ALTER_SYSTEM: &str = include_str!("inspection/alter_system.sql");
const TENANCY: &str = include_str!("inspection/tenancy.sql");
/// Where [`ALTER_SYSTEM`] goes.
const SINCE_15: &str = "    /* PostgreSQL 15 and later */\n";
/// The last of the rights to tables that older servers know, and what PostgreSQL 17 has besides: REFRESH MATERIALIZED VIEW, CLUSTER,
/// REINDEX, LOCK TABLE.
const TABLE_RIGHTS: [&str; 2] = ["TRIGGER'", "TRIGGER, MAINTAIN'"];
/// Most reasons that are kept.
const MOST_REASONS: &str = "100";
/// How long a server has to answer.
const ANSWER: Duration = Duration::from_secs(10);

/// Whose rights, and where.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Subject {
    pub(crate) server: ServerId,
    pub(crate) instance: InstanceId,
    /// Whose credential it logs in with.
    pub(crate) kind: CredentialKind,
    pub(crate) username: Identifier,
    pub(crate) database: Identifier,
}

impl Subject {
    /// The role of a credential of a server in a database; nothing for its own.
    pub(crate) fn new(server: &Server, credential: &Credential, database: Option<&Identifier>) -> Self {
        Self {
            server: server.id,
            instance: server.instance_id,
            kind: credential.kind,
            username: credential.role.clone(),
            database: database.unwrap_or(&server.maintenance_database).clone(),
        }
    }

    /// Which role of the server it is, whatever its name, and in which database.
    pub(crate) fn role(&self) -> (ServerId, CredentialKind, Identifier) {
        (self.server, self.kind, self.database.clone())
    }
}

/// What goes beyond a limit.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Beyond {
    reasons: Vec<(Code, String)>,
    count: i64,
}

/// What an inspection lets pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Passes {
    /// Functions that are trusted not to write.
    trusted_functions: Vec<String>,
    /// Databases the role may connect to.
    databases: Vec<String>,
}

impl Passes {
    /// What passes on a server: the databases are those of its access policy.
    pub(crate) fn new(server: &Server, policy: InspectionPolicy) -> Self {
        let databases = match &server.policy.tenancy {
            Tenancy::Single => vec![server.maintenance_database.to_string()],
            Tenancy::Multi { databases } => databases.iter().map(ToString::to_string).collect(),
        };
        Self {
            trusted_functions: policy.trusted_functions,
            databases,
        }
    }
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    /// When, as it is shown: by the config database's clock where it is kept there.
    time: OffsetDateTime,
    /// When, by the clock here, which says how old it is.
    looked: OffsetDateTime,
    /// With which password it was looked.
    credential: Option<CredentialId>,
    passes: Passes,
    read_only: Beyond,
    tenancy: Beyond,
}

impl Finding {
    /// True where it would be found again, as far as is known here.
    pub(crate) fn holds(
        &self,
        credential: Option<CredentialId>,
        passes: &Passes,
        since: OffsetDateTime,
    ) -> bool {
        self.credential == credential && self.passes == *passes && self.looked >= since
    }

    /// The same, as it is kept.
    pub(crate) fn kept_at(self, time: OffsetDateTime) -> Self {
        Self { time, ..self }
    }

    /// Where this limit was kept before and is not any more: what leads beyond it now. Where less passes than then, or more, nobody
    /// knows what was lost.
    pub(crate) fn lost(&self, before: &Self) -> impl Iterator<Item = (Bound, Enforcement)> {
        let (then, now) = (&before.passes, &self.passes);
        let same_functions = then.trusted_functions == now.trusted_functions;
        let same_databases = then.databases == now.databases;
        let bounds = [
            (
                Bound::ReadOnly,
                same_functions,
                &before.read_only,
                &self.read_only,
            ),
            (Bound::Tenancy, same_databases, &before.tenancy, &self.tenancy),
        ];
        let lost = |(bound, is_same, before, now): (Bound, bool, &Beyond, &Beyond)| {
            (is_same && before.count == 0 && now.count > 0).then(|| (bound, enforcement(now, self.time)))
        };
        bounds.map(lost).into_iter().flatten()
    }

    pub(crate) fn describe(&self, subject: &Subject) -> proto::Inspection {
        proto::Inspection {
            server: format!("servers/{}", subject.server),
            database: subject.database.to_string(),
            username: subject.username.to_string(),
            read_only: Some(enforcement(&self.read_only, self.time)),
            tenancy: Some(enforcement(&self.tenancy, self.time)),
        }
    }
}

/// What is known of one role in one database.
#[derive(Debug)]
pub(crate) struct Known {
    pub(crate) subject: Subject,
    finding: Mutex<Option<Finding>>,
    /// When a look began that has not ended well.
    tried: Mutex<Option<OffsetDateTime>>,
}

impl Known {
    /// True for one who is to look, where nobody else does or has failed to since.
    pub(crate) fn begins_look(&self, now: OffsetDateTime, since: OffsetDateTime) -> bool {
        let mut tried = self.tried.lock();
        let first = tried.is_none_or(|tried| tried < since);
        if first {
            *tried = Some(now);
        }
        first
    }

    pub(crate) fn finding(&self) -> Option<Finding> {
        self.finding.lock().clone()
    }

    /// Takes over what was found here.
    pub(crate) fn set(&self, finding: Finding) {
        self.learn(finding);
        *self.tried.lock() = None;
    }

    /// Takes over what another pooler found, or this one before it was started anew, where that is later.
    pub(crate) fn learn(&self, stored: Finding) {
        let mut finding = self.finding.lock();
        if finding.as_ref().is_none_or(|known| known.looked < stored.looked) {
            *finding = Some(stored);
        }
    }

    /// Whether PostgreSQL keeps the role from writing.
    pub(crate) fn read_only(&self) -> Enforcement {
        match &*self.finding.lock() {
            Some(finding) => enforcement(&finding.read_only, finding.time),
            None => Enforcement {
                level: EnforcementLevel::BestEffort.into(),
                reasons: vec![reason(Code::NotInspected, String::new())],
                reason_count: 1,
                check_time: None,
            },
        }
    }
}

/// What is known of roles. Kept while a session needs it, and for a while after.
#[derive(Debug, Default)]
pub(crate) struct Inspections {
    by_subject: Mutex<HashMap<Subject, Arc<Known>>>,
    pub(crate) counts: Counts,
}

impl Inspections {
    /// What is known of a role, or will be.
    pub(crate) fn of(&self, subject: Subject) -> Arc<Known> {
        let mut all = self.by_subject.lock();
        let known = || {
            Arc::new(Known {
                subject: subject.clone(),
                finding: Mutex::new(None),
                tried: Mutex::new(None),
            })
        };
        Arc::clone(all.entry(subject.clone()).or_insert_with(known))
    }

    /// Those that somebody needs. What nobody needs and was not looked at since is forgotten.
    pub(crate) fn needed(&self, since: OffsetDateTime) -> Vec<Arc<Known>> {
        let mut all = self.by_subject.lock();
        let is_needed = |known: &Arc<Known>| Arc::strong_count(known) > 1;
        all.retain(|_, known| {
            let fresh = known
                .finding
                .lock()
                .as_ref()
                .is_some_and(|finding| finding.looked >= since);
            is_needed(known) || fresh
        });
        all.values().filter(|known| is_needed(known)).cloned().collect()
    }
}

/// What is asked a server of this version; an older one would not know all of it.
fn read_only(version: u32) -> String {
    let since_15 = if version >= 150_000 { ALTER_SYSTEM } else { "" };
    let question = READ_ONLY.replace(SINCE_15, since_15);
    match version {
        170_000.. => question.replace(TABLE_RIGHTS[0], TABLE_RIGHTS[1]),
        _ => question,
    }
}

/// Looks what the role of a connection may do.
pub(crate) async fn inspect(
    connection: &mut Connection,
    credential: Option<CredentialId>,
    passes: Passes,
    now: OffsetDateTime,
) -> Result<Finding, TargetError> {
    let asked = async {
        let version = crate::facts::one_row(connection, "SHOW server_version_num", drop).await?;
        let version: u32 = text(&version, 0).parse().unwrap_or_default();
        Ok((
            ask(
                connection,
                &read_only(version),
                &joined(&passes.trusted_functions),
            )
            .await?,
            ask(connection, TENANCY, &joined(&passes.databases)).await?,
        ))
    };
    let (read_only, tenancy) = timeout(ANSWER, asked)
        .await
        .map_err(|_| TargetError::Unreachable {
            reason: "the server did not say in time what the role may do".to_owned(),
        })??;
    Ok(Finding {
        time: now,
        looked: now,
        credential,
        passes,
        read_only,
        tenancy,
    })
}

/// By the unit separator, which no name that is accepted has.
fn joined(names: &[String]) -> String {
    names.join("\u{1f}")
}

async fn ask(connection: &mut Connection, sql: &str, names: &str) -> Result<Beyond, TargetError> {
    let lost = |error: &dyn std::fmt::Display| TargetError::Unreachable {
        reason: error.to_string(),
    };
    let mut send = || {
        connection
            .query("BEGIN READ ONLY; SET LOCAL search_path TO pg_catalog, pg_temp; SET LOCAL jit TO off")?;
        connection.parse("", sql, &[])?;
        connection.bind("", "", [Some(names.as_bytes()), Some(MOST_REASONS.as_bytes())])?;
        connection.execute("", 0)?;
        connection.sync()?;
        connection.query("ROLLBACK")
    };
    send().map_err(|error| lost(&error))?;
    let (mut beyond, mut refusal, mut owed) = (Beyond::default(), None, 3);
    while owed > 0 {
        match connection.next().await.map_err(|error| lost(&error))? {
            Event::DataRow(row) => {
                let value =
                    |value: Option<&[u8]>| String::from_utf8_lossy(value.unwrap_or_default()).into_owned();
                let row: Result<Vec<String>, _> = row.values().map(|field| field.map(value)).collect();
                let row = row.map_err(|error| lost(&error))?;
                let code = format!("ENFORCEMENT_REASON_CODE_{}", text(&row, 0));
                let code = Code::from_str_name(&code).unwrap_or_default();
                beyond.reasons.push((code, text(&row, 1).to_owned()));
                beyond.count = text(&row, 2).parse().unwrap_or_default();
            }
            Event::Error(error) => {
                refusal.get_or_insert(TargetError::Refused {
                    sqlstate: error.sqlstate.to_string(),
                    message: error.message.to_string(),
                });
            }
            Event::ReadyForQuery(_) => owed -= 1,
            _ => {}
        }
    }
    refusal.map_or(Ok(beyond), Err)
}

fn enforcement(beyond: &Beyond, time: OffsetDateTime) -> Enforcement {
    let level = if beyond.count == 0 {
        EnforcementLevel::Enforced
    } else {
        EnforcementLevel::BestEffort
    };
    let reasons = beyond.reasons.iter();
    Enforcement {
        level: level.into(),
        reasons: reasons
            .map(|(code, object)| reason(*code, object.clone()))
            .collect(),
        reason_count: beyond.count,
        check_time: Some(timestamp(time)),
    }
}

fn reason(code: Code, object: String) -> EnforcementReason {
    let text = match code {
        Code::Unspecified => "the role has a right that goes beyond this".to_owned(),
        Code::NotInspected => "nobody has looked yet what the role may do".to_owned(),
        Code::Superuser => format!("{object} is a superuser"),
        Code::Replication => format!("{object} may replicate"),
        Code::BypassRowSecurity => format!("row-level security does not bind {object}"),
        Code::CreateDatabase => format!("{object} may make databases"),
        Code::CreateRole => format!("{object} may make roles"),
        Code::RoleMember => format!("the role is a member of {object}"),
        Code::Owner => format!("the role owns {object}"),
        Code::TableWrite => format!("the role may write to {object}"),
        Code::SequenceWrite => format!("the role may change sequence {object}"),
        Code::SchemaCreate => format!("the role may create in schema {object}"),
        Code::DatabaseCreate => format!("the role may create schemas in database {object}"),
        Code::Temporary => format!("the role may make temporary tables in database {object}"),
        Code::LargeObjectFunction => format!("the role may write large objects by {object}"),
        Code::SecurityDefinerFunction => {
            format!("the role may execute {object}, which runs with its owner's rights")
        }
        Code::UntrustedFunction => {
            format!("the role may execute {object}, which is written in an untrusted language")
        }
        Code::ForeignServer => format!("the role may use {object}, which leads to other servers"),
        Code::AlterSystem => format!("the role may change {object} for the whole server"),
        Code::DatabaseConnect => format!("the role may connect to database {object}"),
    };
    EnforcementReason {
        code: code.into(),
        object,
        text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_asked_for_the_rights_that_they_know() {
        let asks = |version, right| read_only(version).matches(right).count();
        for (version, alter_system, maintain) in [(140_000, 0, 0), (150_018, 1, 0), (170_000, 1, 1)] {
            assert_eq!(asks(version, "pg_parameter_acl"), alter_system, "{version}");
            assert_eq!(asks(version, "TRIGGER, MAINTAIN'"), maintain, "{version}");
        }
    }
}
