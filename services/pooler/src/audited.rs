//! The audit record of an execution, from the moment it is asked for to its end.
//!
//! Room for it is kept before anything runs. An execution that is refused leaves none: the API's record of the call says
//! so.

use audit::{AuditLog, Entry, Kind, Place};
use domain::access::{Caller, CredentialKind};
use domain::id::ElevationId;
use rpc::query::v1::{CommitOutcome, ExecutionOutcome};
use tokio::time::Instant;
use tonic::Status;

use crate::backend::Backend;
use crate::error::PoolerError;
use crate::session::Ended;

/// What an execution is, for its record.
#[derive(Debug)]
pub(crate) struct Subject<'a> {
    /// Who asked for it.
    pub(crate) caller: &'a Caller,
    /// How.
    pub(crate) method: &'static str,
    /// `servers/{server}`.
    pub(crate) server: String,
    /// The elevation by which it may write.
    pub(crate) elevation: Option<ElevationId>,
    /// Its session; empty without one.
    pub(crate) session: String,
    /// Its own name; empty without a session.
    pub(crate) execution: String,
    pub(crate) database: String,
    /// The PostgreSQL role, as far as it is known before it runs.
    pub(crate) role: String,
    pub(crate) sql: &'a str,
}

/// A record that is not complete. Dropped after [`Audited::begin`], it says that nobody knows the end.
#[derive(Debug, Default)]
pub(crate) struct Audited(Option<Box<Draft>>);

#[derive(Debug)]
struct Draft {
    place: Place,
    entry: Entry,
    started: Instant,
    began: bool,
}

impl Audited {
    /// Keeps room for the record; of nothing where there is no trail.
    pub(crate) fn of(log: Option<&AuditLog>, subject: &Subject<'_>) -> Result<Self, PoolerError> {
        let Some(log) = log else {
            return Ok(Self::default());
        };
        let place = log.reserve()?;
        let mut entry = log.entry(Kind::Execution);
        describe(&mut entry, subject.caller);
        entry.correlation_id = telemetry::propagation::trace_id().unwrap_or_else(|| log.correlation_id());
        entry.method = format!("pgmoor.pooler.v1.PoolerService/{}", subject.method);
        let named = [&subject.server, &subject.execution];
        entry.resources = named
            .into_iter()
            .filter(|name| !name.is_empty())
            .cloned()
            .collect();
        if let Some(elevation) = subject.elevation {
            let name = format!("{}/elevations/{elevation}", subject.server);
            entry.resources.push(name);
        }
        entry.session.clone_from(&subject.session);
        entry.database.clone_from(&subject.database);
        entry.role.clone_from(&subject.role);
        let statement = log.statement(subject.sql);
        entry.statement_fingerprint = statement.fingerprint;
        entry.statement = statement.text;
        Ok(Self(Some(Box::new(Draft {
            place,
            entry,
            started: Instant::now(),
            began: false,
        }))))
    }

    /// From here on, where this backend runs it, it has a record whatever happens.
    pub(crate) fn begin(&mut self, backend: &Backend) {
        if let Some(draft) = &mut self.0 {
            draft.began = true;
            // The session may have moved since it was asked for. Who has a backend for life has it of no pool.
            if let Some(pool) = &backend.pool {
                draft.entry.role = pool.key.username.to_string();
            }
        }
    }

    /// It ended so.
    pub(crate) fn finish(mut self, ended: &Ended) {
        let Some(mut draft) = self.0.take() else { return };
        let entry = &mut draft.entry;
        entry.outcome = outcome_name(ended.outcome).to_owned();
        entry.row_count = ended.rows;
        let error = ended.error.as_ref().and_then(|error| error.message.as_ref());
        entry.sqlstate = error.map(|message| message.sqlstate.clone()).unwrap_or_default();
        if let Some(commit) = &ended.commit {
            let outcome = commit.describe(false).outcome();
            entry.commit_outcome = commit_name(outcome).to_owned();
        }
        draft.record();
    }

