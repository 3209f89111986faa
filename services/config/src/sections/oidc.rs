//! `[oidc]`: OpenID providers people log in with, and the tokens that workloads exchange.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use secrecy::SecretString;
use serde::Deserialize;
use url::{Host, Url};

use crate::problem::Problem;
use crate::values;

/// Keys of `[oidc]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Oidc {
    /// Providers people log in with, one `[[oidc.providers]]` each.
    pub providers: Vec<Provider>,
    /// Which tokens of workloads stand for which service account, one `[[oidc.workloads]]` each.
    pub workloads: Vec<Workload>,
    /// A provider is asked about a login that goes on at most once in this time. 1 s to 24 h. Default 5 min.
    #[serde(deserialize_with = "values::duration")]
    pub check_interval: Duration,
    /// How long logins go on without a word of their provider, while it does not answer. At most 7 days. Default 1 h.
    #[serde(deserialize_with = "values::duration")]
    pub unavailable_grace: Duration,
    /// How long a login goes on whose provider gave no refresh token, so that it cannot be asked again. 1 min to 90 days. Default
    /// 12 h.
    #[serde(deserialize_with = "values::duration")]
    pub reauthenticate_after: Duration,
    /// How long the API tokens of somebody who has no password work after a provider last vouched for them. 1 min to 10 years.
    /// Default 30 days.
    #[serde(deserialize_with = "values::duration")]
    pub vouch_max_age: Duration,
}

impl Default for Oidc {
    fn default() -> Self {
        Self {
            providers: Vec::new(),
            workloads: Vec::new(),
            check_interval: Duration::from_secs(5 * 60),
            unavailable_grace: Duration::from_secs(60 * 60),
            reauthenticate_after: Duration::from_secs(12 * 60 * 60),
            vouch_max_age: Duration::from_secs(30 * 24 * 60 * 60),
        }
    }
}

/// Keys of `[[oidc.providers]]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Provider {
    /// Its name in pgmoor: 1 to 40 lower-case letters, digits and hyphens. It stays with the logins begun there.
    pub id: String,
    /// What people call it. Default: its id.
    pub display_name: String,
    /// Its issuer URL, exactly as it writes itself. `https://`, or `http://` on loopback.
    pub issuer: String,
    /// What pgmoor is called there.
    pub client_id: String,
    /// The secret of pgmoor there. A secret.
    #[serde(deserialize_with = "values::secret")]
    pub client_secret: Option<SecretString>,
    /// A file with the secret, instead of `client_secret`.
    pub client_secret_file: Option<PathBuf>,
    /// A file with certificate authorities (PEM) to trust beside the operating system's.
    pub ca_file: Option<PathBuf>,
    /// Scopes to ask for beside `openid`. Default `profile`, `email`, `offline_access`.
    pub scopes: Option<Vec<String>>,
    /// The claim that is the login name of a new user. Default `preferred_username`.
    pub username_claim: Option<String>,
    /// The claim with the groups: a name, or a JSON pointer such as `/realm_access/roles`. None are read without it.
    pub groups_claim: Option<String>,
    /// Claims that must have one of some values for somebody to log in.
    pub required_claims: BTreeMap<String, Vec<String>>,
    /// What groups give.
    pub group_rules: Vec<GroupRule>,
    /// Domains whose verified addresses link to the user who was invited by that address. None by default.
    pub link_email_domains: Vec<String>,
    /// Whether a user is made for somebody who has none. Default: no, users are invited.
    pub auto_create: bool,
    /// Whether people may log in on another device (RFC 8628). Default: no.
    pub device_flow: bool,
}

/// An entry of `group_rules`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GroupRule {
    /// The group as the provider says it.
    pub value: String,
    /// Makes its members administrators of pgmoor, for as long as they are in it.
    pub administrator: bool,
    /// The group of pgmoor its members are in.
    pub group: Option<String>,
}

