//! Why a login with a provider comes to nothing.

use std::fmt;

use oidc::ProviderError;
use rpc::errors::v1::ErrorReason;
use store::identities::ResolveIdentityError;
use tonic::Code;

/// Why a login with a provider comes to nothing. Each is one reason of `pgmoor.errors.v1`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoginFailure {
    /// No provider has this id.
    ProviderUnknown,
    /// The provider does not answer.
    ProviderUnavailable,
    /// No such login is under way, for whoever asks.
    Unknown,
    /// The provider refused, or the person declined.
    Refused {
        /// The provider's error code, letters and underscores.
        error: String,
    },
    /// A token cannot be believed.
    TokenInvalid,
    /// The login policy does not let the person in.
    PolicyDenied,
    /// No user belongs to the person.
    NotInvited,
    /// What the provider gives as the login name cannot be one.
    UsernameInvalid,
    /// Another user has the login name.
    UsernameTaken,
    /// The provider left groups out.
    GroupsOverage,
    /// The provider ended the login.
    EndedByProvider,
    /// The user is disabled.
    UserDisabled,
    /// The provider does not offer this flow.
    FlowNotOffered,
    /// No rule lets the workload in.
    WorkloadNotAllowed,
    /// The person says that they did not begin it.
    Declined,
    /// The provider cannot be asked about it, and it is too old to go on without.
    ReauthenticationRequired,
}

impl LoginFailure {
    /// Its published reason and code.
    pub(crate) fn reason(&self) -> (Code, ErrorReason) {
        match self {
            Self::ProviderUnknown => (Code::NotFound, ErrorReason::LoginProviderUnknown),
            Self::ProviderUnavailable => (Code::Unavailable, ErrorReason::LoginProviderUnavailable),
            Self::Unknown => (Code::NotFound, ErrorReason::LoginUnknown),
            Self::Refused { .. } => (Code::Unauthenticated, ErrorReason::LoginRefused),
            Self::TokenInvalid => (Code::Unauthenticated, ErrorReason::LoginTokenInvalid),
            Self::PolicyDenied => (Code::PermissionDenied, ErrorReason::LoginPolicyDenied),
            Self::NotInvited => (Code::PermissionDenied, ErrorReason::LoginNotInvited),
            Self::UsernameInvalid => (Code::FailedPrecondition, ErrorReason::LoginUsernameInvalid),
            Self::UsernameTaken => (Code::AlreadyExists, ErrorReason::LoginUsernameTaken),
            Self::GroupsOverage => (Code::FailedPrecondition, ErrorReason::LoginGroupsOverage),
            Self::EndedByProvider => (Code::Unauthenticated, ErrorReason::LoginEndedByProvider),
            Self::UserDisabled => (Code::PermissionDenied, ErrorReason::LoginUserDisabled),
            Self::FlowNotOffered => (Code::FailedPrecondition, ErrorReason::LoginFlowNotOffered),
            Self::WorkloadNotAllowed => (Code::PermissionDenied, ErrorReason::WorkloadNotAllowed),
            Self::Declined => (Code::PermissionDenied, ErrorReason::LoginDeclined),
            Self::ReauthenticationRequired => {
                (Code::Unauthenticated, ErrorReason::LoginReauthenticationRequired)
            }
        }
    }

    /// As an attempt keeps it.
    pub(crate) fn to_stored(&self) -> String {
        match self {
            Self::Refused { error } => format!("{}:{error}", self.reason().1.as_str_name()),
            _ => self.reason().1.as_str_name().to_owned(),
        }
    }

    /// What an attempt kept.
    pub(crate) fn from_stored(text: &str) -> Self {
        let (name, error) = text.split_once(':').unwrap_or((text, ""));
        match ErrorReason::from_str_name(name) {
            Some(ErrorReason::LoginProviderUnavailable) => Self::ProviderUnavailable,
            Some(ErrorReason::LoginRefused) => Self::Refused {
                error: error.to_owned(),
            },
            Some(ErrorReason::LoginTokenInvalid) => Self::TokenInvalid,
            Some(ErrorReason::LoginPolicyDenied) => Self::PolicyDenied,
            Some(ErrorReason::LoginNotInvited) => Self::NotInvited,
            Some(ErrorReason::LoginUsernameInvalid) => Self::UsernameInvalid,
            Some(ErrorReason::LoginUsernameTaken) => Self::UsernameTaken,
            Some(ErrorReason::LoginGroupsOverage) => Self::GroupsOverage,
            Some(ErrorReason::LoginUserDisabled) => Self::UserDisabled,
            Some(ErrorReason::LoginFlowNotOffered) => Self::FlowNotOffered,
            Some(ErrorReason::LoginDeclined) => Self::Declined,
            // A later version's.
            _ => Self::Unknown,
        }
    }
}

impl fmt::Display for LoginFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ProviderUnknown => "there is no such provider",
            Self::ProviderUnavailable => "the provider does not answer",
            Self::Unknown => "no such login is under way",
            Self::Refused { .. } => "the provider refused the login",
            Self::TokenInvalid => "the provider's token is not valid",
            Self::PolicyDenied => "the login policy does not let this person in",
            Self::NotInvited => "no user belongs to this person",
            Self::UsernameInvalid => "the provider's name for this person cannot be a login name",
            Self::UsernameTaken => "another user has this login name",
            Self::GroupsOverage => "the provider does not say all groups of this person",
            Self::EndedByProvider => "the provider ended the login",
            Self::UserDisabled => "the user is disabled",
            Self::FlowNotOffered => "the provider does not offer this way of logging in",
            Self::WorkloadNotAllowed => "no rule lets this workload in",
            Self::Declined => "the person who was asked did not confirm the login",
            Self::ReauthenticationRequired => "the login is too old to go on without asking the provider",
        })
    }
}

impl From<ProviderError> for LoginFailure {
    fn from(error: ProviderError) -> Self {
        match error {
            ProviderError::Unavailable { .. } => Self::ProviderUnavailable,
            ProviderError::Refused { code } => Self::Refused { error: code },
            ProviderError::TokenInvalid { .. } => Self::TokenInvalid,
            ProviderError::Policy { .. } => Self::PolicyDenied,
            ProviderError::GroupsOverage => Self::GroupsOverage,
            ProviderError::WorkloadNotAllowed => Self::WorkloadNotAllowed,
            ProviderError::FlowNotOffered => Self::FlowNotOffered,
        }
    }
}

/// What a refusal of the config database's rules means; nothing where the database itself failed.
pub(crate) fn of_resolving(error: &ResolveIdentityError) -> Option<LoginFailure> {
    match error {
        ResolveIdentityError::NotInvited => Some(LoginFailure::NotInvited),
        ResolveIdentityError::UsernameTaken => Some(LoginFailure::UsernameTaken),
        ResolveIdentityError::UserDisabled => Some(LoginFailure::UserDisabled),
        ResolveIdentityError::Store(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failure_of_an_attempt_is_read_back_as_it_was() {
        for failure in [
            LoginFailure::ProviderUnavailable,
            LoginFailure::Refused {
                error: "access_denied".to_owned(),
            },
            LoginFailure::TokenInvalid,
            LoginFailure::PolicyDenied,
            LoginFailure::NotInvited,
            LoginFailure::UsernameInvalid,
            LoginFailure::UsernameTaken,
            LoginFailure::GroupsOverage,
            LoginFailure::UserDisabled,
            LoginFailure::Declined,
        ] {
            assert_eq!(LoginFailure::from_stored(&failure.to_stored()), failure);
        }
    }
}