    /// It came to nothing.
    pub(crate) fn refused(mut self, error: &PoolerError) {
        let Some(mut draft) = self.0.take() else { return };
        // Whoever has the session now gets the execution, and records it.
        if !matches!(error, PoolerError::Moved { .. }) {
            draft.entry.outcome = "NOT_RUN".to_owned();
            draft.record();
        }
    }
}

impl Drop for Audited {
    fn drop(&mut self) {
        if let Some(mut draft) = self.0.take()
            && draft.began
        {
            draft.entry.outcome = outcome_name(ExecutionOutcome::Lost).to_owned();
            draft.record();
        }
    }
}

impl Draft {
    fn record(self: Box<Self>) {
        let Self {
            place,
            mut entry,
            started,
            ..
        } = *self;
        let now = place.log().entry(Kind::Execution);
        entry.time = now.time;
        entry.duration_us = i64::try_from(started.elapsed().as_micros()).unwrap_or(i64::MAX);
        place.record(entry);
    }
}

/// The record of a wish for a session.
#[derive(Debug)]
pub(crate) struct AuditedOpening {
    place: Place,
    entry: Entry,
    started: Instant,
}

impl AuditedOpening {
    /// Keeps room for it. `caller` is there where the token is good.
    pub(crate) fn of(
        log: &AuditLog,
        caller: Option<&Caller>,
        server: &str,
        database: &str,
    ) -> Result<Self, PoolerError> {
        let place = log.reserve()?;
        let mut entry = log.entry(Kind::Session);
        if let Some(caller) = caller {
            describe(&mut entry, caller);
        }
        entry.correlation_id = telemetry::propagation::trace_id().unwrap_or_else(|| log.correlation_id());
        entry.method = "pgmoor.pooler.v1.PoolerService/OpenSession".to_owned();
        entry.resources = vec![server.to_owned()];
        entry.database = database.to_owned();
        Ok(Self {
            place,
            entry,
            started: Instant::now(),
        })
    }

    /// The session, or why there is none.
    pub(crate) fn finish(mut self, opened: &Result<rpc::query::v1::Session, Status>) {
        let log = self.place.log();
        match opened {
            Ok(session) => {
                self.entry.session.clone_from(&session.name);
                self.entry.database.clone_from(&session.database);
                self.entry.role.clone_from(&session.username);
                self.entry.policy_revision = session.policy_revision;
                rpc::error::code_name(tonic::Code::Ok).clone_into(&mut self.entry.outcome);
            }
            Err(status) => {
                let is_known = self.entry.user_id.is_some();
                // All of them come from API instances: one rate for all who are not known.
                if !is_known && !log.admits_denial("") {
                    return;
                }
                rpc::error::code_name(status.code()).clone_into(&mut self.entry.outcome);
                let reason = rpc::error::reason(status).map_or("", rpc::error::reason_name);
                reason.clone_into(&mut self.entry.reason);
            }
        }
        self.entry.time = log.entry(Kind::Session).time;
        self.entry.duration_us = i64::try_from(self.started.elapsed().as_micros()).unwrap_or(i64::MAX);
        self.place.record(self.entry);
    }
}

fn describe(entry: &mut Entry, caller: &Caller) {
    entry.user_id = Some(caller.user);
    entry.username.clone_from(&caller.username);
    entry.policy_revision = caller.decided_by.revision();
    entry.provider = caller.provider.clone().unwrap_or_default();
    entry.credential = match caller.credential {
        CredentialKind::AccessToken { login } => format!("logins/{login}"),
        CredentialKind::ApiToken { id } => format!("apiTokens/{id}"),
    };
}

fn outcome_name(outcome: ExecutionOutcome) -> &'static str {
    let name = outcome.as_str_name();
    name.strip_prefix("EXECUTION_OUTCOME_").unwrap_or(name)
}

fn commit_name(outcome: CommitOutcome) -> &'static str {
    let name = outcome.as_str_name();
    name.strip_prefix("COMMIT_OUTCOME_").unwrap_or(name)
}