/// Keys of `[[oidc.workloads]]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Workload {
    /// Who makes the tokens. `https://`, or `http://` on loopback.
    pub issuer: String,
    /// Who the tokens are for.
    pub audience: String,
    /// Whom they are about, exactly. Without it `required_claims` must say enough.
    pub subject: Option<String>,
    /// Claims that must have one of some values.
    pub required_claims: BTreeMap<String, Vec<String>>,
    /// The login name of the service account they stand for.
    pub service_account: String,
    /// A file with certificate authorities (PEM) to trust beside the operating system's.
    pub ca_file: Option<PathBuf>,
}

impl Provider {
    /// Scopes to ask for beside `openid`.
    #[must_use]
    pub fn scopes(&self) -> Vec<String> {
        let default = || ["profile", "email", "offline_access"].map(str::to_owned).to_vec();
        self.scopes.clone().unwrap_or_else(default)
    }

    /// The claim that is the login name of a new user.
    #[must_use]
    pub fn username_claim(&self) -> &str {
        self.username_claim.as_deref().unwrap_or("preferred_username")
    }

    /// What people call it.
    #[must_use]
    pub fn display_name(&self) -> &str {
        if self.display_name.is_empty() {
            &self.id
        } else {
            &self.display_name
        }
    }
}

impl Oidc {
    /// Reads the files that hold secrets.
    pub(crate) fn resolve(&mut self) -> Result<(), Problem> {
        for (index, provider) in self.providers.iter_mut().enumerate() {
            let key = format!("oidc.providers[{index}].client_secret_file");
            let Some(path) = &provider.client_secret_file else {
                continue;
            };
            if provider.client_secret.is_some() {
                let reason = "is set beside client_secret: set one of them";
                return Err(Problem::invalid(&key, reason));
            }
            provider.client_secret = Some(read_secret(&key, path)?);
        }
        Ok(())
    }

