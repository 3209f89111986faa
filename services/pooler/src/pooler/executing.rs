//! Execute: gives a session a script, and keeps what it says where that is wanted.

use std::sync::Arc;

use ::sessions::EventStream;
use rpc::query::v1::ExecuteRequest;
use telemetry::rpc::Id;
use tonic::Status;

use super::Pooler;
use crate::error::PoolerError;
use crate::request::{self, Attendance};
use crate::session::{Detaching, Session, Started, Work};

impl Pooler {
    pub(super) async fn execute_in(
        &self,
        session: &Arc<Session>,
        request: ExecuteRequest,
    ) -> Result<EventStream, Status> {
        let Attendance {
            request: once,
            detaching,
            kept,
        } = request::attendance(&request)?;
        let plan = request::plan(request.script)?;
        let (output, reader) = session.pipe(kept);
        let execution = self.execution_id();
        telemetry::rpc::record(Id::Execution, &execution);
        // Before it begins: a call that is repeated at once is to find it.
        let kept = kept.then(|| self.0.results.keep(execution, output.recording()));
        let work = Work::Script {
            plan,
            output,
            detaching,
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
        if let Some(kept) = kept.filter(|_| detaching == Detaching::Continue) {
            self.0.tasks.spawn(async move { kept.spool().await });
        }
        self.serve(session, needs);
        reader.begun().await
    }
}
