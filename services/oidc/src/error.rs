//! Why a provider does not let somebody in.

use thiserror::Error;

/// Why a provider's answer is no login.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ProviderError {
    /// The provider does not answer, or answers with what no provider answers.
    #[error("the provider {provider} cannot be reached: {problem}")]
    Unavailable {
        /// Its id or issuer.
        provider: String,
        /// What was seen, for the log.
        problem: String,
    },
    /// The provider refused: the person declined, the code was used before, or the client's secret is wrong.
    #[error("the provider refused: {code}")]
    Refused {
        /// The error code of RFC 6749 and its relatives.
        code: String,
    },
    /// A token cannot be believed.
    #[error("the token is not valid: {problem}")]
    TokenInvalid {
        /// What is wrong with it, for the log.
        problem: String,
    },
    /// The claims do not satisfy the login policy.
    #[error("the claim {claim} does not satisfy the login policy")]
    Policy {
        /// The claim.
        claim: String,
    },
    /// The provider left groups out, because there are too many of them for a token.
    #[error("the provider does not say all groups of the user: there are too many for a token")]
    GroupsOverage,
    /// No rule lets this workload in.
    #[error("no rule lets this workload in")]
    WorkloadNotAllowed,
    /// The provider does not offer this flow.
    #[error("the provider does not offer this way of logging in")]
    FlowNotOffered,
}

impl ProviderError {
    pub(crate) fn invalid(problem: impl Into<String>) -> Self {
        Self::TokenInvalid {
            problem: problem.into(),
        }
    }

    /// Whether somebody has to decide anew at the provider: waiting does not help.
    #[must_use]
    pub const fn is_final(&self) -> bool {
        !matches!(self, Self::Unavailable { .. })
    }
}
