//! What `[oidc]` describes, as crate `auth` takes it.

use std::path::PathBuf;
use std::sync::Arc;

use audit::AuditLog;
use auth::{LoginKeyRing, ProviderLogins, ProviderLoginsOptions, ProviderLoginsParts};
use config::sections::oidc::{Provider as Section, Workload};
use config::{Config, Problem};
use domain::clock::Clock;
use domain::random::Random;
use domain::username::Username;
use oidc::{
    ClaimPath, GroupRule, HttpClient, LoginPolicy, Provider, ProviderOptions, RequiredClaim, WorkloadRule,
    Workloads,
};
use store::Store;

/// Logins with the configured providers. No provider is asked for anything yet: one that is down does not keep pgmoor from
/// starting.
///
/// # Errors
/// When a file cannot be read or a key is wrong.
pub(crate) fn logins(
    config: &Config,
    store: Store,
    random: Arc<dyn Random>,
    clock: Arc<dyn Clock>,
    key: Option<LoginKeyRing>,
    audit: AuditLog,
) -> anyhow::Result<ProviderLogins> {
    let providers: anyhow::Result<Vec<Provider>> = config
        .oidc
        .providers
        .iter()
        .enumerate()
        .map(|(index, section)| provider(index, section))
        .collect();
    let workloads: anyhow::Result<Vec<_>> = config
        .oidc
        .workloads
        .iter()
        .enumerate()
        .map(|(index, section)| workload(index, section))
        .collect();
    Ok(ProviderLogins::new(ProviderLoginsParts {
        store,
        random,
        clock,
        providers: providers?,
        workloads: Workloads::new(workloads?),
        key,
        external_url: config.api.external_origin().map(str::to_owned),
        options: ProviderLoginsOptions {
            check_interval: config.oidc.check_interval,
            unavailable_grace: config.oidc.unavailable_grace,
            reauthenticate_after: config.oidc.reauthenticate_after,
            vouch_max_age: config.oidc.vouch_max_age,
        },
        audit: Some(audit),
    }))
}

fn provider(index: usize, section: &Section) -> anyhow::Result<Provider> {
    let key = |name: &str| format!("oidc.providers[{index}].{name}");
    let claim = |name: &str, text: &str| {
        text.parse::<ClaimPath>()
            .map_err(|error| Problem::invalid(&key(name), error.to_string()))
    };
    let client_secret = section.client_secret.clone();
    let client_secret = client_secret
        .ok_or_else(|| Problem::missing(&key("client_secret_file"), "name the secret's file"))?;
    let groups_claim = section.groups_claim.as_deref();
    let group_rules = section.group_rules.iter().map(|rule| GroupRule {
        value: rule.value.clone(),
        administrator: rule.administrator,
        group: rule.group.clone(),
    });
    let options = ProviderOptions {
        id: section.id.clone(),
        display_name: section.display_name().to_owned(),
        issuer: section.issuer.clone(),
        client_id: section.client_id.clone(),
        client_secret,
        scopes: section.scopes(),
        device_flow: section.device_flow,
        policy: LoginPolicy {
            required_claims: required(&key("required_claims"), &section.required_claims)?,
            username_claim: claim("username_claim", section.username_claim())?,
            groups_claim: groups_claim.map(|text| claim("groups_claim", text)).transpose()?,
            group_rules: group_rules.collect(),
            link_email_domains: section.link_email_domains.clone(),
            auto_create: section.auto_create,
        },
    };
    Ok(Provider::new(
        options,
        http(&key("ca_file"), section.ca_file.as_ref())?,
    ))
}

fn workload(index: usize, section: &Workload) -> anyhow::Result<(WorkloadRule, HttpClient)> {
    let key = |name: &str| format!("oidc.workloads[{index}].{name}");
    section
        .service_account
        .parse::<Username>()
        .map_err(|error| Problem::invalid(&key("service_account"), error.to_string()))?;
    let rule = WorkloadRule {
        issuer: section.issuer.clone(),
        audience: section.audience.clone(),
        subject: section.subject.clone(),
        required_claims: required(&key("required_claims"), &section.required_claims)?,
        service_account: section.service_account.clone(),
    };
    Ok((rule, http(&key("ca_file"), section.ca_file.as_ref())?))
}

fn required(
    key: &str,
    claims: &std::collections::BTreeMap<String, Vec<String>>,
) -> Result<Vec<RequiredClaim>, Problem> {
    let read = |(claim, values): (&String, &Vec<String>)| {
        let claim = claim
            .parse()
            .map_err(|error: oidc::InvalidClaimPath| Problem::invalid(key, error.to_string()))?;
        Ok(RequiredClaim {
            claim,
            values: values.clone(),
        })
    };
    claims.iter().map(read).collect()
}

fn http(key: &str, ca_file: Option<&PathBuf>) -> anyhow::Result<HttpClient> {
    let unusable = |path: &PathBuf, why: &dyn std::fmt::Display| {
        Problem::invalid(key, format!("{} cannot be used: {why}", path.display()))
    };
    let authorities = match ca_file {
        Some(path) => Some(std::fs::read(path).map_err(|error| unusable(path, &error))?),
        None => None,
    };
    HttpClient::new(authorities.as_deref()).map_err(|error| match ca_file {
        Some(path) => unusable(path, &error).into(),
        None => anyhow::Error::new(error),
    })
}
