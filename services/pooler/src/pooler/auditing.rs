//! What of the calls goes into the audit trail: sessions that are opened or refused, and executions.

use std::sync::Arc;

use ::sessions::UserToken;
use domain::access::{Caller, Permission};
use domain::id::ExecutionId;
use domain::session::{ExecutionName, SessionName};
use rpc::query;
use rpc::query::v1::OpenSessionRequest;
use secrecy::ExposeSecret as _;
use tonic::Status;

use super::Pooler;
use crate::audited::{Audited, AuditedOpening, Subject};
use crate::error::PoolerError;
use crate::session::Session;

impl Pooler {
    /// OpenSession, with its record. Who is refused is recorded too.
    pub(super) async fn open_session_audited(
        &self,
        token: &UserToken,
        request: OpenSessionRequest,
    ) -> Result<query::v1::Session, Status> {
        let Some(log) = &self.0.options.audit else {
            return Ok(self.open_session(token, request).await?);
        };
        let caller = self.0.verifier.verify(token.0.expose_secret()).await.ok();
        let opening = AuditedOpening::of(log, caller.as_deref(), &request.server, &request.database)?;
        let opened = self.open_session(token, request).await.map_err(Status::from);
        opening.finish(&opened);
        opened
    }

    /// The caller's session, and the caller.
    pub(super) async fn called(
        &self,
        token: &UserToken,
        name: SessionName,
    ) -> Result<(Arc<Caller>, Arc<Session>), PoolerError> {
        let caller = self.caller(token, Permission::SessionsUse).await?;
        Ok((caller, self.session(token, name).await?))
    }

    /// Keeps room for the record of an execution in a session.
    pub(super) fn audited(
        &self,
        caller: &Caller,
        session: &Session,
        execution: ExecutionId,
        method: &'static str,
        sql: &str,
    ) -> Result<Audited, PoolerError> {
        let name = session.facts.name;
        caller.decided_by.read(session.facts.rights.revision());
        let (database, role) = session.database_and_role();
        let execution = ExecutionName {
            session: name,
            execution,
        };
        let subject = Subject {
            caller,
            method,
            server: format!("servers/{}", name.server),
            elevation: session.facts.rights.elevation(),
            session: name.to_string(),
            execution: execution.to_string(),
            database: database.to_string(),
            role: role.to_string(),
            sql,
        };
        Audited::of(self.0.options.audit.as_ref(), &subject)
    }
}
