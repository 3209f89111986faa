//! One HTTP/2 connection to each pooler, made when it is first needed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use domain::id::IncarnationId;
use parking_lot::Mutex;
use rpc::pooler::v1::pooler_service_client::PoolerServiceClient;
use tonic::Status;
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};

use super::Client;
use super::failure::unavailable;
use crate::directory::PoolerEntry;

const CONNECT: Duration = Duration::from_secs(3);
const KEEP_ALIVE: Duration = Duration::from_secs(10);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// What one slow reader may leave lying about before its pooler stops reading the server.
const STREAM_WINDOW: u32 = 256 * 1024;
/// Shared by all streams to a pooler: large, so that a few slow readers do not stop the rest.
const CONNECTION_WINDOW: u32 = 64 * 1024 * 1024;
/// Above the pooler's own limit for a message.
const MOST_MESSAGE_BYTES: usize = 8 * 1024 * 1024;

#[derive(Debug, Clone)]
pub(super) struct Channels {
    tls: Option<ClientTlsConfig>,
    open: Arc<Mutex<HashMap<IncarnationId, (String, Channel)>>>,
}

impl Channels {
    pub(super) fn new(tls: Option<ClientTlsConfig>) -> Self {
        Self {
            tls,
            open: Arc::default(),
        }
    }

    pub(super) fn client(&self, entry: &PoolerEntry) -> Result<Client, Status> {
        self.channel(entry).map(client)
    }

    pub(super) fn channel(&self, entry: &PoolerEntry) -> Result<Channel, Status> {
        let mut open = self.open.lock();
        if let Some((address, channel)) = open.get(&entry.incarnation)
            && *address == entry.address
        {
            return Ok(channel.clone());
        }
        let channel = self.connect(&entry.address).map_err(|error| {
            tracing::error!(pooler.id = %entry.pooler, address = entry.address, %error, "cannot be an address");
            unavailable()
        })?;
        // A process that took the place of another at the same address: the old one is gone.
        open.retain(|_, (address, _)| *address != entry.address);
        open.insert(entry.incarnation, (entry.address.clone(), channel.clone()));
        Ok(channel)
    }

    fn connect(&self, address: &str) -> Result<Channel, tonic::transport::Error> {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let mut endpoint = Endpoint::from_shared(format!("{scheme}://{address}"))?
            .connect_timeout(CONNECT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW);
        if let Some(tls) = &self.tls {
            // A process that is stopped still accepts, by its kernel, and answers no handshake.
            endpoint = endpoint.tls_config(tls.clone().timeout(CONNECT))?;
        }
        Ok(endpoint.connect_lazy())
    }
}

fn client(channel: Channel) -> Client {
    PoolerServiceClient::new(channel).max_decoding_message_size(MOST_MESSAGE_BYTES)
}

#[cfg(test)]
mod tests {
    use domain::random::SystemRandom;
    use domain::session::PoolerId;
    use rpc::pooler::v1::GetSessionRequest;
    use tokio::net::TcpListener;
    use tonic::Code;

    use super::*;

    #[tokio::test]
    async fn pooler_that_accepts_and_answers_no_handshake_is_unavailable() {
        // As a stopped process does: its kernel accepts.
        let stopped = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let channels = Channels::new(Some(ClientTlsConfig::new().domain_name("pooler")));
        let entry = PoolerEntry {
            pooler: PoolerId(1),
            incarnation: IncarnationId::generate(&SystemRandom),
            address: stopped.local_addr().unwrap().to_string(),
            takes_new_sessions: true,
            is_alive: true,
        };
        let call = async {
            channels
                .client(&entry)
                .unwrap()
                .get_session(GetSessionRequest::default())
                .await
        };
        let refused = tokio::time::timeout(CONNECT * 5, call)
            .await
            .unwrap()
            .unwrap_err();
        assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    }
}
