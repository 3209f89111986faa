//! What poolers ask each other.

use std::time::Duration;

use domain::id::{IncarnationId, InstanceId};
use rpc::pooler::v1::RelinquishRequest;
use rpc::pooler::v1::pooler_service_client::PoolerServiceClient;
use tokio::time::timeout;
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};

/// How long another pooler has to take a connection.
const CONNECT: Duration = Duration::from_secs(2);
/// How long it has to answer in all.
const ANSWER: Duration = Duration::from_secs(4);

/// How a pooler reaches others.
#[derive(Debug, Clone)]
pub enum Peers {
    /// There are no others, by arrangement: whoever was there before is gone.
    Alone,
    /// There may be others, which cannot be asked.
    Unreachable,
    /// At the addresses they registered; without TLS only where nobody else can reach them.
    Registered(Option<Box<ClientTlsConfig>>),
}

/// What came of asking another pooler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// It hands over, and has so many connections to the instance still.
    HandingOver {
        /// How many.
        connections: u32,
    },
    /// There is no such process: nobody listens at its address, or another one does.
    Gone,
    /// It did not answer, which says nothing.
    Silence,
}

impl Peers {
    /// Asks the pooler that was `incarnation`, at its address, to hand over an instance that is ours in `term`.
    pub async fn ask(
        &self,
        address: &str,
        incarnation: IncarnationId,
        instance: InstanceId,
        term: u64,
    ) -> Answer {
        let tls = match self {
            Self::Alone => return Answer::Gone,
            Self::Unreachable => return Answer::Silence,
            Self::Registered(tls) => tls.as_deref(),
        };
        // A process that is stopped has its connections taken by the system, and says nothing.
        let channel = match timeout(ANSWER, connect(address, tls)).await {
            Ok(Ok(channel)) => channel,
            Ok(Err(error)) if says_gone(&error) => return Answer::Gone,
            Ok(Err(error)) => {
                tracing::debug!(address, %error, "a pooler cannot be reached");
                return Answer::Silence;
            }
            Err(_) => return Answer::Silence,
        };
        let request = RelinquishRequest {
            instance: format!("instances/{instance}"),
            incarnation: incarnation.to_string(),
            term: i64::try_from(term).unwrap_or(i64::MAX),
        };
        let answer = timeout(ANSWER, PoolerServiceClient::new(channel).relinquish(request)).await;
        match answer {
            Ok(Ok(answer)) => {
                let answer = answer.into_inner();
                if answer.incarnation == incarnation.to_string() {
                    let connections = u32::try_from(answer.connections).unwrap_or(u32::MAX);
                    Answer::HandingOver { connections }
                } else {
                    // Another process has its address, which it could not while this one lived.
                    Answer::Gone
                }
            }
            Ok(Err(status)) => {
                tracing::debug!(address, code = ?status.code(), message = status.message(), "a pooler does not answer");
                Answer::Silence
            }
            Err(_) => Answer::Silence,
        }
    }
}

async fn connect(address: &str, tls: Option<&ClientTlsConfig>) -> Result<Channel, tonic::transport::Error> {
    let scheme = if tls.is_some() { "https" } else { "http" };
    let mut endpoint = Endpoint::from_shared(format!("{scheme}://{address}"))?
        .connect_timeout(CONNECT)
        .timeout(ANSWER);
    if let Some(tls) = tls {
        endpoint = endpoint.tls_config(tls.clone().timeout(CONNECT))?;
    }
    endpoint.connect().await
}

/// True where the machine answers that nobody listens: a process that is there listens as long as it lives.
fn says_gone(error: &(dyn std::error::Error + 'static)) -> bool {
    use std::io::ErrorKind::{ConnectionRefused, ConnectionReset};
    let mut source = Some(error);
    while let Some(error) = source {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            return matches!(io.kind(), ConnectionRefused | ConnectionReset);
        }
        source = error.source();
    }
    false
}
