//! `grants`: shares in the use of servers.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use domain::limits::Limit;
use prost_types::FieldMask;
use rpc::access::v1::{
    AccessLevel, CreateGrantRequest, DeleteGrantRequest, Grant, GrantLimits, ListGrantsRequest,
    UpdateGrantRequest,
};

use super::groups;
use super::token::wire_duration;
use crate::context::Context;
use crate::error::ClientError;
use crate::output::record::{Record, text, time, word};
use crate::server_name;

/// How far somebody may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum AccessOption {
    /// Read
    ReadOnly,
    /// Read and write
    ReadWrite,
}

impl AccessOption {
    pub(super) fn level(self) -> i32 {
        match self {
            Self::ReadOnly => AccessLevel::ReadOnly.into(),
            Self::ReadWrite => AccessLevel::ReadWrite.into(),
        }
    }
}

/// Grants.
#[derive(Debug, Clone, Subcommand)]
pub enum Grants {
    /// List the grants on a server
    List {
        /// The server: its name, id, display name, or group/name
        server: String,
    },
    /// Grant the use of a server; its password stays unseen
    #[command(after_help = "\
Examples:
  pgmoor grants create shop --to alice --access read-write
  pgmoor grants create shop --to groups/team-shop --access read-only --database orders --expire 30d \\
      --limit query_timeout=30s --limit max_user_sessions=5")]
    Create(Box<Create>),
    /// Change a grant
    Update(Box<Update>),
    /// Revoke a grant; what was opened by it ends within seconds
    Delete {
        /// The name, as servers/{server}/grants/{grant}
        grant: String,
    },
}

/// A new grant.
#[derive(Debug, Clone, Args)]
pub struct Create {
    /// The server: its name, id, display name, or group/name
    server: String,
    /// A login name, users/{user}, or groups/ and a group's name or id
    #[arg(long, value_name = "MEMBER")]
    to: String,
    /// How far they may go
    #[arg(long, value_enum, value_name = "ACCESS")]
    access: AccessOption,
    #[command(flatten)]
    terms: Terms,
}

/// A change of a grant.
#[derive(Debug, Clone, Args)]
pub struct Update {
    /// The name, as servers/{server}/grants/{grant}
    grant: String,
    /// How far they may go
    #[arg(long, value_enum, value_name = "ACCESS")]
    access: Option<AccessOption>,
    #[command(flatten)]
    terms: Terms,
}

/// Where and how long.
#[derive(Debug, Clone, Args)]
pub(crate) struct Terms {
    /// A database it is for; again for more. Without: all that the server's policy allows
    #[arg(long = "database", short, value_name = "DATABASE")]
    databases: Vec<String>,
    /// Something narrower than the instance has it; again for more
    #[arg(long = "limit", value_name = "NAME=VALUE", value_parser = parse_limit)]
    limits: Vec<(String, u64)>,
    /// For how long, such as 30d
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    expire: Option<Duration>,
}

impl Terms {
    fn limits(&self) -> Option<GrantLimits> {
        let mut limits = GrantLimits::default();
        for (name, value) in &self.limits {
            let count = Some(i64::try_from(*value).unwrap_or(i64::MAX));
            let time = Some(wire_duration(Duration::from_millis(*value)));
            match name.as_str() {
                "max_user_sessions" => limits.max_user_sessions = count,
                "query_timeout" => limits.query_timeout = time,
                "transaction_timeout" => limits.transaction_timeout = time,
                "client_idle_timeout" => limits.client_idle_timeout = time,
                "idle_transaction_timeout" => limits.idle_transaction_timeout = time,
                "result_rows" => limits.result_rows = count,
                _ => limits.result_bytes = count,
            }
        }
        (!self.limits.is_empty()).then_some(limits)
    }

    fn expire_time(&self, context: &Context) -> Option<prost_types::Timestamp> {
        let expire = context.clock.now().checked_add(self.expire?.try_into().ok()?)?;
        Some(prost_types::Timestamp {
            seconds: expire.unix_timestamp(),
            nanos: 0,
        })
    }
}

