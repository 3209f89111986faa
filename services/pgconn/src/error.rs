//! What can go wrong with a connection, by cause.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use crate::frame::FrameError;
use crate::server_error::ServerError;

/// The server broke the protocol. The connection is of no further use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// The bytes cannot be cut into messages.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// A message whose body does not have the documented shape.
    #[error("malformed {message} message")]
    Malformed {
        /// Name of the message in the PostgreSQL manual.
        message: &'static str,
    },
    /// A message that may not come in this state.
    #[error("unexpected {message} message")]
    Unexpected {
        /// Name of the message in the PostgreSQL manual.
        message: &'static str,
    },
}

/// An open connection failed. It is poisoned: every later call says so, and it must be dropped.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    /// The socket or TLS failed.
    #[error("connection to the server failed")]
    Io(#[source] io::Error),
    /// The server closed the connection, often after a FATAL error event said why.
    #[error("the server closed the connection")]
    Closed,
    /// The server broke the protocol.
    #[error("the server broke the protocol")]
    Protocol(#[from] ProtocolError),
    /// The server did not close the connection in time after it was asked to terminate.
    #[error("the server did not close the connection in time")]
    TerminateTimeout,
    /// An earlier error already ended this connection.
    #[error("the connection was ended by an earlier error: {cause}")]
    Poisoned {
        /// The earlier error.
        cause: Poison,
    },
}

/// Why a connection can no longer be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Poison {
    /// The socket or TLS failed.
    #[error("{0}")]
    Io(io::ErrorKind),
    /// The server closed it.
    #[error("closed by the server")]
    Closed,
    /// The server broke the protocol.
    #[error("{0}")]
    Protocol(ProtocolError),
}

/// A message was refused before any byte of it was sent; the connection is as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The protocol ends strings with a NUL byte, so none can be inside one.
    #[error("{what} contains a NUL byte")]
    NulByte {
        /// Which argument.
        what: &'static str,
    },
    /// The message is longer or has more parts than the protocol's length fields can say.
    #[error("{message} message is too long for the protocol")]
    TooLong {
        /// Name of the message in the PostgreSQL manual.
        message: &'static str,
    },
    /// COPY data while the server is not (or no longer) receiving any.
    #[error("the server is not receiving COPY data")]
    NotInCopy,
    /// A simple query while extended-protocol messages have not been followed by a Sync: after an error the
    /// server would silently skip it.
    #[error("extended-protocol messages have to be followed by a sync before a simple query")]
    SyncMissing,
    /// So much is waiting to be sent that more has to wait: drive the connection first.
    #[error("{pending} bytes are already waiting to be sent")]
    BufferFull {
        /// Bytes waiting.
        pending: usize,
    },
    /// The connection has failed.
    #[error("the connection was ended by an earlier error: {cause}")]
    Poisoned {
        /// The earlier error.
        cause: Poison,
    },
}

/// No connection could be made.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The configuration cannot work; the text names the field.
    #[error("invalid connection configuration: {reason}")]
    Configuration {
        /// What is wrong, without values.
        reason: &'static str,
    },
    /// No TCP connection.
    #[error("cannot reach {addr}")]
    Unreachable {
        /// Address tried last.
        addr: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The deadline passed before the server was ready.
    #[error("{addr} was not ready within {}ms", after.as_millis())]
    Timeout {
        /// Address tried last.
        addr: SocketAddr,
        /// How long this address was given.
        after: Duration,
    },
    /// TLS is wanted and the server does not offer it.
    #[error("{addr} does not offer TLS")]
    TlsRefused {
        /// The server.
        addr: SocketAddr,
    },
    /// Plain text followed the server's agreement to TLS: somebody is injecting bytes (CVE-2021-23222).
    #[error("{addr} sent unencrypted data after agreeing to TLS")]
    TlsInjection {
        /// The server.
        addr: SocketAddr,
    },
    /// The TLS handshake failed, for example because the certificate is not trusted.
    #[error("TLS handshake with {addr} failed")]
    Tls {
        /// The server.
        addr: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The server asks for a way to authenticate that the configuration does not allow.
    #[error("the server asked for authentication method {offered}, which is not allowed")]
    AuthMethodRefused {
        /// What the server asked for: `md5`, `password`, `none`, SASL mechanism names, ...
        offered: String,
    },
    /// The server asks for a password and none is configured.
    #[error("the server asked for a password and none is configured")]
    PasswordMissing,
    /// The SCRAM exchange failed on our side: the server could not prove that it knows the password.
    #[error("the server failed to authenticate itself")]
    ServerNotAuthentic {
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The server refused, for example with 28P01, 3D000 or 53300.
    #[error("the server refused the connection: {0}")]
    Server(Box<ServerError>),
    /// The connection was lost before it was ready.
    #[error("connection to {addr} was lost before it was ready")]
    Lost {
        /// The server.
        addr: SocketAddr,
        /// Why; `None` when the server closed it.
        #[source]
        source: Option<io::Error>,
    },
    /// What answered does not speak the protocol.
    #[error("{addr} broke the protocol")]
    Protocol {
        /// The server.
        addr: SocketAddr,
        /// How.
        #[source]
        source: ProtocolError,
    },
}

/// TLS trust could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsRootsError {
    /// The PEM text cannot be read.
    #[error("the certificate authorities are not valid PEM")]
    Pem,
    /// There is no usable certificate.
    #[error("no usable certificate authority was found")]
    NoCertificate,
    /// The TLS library refused the configuration.
    #[error("TLS cannot be configured")]
    Configuration(#[source] rustls::Error),
}

/// A cancel request could not be completed.
#[derive(Debug, thiserror::Error)]
pub enum CancelError {
    /// The server could not be reached; nothing was sent.
    #[error("cannot reach the server to cancel")]
    Connect(#[source] Box<ConnectError>),
    /// The deadline passed. When `sent`, the server may still act on the request at any later moment.
    #[error("the cancel request did not complete in time")]
    Timeout {
        /// Whether the request left.
        sent: bool,
    },
    /// Sending failed; whether the server got it is unknown.
    #[error("sending the cancel request failed")]
    Io(#[source] io::Error),
}
