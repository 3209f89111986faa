//! What a token says of its subject, once it is believed.

use std::fmt;
use std::str::FromStr;

use serde_json::{Map, Value};
use thiserror::Error;

/// An address and whether it is verified: one says nothing without the other.
const ADDRESS: [&str; 2] = ["email", "email_verified"];
/// Most groups of one person. More is taken for too many to be told.
const MAX_GROUPS: usize = 1000;
/// Longest group in bytes; longer ones are left out.
const MAX_GROUP_BYTES: usize = 512;

/// A text that is no path to a claim.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("must be the name of a claim, or a JSON pointer such as /realm_access/roles")]
pub struct InvalidClaimPath;

/// Where a claim stands: its name, or a JSON pointer (RFC 6901) to a nested one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClaimPath(String);

impl FromStr for ClaimPath {
    type Err = InvalidClaimPath;

    fn from_str(text: &str) -> Result<Self, InvalidClaimPath> {
        if text.is_empty() || text == "/" || text.len() > 256 {
            return Err(InvalidClaimPath);
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for ClaimPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl ClaimPath {
    /// The claim at the top that it leads to or through.
    fn top(&self) -> String {
        match self.0.strip_prefix('/') {
            Some(rest) => {
                let first = rest.split('/').next().unwrap_or_default();
                first.replace("~1", "/").replace("~0", "~")
            }
            None => self.0.clone(),
        }
    }
}

/// The claims of a token that was verified.
#[derive(Debug, Clone, PartialEq)]
pub struct Claims(pub(crate) Value);

impl Claims {
    /// The claim at a path.
    #[must_use]
    pub fn get(&self, path: &ClaimPath) -> Option<&Value> {
        if path.0.starts_with('/') {
            self.0.pointer(&path.0)
        } else {
            self.0.get(&path.0)
        }
    }

    /// The text at a path.
    #[must_use]
    pub fn text(&self, path: &ClaimPath) -> Option<&str> {
        self.get(path)?.as_str()
    }

    /// Who it is at the issuer.
    #[must_use]
    pub fn subject(&self) -> Option<&str> {
        self.top_text("sub")
    }

    /// The text of a claim at the top.
    pub(crate) fn top_text(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.as_str()
    }

    /// Whether the claim has one of these values: as a text, a number, a truth value, or an element of a list of them.
    #[must_use]
    pub fn has_one_of(&self, path: &ClaimPath, allowed: &[String]) -> bool {
        let is_allowed = |value: &Value| scalar(value).is_some_and(|value| allowed.contains(&value));
        match self.get(path) {
            Some(Value::Array(values)) => values.iter().any(is_allowed),
            Some(value) => is_allowed(value),
            None => false,
        }
    }

    /// The groups at a path. Nothing where the provider left them out for their number.
    #[must_use]
    pub fn groups(&self, path: &ClaimPath) -> Option<Vec<String>> {
        let names = self.0.get("_claim_names").and_then(Value::as_object);
        if names.is_some_and(|names| names.contains_key(&path.top()))
            || self.0.get("hasgroups").and_then(Value::as_bool) == Some(true)
        {
            return None;
        }
        let values: Vec<&Value> = match self.get(path) {
            Some(Value::Array(values)) => values.iter().collect(),
            Some(value) => vec![value],
            None => Vec::new(),
        };
        let mut groups: Vec<String> = values
            .into_iter()
            .filter_map(Value::as_str)
            .filter(|group| !group.is_empty() && group.len() <= MAX_GROUP_BYTES && !group.contains('\0'))
            .map(str::to_owned)
            .collect();
        groups.sort_unstable();
        groups.dedup();
        (groups.len() <= MAX_GROUPS).then_some(groups)
    }

    /// Adds what another source says of the same subject; what is there already stays. An address and whether it is verified are
    /// taken from one source, where that says both, and never put together from two: they may be of two addresses.
    pub(crate) fn complete_with(&mut self, other: Value) {
        if let (Value::Object(claims), Value::Object(mut other)) = (&mut self.0, other) {
            let says_both =
                |claims: &Map<String, Value>| ADDRESS.iter().all(|name| claims.contains_key(*name));
            let says_any = ADDRESS.iter().any(|name| claims.contains_key(*name));
            if says_both(&other) && !says_both(claims) {
                claims.retain(|name, _| !ADDRESS.contains(&name.as_str()));
            } else if says_any {
                other.retain(|name, _| !ADDRESS.contains(&name.as_str()));
            }
            for (name, value) in other {
                claims.entry(name).or_insert(value);
            }
        }
    }
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(truth) => Some(truth.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn path(text: &str) -> ClaimPath {
        text.parse().unwrap()
    }

    #[test]
    fn groups_are_found_by_name_and_by_pointer() {
        let claims = Claims(json!({
            "groups": ["b", "a", "a", 7, ""],
            "realm_access": { "roles": ["x"] },
            "https://example.com/groups": "only",
        }));
        assert_eq!(claims.groups(&path("groups")).unwrap(), ["a", "b"]);
        assert_eq!(claims.groups(&path("/realm_access/roles")).unwrap(), ["x"]);
        assert_eq!(
            claims.groups(&path("https://example.com/groups")).unwrap(),
            ["only"]
        );
        assert_eq!(claims.groups(&path("none")).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn groups_that_were_left_out_are_not_taken_for_none() {
        let overage = json!({ "_claim_names": { "groups": "src1" }, "_claim_sources": { "src1": {} } });
        assert_eq!(Claims(overage.clone()).groups(&path("groups")), None);
        assert_eq!(Claims(overage.clone()).groups(&path("/groups")), None);
        assert_eq!(Claims(overage).groups(&path("roles")), Some(Vec::new()));
        assert_eq!(Claims(json!({ "hasgroups": true })).groups(&path("groups")), None);
        let many: Vec<String> = (0..1001).map(|number| number.to_string()).collect();
        assert_eq!(Claims(json!({ "groups": many })).groups(&path("groups")), None);
    }

    #[test]
    fn required_values_are_compared_as_they_are() {
        let claims =
            Claims(json!({ "hd": "example.com", "amr": ["pwd", "otp"], "level": 2, "ok": true, "o": {} }));
        let has = |at: &str, allowed: &[&str]| {
            let allowed: Vec<String> = allowed.iter().map(ToString::to_string).collect();
            claims.has_one_of(&path(at), &allowed)
        };
        assert!(has("hd", &["example.org", "example.com"]));
        assert!(!has("hd", &["EXAMPLE.com"]));
        assert!(has("amr", &["otp"]));
        assert!(has("level", &["2"]));
        assert!(has("ok", &["true"]));
        assert!(!has("o", &[""]));
        assert!(!has("none", &[""]));
    }

    #[test]
    fn address_and_whether_it_is_verified_are_never_put_together_from_two_sources() {
        let completed = |here: Value, there: Value| {
            let mut claims = Claims(here);
            claims.complete_with(there);
            (
                claims.0.get("email").cloned(),
                claims.0.get("email_verified").cloned(),
            )
        };
        let (ann, eve) = (json!("ann@example.com"), json!("eve@example.com"));
        // The one says whose address, the other that another one is verified.
        assert_eq!(
            completed(json!({ "email": ann }), json!({ "email_verified": true })),
            (Some(ann.clone()), None)
        );
        assert_eq!(
            completed(json!({ "email_verified": true }), json!({ "email": ann })),
            (None, Some(json!(true)))
        );
        // The other says both.
        assert_eq!(
            completed(
                json!({ "email": ann }),
                json!({ "email": eve, "email_verified": true })
            ),
            (Some(eve.clone()), Some(json!(true)))
        );
        assert_eq!(
            completed(json!({}), json!({ "email": eve, "email_verified": false })),
            (Some(eve.clone()), Some(json!(false)))
        );
        // Said already.
        assert_eq!(
            completed(
                json!({ "email": ann, "email_verified": false }),
                json!({ "email": eve, "email_verified": true })
            ),
            (Some(ann), Some(json!(false)))
        );
    }
}