    pub(crate) fn validate(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut ids: Vec<&str> = Vec::new();
        for (index, provider) in self.providers.iter().enumerate() {
            let key = |name: &str| format!("oidc.providers[{index}].{name}");
            let mut wrong = |name: &str, reason: &str| problems.push(Problem::invalid(&key(name), reason));
            if !is_id(&provider.id) {
                wrong("id", "must be 1 to 40 lower-case letters, digits and hyphens");
            } else if ids.contains(&provider.id.as_str()) {
                wrong("id", "is the id of another provider too");
            }
            ids.push(&provider.id);
            if let Err(reason) = check_issuer(&provider.issuer) {
                wrong("issuer", reason);
            }
            if provider.client_id.is_empty() {
                wrong("client_id", "must be what the provider calls pgmoor");
            }
            if provider.client_secret.is_none() {
                wrong(
                    "client_secret_file",
                    "must name the file with the secret: pgmoor is a confidential client",
                );
            }
            let claims = [Some(provider.username_claim()), provider.groups_claim.as_deref()];
            for (claim, name) in claims.iter().zip(["username_claim", "groups_claim"]) {
                if claim.is_some_and(|claim| !is_claim(claim)) {
                    wrong(name, CLAIM);
                }
            }
            check_required(&provider.required_claims, &mut wrong);
            if !provider.group_rules.is_empty() && provider.groups_claim.is_none() {
                wrong("group_rules", "need groups_claim: without it no groups are read");
            }
            for rule in &provider.group_rules {
                if rule.value.is_empty() || (!rule.administrator && rule.group.is_none()) {
                    wrong(
                        "group_rules",
                        "each need a value, and administrator = true or a group",
                    );
                }
                let is_name = |group: &String| {
                    (1..=200).contains(&group.chars().count())
                        && group.trim() == group
                        && !group.chars().any(char::is_control)
                };
                if !rule.group.iter().all(is_name) {
                    let wanted =
                        "a group has 1 to 200 characters, no space around them and no control characters";
                    wrong("group_rules", wanted);
                }
            }
        }
        for (index, workload) in self.workloads.iter().enumerate() {
            let key = |name: &str| format!("oidc.workloads[{index}].{name}");
            let mut wrong = |name: &str, reason: &str| problems.push(Problem::invalid(&key(name), reason));
            if let Err(reason) = check_issuer(&workload.issuer) {
                wrong("issuer", reason);
            }
            if workload.audience.is_empty() {
                wrong(
                    "audience",
                    "must be given: a token for somebody else is not one for pgmoor",
                );
            }
            if workload.service_account.is_empty() {
                wrong("service_account", "must be the login name of a service account");
            }
            // An issuer is asked with one client.
            let first = self
                .workloads
                .iter()
                .find(|other| other.issuer == workload.issuer);
            if first.is_some_and(|first| first.ca_file != workload.ca_file) {
                wrong("ca_file", "must be the same in all rules of an issuer");
            }
            if workload.subject.is_none() && workload.required_claims.is_empty() {
                wrong(
                    "subject",
                    "or required_claims must be given: else every workload of the issuer is let in",
                );
            }
            check_required(&workload.required_claims, &mut wrong);
        }
        let day = Duration::from_secs(24 * 60 * 60);
        if !(Duration::from_secs(1)..=day).contains(&self.check_interval) {
            problems.push(Problem::invalid("oidc.check_interval", "must be from 1s to 24h"));
        }
        let minute = Duration::from_secs(60);
        if !(minute..=90 * day).contains(&self.reauthenticate_after) {
            problems.push(Problem::invalid(
                "oidc.reauthenticate_after",
                "must be from 1m to 90days",
            ));
        }
        if !(minute..=3650 * day).contains(&self.vouch_max_age) {
            problems.push(Problem::invalid(
                "oidc.vouch_max_age",
                "must be from 1m to 3650days",
            ));
        }
        if self.unavailable_grace > 7 * day {
            problems.push(Problem::invalid(
                "oidc.unavailable_grace",
                "must be at most 7days",
            ));
        }
        problems
    }
}

const CLAIM: &str = "must be the name of a claim, or a JSON pointer such as /realm_access/roles";

fn check_required(claims: &BTreeMap<String, Vec<String>>, wrong: &mut impl FnMut(&str, &str)) {
    for (claim, values) in claims {
        if !is_claim(claim) {
            wrong("required_claims", CLAIM);
        }
        if values.is_empty() {
            wrong("required_claims", "must list the values of each claim");
        }
    }
}

fn is_claim(text: &str) -> bool {
    !text.is_empty() && text != "/" && text.len() <= 256
}

fn is_id(text: &str) -> bool {
    let allowed = |char: char| char.is_ascii_lowercase() || char.is_ascii_digit() || char == '-';
    (1..=40).contains(&text.len()) && text.chars().all(allowed)
}

/// An address with TLS, or on loopback.
fn check_issuer(text: &str) -> Result<(), &'static str> {
    let wrong = "must be an https:// address, without a query or fragment, exactly as the provider writes it";
    let url = Url::parse(text).map_err(|_| wrong)?;
    if url.query().is_some() || url.fragment().is_some() || !url.username().is_empty() {
        return Err(wrong);
    }
    match url.scheme() {
        "https" => Ok(()),
        "http" if is_loopback(&url) => Ok(()),
        "http" => Err("must be an https:// address: http:// is for loopback only"),
        _ => Err(wrong),
    }
}

/// Whether an address is on the machine's own loopback.
pub(crate) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

fn read_secret(key: &str, path: &Path) -> Result<SecretString, Problem> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Problem::invalid(key, format!("{} cannot be read: {error}", path.display())))?;
    let secret = text.trim();
    if secret.is_empty() {
        return Err(Problem::invalid(key, format!("{} is empty", path.display())));
    }
    Ok(SecretString::from(secret))
}
