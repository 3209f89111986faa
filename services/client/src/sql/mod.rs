//! `sql`: statements, files and a prompt, on one session.
//!
//! Invariant: a session that was opened here is closed here, whatever happens, unless it was to be left open.

mod commit;
mod copy_in;
mod execution;
mod input;
mod message_text;
mod meta;
mod prompt;
mod results;
mod script;
mod session;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use rpc::query::v1::parameter::Kind as ParameterKind;
use rpc::query::v1::{OnError, OnLimit, Parameter, Script, ScriptMode, SessionAccess, SessionMode};

use crate::commands::token::wire_duration;
use crate::context::Context;
use crate::error::ClientError;
use crate::globals::Format;
use execution::Execution;
use results::{CsvResults, JsonResults, Results, TableResults, UnalignedResults};

/// What follows a failed statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnErrorOption {
    /// The rest is not run
    Stop,
    /// The rest is run
    Continue,
}

/// What follows when a result reaches its limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnLimitOption {
    /// The rows beyond are left out
    Truncate,
    /// The statement is cancelled
    Fail,
    /// The statement waits: the prompt asks whether to go on, else the rest is fetched part by part
    Suspend,
}

/// Runs SQL.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  pgmoor sql -s shop                                   a prompt
  pgmoor sql -s shop -d orders -c 'SELECT now()'
  pgmoor sql -s prod/shop -f report.sql --format csv > report.csv
  pgmoor sql -s shop -c 'SELECT * FROM items WHERE id = $1' --param 42
  pgmoor sql -s shop -c 'COPY items FROM STDIN' < items.tsv
  pgmoor sql -s shop -f dump.sql                       a plain dump of pg_dump too
  S=$(pgmoor sql -s shop --open -c 'BEGIN')            a session that stays
  pgmoor sql --session \"$S\" -c 'COMMIT'

All of a call runs in one session, which is closed at its end. Ctrl-C cancels what runs; at the
prompt the session lives on. Data goes to the standard output; notices, errors and the tags of
statements without rows go to the standard error. At the prompt, \\? lists what there is.")]
pub struct Sql {
    /// The server: its name, id, display name, or group/name
    #[arg(long, short, required_unless_present = "session")]
    server: Option<String>,
    /// The database; without it the server's maintenance database
    #[arg(long, short, default_value = "", hide_default_value = true)]
    database: String,
    /// Run these statements; again for more, in the same session
    #[arg(long = "command", short = 'c', value_name = "SQL")]
    commands: Vec<String>,
    /// Run this file; - for the standard input
    #[arg(long = "file", short = 'f', value_name = "FILE", conflicts_with = "commands")]
    files: Vec<PathBuf>,
    /// Run in a session that is open already, and leave it open
    #[arg(long, value_name = "SESSION", conflicts_with_all = ["server", "database", "open"])]
    session: Option<String>,
    /// Share connections with other sessions: hold one only while a statement runs or something pins it
    #[arg(long, conflicts_with = "session")]
    auto: bool,
    /// Only read: the server refuses what would write
    #[arg(long, conflicts_with = "session")]
    read_only: bool,
    /// Leave the session open and print its name first
    #[arg(long)]
    open: bool,
    /// What follows a failed statement; without it the setting query.on_error
    #[arg(long, value_enum, value_name = "WHAT")]
    on_error: Option<OnErrorOption>,
    /// Send each script as one message: one implicit transaction
    #[arg(long, short = '1')]
    one_message: bool,
    /// A value for $1, $2 and so on; \N is NULL, \\N is the text \N
    #[arg(
        long = "param",
        short = 'p',
        value_name = "VALUE",
        requires = "commands",
        allow_hyphen_values = true
    )]
    parameters: Vec<String>,
    /// Most rows of each result; 0 for all. Without it the setting query.row_limit
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(0..))]
    max_rows: Option<i64>,
    /// Most bytes of the values of each result; 0 for all. Without it the setting query.byte_limit
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(0..))]
    max_bytes: Option<i64>,
    /// What follows when a result reaches its limit [default: truncate]
    #[arg(long, value_enum, value_name = "WHAT")]
    on_limit: Option<OnLimitOption>,
    /// Cancel each statement after so long, for example 30s; 0s for never. Without it the setting
    #[arg(long, value_parser = humantime::parse_duration, value_name = "TIME")]
    statement_timeout: Option<Duration>,
    /// How long to wait for a connection within the instance's budget [default: 10s]
    #[arg(long, value_parser = humantime::parse_duration, value_name = "TIME")]
    queue_timeout: Option<Duration>,
    /// Close the session after so long without use
    #[arg(long, value_parser = humantime::parse_duration, value_name = "TIME")]
    idle_timeout: Option<Duration>,
    /// Values with | between them, without alignment
    #[arg(long, short = 'A')]
    unaligned: bool,
    /// Rows only: no header, no count
    #[arg(long, short)]
    tuples_only: bool,
    /// No tags of statements without rows, no notices
    #[arg(long, short)]
    quiet: bool,
}

