//! Opens the socket: TCP, and TLS when wanted.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use postgres_protocol::message::frontend;
use rustix::net::sockopt;
use rustls::ClientConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::config::HostPort;
use crate::error::{ConnectError, ProtocolError};
use crate::tls::{self, TlsMode};
use crate::transport::Socket;

/// A silent peer is given up after idle + count * interval, about a minute.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_COUNT: u32 = 3;

/// Connects to one address, encrypted as `mode` says. The caller sets the deadline.
pub(crate) async fn open(host: &HostPort, mode: &TlsMode) -> Result<Socket, ConnectError> {
    let addr = host.address;
    let unreachable = |source| ConnectError::Unreachable { addr, source };
    let stream = TcpStream::connect(addr).await.map_err(unreachable)?;
    configure(&stream).map_err(unreachable)?;
    match tls::config_of(mode).map_err(|source| ConnectError::Tls { addr, source })? {
        None => Ok(Socket::Plain(stream)),
        Some(config) => encrypt(config, host, stream).await,
    }
}

/// No TCP_USER_TIMEOUT: it would also end a COPY whose receiver is waiting for a lock.
fn configure(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, KEEPALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(stream, KEEPALIVE_INTERVAL)?;
    sockopt::set_tcp_keepcnt(stream, KEEPALIVE_COUNT)?;
    Ok(())
}

/// SSLRequest (PostgreSQL manual, "SSL Session Encryption"), then the TLS handshake.
async fn encrypt(
    config: Arc<ClientConfig>,
    host: &HostPort,
    mut stream: TcpStream,
) -> Result<Socket, ConnectError> {
    let addr = host.address;
    let mut request = BytesMut::new();
    frontend::ssl_request(&mut request);
    stream
        .write_all(&request)
        .await
        .map_err(|source| lost(addr, source))?;

    // A server says nothing after 'S' until it was greeted. Whatever is there was put in by somebody else;
    // what arrives later meets the TLS handshake, never our decoder.
    let mut answer = [0; 64];
    let length = stream
        .read(&mut answer)
        .await
        .map_err(|source| lost(addr, source))?;
    match answer.get(..length) {
        Some([b'S']) => {}
        Some([b'S', ..]) => return Err(ConnectError::TlsInjection { addr }),
        Some([b'N', ..]) => return Err(ConnectError::TlsRefused { addr }),
        None | Some([]) => return Err(ConnectError::Lost { addr, source: None }),
        // An ErrorResponse here is not authenticated, so its text is not shown (CVE-2024-10977).
        Some(_) => {
            let source = ProtocolError::Unexpected {
                message: "SSLRequest answer",
            };
            return Err(ConnectError::Protocol { addr, source });
        }
    }
    let stream = tls::handshake(config, &host.name, stream)
        .await
        .map_err(|source| ConnectError::Tls { addr, source })?;
    Ok(Socket::Tls(stream))
}

fn lost(addr: SocketAddr, source: io::Error) -> ConnectError {
    ConnectError::Lost {
        addr,
        source: Some(source),
    }
}
