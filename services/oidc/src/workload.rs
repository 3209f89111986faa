//! Workloads: a job's own token (GitHub Actions, GitLab, Kubernetes) stands for a service account, by rule.
//!
//! Invariant: only issuers that a rule names are ever asked for anything.

use std::collections::HashMap;

use time::OffsetDateTime;

use crate::claims::Claims;
use crate::error::ProviderError;
use crate::http::HttpClient;
use crate::issuer::Issuer;
use crate::policy::RequiredClaim;
use crate::tokens::{Expected, parse, payload};

/// Which tokens stand for a service account.
#[derive(Debug, Clone)]
pub struct WorkloadRule {
    /// Who makes the token.
    pub issuer: String,
    /// Who the token is for: pgmoor, as the issuer was told.
    pub audience: String,
    /// Whom it is about, exactly; any subject where the claims say enough.
    pub subject: Option<String>,
    /// Claims that must hold, all of them.
    pub required_claims: Vec<RequiredClaim>,
    /// The login name of the service account.
    pub service_account: String,
}

/// The rules and their issuers.
#[derive(Debug, Default)]
pub struct Workloads {
    rules: Vec<WorkloadRule>,
    issuers: HashMap<String, Issuer>,
}

impl Workloads {
    /// Rules, each with the client its issuer is asked with.
    #[must_use]
    pub fn new(rules: impl IntoIterator<Item = (WorkloadRule, HttpClient)>) -> Self {
        let mut this = Self::default();
        for (rule, http) in rules {
            let url = rule.issuer.clone();
            this.issuers
                .entry(url.clone())
                .or_insert_with(|| Issuer::new(url, http));
            this.rules.push(rule);
        }
        this
    }

    /// Checks a workload's token and returns the rule that lets it in.
    ///
    /// # Errors
    /// [`ProviderError::TokenInvalid`]; [`ProviderError::WorkloadNotAllowed`].
    pub async fn admit(&self, token: &str, now: OffsetDateTime) -> Result<&WorkloadRule, ProviderError> {
        let parsed = parse(token)?;
        // Only to find the issuer by: everything is checked below.
        let unverified = payload(&parsed)?;
        let issuer = unverified
            .top_text("iss")
            .and_then(|issuer| self.issuers.get(issuer))
            .ok_or_else(|| ProviderError::invalid("its issuer is not one of a rule"))?;
        let rules = || self.rules.iter().filter(|rule| rule.issuer == issuer.url());
        let mut audiences: Vec<&str> = rules().map(|rule| rule.audience.as_str()).collect();
        audiences.sort_unstable();
        audiences.dedup();
        let mut last = ProviderError::WorkloadNotAllowed;
        for audience in audiences {
            let expected = Expected {
                audience,
                now,
                nonce: None,
                access_token: None,
            };
            let claims = match issuer.verify(&parsed, expected).await {
                Ok(claims) => claims,
                Err(error @ ProviderError::Unavailable { .. }) => return Err(error),
                Err(error) => {
                    last = error;
                    continue;
                }
            };
            return rules()
                .filter(|rule| rule.audience == audience)
                .find(|rule| rule.admits(&claims))
                .ok_or(ProviderError::WorkloadNotAllowed);
        }
        Err(last)
    }
}

impl WorkloadRule {
    fn admits(&self, claims: &Claims) -> bool {
        let subject = self.subject.as_deref();
        subject.is_none_or(|subject| claims.top_text("sub") == Some(subject))
            && self
                .required_claims
                .iter()
                .all(|required| claims.has_one_of(&required.claim, &required.values))
    }
}