impl Sql {
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), ClientError> {
        let stays = self.session.is_some() || self.open;
        let setting_up = async |context: &mut Context| {
            // Before the session: a session costs a connection, and what fails here needs none.
            let results = self.results(context).await?;
            let session = match (&self.session, &self.server) {
                (Some(name), _) => session::existing(context, name).await?,
                (None, Some(server)) => session::open(context, server, &self.session_options()).await?,
                (None, None) => return Err(ClientError::usage("name a server with -s")),
            };
            Ok((results, session))
        };
        let (results, session) = context.interruptible(setting_up).await?;
        let mut execution = Execution::new(context, session, results, self.quiet)?;
        let mut outcome = Ok(());
        if self.open {
            let name = format!("{}\n", execution.session.name);
            outcome = context.show_text(&name).await;
        }
        if outcome.is_ok() {
            outcome = Box::pin(self.work(context, &mut execution)).await;
        }
        // A second session may have taken the place of one that was lost at the prompt.
        if !stays
            && let Err(error) = session::close(context, &execution.session).await
            && outcome.is_ok()
        {
            return Err(error);
        }
        outcome
    }

    async fn work(&self, context: &mut Context, execution: &mut Execution) -> Result<(), ClientError> {
        if !self.commands.is_empty() {
            for command in &self.commands {
                script::run_command(context, execution, self.script(command), self.continues()).await?;
            }
            return execution.verdict();
        }
        let mut files = self.files.clone();
        if files.is_empty() {
            if context.stdin_is_terminal && !self.open {
                return prompt::run(context, execution, self).await;
            }
            if context.stdin_is_terminal {
                return Ok(());
            }
            files.push(PathBuf::from("-"));
        }
        for file in &files {
            script::run_file(context, execution, file, &self.script(""), self.continues()).await?;
        }
        execution.verdict()
    }

    /// True where a failed script does not keep the next one from running.
    fn continues(&self) -> bool {
        self.on_error == Some(OnErrorOption::Continue)
    }

    fn session_options(&self) -> session::Options {
        session::Options {
            mode: if self.auto {
                SessionMode::Auto
            } else {
                SessionMode::Unspecified
            },
            access: if self.read_only {
                SessionAccess::ReadOnly
            } else {
                SessionAccess::Unspecified
            },
            database: self.database.clone(),
            queue_timeout: self.queue_timeout,
            idle_timeout: self.idle_timeout,
        }
    }

    /// A script with everything the options say.
    fn script(&self, sql: &str) -> Script {
        let parameter = |value: &String| {
            let kind = match value.as_str() {
                "\\N" => ParameterKind::Null(true),
                "\\\\N" => ParameterKind::Text("\\N".to_owned()),
                text => ParameterKind::Text(text.to_owned()),
            };
            Parameter {
                kind: Some(kind),
                type_oid: 0,
            }
        };
        let on_error = match self.on_error {
            None => OnError::Unspecified,
            Some(OnErrorOption::Stop) => OnError::Stop,
            Some(OnErrorOption::Continue) => OnError::Continue,
        };
        let mode = if self.one_message {
            ScriptMode::OneMessage
        } else {
            ScriptMode::Unspecified
        };
        let on_limit = match self.on_limit {
            None => OnLimit::Unspecified,
            Some(OnLimitOption::Truncate) => OnLimit::Truncate,
            Some(OnLimitOption::Fail) => OnLimit::Fail,
            Some(OnLimitOption::Suspend) => OnLimit::Suspend,
        };
        Script {
            sql: sql.to_owned(),
            parameters: self.parameters.iter().map(parameter).collect(),
            mode: mode.into(),
            on_error: on_error.into(),
            statement_timeout: self.statement_timeout.map(wire_duration),
            max_rows: self.max_rows,
            max_bytes: self.max_bytes,
            on_limit: on_limit.into(),
            ..Script::default()
        }
    }

    async fn results(&self, context: &mut Context) -> Result<Results, ClientError> {
        if self.unaligned {
            return Ok(Results::Unaligned(UnalignedResults::new(self.tuples_only)));
        }
        Ok(match context.globals.format {
            Format::Table => Results::Table(TableResults::new(self.tuples_only)),
            Format::Json => Results::Json(JsonResults::default()),
            Format::Csv => {
                let client = context.connection()?.settings();
                let request = rpc::settings::v1::ListSettingsRequest {
                    parent: "users/me".to_owned(),
                };
                let answer = context
                    .read(async || client.clone().list_settings(request.clone()).await)
                    .await?;
                let mut format = results::csv_format(&answer.settings);
                format.header &= !self.tuples_only;
                Results::Csv(CsvResults::new(format))
            }
        })
    }
}
