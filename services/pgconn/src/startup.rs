//! From an open socket to the first ReadyForQuery: start-up message, authentication, parameters.
//!
//! The invariant: nothing is accepted from a server before it authenticated us, and with SCRAM itself, in a
//! way the configuration allows (PostgreSQL manual, "Start-up").

use std::future::poll_fn;
use std::net::SocketAddr;

use bytes::BytesMut;
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{
    ChannelBinding, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramSha256,
};
use secrecy::{ExposeSecret, SecretString};

use crate::cancel::CancelKey;
use crate::config::{ConnectConfig, RequireAuth};
use crate::encode;
use crate::error::{ConnectError, ConnectionError, ProtocolError, SendError};
use crate::event::{BackendEvent, Event, StartupEvent};
use crate::parameters::Parameters;
use crate::state::ProtocolState;
use crate::text::ServerText;
use crate::tls;
use crate::transport::{Socket, Transport};

/// How the connection was authenticated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Authentication {
    /// The server asked for nothing.
    None,
    /// Clear-text password.
    Password,
    /// MD5 challenge.
    Md5,
    /// SCRAM-SHA-256.
    ScramSha256,
    /// SCRAM-SHA-256 bound to the TLS channel.
    ScramSha256Plus,
}

/// What start-up yields.
pub(crate) struct Started {
    pub(crate) state: ProtocolState,
    pub(crate) parameters: Parameters,
    pub(crate) cancel_key: Option<CancelKey>,
    pub(crate) authentication: Authentication,
}

/// Runs start-up to the first ReadyForQuery. The caller sets the deadline.
pub(crate) async fn run(
    transport: &mut Transport,
    addr: SocketAddr,
    config: &ConnectConfig,
) -> Result<Started, ConnectError> {
    encode::startup(&mut transport.out, &config.startup()?).map_err(configuration)?;
    let authentication = Exchange {
        transport,
        addr,
        config,
    }
    .authenticate()
    .await?;
    let mut exchange = Exchange {
        transport,
        addr,
        config,
    };

    let mut state = ProtocolState::starting();
    let mut parameters = Parameters::default();
    let mut cancel_key = None;
    loop {
        match exchange.next().await? {
            BackendEvent::Startup(StartupEvent::BackendKeyData { process_id, secret }) => {
                cancel_key = Some(CancelKey::new(process_id, secret));
            }
            BackendEvent::Session(Event::ParameterStatus { name, value }) => parameters.set(&name, value),
            BackendEvent::Session(event @ Event::ReadyForQuery(_)) => {
                state
                    .on_event(&event)
                    .map_err(|source| exchange.protocol(source))?;
                return Ok(Started {
                    state,
                    parameters,
                    cancel_key,
                    authentication,
                });
            }
            _ => return Err(exchange.unexpected()),
        }
    }
}

/// Only the text of an argument can be wrong here.
fn configuration(error: SendError) -> ConnectError {
    match error {
        SendError::NulByte { .. } => ConnectError::Configuration {
            reason: "a parameter contains a NUL byte",
        },
        _ => ConnectError::Configuration {
            reason: "the parameters are too long",
        },
    }
}

struct Exchange<'a> {
    transport: &'a mut Transport,
    addr: SocketAddr,
    config: &'a ConnectConfig,
}

