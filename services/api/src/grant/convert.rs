//! Grants and policies between the domain and the wire.

use std::collections::BTreeSet;
use std::time::Duration;

use domain::access::{
    Access, GrantLimits, MAX_DATABASES, MAX_ELEVATION, MAX_ENVIRONMENT_CHARS, NARROWED, ServerPolicy, Tenancy,
};
use domain::credential::CredentialMode;
use domain::limits::{Limit, Unit};
use domain::name::Identifier;
use rpc::access::v1 as proto;
use rpc::access::v1::{AccessLevel, PolicyPreset};
use store::grants::ServerGrant;
use time::OffsetDateTime;

use crate::duration::{self, timestamp};
use crate::error::Violations;

/// A grant.
pub(super) fn grant(grant: &ServerGrant) -> proto::Grant {
    let terms = &grant.terms;
    proto::Grant {
        name: format!("servers/{}/grants/{}", grant.server, grant.id),
        member: grant.member.to_string(),
        access: level(terms.access).into(),
        databases: terms.databases.iter().map(ToString::to_string).collect(),
        limits: Some(limits(&terms.limits)),
        expire_time: terms.expire_time.map(timestamp),
        create_time: Some(timestamp(grant.create_time)),
        update_time: Some(timestamp(grant.update_time)),
        etag: grant.etag.to_string(),
    }
}

/// A policy.
pub(super) fn policy(policy: &ServerPolicy) -> proto::ServerPolicy {
    let (tenancy, databases) = match &policy.tenancy {
        Tenancy::Single => (proto::Tenancy::SingleTenant, Vec::new()),
        Tenancy::Multi { databases } => (
            proto::Tenancy::MultiTenant,
            databases.iter().map(ToString::to_string).collect(),
        ),
    };
    proto::ServerPolicy {
        environment: policy.environment.clone(),
        access_ceiling: level(policy.ceiling).into(),
        tenancy: tenancy.into(),
        databases,
        backups_forbidden: !policy.backups,
        restores_forbidden: !policy.restores,
        max_elevation: policy.max_elevation.map(duration::encode),
        credential_mode: match policy.credential_mode {
            CredentialMode::Shared => proto::CredentialMode::Shared,
            CredentialMode::PersonalOnly => proto::CredentialMode::PersonalOnly,
        }
        .into(),
    }
}

/// Reads a policy, with a note of each field that is wrong. What it does not say of credentials is as it is, `current`.
pub(super) fn read_policy(
    preset: i32,
    policy: &proto::ServerPolicy,
    current: CredentialMode,
    violations: &mut Violations,
) -> Option<ServerPolicy> {
    let databases = databases("policy.databases", &policy.databases, violations);
    let tenancy = match (proto::Tenancy::try_from(policy.tenancy), databases?) {
        (Ok(proto::Tenancy::MultiTenant), databases) if databases.is_empty() => {
            violations.add("policy.databases", "must name the databases that may be used");
            None
        }
        (Ok(proto::Tenancy::MultiTenant), databases) => Some(Tenancy::Multi { databases }),
        (Ok(_), databases) if databases.is_empty() => Some(Tenancy::Single),
        (Ok(_), _) => {
            violations.add("policy.databases", "needs TENANCY_MULTI_TENANT");
            None
        }
        (Err(_), _) => {
            violations.add("policy.tenancy", "is not a known value");
            None
        }
    }?;
    let max_elevation = max_elevation(policy.max_elevation, violations)?;
    let credential_mode = match proto::CredentialMode::try_from(policy.credential_mode) {
        Ok(proto::CredentialMode::Unspecified) => current,
        Ok(proto::CredentialMode::Shared) => CredentialMode::Shared,
        Ok(proto::CredentialMode::PersonalOnly) => CredentialMode::PersonalOnly,
        Err(_) => {
            violations.add("policy.credential_mode", "is not a known value");
            return None;
        }
    };
    // A preset says nothing of these.
    let preset_with = |preset| ServerPolicy {
        max_elevation,
        credential_mode,
        ..preset
    };
    match PolicyPreset::try_from(preset) {
        Ok(PolicyPreset::Staging) => return Some(preset_with(ServerPolicy::staging(tenancy))),
        Ok(PolicyPreset::Production) => return Some(preset_with(ServerPolicy::production(tenancy))),
        Ok(PolicyPreset::Unspecified) => {}
        Err(_) => {
            violations.add("preset", "is not a known value");
            return None;
        }
    }
    let environment = &policy.environment;
    if environment.chars().count() > MAX_ENVIRONMENT_CHARS || environment.chars().any(char::is_control) {
        let most =
            format_args!("must be at most {MAX_ENVIRONMENT_CHARS} characters without control characters");
        violations.add("policy.environment", most);
    }
    Some(ServerPolicy {
        environment: environment.clone(),
        ceiling: match policy.access_ceiling {
            0 => Access::ReadWrite,
            level => access("policy.access_ceiling", level, violations)?,
        },
        tenancy,
        backups: !policy.backups_forbidden,
        restores: !policy.restores_forbidden,
        max_elevation,
        credential_mode,
    })
}

