//! Whether what runs in a session may write.

/// What a session may do. The smaller is the less.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SessionAccess {
    /// Each statement runs in a read-only transaction that the server does not let out of.
    ReadOnly,
    /// Whatever the role may do.
    ReadWrite,
}

impl SessionAccess {
    /// What somebody gets who asks for `wish` and may have this. Nothing asked for is all there may be.
    #[must_use]
    pub fn limit(self, wish: Option<Self>) -> Self {
        wish.map_or(self, |wish| wish.min(self))
    }
}

#[cfg(test)]
mod tests {
    use super::SessionAccess::{ReadOnly, ReadWrite};

    #[test]
    fn nobody_gets_more_than_they_may_have() {
        assert_eq!(ReadWrite.limit(None), ReadWrite);
        assert_eq!(ReadWrite.limit(Some(ReadOnly)), ReadOnly);
        for wish in [None, Some(ReadOnly), Some(ReadWrite)] {
            assert_eq!(ReadOnly.limit(wish), ReadOnly);
        }
    }
}
