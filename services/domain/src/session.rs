//! Names of query sessions and their executions.
//!
//! A session id is the number of the pooler that holds the session, as a hint where to go first, and 96 random bits that
//! cannot be guessed. The hint is no more than that: a session belongs to whoever the pooler says it does.

use std::fmt;
use std::str::FromStr;
use std::sync::LazyLock;

use data_encoding::{Encoding, Specification};
use thiserror::Error;

use crate::id::{ExecutionId, ServerId};
use crate::random::{self, Random};

/// The number of a pooler: small, handed out by the config database when a pooler first registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PoolerId(pub u16);

impl fmt::Display for PoolerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// A text that is not the name of a session or an execution.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("expected a name of the form {expected}")]
pub struct InvalidSessionName {
    /// The form a name has.
    pub expected: &'static str,
}

const SESSION_FORM: &str = "servers/{server}/sessions/{session}";
const EXECUTION_FORM: &str = "servers/{server}/sessions/{session}/executions/{execution}";
const RANDOM_BYTES: usize = 12;
const ID_BYTES: usize = 2 + RANDOM_BYTES;
/// Characters of a session id: 14 bytes in base32.
const ID_CHARS: usize = 23;

/// The id of a session, 23 characters of lower-case base32 (RFC 4648, section 6).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId([u8; ID_BYTES]);

static BASE32: LazyLock<Encoding> = LazyLock::new(|| {
    let mut specification = Specification::new();
    specification.symbols.push_str("abcdefghijklmnopqrstuvwxyz234567");
    #[allow(clippy::expect_used, reason = "32 distinct symbols are a valid alphabet")]
    specification.encoding().expect("a valid alphabet")
});

impl SessionId {
    /// A new id for a session held by `pooler`.
    #[must_use]
    pub fn generate(pooler: PoolerId, random: &dyn Random) -> Self {
        let mut bytes = [0; ID_BYTES];
        bytes[..2].copy_from_slice(&pooler.0.to_be_bytes());
        bytes[2..].copy_from_slice(&random::bytes::<RANDOM_BYTES>(random));
        Self(bytes)
    }

    /// Where to ask for the session first.
    #[must_use]
    pub fn pooler_hint(&self) -> PoolerId {
        PoolerId(u16::from_be_bytes([self.0[0], self.0[1]]))
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE32.encode(&self.0))
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionId({self})")
    }
}

impl FromStr for SessionId {
    type Err = InvalidSessionName;

    fn from_str(text: &str) -> Result<Self, InvalidSessionName> {
        let invalid = InvalidSessionName {
            expected: SESSION_FORM,
        };
        if text.len() != ID_CHARS {
            return Err(invalid);
        }
        let bytes = BASE32.decode(text.as_bytes()).map_err(|_| invalid.clone())?;
        bytes.try_into().map(Self).map_err(|_| invalid)
    }
}

/// The full name of a session: `servers/{server}/sessions/{session}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionName {
    /// The server it was opened on.
    pub server: ServerId,
    /// Its id.
    pub session: SessionId,
}

impl fmt::Display for SessionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "servers/{}/sessions/{}", self.server, self.session)
    }
}

impl FromStr for SessionName {
    type Err = InvalidSessionName;

    fn from_str(text: &str) -> Result<Self, InvalidSessionName> {
        let invalid = || InvalidSessionName {
            expected: SESSION_FORM,
        };
        let rest = text.strip_prefix("servers/").ok_or_else(invalid)?;
        let (server, session) = rest.split_once("/sessions/").ok_or_else(invalid)?;
        Ok(Self {
            server: server.parse().map_err(|_| invalid())?,
            session: session.parse()?,
        })
    }
}

/// The full name of an execution: `servers/{server}/sessions/{session}/executions/{execution}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExecutionName {
    /// The session it runs in.
    pub session: SessionName,
    /// Its id.
    pub execution: ExecutionId,
}

impl fmt::Display for ExecutionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/executions/{}", self.session, self.execution)
    }
}

impl FromStr for ExecutionName {
    type Err = InvalidSessionName;

    fn from_str(text: &str) -> Result<Self, InvalidSessionName> {
        let invalid = || InvalidSessionName {
            expected: EXECUTION_FORM,
        };
        let (session, execution) = text.split_once("/executions/").ok_or_else(invalid)?;
        Ok(Self {
            session: session.parse().map_err(|_| invalid())?,
            execution: execution.parse().map_err(|_| invalid())?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SeededRandom;

    fn name() -> SessionName {
        let random = SeededRandom::new(3);
        SessionName {
            server: ServerId::generate(&random),
            session: SessionId::generate(PoolerId(513), &random),
        }
    }

    #[test]
    fn names_survive_their_text_form() {
        let session = name();
        assert_eq!(session.to_string().parse(), Ok(session));
        assert_eq!(session.session.pooler_hint(), PoolerId(513));
        let execution = ExecutionName {
            session,
            execution: ExecutionId::generate(&SeededRandom::new(4)),
        };
        assert_eq!(execution.to_string().parse(), Ok(execution));
    }

    #[test]
    fn other_texts_are_refused() {
        let good = name().to_string();
        let (server, session) = good.split_once("/sessions/").unwrap();
        for bad in [
            String::new(),
            "servers/".to_owned(),
            format!("{server}/sessions/"),
            format!("{server}/sessions/../{session}"),
            format!("{server}/sessions/{}", session.to_uppercase()),
            // The last character of 14 bytes in base32 carries two bits that must be zero.
            format!("{server}/sessions/{}7", &session[..22]),
            format!("{good}/executions/x"),
            format!("{good}{}", "x".repeat(10_000)),
        ] {
            assert!(bad.parse::<SessionName>().is_err(), "{bad}");
        }
    }
}
