//! `elevations`: writing for a while where one may only read.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use rpc::access::v1::{
    ApproveElevationRequest, DenyElevationRequest, Elevation, ElevationState, EndElevationRequest,
    GetElevationRequest, ListElevationsRequest, RequestElevationRequest,
};

use super::token::wire_duration;
use crate::context::Context;
use crate::error::ClientError;
use crate::output::record::{Record, text, time, word};
use crate::server_name;

/// Elevations.
#[derive(Debug, Clone, Subcommand)]
pub enum Elevations {
    /// Ask to write for a while where you may only read; somebody else approves
    #[command(after_help = "\
Example:
  pgmoor elevations request shop --for 30m --reason 'the price of order 4711 is wrong' --database orders")]
    Request(Request),
    /// Let somebody write for as long as they asked for
    Approve {
        /// The name, as servers/{server}/elevations/{elevation}
        elevation: String,
    },
    /// Do not let them
    Deny {
        /// The name, as servers/{server}/elevations/{elevation}
        elevation: String,
    },
    /// End an elevation before its time, or take back what you asked for
    End {
        /// The name, as servers/{server}/elevations/{elevation}
        elevation: String,
    },
    /// List your elevations, and those that you may approve
    List {
        /// The server: its name, id, display name, or group/name; without it, all of them
        server: Option<String>,
        /// How they stand; again for more
        #[arg(long = "state", value_enum, value_name = "STATE")]
        states: Vec<StateOption>,
    },
    /// Show an elevation
    Show {
        /// The name, as servers/{server}/elevations/{elevation}
        elevation: String,
    },
}

/// What is asked for.
#[derive(Debug, Clone, Args)]
pub struct Request {
    /// The server: its name, id, display name, or group/name
    server: String,
    /// For how long, such as 30m
    #[arg(long = "for", value_name = "TIME", value_parser = humantime::parse_duration)]
    duration: Duration,
    /// Why, for whoever approves
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// A database it is for; again for more. Without: all that you may use
    #[arg(long = "database", short, value_name = "DATABASE")]
    databases: Vec<String>,
    /// The session it is for, for whoever approves to see
    #[arg(long, value_name = "SESSION")]
    session: Option<String>,
}

/// How an elevation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum StateOption {
    /// Asked for
    Requested,
    /// It holds
    Active,
    /// Denied
    Denied,
    /// Ended before its time, or taken back
    Ended,
    /// Its time is over
    Expired,
}

impl StateOption {
    fn state(self) -> i32 {
        match self {
            Self::Requested => ElevationState::Requested,
            Self::Active => ElevationState::Active,
            Self::Denied => ElevationState::Denied,
            Self::Ended => ElevationState::Ended,
            Self::Expired => ElevationState::Expired,
        }
        .into()
    }
}

impl Elevations {
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), ClientError> {
        let etag = String::new();
        match self {
            Self::Request(asked) => {
                let request = RequestElevationRequest {
                    parent: server_name::resolve(context, &asked.server).await?,
                    elevation: Some(Elevation {
                        databases: asked.databases,
                        reason: asked.reason,
                        duration: Some(wire_duration(asked.duration)),
                        session: asked.session.unwrap_or_default(),
                        ..Elevation::default()
                    }),
                };
                let client = context.connection()?.elevations();
                let answer = context
                    .change(async || client.clone().request_elevation(request.clone()).await)
                    .await?;
                show(context, answer.elevation).await
            }
            Self::Approve { elevation: name } => {
                let client = context.connection()?.elevations();
                let request = ApproveElevationRequest { name, etag };
                let answer = context
                    .change(async || client.clone().approve_elevation(request.clone()).await)
                    .await?;
                show(context, answer.elevation).await
            }
            Self::Deny { elevation: name } => {
                let client = context.connection()?.elevations();
                let request = DenyElevationRequest { name, etag };
                let answer = context
                    .change(async || client.clone().deny_elevation(request.clone()).await)
                    .await?;
                show(context, answer.elevation).await
            }
            Self::End { elevation: name } => {
                let client = context.connection()?.elevations();
                let request = EndElevationRequest { name, etag };
                let answer = context
                    .change(async || client.clone().end_elevation(request.clone()).await)
                    .await?;
                show(context, answer.elevation).await
            }
            Self::List { server, states } => {
                let parent = match server {
                    Some(server) => server_name::resolve(context, &server).await?,
                    None => String::new(),
                };
                let states: Vec<i32> = states.into_iter().map(StateOption::state).collect();
                let client = context.connection()?.elevations();
                let page = async |context: &mut Context, page_size, page_token: String| {
                    let request = ListElevationsRequest {
                        parent: parent.clone(),
                        page_size,
                        page_token,
                        states: states.clone(),
                    };
                    let page = context
                        .read(async || client.clone().list_elevations(request.clone()).await)
                        .await?;
                    Ok((page.elevations, page.next_page_token))
                };
                let elevations = context.pages(None, page).await?;
                context.show_list(&elevations).await
            }
            Self::Show { elevation: name } => {
                let client = context.connection()?.elevations();
                let request = GetElevationRequest { name };
                let answer = context
                    .read(async || client.clone().get_elevation(request.clone()).await)
                    .await?;
                show(context, answer.elevation).await
            }
        }
    }
}

async fn show(context: &mut Context, elevation: Option<Elevation>) -> Result<(), ClientError> {
    context
        .show(&elevation.ok_or(ClientError::Incomplete { field: "elevation" })?)
        .await
}

impl Record for Elevation {
    const MESSAGE: &'static str = "pgmoor.access.v1.Elevation";
    const COLUMNS: &'static [&'static str] = &["name", "user", "state", "databases", "expire_time", "reason"];

    fn cells(&self) -> Vec<Option<String>> {
        vec![
            text(&self.name),
            text(&self.user),
            word(self.state().as_str_name(), "ELEVATION_STATE_"),
            text(&self.databases.join(",")),
            time(self.expire_time.as_ref()),
            text(&self.reason),
        ]
    }
}
