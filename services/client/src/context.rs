//! What a running command has at hand: its options, its connection, where it writes.

use std::io::{Read, Write};
use std::sync::Arc;
use std::time::Duration;

use domain::clock::Clock;
use domain::random::{self, Random};
use http::HeaderValue;
use prost::Message;
use secrecy::SecretString;
use tonic::{Response, Status};

use crate::connection::{Call, Connection, Identity, Target, not_logged_in};
use crate::environment::Environment;
use crate::error::ClientError;
use crate::exit::Exit;
use crate::globals::Globals;
use crate::interrupts::Interrupts;
use crate::io::{Io, Typist};
use crate::output::record::{self, Record};
use crate::output::sink::Sink;
use crate::profile::Profile;

/// Most entries a page may have; lists are fetched in as few calls as that allows.
const PAGE_SIZE: i32 = 1000;

/// The standard error: notices, questions, errors.
pub(crate) struct Notes(Box<dyn Write + Send>);

impl Notes {
    /// Writes a text as it is. What cannot be told has nobody to be told to.
    pub(crate) fn text(&mut self, text: &str) {
        let _ = self.0.write_all(text.as_bytes());
        let _ = self.0.flush();
    }

    /// Writes a line.
    pub(crate) fn line(&mut self, line: &str) {
        self.text(&format!("{line}\n"));
    }
}

/// What a running command has at hand.
pub(crate) struct Context {
    pub(crate) globals: Globals,
    pub(crate) out: Sink,
    pub(crate) notes: Notes,
    pub(crate) stdin_is_terminal: bool,
    pub(crate) stderr_is_terminal: bool,
    pub(crate) interrupts: Interrupts,
    pub(crate) environment: Environment,
    pub(crate) clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    stdin: Option<Box<dyn Read + Send>>,
    pub(crate) typist: Option<Typist>,
    profile: Option<Profile>,
    connection: Option<Connection>,
}

impl Context {
    pub(crate) fn new(globals: Globals, io: Io, interrupts: Interrupts) -> Self {
        Self {
            globals,
            out: Sink::new(io.stdout),
            notes: Notes(io.stderr),
            stdin_is_terminal: io.stdin_is_terminal,
            stderr_is_terminal: io.stderr_is_terminal,
            interrupts,
            environment: io.environment,
            clock: io.clock,
            random: io.random,
            stdin: Some(io.stdin),
            typist: io.typist,
            profile: None,
            connection: None,
        }
    }

    /// The standard input, which can be read once.
    pub(crate) fn take_stdin(&mut self) -> Result<Box<dyn Read + Send>, ClientError> {
        self.stdin
            .take()
            .ok_or_else(|| ClientError::usage("the standard input can be read only once"))
    }

    /// The profile in use.
    pub(crate) fn profile(&mut self) -> Result<Profile, ClientError> {
        if self.profile.is_none() {
            self.profile = Some(Profile::resolve(&self.globals, &self.environment)?);
        }
        self.profile
            .clone()
            .ok_or(ClientError::Incomplete { field: "profile" })
    }

    /// The connection of whoever is logged in, or whom a token names.
    pub(crate) fn connection(&mut self) -> Result<Connection, ClientError> {
        if let Some(connection) = &self.connection {
            return Ok(connection.clone());
        }
        let identity = self.identity()?;
        let connection = self.connect_as(identity)?;
        self.connection = Some(connection.clone());
        Ok(connection)
    }

    /// A connection of nobody, to log in with.
    pub(crate) fn anonymous_connection(&mut self) -> Result<Connection, ClientError> {
        self.connect_as(Identity::anonymous())
    }

    /// The connection of the login that is stored, whatever token the environment names.
    pub(crate) fn login_connection(&mut self) -> Result<Connection, ClientError> {
        let identity = self.stored_login()?;
        let connection = self.connect_as(identity)?;
        // Kept, so that a renewal of its tokens is waited for at the end.
        self.connection = Some(connection.clone());
        Ok(connection)
    }

    fn connect_as(&mut self, identity: Identity) -> Result<Connection, ClientError> {
        let profile = self.profile()?;
        let target = Target {
            url: profile.url,
            ca_file: profile.ca_file,
        };
        let connection = Connection::new(
            &target,
            identity,
            Arc::clone(&self.clock),
            Arc::clone(&self.random),
        )?;
        Ok(
            match self.environment.traceparent.as_deref().map(HeaderValue::from_str) {
                Some(Ok(traceparent)) => connection.with_traceparent(traceparent),
                _ => connection,
            },
        )
    }

