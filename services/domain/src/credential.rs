//! The credentials of a server, and which of them is used.

use std::str::FromStr;

use crate::access::Access;
use crate::id::UserId;

/// Whose a credential is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CredentialKind {
    /// Everybody's who may use the server. It logs in as the server's role.
    Shared,
    /// Everybody's, for what only reads. It logs in as a role of its own.
    ReadOnly,
    /// One user's. It logs in as a role of its own.
    Personal(UserId),
}

impl CredentialKind {
    /// Its word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Shared => "shared",
            Self::ReadOnly => "read_only",
            Self::Personal(_) => "personal",
        }
    }

    /// Whose it is alone.
    #[must_use]
    pub fn user(self) -> Option<UserId> {
        match self {
            Self::Shared | Self::ReadOnly => None,
            Self::Personal(user) => Some(user),
        }
    }

    /// The kind of that word and user; nothing where they do not go together.
    #[must_use]
    pub fn of(word: &str, user: Option<UserId>) -> Option<Self> {
        match (word, user) {
            ("shared", None) => Some(Self::Shared),
            ("read_only", None) => Some(Self::ReadOnly),
            ("personal", Some(user)) => Some(Self::Personal(user)),
            _ => None,
        }
    }
}

/// With which credentials a server may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CredentialMode {
    /// With one's own; who has none uses the shared one.
    #[default]
    Shared,
    /// With one's own. Who has none is refused.
    PersonalOnly,
}

impl CredentialMode {
    /// Its word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Shared => "shared",
            Self::PersonalOnly => "personal_only",
        }
    }

    /// Which of the credentials that are there a user logs in with who may go so far.
    ///
    /// What only reads goes by the read-only one, whoever asks: PostgreSQL itself keeps that role from writing.
    ///
    /// # Errors
    /// [`NoCredential`] where there is none to log in with.
    pub fn choose(
        self,
        user: UserId,
        access: Access,
        there: &[CredentialKind],
    ) -> Result<CredentialKind, NoCredential> {
        let own = CredentialKind::Personal(user);
        let has_own = there.contains(&own);
        if self == Self::PersonalOnly && !has_own {
            return Err(NoCredential::PersonalMissing);
        }
        if access == Access::ReadOnly && there.contains(&CredentialKind::ReadOnly) {
            return Ok(CredentialKind::ReadOnly);
        }
        if has_own {
            return Ok(own);
        }
        if there.contains(&CredentialKind::Shared) {
            return Ok(CredentialKind::Shared);
        }
        Err(NoCredential::Missing)
    }
}

impl FromStr for CredentialMode {
    type Err = UnknownCredentialMode;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [Self::Shared, Self::PersonalOnly]
            .into_iter()
            .find(|mode| mode.as_str() == text)
            .ok_or(UnknownCredentialMode)
    }
}

/// There is no such mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("there is no such credential mode")]
pub struct UnknownCredentialMode;

/// Why there is nothing to log in with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoCredential {
    /// The server has no password for where it points.
    Missing,
    /// The server is used with personal credentials only, and the user has none.
    PersonalMissing,
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const READ: Access = Access::ReadOnly;
    const WRITE: Access = Access::ReadWrite;

    fn user(number: u128) -> UserId {
        UserId::from_uuid(Uuid::from_u128(number))
    }

    #[test]
    fn own_credential_goes_before_the_shared_one_and_nobody_gets_anothers() {
        use CredentialKind::{Personal, ReadOnly, Shared};
        let (ann, bob) = (user(1), user(2));
        let all = [Shared, ReadOnly, Personal(ann)];
        let choose = |user, access, there: &[_]| CredentialMode::Shared.choose(user, access, there);
        assert_eq!(choose(ann, WRITE, &all), Ok(Personal(ann)));
        assert_eq!(choose(bob, WRITE, &all), Ok(Shared));
        for user in [ann, bob] {
            assert_eq!(choose(user, READ, &all), Ok(ReadOnly));
        }
        assert_eq!(choose(ann, READ, &[Shared, Personal(ann)]), Ok(Personal(ann)));
        assert_eq!(choose(bob, READ, &[Shared, Personal(ann)]), Ok(Shared));
        // The read-only one is for nothing else.
        assert_eq!(choose(bob, WRITE, &all[1..]), Err(NoCredential::Missing));
        assert_eq!(choose(bob, READ, &[]), Err(NoCredential::Missing));
    }

    #[test]
    fn personal_only_refuses_who_has_none() {
        use CredentialKind::{Personal, ReadOnly, Shared};
        let (ann, bob) = (user(1), user(2));
        let all = [Shared, ReadOnly, Personal(ann)];
        let mode = CredentialMode::PersonalOnly;
        for access in [READ, WRITE] {
            assert_eq!(mode.choose(bob, access, &all), Err(NoCredential::PersonalMissing));
        }
        assert_eq!(mode.choose(ann, WRITE, &all), Ok(Personal(ann)));
        assert_eq!(mode.choose(ann, READ, &all), Ok(ReadOnly));
    }

    #[test]
    fn words_are_read_back() {
        let ann = user(1);
        for kind in [
            CredentialKind::Shared,
            CredentialKind::ReadOnly,
            CredentialKind::Personal(ann),
        ] {
            assert_eq!(CredentialKind::of(kind.as_str(), kind.user()), Some(kind));
        }
        assert_eq!(CredentialKind::of("personal", None), None);
        assert_eq!(CredentialKind::of("shared", Some(ann)), None);
        for mode in [CredentialMode::Shared, CredentialMode::PersonalOnly] {
            assert_eq!(mode.as_str().parse(), Ok(mode));
        }
        assert!("".parse::<CredentialMode>().is_err());
    }
}
