//! Limits of a grant: what of the instance's own limits it narrows.

use serde_json::{Map, Value};

use crate::limits::{Limit, Limits};

/// The limits of an instance that a grant may narrow.
pub const NARROWED: [Limit; 5] = [
    Limit::MaxUserSessions,
    Limit::QueryTimeout,
    Limit::TransactionTimeout,
    Limit::ClientIdleTimeout,
    Limit::IdleTransactionTimeout,
];

/// What a grant narrows. What is `None` is as the instance has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GrantLimits {
    /// In the order of [`NARROWED`]. Never 0: that would be no limit.
    narrowed: [Option<u64>; NARROWED.len()],
    /// Most rows of one result.
    pub result_rows: Option<u64>,
    /// Most bytes of one result.
    pub result_bytes: Option<u64>,
}

impl GrantLimits {
    /// Nothing is narrowed.
    pub const NONE: Self = Self {
        narrowed: [None; NARROWED.len()],
        result_rows: None,
        result_bytes: None,
    };

    /// What is chosen of a limit.
    #[must_use]
    pub fn get(&self, limit: Limit) -> Option<u64> {
        let place = NARROWED.iter().position(|narrowed| *narrowed == limit)?;
        self.narrowed[place]
    }

    /// Chooses.
    ///
    /// # Errors
    /// Why the limit cannot be that: one that a grant does not narrow, 0, or out of the limit's range.
    pub fn choose(&mut self, limit: Limit, value: Option<u64>) -> Result<(), String> {
        let place = NARROWED.iter().position(|narrowed| *narrowed == limit);
        let place = place.ok_or_else(|| "is not a limit that a grant narrows".to_owned())?;
        if value == Some(0) {
            return Err("must be more than 0".to_owned());
        }
        Limits::default()
            .choose(limit, value)
            .map_err(|error| error.to_string())?;
        self.narrowed[place] = value;
        Ok(())
    }

    /// What holds where both grants do: of each limit the looser one, so that one grant more never takes anything away.
    #[must_use]
    pub fn loosest(self, other: Self) -> Self {
        let looser = |one: Option<u64>, other: Option<u64>| Some(one?.max(other?));
        let mut narrowed = self.narrowed;
        for (one, other) in narrowed.iter_mut().zip(other.narrowed) {
            *one = looser(*one, other);
        }
        Self {
            narrowed,
            result_rows: looser(self.result_rows, other.result_rows),
            result_bytes: looser(self.result_bytes, other.result_bytes),
        }
    }

    /// The instance's limits, narrowed. Never wider.
    #[must_use]
    pub fn narrow(&self, mut limits: Limits) -> Limits {
        for (limit, value) in NARROWED.into_iter().zip(self.narrowed) {
            let Some(value) = value else { continue };
            let own = limits.get(limit);
            // 0 is no limit where it may be one.
            if own == 0 || value < own {
                // Checked when it was chosen.
                let _ = limits.choose(limit, Some(value));
            }
        }
        limits
    }

    /// As it is stored.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let named = NARROWED.into_iter().map(Limit::name).zip(self.narrowed);
        let results = [
            ("result_rows", self.result_rows),
            ("result_bytes", self.result_bytes),
        ];
        let chosen = named
            .chain(results)
            .filter_map(|(name, value)| Some((name.to_owned(), Value::from(value?))));
        Value::Object(chosen.collect::<Map<_, _>>())
    }

    /// Reads what was stored; nothing where no program of ours could have written it.
    #[must_use]
    pub fn from_json(value: &Value) -> Option<Self> {
        let mut limits = Self::NONE;
        for (name, value) in value.as_object()? {
            let value = value.as_u64()?;
            match name.as_str() {
                "result_rows" => limits.result_rows = Some(value),
                "result_bytes" => limits.result_bytes = Some(value),
                name => limits.choose(Limit::named(name)?, Some(value)).ok()?,
            }
        }
        Some(limits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grant_narrows_and_never_widens() {
        let mut grant = GrantLimits::NONE;
        grant.choose(Limit::QueryTimeout, Some(5000)).unwrap();
        grant.choose(Limit::MaxUserSessions, Some(3)).unwrap();
        let mut instance = Limits::default();
        instance.choose(Limit::MaxUserSessions, Some(2)).unwrap();
        let narrowed = grant.narrow(instance);
        assert_eq!(narrowed.get(Limit::QueryTimeout), 5000);
        assert_eq!(narrowed.get(Limit::MaxUserSessions), 2);
        assert_eq!(GrantLimits::NONE.narrow(instance), instance);
    }

    #[test]
    fn limits_survive_their_stored_form() {
        let mut grant = GrantLimits {
            result_rows: Some(7),
            ..GrantLimits::NONE
        };
        grant.choose(Limit::ClientIdleTimeout, Some(60_000)).unwrap();
        assert_eq!(GrantLimits::from_json(&grant.to_json()), Some(grant));
        for wrong in [
            r#"{"pool_size": 1}"#,
            r#"{"query_timeout": 0}"#,
            r#"{"x": 1}"#,
            "[]",
        ] {
            let wrong = serde_json::from_str(wrong).unwrap();
            assert_eq!(GrantLimits::from_json(&wrong), None);
        }
    }

    #[test]
    fn looser_limit_holds_and_none_is_the_loosest() {
        let with = |rows| GrantLimits {
            result_rows: rows,
            ..GrantLimits::NONE
        };
        assert_eq!(with(Some(1)).loosest(with(Some(2))), with(Some(2)));
        assert_eq!(with(Some(1)).loosest(with(None)), with(None));
    }
}
