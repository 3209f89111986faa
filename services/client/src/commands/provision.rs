//! `servers provision-readonly`: the SQL that makes a role which can only read.
//!
//! Invariant: the SQL's text is fixed. Names go into settings of its transaction, quoted once, and from there through
//! PostgreSQL's own `format`.

use std::fmt::Write as _;

use clap::Args;
use rpc::query::v1::{ExecutionOutcome, OnError, RunQueryRequest, Script, ScriptMode, SessionAccess};
use rpc::server::v1::{GetServerRequest, Server};

use crate::connection::Call;
use crate::context::Context;
use crate::error::ClientError;
use crate::exit::Exit;
use crate::server_name;

const ROLE: &str = include_str!("provision/role.sql");
const DATABASE: &str = include_str!("provision/database.sql");
const EVERYTHING: &str = include_str!("provision/everything.sql");
const SCHEMAS: &str = include_str!("provision/schemas.sql");
/// How long it may take in a database: it looks at every table and function.
const WAIT: std::time::Duration = std::time::Duration::from_secs(300);
/// Between names in a setting. No name that is accepted has it.
const SEPARATOR: &str = "\u{1f}";

/// A role that can only read.
#[derive(Debug, Clone, Args)]
pub struct Provision {
    /// The server: its name, id, display name, or group/name
    server: String,
    /// The role; it is made where it is not there
    #[arg(long, value_name = "NAME", value_parser = name)]
    role: String,
    /// A database it may read; again for more. Without it the maintenance database
    #[arg(long = "database", short, value_name = "DATABASE", value_parser = name)]
    databases: Vec<String>,
    /// A schema it may read; again for more. Without it everything
    #[arg(long = "schema", value_name = "SCHEMA", value_parser = name)]
    schemas: Vec<String>,
    /// A role that keeps what is taken from PUBLIC; again for more
    #[arg(long = "keep-for", value_name = "ROLE", value_parser = name)]
    keep_for: Vec<String>,
    /// Take from PUBLIC the functions too that run with their owner's rights or are written in an untrusted language
    #[arg(long)]
    revoke_functions: bool,
    /// Run the SQL, with the credential of this other server on the same instance, instead of printing it
    #[arg(long, value_name = "SERVER")]
    run_as: Option<String>,
}

/// A name as PostgreSQL may have one.
fn name(given: &str) -> Result<String, String> {
    if given.is_empty() || given.len() > 63 || given.chars().any(char::is_control) {
        Err("must have 1 to 63 bytes and no control characters".to_owned())
    } else {
        Ok(given.to_owned())
    }
}

impl Provision {
    pub(super) async fn run(mut self, context: &mut Context) -> Result<(), ClientError> {
        let server = get(context, &self.server).await?;
        if self.databases.is_empty() {
            self.databases.push(server.maintenance_database.clone());
        }
        let Some(run_as) = &self.run_as else {
            let text: String = self
                .databases
                .iter()
                .map(|database| self.printed(database))
                .collect();
            return context.show_text(&text).await;
        };
        let administrator = get(context, run_as).await?;
        if administrator.instance != server.instance {
            return Err(ClientError::usage(format!(
                "{run_as} is on {} and {} on {}",
                administrator.instance, self.server, server.instance
            )));
        }
        for database in &self.databases {
            self.carry_out(context, &administrator.name, database).await?;
            context
                .notes
                .line(&format!("{} can read database {database}", self.role));
        }
        Ok(())
    }

    /// What is to be run in a database, as psql takes it.
    fn printed(&self, database: &str) -> String {
        // As a connection string, lest a name be taken for one: a server's owner chooses it, and an administrator runs this.
        let quoted = database
            .replace('\\', "\\\\")
            .replace('\'', "\\'")
            .replace('"', "\"\"");
        format!(
            "-- For psql, as an administrator: psql -v ON_ERROR_STOP=1\n\\connect -reuse-previous=on \"dbname='{quoted}'\"\n{}",
            self.sql()
        )
    }

