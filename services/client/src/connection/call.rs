//! How a call is carried out: its deadline, when it is repeated, and after which wait.

use std::time::Duration;

use domain::random;
use rpc::errors::v1::ErrorReason;
use tokio::time::{Instant, sleep, timeout_at};
use tonic::{Code, Response, Status};
use tonic_types::StatusExt as _;

use super::Connection;

const ATTEMPTS: u32 = 4;
const FIRST_WAIT: Duration = Duration::from_millis(100);
/// A wait the server asks for is kept up to this.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// How one call is carried out.
#[derive(Debug, Clone, Copy)]
pub struct Call {
    deadline: Duration,
    repeatable: bool,
}

impl Call {
    /// A call that changes something each time it is carried out: sent once, given up after `deadline`.
    #[must_use]
    pub const fn once(deadline: Duration) -> Self {
        Self {
            deadline,
            repeatable: false,
        }
    }

    /// A call that may be repeated: tried again while the server is not available, until `deadline`.
    #[must_use]
    pub const fn repeatable(deadline: Duration) -> Self {
        Self {
            deadline,
            repeatable: true,
        }
    }
}

impl Connection {
    /// Carries a call out. `attempt` sends it; it is sent again with a new token where the old one had
    /// expired, which is safe for any call, and where the server is not available if the call is repeatable.
    ///
    /// # Errors
    /// What the last attempt gave; DEADLINE_EXCEEDED where it took too long.
    pub async fn call<T>(
        &self,
        call: Call,
        mut attempt: impl AsyncFnMut() -> Result<Response<T>, Status>,
    ) -> Result<T, Status> {
        let end = Instant::now() + call.deadline;
        let tokens = self.service.tokens();
        let (mut renewed, mut attempts) = (false, 1);
        loop {
            let generation = tokens.generation().await;
            let status = match timeout_at(end, attempt()).await {
                Ok(Ok(response)) => return Ok(response.into_inner()),
                Ok(Err(status)) => status,
                Err(_) => return Err(Status::deadline_exceeded("the server did not answer in time")),
            };
            if !renewed && rpc::error::reason(&status) == Some(ErrorReason::TokenExpired) {
                renewed = true;
                if tokens.renew(generation).await? {
                    continue;
                }
            }
            let wait = self.wait_before(attempts + 1, &status);
            if !call.repeatable
                || !is_passing(&status)
                || attempts == ATTEMPTS
                || Instant::now() + wait >= end
            {
                return Err(status);
            }
            attempts += 1;
            sleep(wait).await;
        }
    }

    /// An id that tells a call from every other, however often it is sent.
    pub(crate) fn request_id(&self) -> String {
        let bytes = random::bytes(&*self.random);
        uuid::Builder::from_random_bytes(bytes).into_uuid().to_string()
    }

    /// Doubles with each attempt, with jitter, so that clients of a server that comes back do not come back
    /// as one.
    fn wait_before(&self, attempt: u32, status: &Status) -> Duration {
        let wish = status
            .get_details_retry_info()
            .and_then(|info| info.retry_delay)
            .unwrap_or_default();
        let base = FIRST_WAIT * 2_u32.saturating_pow(attempt.saturating_sub(2));
        let jitter = f64::from(u32::from_be_bytes(random::bytes(&*self.random))) / f64::from(u32::MAX);
        (base.mul_f64(0.5 + jitter)).max(wish).min(LONGEST_WAIT)
    }
}

/// True where the server, and not what it was asked about, is not available.
fn is_passing(status: &Status) -> bool {
    status.code() == Code::Unavailable
        && !matches!(rpc::error::reason(status), Some(ErrorReason::TargetUnreachable))
}