    fn identity(&mut self) -> Result<Identity, ClientError> {
        if let Some(path) = &self.globals.token_file {
            let token = std::fs::read_to_string(path).map_err(ClientError::reading(path))?;
            return Ok(Identity::token(SecretString::from(token.trim())));
        }
        if let Some(token) = &self.environment.token {
            return Ok(Identity::token(token.clone()));
        }
        self.stored_login()
    }

    fn stored_login(&mut self) -> Result<Identity, ClientError> {
        let profile = self.profile()?;
        let stored = match &profile.credentials {
            Some(store) => store.read()?.map(|credentials| (credentials, store.clone())),
            None => None,
        };
        match stored {
            Some((credentials, store)) if credentials.url == profile.url => {
                Ok(Identity::stored(credentials, store))
            }
            _ => Err(not_logged_in().into()),
        }
    }

    /// Reads: a call that may be repeated.
    pub(crate) async fn read<T>(
        &mut self,
        attempt: impl AsyncFnMut() -> Result<Response<T>, Status>,
    ) -> Result<T, ClientError> {
        let call = Call::repeatable(self.globals.timeout());
        Ok(self.connection()?.call(call, attempt).await?)
    }

    /// Changes something: a call that is sent once.
    pub(crate) async fn change<T>(
        &mut self,
        attempt: impl AsyncFnMut() -> Result<Response<T>, Status>,
    ) -> Result<T, ClientError> {
        let call = Call::once(self.globals.timeout());
        Ok(self.connection()?.call(call, attempt).await?)
    }

    /// Every entry of a list, or the first `limit`. `page` fetches one page, given its size and token.
    pub(crate) async fn pages<T>(
        &mut self,
        limit: Option<usize>,
        mut page: impl AsyncFnMut(&mut Self, i32, String) -> Result<(Vec<T>, String), ClientError>,
    ) -> Result<Vec<T>, ClientError> {
        let limit = limit.unwrap_or(usize::MAX);
        let (mut entries, mut token) = (Vec::new(), String::new());
        loop {
            let size = i32::try_from(limit - entries.len())
                .unwrap_or(PAGE_SIZE)
                .min(PAGE_SIZE);
            let (more, next) = page(self, size, token).await?;
            entries.extend(more);
            if next.is_empty() || entries.len() >= limit {
                entries.truncate(limit);
                return Ok(entries);
            }
            token = next;
        }
    }

    /// A new id for a request that may be repeated.
    pub(crate) fn request_id(&self) -> String {
        data_encoding::HEXLOWER.encode(&random::bytes::<16>(&*self.random))
    }

    /// Shows a list.
    pub(crate) async fn show_list<R: Record>(&mut self, records: &[R]) -> Result<(), ClientError> {
        let text = record::list(records, self.globals.format)?;
        self.show_text(&text).await
    }

    /// Shows a resource.
    pub(crate) async fn show<R: Record>(&mut self, shown: &R) -> Result<(), ClientError> {
        let text = record::one(shown, self.globals.format)?;
        self.show_text(&text).await
    }

    /// Shows a message that is no resource.
    pub(crate) async fn show_message(
        &mut self,
        name: &str,
        message: &impl Message,
    ) -> Result<(), ClientError> {
        let text = record::message(name, message, self.globals.format)?;
        self.show_text(&text).await
    }

    /// Writes text as data.
    pub(crate) async fn show_text(&mut self, text: &str) -> Result<(), ClientError> {
        self.out.block.extend_from_slice(text.as_bytes());
        self.out.flush().await
    }

    /// Carries `work` out unless it is interrupted.
    pub(crate) async fn interruptible<T>(
        &mut self,
        work: impl AsyncFnOnce(&mut Self) -> Result<T, ClientError>,
    ) -> Result<T, ClientError> {
        let mut interrupts = self.interrupts.clone();
        tokio::select! {
            biased;
            outcome = work(self) => outcome,
            () = interrupts.next() => Err(ClientError::Reported(Exit::Interrupted)),
        }
    }

    /// Ends what the command left open.
    pub(crate) async fn close(&mut self) {
        if let Some(connection) = self.connection.take() {
            connection.close().await;
        }
    }

    /// How long a call may take that waits for a connection to PostgreSQL first.
    pub(crate) fn patient(&self, wait: Duration) -> Duration {
        self.globals.timeout() + wait
    }
}