impl Exchange<'_> {
    /// The next message that matters: errors end start-up, notices are logged.
    async fn next(&mut self) -> Result<BackendEvent, ConnectError> {
        loop {
            let event = poll_fn(|cx| self.transport.poll_event(cx)).await;
            let addr = self.addr;
            match event {
                Ok(BackendEvent::Session(Event::Error(error))) => return Err(ConnectError::Server(error)),
                Ok(BackendEvent::Session(Event::Notice(notice))) => {
                    tracing::debug!(%addr, %notice, "notice during start-up");
                }
                Ok(BackendEvent::Startup(StartupEvent::NegotiateProtocolVersion {
                    newest_minor,
                    unsupported,
                })) => {
                    // We ask for 3.0 and no options, which every server of protocol 3 supports.
                    tracing::debug!(%addr, newest_minor, ?unsupported, "server negotiates the protocol");
                }
                Ok(event) => return Ok(event),
                Err(ConnectionError::Io(error)) => {
                    return Err(ConnectError::Lost {
                        addr,
                        source: Some(error),
                    });
                }
                Err(ConnectionError::Protocol(source)) => return Err(self.protocol(source)),
                Err(_) => return Err(ConnectError::Lost { addr, source: None }),
            }
        }
    }

    fn protocol(&self, source: ProtocolError) -> ConnectError {
        ConnectError::Protocol {
            addr: self.addr,
            source,
        }
    }

    fn unexpected(&self) -> ConnectError {
        self.protocol(ProtocolError::Unexpected { message: "start-up" })
    }

    async fn authenticate(mut self) -> Result<Authentication, ConnectError> {
        let RequireAuth {
            scram_sha_256,
            md5,
            password,
            none,
        } = self.config.require_auth;
        let BackendEvent::Startup(request) = self.next().await? else {
            return Err(self.unexpected());
        };
        match request {
            StartupEvent::AuthenticationOk if none => Ok(Authentication::None),
            StartupEvent::AuthenticationOk => Err(refused("none")),
            StartupEvent::CleartextPassword if password => {
                let password = password_of(self.config)?.expose_secret();
                encode::password(&mut self.transport.out, password).map_err(configuration)?;
                self.authenticated(Authentication::Password).await
            }
            StartupEvent::CleartextPassword => Err(refused("password")),
            StartupEvent::Md5Password { salt } if md5 => {
                let password = password_of(self.config)?.expose_secret();
                let hash = md5_hash(self.config.user.as_bytes(), password.as_bytes(), salt);
                encode::password(&mut self.transport.out, &hash).map_err(configuration)?;
                self.authenticated(Authentication::Md5).await
            }
            StartupEvent::Md5Password { .. } => Err(refused("md5")),
            StartupEvent::Sasl { mechanisms } if scram_sha_256 => self.scram(&mechanisms).await,
            StartupEvent::Sasl { mechanisms } => Err(refused(&names(&mechanisms))),
            StartupEvent::OtherAuthentication { method: 2 } => Err(refused("kerberos")),
            StartupEvent::OtherAuthentication { method: 7 } => Err(refused("gss")),
            StartupEvent::OtherAuthentication { method: 9 } => Err(refused("sspi")),
            StartupEvent::OtherAuthentication { method } => Err(refused(&format!("code {method}"))),
            _ => Err(self.unexpected()),
        }
    }

    /// SCRAM (RFC 7677), with channel binding when TLS and the server make it possible.
    async fn scram(mut self, mechanisms: &[ServerText]) -> Result<Authentication, ConnectError> {
        let offered = |name| mechanisms.iter().any(|mechanism| mechanism == name);
        let end_point = match &self.transport.socket {
            Socket::Tls(stream) => tls::server_end_point(stream),
            Socket::Plain(_) => None,
        };
        let (mechanism, binding, outcome) = match end_point {
            Some(hash) if offered(SCRAM_SHA_256_PLUS) => (
                SCRAM_SHA_256_PLUS,
                ChannelBinding::tls_server_end_point(hash),
                Authentication::ScramSha256Plus,
            ),
            // Tells the server that we could have bound: it refuses when somebody removed its offer.
            Some(_) if offered(SCRAM_SHA_256) => (
                SCRAM_SHA_256,
                ChannelBinding::unrequested(),
                Authentication::ScramSha256,
            ),
            None if offered(SCRAM_SHA_256) => (
                SCRAM_SHA_256,
                ChannelBinding::unsupported(),
                Authentication::ScramSha256,
            ),
            _ => return Err(refused(&names(mechanisms))),
        };
        let not_authentic = |source| ConnectError::ServerNotAuthentic { source };

        let mut scram = ScramSha256::new(password_of(self.config)?.expose_secret().as_bytes(), binding);
        encode::sasl_initial(&mut self.transport.out, mechanism, scram.message()).map_err(configuration)?;
        let BackendEvent::Startup(StartupEvent::SaslContinue(data)) = self.next().await? else {
            return Err(self.unexpected());
        };
        scram.update(&data).map_err(not_authentic)?;
        encode::sasl_response(&mut self.transport.out, scram.message()).map_err(configuration)?;
        let BackendEvent::Startup(StartupEvent::SaslFinal(data)) = self.next().await? else {
            return Err(self.unexpected());
        };
        scram.finish(&data).map_err(not_authentic)?;
        self.authenticated(outcome).await
    }

    async fn authenticated(&mut self, outcome: Authentication) -> Result<Authentication, ConnectError> {
        match self.next().await? {
            BackendEvent::Startup(StartupEvent::AuthenticationOk) => {
                // It may have held a password.
                self.transport.out = BytesMut::new();
                Ok(outcome)
            }
            _ => Err(self.unexpected()),
        }
    }
}

fn password_of(config: &ConnectConfig) -> Result<&SecretString, ConnectError> {
    config.password.as_ref().ok_or(ConnectError::PasswordMissing)
}

fn refused(offered: &str) -> ConnectError {
    ConnectError::AuthMethodRefused {
        offered: offered.to_owned(),
    }
}

fn names(mechanisms: &[ServerText]) -> String {
    let names: Vec<_> = mechanisms.iter().map(ServerText::to_str_lossy).collect();
    names.join(", ")
}
