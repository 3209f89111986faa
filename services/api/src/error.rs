//! Why a call fails, by cause. Handlers speak of causes; [`crate::status`] says what a client sees of them.

use std::fmt;
use std::time::Duration;

use domain::access::Permission;
use domain::egress::EgressDenied;
use domain::page::InvalidPageToken;
use store::StoreError;
use store::elevations::ElevationState;
use store::limits::LimitReached;
use thiserror::Error;
use tonic::Status;

/// One field of a request that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Violation {
    /// The field's path, for example `server.endpoints[0].port`.
    pub(crate) field: String,
    /// What is wrong with it. Never a secret.
    pub(crate) description: String,
}

/// A kind of resource, as its names begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ResourceKind {
    User,
    ApiToken,
    Login,
    Instance,
    Server,
    Session,
    Backend,
    Backup,
    Operation,
    File,
    Group,
    Role,
    RoleBinding,
    Grant,
    Elevation,
    Credential,
}

impl fmt::Display for ResourceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::User => "user",
            Self::ApiToken => "API token",
            Self::Login => "login",
            Self::Instance => "instance",
            Self::Server => "server",
            Self::Session => "session",
            Self::Backend => "backend",
            Self::Backup => "backup",
            Self::Operation => "operation",
            Self::File => "file",
            Self::Group => "group",
            Self::Role => "role",
            Self::RoleBinding => "role binding",
            Self::Grant => "grant",
            Self::Elevation => "elevation",
            Self::Credential => "credential",
        })
    }
}

/// Why a call fails.
#[derive(Debug, Error)]
pub(crate) enum Error {
    /// Fields of the request are wrong. At least one.
    #[error("the request is not valid")]
    Invalid(Vec<Violation>),
    /// No setting has this name.
    #[error("there is no such setting")]
    UnknownSetting {
        /// The field that names it.
        field: String,
        /// What was given.
        name: String,
    },
    /// The page token is another request's.
    #[error(transparent)]
    InvalidPageToken(#[from] InvalidPageToken),
    /// A document cannot be read.
    #[error("{problem}")]
    InvalidDocument {
        /// What is wrong with it, without its content.
        problem: String,
    },
    /// The caller may see the resource but not do this.
    #[error("{action} is not permitted")]
    PermissionMissing {
        /// What they wanted to do.
        action: &'static str,
    },
    /// Neither the server's policy nor a grant has the database.
    #[error("the database {database} may not be used on this server")]
    DatabaseNotAllowed {
        /// The database.
        database: String,
    },
    /// The server's policy lets nobody do this.
    #[error("the policy of the server does not allow {permission}")]
    PolicyForbids {
        /// What it would need.
        permission: Permission,
    },
    /// The caller would give what they do not have.
    #[error("nobody gives permissions that they do not have themselves")]
    EscalationDenied,
    /// What the call was let in by was taken away while it went on.
    #[error("what this call was allowed by has been taken away")]
    AccessRevoked,
    /// A person's API token is to make another one.
    #[error("API tokens are made with a login: log in")]
    LoginNeeded,
    /// The caller would decide upon what they asked for.
    #[error("nobody approves what they asked for themselves")]
    SelfApproval,
    /// The elevation does not stand so that this can be done.
    #[error("the elevation is {}", .state.as_str())]
    ElevationState {
        /// How it stands.
        state: ElevationState,
    },
    /// The caller has as many calls open as anybody may.
    #[error("you have {most} calls open on this instance, as many as anybody may")]
    TooManyCalls {
        /// How many that is.
        most: usize,
    },
    /// There are as many as there may be.
    #[error(transparent)]
    LimitReached(#[from] LimitReached),
    /// There is no such resource, or the caller may not know of it.
    #[error("there is no such {kind}")]
    NotFound {
        /// What it would be.
        kind: ResourceKind,
        /// The name that was asked for.
        name: String,
    },
    /// Another resource has the name.
    #[error("another {kind} has this name")]
    Exists {
        /// What it is.
        kind: ResourceKind,
        /// The name.
        name: String,
    },
    /// It changed since it was read.
    #[error("it was changed since it was read: read it again")]
    EtagMismatch,
    /// Others depend on it.
    #[error("{description}")]
    InUse {
        /// What it is.
        kind: ResourceKind,
        /// Its name.
        name: String,
        /// Who depends on it, in words.
        description: String,
        /// The names of those who do; empty where it is a rule and nobody in particular.
        holders: Vec<String>,
    },
    /// The request id was sent with another request.
    #[error("the request_id was used with another request")]
    RequestIdReused,
    /// The operation goes on.
    #[error("the operation has not ended yet")]
    OperationRunning,
    /// There is nothing at this offset.
    #[error("the offset is out of range: go on from {offset}")]
    OffsetOutOfRange {
        /// Where to go on, or the end.
        offset: u64,
    },
    /// Content is not what it should be.
    #[error("{problem}")]
    ArtifactInvalid {
        /// How it differs.
        problem: String,
    },
    /// The caller's files would take too much.
    #[error("the files would exceed the quota of {quota_bytes} bytes")]
    QuotaExceeded {
        /// The most bytes they may take.
        quota_bytes: u64,
    },
    /// The caller went silent in the middle of a stream.
    #[error("nothing was sent for {} s", .limit.as_secs())]
    Stalled {
        /// How long a silence may be.
        limit: Duration,
    },
    /// pgmoor may not connect there.
    #[error(transparent)]
    EgressDenied(#[from] EgressDenied),
    /// The server is going away; the caller should ask another instance.
    #[error("this server is shutting down")]
    ShuttingDown,
    /// The config database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A fault of pgmoor.
    #[error("{context}")]
    Fault {
        /// What was being done.
        context: &'static str,
        /// What happened.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A status that is right already: the pooler's, or the auth crate's.
    #[error("{}", .0.message())]
    Status(Box<Status>),
}

impl Error {
    /// One wrong field.
    pub(crate) fn invalid(field: impl Into<String>, description: impl fmt::Display) -> Self {
        Self::Invalid(vec![Violation {
            field: field.into(),
            description: description.to_string(),
        }])
    }

    /// A missing resource, or one that the caller may not know of.
    pub(crate) fn not_found(kind: ResourceKind, name: impl fmt::Display) -> Self {
        Self::NotFound {
            kind,
            name: name.to_string(),
        }
    }
}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        Self::Status(Box::new(status))
    }
}

/// Collects what is wrong with a request, so that its author learns all of it at once.
#[derive(Debug, Default)]
pub(crate) struct Violations(Vec<Violation>);

impl Violations {
    /// Notes a wrong field.
    pub(crate) fn add(&mut self, field: impl Into<String>, description: impl fmt::Display) {
        self.0.push(Violation {
            field: field.into(),
            description: description.to_string(),
        });
    }

    /// The value, or nothing with a note of what is wrong with it.
    pub(crate) fn check<T, E: fmt::Display>(&mut self, field: &str, result: Result<T, E>) -> Option<T> {
        result.map_err(|error| self.add(field, error)).ok()
    }

    /// Fails where anything was noted.
    pub(crate) fn done(self) -> Result<(), Error> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(Error::Invalid(self.0))
        }
    }

    /// The error where values are missing because of what was noted.
    pub(crate) fn into_error(self) -> Error {
        Error::Invalid(self.0)
    }
}

/// When to try again after the config database was away: a primary is found anew within seconds.
pub(crate) const STORE_RETRY_DELAY: Duration = Duration::from_secs(2);