    fn sql(&self) -> String {
        let mut sql = String::from("BEGIN;\nSET LOCAL search_path TO pg_catalog, pg_temp;\n");
        for (setting, value) in [
            ("role", self.role.clone()),
            ("schemas", self.schemas.join(SEPARATOR)),
            ("keep_for", self.keep_for.join(SEPARATOR)),
            (
                "revoke_functions",
                if self.revoke_functions { "on" } else { "off" }.to_owned(),
            ),
        ] {
            // Writing to a string does not fail.
            let _ = writeln!(sql, "SET LOCAL pgmoor.{setting} TO {};", literal(&value));
        }
        let read = if self.schemas.is_empty() {
            EVERYTHING
        } else {
            SCHEMAS
        };
        for part in [ROLE, DATABASE, read] {
            sql.push_str(part);
        }
        sql.push_str("COMMIT;\n");
        sql
    }

    async fn carry_out(
        &self,
        context: &mut Context,
        administrator: &str,
        database: &str,
    ) -> Result<(), ClientError> {
        let request = RunQueryRequest {
            server: administrator.to_owned(),
            database: database.to_owned(),
            script: Some(Script {
                sql: self.sql(),
                mode: ScriptMode::Split.into(),
                on_error: OnError::Stop.into(),
                ..Script::default()
            }),
            access: SessionAccess::ReadWrite.into(),
            ..RunQueryRequest::default()
        };
        let connection = context.connection()?;
        let client = connection.queries();
        let call = Call::once(context.patient(WAIT));
        let answer = connection
            .call(call, async || client.clone().run_query(request.clone()).await)
            .await?;
        for notice in answer.notices.iter() {
            context.notes.line(&format!("{database}: {}", notice.message));
        }
        for error in answer.errors.iter().filter_map(|error| error.message.as_ref()) {
            context.notes.line(&format!(
                "{database}: {}: {} ({})",
                error.severity, error.message, error.sqlstate
            ));
        }
        if answer.outcome() == ExecutionOutcome::Succeeded {
            Ok(())
        } else {
            Err(ClientError::Reported(Exit::Failed))
        }
    }
}

async fn get(context: &mut Context, server: &str) -> Result<Server, ClientError> {
    let request = GetServerRequest {
        name: server_name::resolve(context, server).await?,
    };
    let client = context.connection()?.servers();
    let answer = context
        .read(async || client.clone().get_server(request.clone()).await)
        .await?;
    answer.server.ok_or(ClientError::Incomplete { field: "server" })
}

/// A text as SQL has it, whatever `standard_conforming_strings` says.
fn literal(text: &str) -> String {
    let escaped: String = text
        .chars()
        .map(|char| match char {
            '\\' => "\\\\".to_owned(),
            '\'' => "''".to_owned(),
            char if char.is_control() => format!("\\x{:02x}", u32::from(char)),
            char => char.to_string(),
        })
        .collect();
    format!("E'{escaped}'")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_is_quoted_once_and_stands_in_no_other_place() {
        assert_eq!(literal("a'b\\c\u{1f}d"), "E'a''b\\\\c\\x1fd'");
        let odd = "x'; DROP TABLE t; $pgmoor$ \"";
        let provision = Provision {
            server: "shop".to_owned(),
            role: odd.to_owned(),
            databases: Vec::new(),
            schemas: Vec::new(),
            keep_for: Vec::new(),
            revoke_functions: false,
            run_as: None,
        };
        let sql = provision.sql();
        assert_eq!(sql.matches("DROP TABLE").count(), 1);
        assert!(sql.contains("SET LOCAL pgmoor.role TO E'x''; DROP TABLE t; $pgmoor$ \"';\n"));
        assert!(
            provision
                .printed("a\"b")
                .contains("\\connect -reuse-previous=on \"dbname='a\"\"b'\"\n")
        );
        for refused in ["", "a\nb", &"x".repeat(64)] {
            assert!(name(refused).is_err());
        }
    }
}