/// Reads the longest elevation there may be.
fn max_elevation(
    given: Option<prost_types::Duration>,
    violations: &mut Violations,
) -> Option<Option<Duration>> {
    let longest = duration::decode_within(given.unwrap_or_default(), Duration::ZERO, MAX_ELEVATION);
    let longest = longest.and_then(|longest| match longest.subsec_nanos() {
        0 => Ok(longest),
        _ => Err("must be in whole seconds".to_owned()),
    });
    let longest = violations.check("policy.max_elevation", longest)?;
    Some((!longest.is_zero()).then_some(longest))
}

/// Reads an access level.
pub(super) fn access(field: &str, level: i32, violations: &mut Violations) -> Option<Access> {
    match AccessLevel::try_from(level) {
        Ok(AccessLevel::ReadOnly) => Some(Access::ReadOnly),
        Ok(AccessLevel::ReadWrite) => Some(Access::ReadWrite),
        Ok(AccessLevel::Unspecified) | Err(_) => {
            violations.add(field, "must be ACCESS_LEVEL_READ_ONLY or ACCESS_LEVEL_READ_WRITE");
            None
        }
    }
}

/// Reads the names of databases.
pub(super) fn databases(
    field: &str,
    names: &[String],
    violations: &mut Violations,
) -> Option<BTreeSet<Identifier>> {
    if names.len() > MAX_DATABASES {
        violations.add(field, format_args!("must be at most {MAX_DATABASES}"));
        return None;
    }
    let names = names.iter().enumerate().map(|(index, name)| {
        let parsed = name.parse::<Identifier>();
        violations.check(&format!("{field}[{index}]"), parsed)
    });
    let names: Vec<_> = names.collect();
    names.into_iter().collect()
}

/// Reads limits.
pub(super) fn read_limits(limits: &proto::GrantLimits, violations: &mut Violations) -> GrantLimits {
    let mut read = GrantLimits::NONE;
    for limit in NARROWED {
        let given = match limit {
            Limit::MaxUserSessions => count(limits.max_user_sessions),
            Limit::QueryTimeout => time(limits.query_timeout),
            Limit::TransactionTimeout => time(limits.transaction_timeout),
            Limit::ClientIdleTimeout => time(limits.client_idle_timeout),
            Limit::IdleTransactionTimeout => time(limits.idle_transaction_timeout),
            _ => Ok(None),
        };
        let chosen = given.and_then(|value| read.choose(limit, value));
        violations.check(&format!("grant.limits.{limit}"), chosen);
    }
    let mut results = |field: &str, given: Option<i64>| {
        let given = count(given).and_then(|value| match value {
            Some(0) => Err("must be more than 0".to_owned()),
            value => Ok(value),
        });
        violations
            .check(&format!("grant.limits.{field}"), given)
            .flatten()
    };
    read.result_rows = results("result_rows", limits.result_rows);
    read.result_bytes = results("result_bytes", limits.result_bytes);
    read
}

/// Reads a point in time.
pub(super) fn time_of(
    field: &str,
    given: prost_types::Timestamp,
    violations: &mut Violations,
) -> Option<OffsetDateTime> {
    let nanos = i128::from(given.seconds) * 1_000_000_000 + i128::from(given.nanos);
    let time = OffsetDateTime::from_unix_timestamp_nanos(nanos).ok();
    let time = time.filter(|time| (1970..=9999).contains(&time.year()));
    violations.check(field, time.ok_or("is not a point in time"))
}

fn count(given: Option<i64>) -> Result<Option<u64>, String> {
    let count = given.map(u64::try_from).transpose();
    count.map_err(|_| "must not be negative".to_owned())
}

fn time(given: Option<prost_types::Duration>) -> Result<Option<u64>, String> {
    let time = given.map(duration::decode).transpose()?;
    Ok(time.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX)))
}

fn limits(limits: &GrantLimits) -> proto::GrantLimits {
    let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let time = |limit: Limit| {
        debug_assert_eq!(limit.unit(), Unit::Time);
        limits.get(limit).map(Duration::from_millis).map(duration::encode)
    };
    proto::GrantLimits {
        max_user_sessions: limits.get(Limit::MaxUserSessions).map(number),
        query_timeout: time(Limit::QueryTimeout),
        transaction_timeout: time(Limit::TransactionTimeout),
        client_idle_timeout: time(Limit::ClientIdleTimeout),
        idle_transaction_timeout: time(Limit::IdleTransactionTimeout),
        result_rows: limits.result_rows.map(number),
        result_bytes: limits.result_bytes.map(number),
    }
}

fn level(access: Access) -> AccessLevel {
    match access {
        Access::ReadOnly => AccessLevel::ReadOnly,
        Access::ReadWrite => AccessLevel::ReadWrite,
    }
}
