//! The task of a session: holds the backend, does the work, and ends with the session.

use std::sync::Arc;

use domain::session::ExecutionName;
use pgconn::Event;

use super::{Execution, Identity, Session, Work};
use crate::backend::{Backend, wake_at};
use crate::error::{LossCause, PoolerError};

/// Serves the session to its end, tells `gone` why it ended, and closes the backend.
pub(crate) async fn run(session: Arc<Session>, mut backend: Backend, gone: impl FnOnce(LossCause)) {
    let _ended = session.ended.clone().drop_guard();
    // Told also where the work panics: a session that nobody serves must not stay among the living.
    let mut gone = Gone(Some(gone));
    let cause = session.set_end(serve(&session, &mut backend).await);
    tracing::info!(session.id = %session.facts.name.session, %cause, "session ended");
    gone.tell(cause);
    // Accepted a moment too late. Whoever waits for a quiet answer learns it from what is dropped.
    if let Some((_, Work::Script { output, .. })) = session.take_work() {
        output.fail(PoolerError::StateLost { cause }.into());
    }
    backend.close().await;
}

struct Gone<F: FnOnce(LossCause)>(Option<F>);

impl<F: FnOnce(LossCause)> Gone<F> {
    fn tell(&mut self, cause: LossCause) {
        if let Some(gone) = self.0.take() {
            gone(cause);
        }
    }
}

impl<F: FnOnce(LossCause)> Drop for Gone<F> {
    fn drop(&mut self) {
        self.tell(LossCause::BackendTerminated);
    }
}

async fn serve(session: &Session, backend: &mut Backend) -> LossCause {
    loop {
        if let Some(cause) = session.end() {
            return cause;
        }
        while let Some((execution, work)) = session.take_work() {
            Box::pin(perform(session, backend, execution, work)).await;
            if let Some(cause) = session.end() {
                return cause;
            }
        }
        tokio::select! {
            biased;
            // First, or a server that never falls silent would never let them come.
            () = session.control.bell.notified() => {}
            () = wake_at(&mut backend.timer, session.idle_deadline()) => session.expire(),
            event = backend.connection.next() => match event {
                // Outside an execution nobody reads what the server says. A fatal error is followed by the end.
                Ok(Event::Error(error)) => tracing::info!(sqlstate = %error.sqlstate, "the server ends a session"),
                Ok(_) => {}
                Err(_) => return LossCause::BackendTerminated,
            },
        }
    }
}

async fn perform(session: &Session, backend: &mut Backend, execution: domain::id::ExecutionId, work: Work) {
    match work {
        Work::Script {
            plan,
            output,
            on_disconnect,
        } => {
            let identity = Identity {
                execution: ExecutionName {
                    session: session.facts.name,
                    execution,
                }
                .to_string(),
                incarnation: session.incarnation(),
                pinned: true,
            };
            let (ended, last) = Execution::new(backend, &session.control, Some(output), identity)
                .on_disconnect(on_disconnect)
                .run(plan)
                .await;
            session.finish(&ended);
            if let Some(last) = last {
                last.send();
            }
        }
        Work::Quiet { plan, copy, reply } => {
            let (ended, _) = Execution::new(backend, &session.control, None, Identity::default())
                .copy_from(copy)
                .run(plan)
                .await;
            session.finish(&ended);
            // Nobody may wait any more.
            let _ = reply.send(ended);
        }
    }
}
