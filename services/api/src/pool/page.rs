//! Pages of what poolers show. They give it whole, and it is cut here.

use domain::access::Caller;
use domain::page::{PageScope, page_size};
use rpc::pool::v1::{
    ListBackendsRequest, ListBudgetsRequest, ListClientsRequest, ListPoolsRequest, ListStatsRequest,
    ListWaitersRequest,
};

use crate::error::Error;
use crate::resource;

/// A request for a page of a list.
pub(super) trait PageOfList {
    /// What it wants.
    fn wanted(&self) -> Wanted<'_>;
}

macro_rules! pages_of_lists {
    ($($request:ident: $method:literal),+ $(,)?) => {$(
        impl PageOfList for $request {
            fn wanted(&self) -> Wanted<'_> {
                Wanted {
                    method: $method,
                    page_size: self.page_size,
                    page_token: &self.page_token,
                    instance: &self.instance,
                }
            }
        }
    )+};
}

pages_of_lists! {
    ListPoolsRequest: "ListPools",
    ListClientsRequest: "ListClients",
    ListBackendsRequest: "ListBackends",
    ListStatsRequest: "ListStats",
    ListBudgetsRequest: "ListBudgets",
    ListWaitersRequest: "ListWaiters",
}

/// What page of what list a request wants.
pub(super) struct Wanted<'a> {
    pub(super) method: &'static str,
    pub(super) page_size: i32,
    pub(super) page_token: &'a str,
    /// The instance to show alone; empty for all.
    pub(super) instance: &'a str,
}

impl Wanted<'_> {
    /// Checks the request before anybody is asked.
    pub(super) fn check(&self) -> Result<(), Error> {
        page_size(self.page_size).map_err(|error| Error::invalid("page_size", error))?;
        if !self.instance.is_empty() {
            resource::instance("instance", self.instance)?;
        }
        Ok(())
    }

    /// That page of `entries`, by their keys, and the token of the next. Two entries never have one key.
    pub(super) fn cut<T>(
        &self,
        caller: &Caller,
        entries: Vec<T>,
        instance: impl Fn(&T) -> &str,
        key: impl Fn(&T) -> String,
    ) -> Result<(Vec<T>, String), Error> {
        let size = page_size(self.page_size).map_err(|error| Error::invalid("page_size", error))?;
        let scope = PageScope::new(self.method)
            .with(self.instance)
            .with(&caller.user.to_string());
        let after = scope.cursor(self.page_token)?;
        let mut keyed: Vec<(String, T)> = entries
            .into_iter()
            .filter(|entry| self.instance.is_empty() || instance(entry) == self.instance)
            .map(|entry| (key(&entry), entry))
            .filter(|(key, _)| after.as_ref().is_none_or(|after| key > after))
            .collect();
        keyed.sort_by(|(left, _), (right, _)| left.cmp(right));
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        let more = keyed.len() > size;
        keyed.truncate(size);
        let last = keyed.last().filter(|_| more);
        let next = last.map(|(key, _)| scope.token(key)).unwrap_or_default();
        Ok((keyed.into_iter().map(|(_, entry)| entry).collect(), next))
    }
}

/// A key of several parts. A cursor has no NUL, so that they are set apart by another character that hardly any name has; where
/// one has it, it is written otherwise.
pub(super) fn key<const N: usize>(parts: [&str; N]) -> String {
    let parts = parts.map(|part| part.replace('\u{2}', "\u{2}2").replace('\u{1}', "\u{2}1"));
    parts.join("\u{1}")
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use domain::access::{CredentialKind, DecidedBy, PermissionSet};
    use domain::id::{LoginId, UserId};
    use domain::random::SeededRandom;
    use time::OffsetDateTime;

    use super::*;

    #[test]
    fn keys_of_different_parts_differ() {
        let strange = [
            ("a\u{1}b", "c"),
            ("a", "b\u{1}c"),
            ("a\u{2}1b", "c"),
            ("a\u{1}", "\u{2}c"),
        ];
        let keys: HashSet<String> = strange.iter().map(|(left, right)| key([left, right])).collect();
        assert_eq!(keys.len(), strange.len());
    }

    #[test]
    fn pages_follow_each_other_without_gaps() {
        let random = SeededRandom::new(1);
        let caller = Caller {
            user: UserId::generate(&random),
            username: "alice".to_owned(),
            display_name: "Alice".to_owned(),
            administrator: true,
            everywhere: PermissionSet::NONE,
            credential: CredentialKind::AccessToken {
                login: LoginId::generate(&random),
            },
            provider: None,
            issued: OffsetDateTime::UNIX_EPOCH,
            expires: None,
            decided_by: DecidedBy::default(),
        };
        let entries: Vec<String> = (0..7).rev().map(|number| number.to_string()).collect();
        let (mut seen, mut token) = (Vec::new(), String::new());
        loop {
            let wanted = Wanted {
                method: "ListThings",
                page_size: 3,
                page_token: &token,
                instance: "",
            };
            let page = wanted.cut(&caller, entries.clone(), |_| "", |entry| key([entry, "there"]));
            let (page, next) = page.unwrap();
            seen.extend(page);
            token = next;
            if token.is_empty() {
                break;
            }
        }
        assert_eq!(seen, ["0", "1", "2", "3", "4", "5", "6"]);
    }
}
