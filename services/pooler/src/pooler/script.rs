//! Scripts without a session: what RunQuery and the catalog stand on.

use std::sync::Arc;
use std::time::Duration;

use ::sessions::{EventStream, UserToken};
use domain::access::Permission;
use domain::limits::Limit;
use domain::session::{SessionId, SessionName};
use futures::StreamExt as _;
use rpc::pooler;
use rpc::query::v1::OnLimit;

use super::{NoBackend, Pooler};
use crate::audited::{Audited, Subject};
use crate::error::PoolerError;
use crate::hold::Hold;
use crate::request;
use crate::session::{Control, Execution, Facts, Home, Identity, Keeping, Session, pipe};
use crate::visitors::Visitor;

impl Pooler {
    pub(super) async fn run_script(
        &self,
        token: &UserToken,
        request: pooler::v1::RunScriptRequest,
    ) -> Result<EventStream, PoolerError> {
        let caller = self.caller(token, Permission::SessionsUse).await?;
        self.takes_new()?;
        let database = request::database(&request.database)?;
        let wish = request::access(request.access)?;
        let permission = Permission::SessionsUse;
        let (server, rights) = self
            .admitted(&caller, &request.server, permission, database.as_ref(), wish)
            .await?;
        let mut plan = request::plan(request.script)?;
        if plan.limit.on_limit == OnLimit::Suspend {
            return Err(request::invalid(
                "script.on_limit",
                "ON_LIMIT_SUSPEND needs a session",
            ));
        }
        let queue_timeout = request::queue_timeout(request.queue_timeout_ms)?;
        let instance = self.0.instances.at_hand(server.instance_id).await?;
        let longest = rights.narrow(instance.limits()).time_if_any(Limit::QueryTimeout);
        plan.statement_timeout = plan.statement_timeout.into_iter().chain(longest).min();
        plan.narrow(&rights.limits());
        let access = rights.access();
        let credential = Box::pin(self.login(&server, caller.user, access)).await?;
        let pool = self.pool(server, credential, database, Vec::new());
        let subject = Subject {
            caller: &caller,
            method: "RunScript",
            server: format!("servers/{}", pool.key.server),
            elevation: rights.elevation(),
            session: String::new(),
            execution: String::new(),
            database: pool.key.database.to_string(),
            role: pool.key.username.to_string(),
            sql: &plan.sql,
        };
        let mut audited = Audited::of(self.0.options.audit.as_ref(), &subject)?;
        let rights = Arc::new(rights);
        let name = SessionName {
            server: pool.key.server,
            session: SessionId::generate(self.0.me.pooler, &*self.0.random),
        };
        let session = Arc::new(Session::new(
            Facts {
                name,
                script: Some(self.execution_id()),
                owner: caller.user,
                rights: Arc::clone(&rights),
                keeping: Keeping::Auto {
                    home: Home::new(pool, access, None),
                    queue_timeout,
                },
                instance,
                create_time: self.0.clock.now(),
                idle_timeout: Duration::ZERO,
                idle_in_transaction_timeout: Duration::ZERO,
            },
            Arc::clone(&self.0.clock),
        ));
        let visit = self.0.visitors.enter(Visitor::Script(Arc::clone(&session)));
        let checked_out = Box::pin(self.check_out(&session, None)).await;
        let mut seat = checked_out.map_err(NoBackend::into_error)?;
        audited.begin(&seat.backend);
        seat.backend.hold = Hold::once();
        let control = Arc::new(Control::default());
        session.holds_by(&seat.backend, &control);
        let (output, reader) = pipe(Arc::clone(&control.bell), false, 0);
        let (closing, pooler) = (self.0.closing.clone(), self.clone());
        self.0.scripts.spawn(async move {
            let (ended, last) = {
                let backend = &mut seat.backend;
                let run = Execution::new(backend, &control, Some(output), Identity::default())
                    .access(rights.access())
                    .run(plan);
                let mut run = Box::pin(run);
                tokio::select! {
                    biased;
                    () = closing.cancelled() => {
                        control.close();
                        run.await
                    }
                    () = rights.ended() => {
                        control.close();
                        run.await
                    }
                    ended = &mut run => ended,
                }
            };
            audited.finish(&ended);
            drop(visit);
            // The backend is free when the script is over, so that the next one does not wait for nothing.
            if ended.lost.is_some() || ended.cancel_in_doubt || closing.is_cancelled() {
                seat.backend.close().await;
            } else {
                pooler.part(&session, Some(seat)).await;
            }
            if let Some(last) = last {
                last.send();
            }
        });
        Ok(reader.boxed())
    }
}