/// Reads `name=value`, a number or a time like 90s.
fn parse_limit(text: &str) -> Result<(String, u64), String> {
    const COUNTS: [&str; 3] = ["max_user_sessions", "result_rows", "result_bytes"];
    const TIMES: [Limit; 4] = [
        Limit::QueryTimeout,
        Limit::TransactionTimeout,
        Limit::ClientIdleTimeout,
        Limit::IdleTransactionTimeout,
    ];
    let (name, value) = text.split_once('=').ok_or("must be NAME=VALUE")?;
    let value = if COUNTS.contains(&name) {
        value.parse().map_err(|_| "must be a number".to_owned())?
    } else if TIMES.iter().any(|limit| limit.name() == name) {
        let time = humantime::parse_duration(value).map_err(|error| error.to_string())?;
        u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
    } else {
        let times = TIMES.map(Limit::name);
        let names = [COUNTS.as_slice(), times.as_slice()].concat().join(", ");
        return Err(format!("there is no limit {name} of a grant; there are {names}"));
    };
    Ok((name.to_owned(), value))
}

impl Grants {
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), ClientError> {
        match self {
            Self::List { server } => {
                let parent = server_name::resolve(context, &server).await?;
                let client = context.connection()?.grants();
                let page = async |context: &mut Context, page_size, page_token: String| {
                    let request = ListGrantsRequest {
                        parent: parent.clone(),
                        page_size,
                        page_token,
                    };
                    let page = context
                        .read(async || client.clone().list_grants(request.clone()).await)
                        .await?;
                    Ok((page.grants, page.next_page_token))
                };
                let grants = context.pages(None, page).await?;
                context.show_list(&grants).await
            }
            Self::Create(create) => {
                let parent = server_name::resolve(context, &create.server).await?;
                let member = groups::resolve_member(context, create.to).await?;
                let grant = Grant {
                    member,
                    access: create.access.level(),
                    limits: create.terms.limits(),
                    expire_time: create.terms.expire_time(context),
                    databases: create.terms.databases,
                    ..Grant::default()
                };
                let request = CreateGrantRequest {
                    parent,
                    grant: Some(grant),
                };
                let client = context.connection()?.grants();
                let answer = context
                    .change(async || client.clone().create_grant(request.clone()).await)
                    .await?;
                show(context, answer.grant).await
            }
            Self::Update(update) => {
                let limits = update.terms.limits();
                let expire_time = update.terms.expire_time(context);
                let paths = [
                    ("access", update.access.is_some()),
                    ("databases", !update.terms.databases.is_empty()),
                    ("limits", limits.is_some()),
                    ("expire_time", expire_time.is_some()),
                ];
                let paths = paths.into_iter().filter(|(_, given)| *given);
                let request = UpdateGrantRequest {
                    update_mask: Some(FieldMask {
                        paths: paths.map(|(path, _)| path.to_owned()).collect(),
                    }),
                    grant: Some(Grant {
                        name: update.grant,
                        access: update.access.map_or(0, AccessOption::level),
                        databases: update.terms.databases,
                        limits,
                        expire_time,
                        ..Grant::default()
                    }),
                };
                let client = context.connection()?.grants();
                let answer = context
                    .read(async || client.clone().update_grant(request.clone()).await)
                    .await?;
                show(context, answer.grant).await
            }
            Self::Delete { grant } => {
                let request = DeleteGrantRequest {
                    name: grant,
                    etag: String::new(),
                };
                let client = context.connection()?.grants();
                context
                    .change(async || client.clone().delete_grant(request.clone()).await)
                    .await?;
                context.notes.line("the grant is revoked");
                Ok(())
            }
        }
    }
}

async fn show(context: &mut Context, grant: Option<Grant>) -> Result<(), ClientError> {
    context
        .show(&grant.ok_or(ClientError::Incomplete { field: "grant" })?)
        .await
}

impl Record for Grant {
    const MESSAGE: &'static str = "pgmoor.access.v1.Grant";
    const COLUMNS: &'static [&'static str] = &["name", "member", "access", "databases", "expire_time"];

    fn cells(&self) -> Vec<Option<String>> {
        vec![
            text(&self.name),
            text(&self.member),
            word(self.access().as_str_name(), "ACCESS_LEVEL_"),
            text(&self.databases.join(",")),
            time(self.expire_time.as_ref()),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_with_their_units() {
        assert_eq!(parse_limit("result_rows=5"), Ok(("result_rows".to_owned(), 5)));
        assert_eq!(
            parse_limit("query_timeout=2s"),
            Ok(("query_timeout".to_owned(), 2000))
        );
        for wrong in ["result_rows", "result_rows=5s", "pool_size=1", "query_timeout=5"] {
            assert!(parse_limit(wrong).is_err(), "{wrong}");
        }
    }
}
