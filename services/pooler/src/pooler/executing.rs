//! Execute and FetchMore: give a session something to do, and keep what it says where that is wanted.

use std::sync::Arc;

use ::sessions::EventStream;
use domain::access::Caller;
use domain::id::ExecutionId;
use futures::StreamExt as _;
use rpc::query::v1::{ExecuteRequest, FetchMoreRequest};
use telemetry::rpc::Id;
use tonic::Status;

use super::Pooler;
use crate::error::PoolerError;
use crate::request::{self, Attendance};
use crate::results::Kept;
use crate::session::{Detaching, Session, Started, Work};

impl Pooler {
    pub(super) async fn execute_in(
        &self,
        caller: &Caller,
        session: &Arc<Session>,
        request: ExecuteRequest,
    ) -> Result<EventStream, Status> {
        let on_disconnect = request.on_disconnect();
        let attendance = request::attendance(on_disconnect, request.disconnect_grace)?;
        let once = request::request_id(&request.request_id, request.script.as_ref())?;
        let plan = request::plan(request.script)?;
        let kept = attendance.kept || once.is_some();
        let (output, reader) = session.pipe(kept, 0);
        let execution = self.execution_id();
        let audited = self.audited(caller, session, execution, "Execute", &plan.sql)?;
        telemetry::rpc::record(Id::Execution, &execution);
        // Before it begins: a call that is repeated at once is to find it.
        let kept = kept.then(|| self.0.results.keep(execution, output.recording()));
        let work = Work::Script {
            plan,
            output,
            detaching: attendance.detaching,
            audited,
        };
        let needs = match session.start_once(execution, work, request.incarnation, once) {
            Ok(Started::Now(needs)) => needs,
            Ok(Started::Before(before)) => {
                self.0.results.forget(execution);
                let before = before.ok_or(PoolerError::ResultExpired)?;
                telemetry::rpc::record(Id::Execution, &before);
                return Ok(self.0.results.attach(before, 0).await?);
            }
            Err(error) => {
                self.0.results.forget(execution);
                return Err(error.into());
            }
        };
        self.attend(kept, &attendance);
        self.serve(session, needs);
        reader.begun().await
    }

    pub(super) fn fetch_more_in(
        &self,
        caller: &Caller,
        session: &Arc<Session>,
        execution: ExecutionId,
        request: &FetchMoreRequest,
    ) -> Result<EventStream, PoolerError> {
        telemetry::rpc::record(Id::Execution, &execution);
        let attendance = request::attendance(request.on_disconnect(), request.disconnect_grace)?;
        let plan = request::more(request)?;
        let after = session.suspended_after(execution)?;
        let audited = self.audited(caller, session, execution, "FetchMore", "")?;
        let (output, reader) = session.pipe(attendance.kept, after);
        let recording = output.recording();
        let work = Work::Script {
            plan,
            output,
            detaching: attendance.detaching,
            audited,
        };
        let needs = session.use_portal(execution, work)?;
        // What it said before is not wanted again.
        self.0.results.forget(execution);
        let kept = attendance.kept.then(|| self.0.results.keep(execution, recording));
        self.attend(kept, &attendance);
        self.serve(session, needs);
        // At once: nothing is sent before there are rows.
        Ok(reader.boxed())
    }

    /// Has what nobody reads written down, where it goes on without a reader.
    fn attend(&self, kept: Option<Arc<Kept>>, attendance: &Attendance) {
        if let Some(kept) = kept.filter(|_| attendance.detaching == Detaching::Continue) {
            self.0.tasks.spawn(async move { kept.spool().await });
        }
    }
}
