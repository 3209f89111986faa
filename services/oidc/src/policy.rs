//! What the administrator makes of a provider's claims: who may log in, as whom, with which groups.

use crate::claims::{ClaimPath, Claims};
use crate::error::ProviderError;

/// A claim that must have one of some values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequiredClaim {
    /// The claim.
    pub claim: ClaimPath,
    /// Its values, one of which it must have.
    pub values: Vec<String>,
}

/// What a group of the provider gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupRule {
    /// The group as the provider says it.
    pub value: String,
    /// Makes its members administrators of pgmoor.
    pub administrator: bool,
    /// The group of pgmoor its members are in.
    pub group: Option<String>,
}

/// What is asked of claims, and what is taken from them.
#[derive(Debug, Clone)]
pub struct LoginPolicy {
    /// All of them must hold.
    pub required_claims: Vec<RequiredClaim>,
    /// Where the login name of a new user stands.
    pub username_claim: ClaimPath,
    /// Where groups stand; none are read without it.
    pub groups_claim: Option<ClaimPath>,
    /// What groups give.
    pub group_rules: Vec<GroupRule>,
    /// Domains whose verified e-mail addresses link to a user who was invited by that address. None without.
    pub link_email_domains: Vec<String>,
    /// Whether a user is made for somebody who has none.
    pub auto_create: bool,
}

/// Somebody as a provider describes them, once the policy lets them in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The provider's issuer.
    pub issuer: String,
    /// The subject: with the issuer, who it is.
    pub subject: String,
    /// What the claim for the login name says.
    pub username: Option<String>,
    /// What people call them.
    pub display_name: Option<String>,
    /// An address that is verified and of a domain that may link, in lower case.
    pub email: Option<String>,
    /// The groups as the provider says them, and the group of pgmoor each gives.
    pub groups: Vec<(String, Option<String>)>,
    /// Whether one of the groups makes an administrator.
    pub administrator: bool,
}

impl LoginPolicy {
    /// The identity that claims describe.
    ///
    /// # Errors
    /// Where a required claim is not as it must be, or groups were left out.
    pub fn admit(&self, claims: &Claims) -> Result<Identity, ProviderError> {
        for required in &self.required_claims {
            if !claims.has_one_of(&required.claim, &required.values) {
                return Err(ProviderError::Policy {
                    claim: required.claim.to_string(),
                });
            }
        }
        let groups = match &self.groups_claim {
            Some(path) => claims.groups(path).ok_or(ProviderError::GroupsOverage)?,
            None => Vec::new(),
        };
        let administrator = groups
            .iter()
            .any(|value| self.rules_of(value).any(|rule| rule.administrator));
        let groups = groups
            .into_iter()
            .map(|value| {
                let group = self.rules_of(&value).find_map(|rule| rule.group.clone());
                (value, group)
            })
            .collect();
        let text = |name| claims.top_text(name).map(str::to_owned);
        let missing = |claim: &str| ProviderError::invalid(format!("it has no {claim}"));
        Ok(Identity {
            issuer: text("iss").ok_or_else(|| missing("iss"))?,
            subject: text("sub").ok_or_else(|| missing("sub"))?,
            username: claims.text(&self.username_claim).map(str::to_owned),
            display_name: text("name"),
            email: self.email(claims),
            groups,
            administrator,
        })
    }

    fn rules_of<'a>(&'a self, value: &'a str) -> impl Iterator<Item = &'a GroupRule> {
        self.group_rules.iter().filter(move |rule| rule.value == value)
    }

    fn email(&self, claims: &Claims) -> Option<String> {
        let verified = claims.0.get("email_verified")?;
        // Some providers write it as a text.
        if verified.as_bool() != Some(true) && verified.as_str() != Some("true") {
            return None;
        }
        let email = claims.top_text("email")?.to_lowercase();
        let (_, domain) = email.rsplit_once('@')?;
        let allowed = self
            .link_email_domains
            .iter()
            .any(|allowed| allowed.to_lowercase() == domain);
        (allowed && email.len() <= 320).then_some(email)
    }

    /// Whether the ID token lacks a claim that is to be read, so that the userinfo endpoint is asked.
    pub(crate) fn lacks(&self, claims: &Claims) -> bool {
        let read = self
            .required_claims
            .iter()
            .map(|required| &required.claim)
            .chain([&self.username_claim])
            .chain(&self.groups_claim);
        let mut missing = read.filter(|path| claims.get(path).is_none());
        missing.next().is_some()
            || (!self.link_email_domains.is_empty() && claims.top_text("email").is_none())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn policy() -> LoginPolicy {
        LoginPolicy {
            required_claims: vec![RequiredClaim {
                claim: "department".parse().unwrap(),
                values: vec!["data".to_owned()],
            }],
            username_claim: "preferred_username".parse().unwrap(),
            groups_claim: Some("groups".parse().unwrap()),
            group_rules: vec![GroupRule {
                value: "dba".to_owned(),
                administrator: true,
                group: Some("operators".to_owned()),
            }],
            link_email_domains: vec!["Example.com".to_owned()],
            auto_create: true,
        }
    }

    fn admit(extra: Value) -> Result<Identity, ProviderError> {
        let mut claims = Claims(json!({ "iss": "https://id", "sub": "1", "department": "data" }));
        let Value::Object(extra) = extra else { panic!() };
        for (name, value) in extra {
            claims.0[name] = value;
        }
        policy().admit(&claims)
    }

    #[test]
    fn claim_that_is_not_as_required_keeps_its_subject_out() {
        let refused = admit(json!({ "department": "sales" })).unwrap_err();
        assert_eq!(
            refused,
            ProviderError::Policy {
                claim: "department".to_owned()
            }
        );
    }

    #[test]
    fn group_gives_what_its_rule_says() {
        let identity = admit(json!({ "groups": ["dba", "other"] })).unwrap();
        assert!(identity.administrator);
        assert_eq!(
            identity.groups,
            [
                ("dba".to_owned(), Some("operators".to_owned())),
                ("other".to_owned(), None)
            ]
        );
        assert!(!admit(json!({ "groups": ["DBA"] })).unwrap().administrator);
        assert_eq!(
            admit(json!({ "_claim_names": { "groups": "s" } })),
            Err(ProviderError::GroupsOverage)
        );
    }

    #[test]
    fn address_links_only_when_it_is_verified_and_of_an_allowed_domain() {
        let email = |verified: Value, email: &str| {
            admit(json!({ "email": email, "email_verified": verified }))
                .unwrap()
                .email
        };
        assert_eq!(
            email(json!(true), "Ann@EXAMPLE.com"),
            Some("ann@example.com".to_owned())
        );
        assert_eq!(
            email(json!("true"), "ann@example.com"),
            Some("ann@example.com".to_owned())
        );
        for (verified, address) in [
            (json!(false), "ann@example.com"),
            (json!(null), "ann@example.com"),
            (json!(1), "ann@example.com"),
            (json!(true), "ann@evil.com"),
            (json!(true), "ann@example.com.evil.com"),
            (json!(true), "ann@sub.example.com"),
            (json!(true), "example.com"),
        ] {
            assert_eq!(email(verified, address), None, "{address}");
        }
    }
}
