//! The prompt: statements over several lines, a history, the session's state in front of the cursor.

use std::io::Cursor;
use std::path::PathBuf;
use std::time::Duration;

use domain::sql::{StatementKind, classify};
use rpc::query::v1::TransactionStatus;
use rustyline::error::ReadlineError;
use rustyline::{Behavior, Config, DefaultEditor};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval};

use super::copy_in::{Copy, copy_in};
use super::execution::Execution;
use super::input::{Entered, Input};
use super::meta::Meta;
use super::{Sql, script, session};
use crate::context::Context;
use crate::error::ClientError;
use crate::error_text;
use crate::exit::Exit;
use crate::io::{Typed, Typist};

const HISTORY_ENTRIES: usize = 2000;
/// An open prompt is a use of its session, unless a transaction is open: that must not hold locks while its
/// user is away.
const KEEP_ALIVE: Duration = Duration::from_secs(60);

enum Ask {
    Line {
        prompt: String,
        reply: oneshot::Sender<Result<Typed, ReadlineError>>,
    },
    Remember(String),
}

/// Who answers prompts, on a thread of its own: it blocks until the person has typed.
struct Lines(mpsc::Sender<Ask>);

impl Lines {
    fn open(context: &mut Context) -> Result<Self, ClientError> {
        let (sender, asks) = mpsc::channel(1);
        match context.typist.take() {
            Some(typist) => std::thread::spawn(move || answer(asks, typist)),
            None => {
                let history = history_file(context)?;
                std::thread::spawn(move || edit(asks, history))
            }
        };
        Ok(Self(sender))
    }

    async fn next(&self, prompt: String) -> Result<Typed, ClientError> {
        let gone = || ClientError::Input(std::io::ErrorKind::UnexpectedEof.into());
        let (reply, answer) = oneshot::channel();
        self.0
            .send(Ask::Line { prompt, reply })
            .await
            .map_err(|_| gone())?;
        let line = answer.await.map_err(|_| gone())?;
        line.map_err(|error| ClientError::Input(std::io::Error::other(error)))
    }

    async fn remember(&self, entry: &str) {
        let _ = self.0.send(Ask::Remember(entry.to_owned())).await;
    }
}

fn answer(mut asks: mpsc::Receiver<Ask>, mut typist: Typist) {
    while let Some(ask) = asks.blocking_recv() {
        if let Ask::Line { prompt, reply } = ask {
            let _ = reply.send(Ok(typist(&prompt)));
        }
    }
}

/// Answers with what is typed at the terminal. Whoever asked may have gone.
fn edit(mut asks: mpsc::Receiver<Ask>, history: Option<PathBuf>) {
    // The terminal itself, since the standard output is for data.
    let config = Config::builder()
        .behavior(Behavior::PreferTerm)
        .max_history_size(HISTORY_ENTRIES);
    let mut editor = match config.and_then(|config| DefaultEditor::with_config(config.build())) {
        Ok(editor) => editor,
        Err(error) => {
            if let Some(Ask::Line { reply, .. }) = asks.blocking_recv() {
                let _ = reply.send(Err(error));
            }
            return;
        }
    };
    if let Some(history) = &history {
        // There is none the first time.
        let _ = editor.load_history(history);
    }
    while let Some(ask) = asks.blocking_recv() {
        match ask {
            Ask::Line { prompt, reply } => {
                let line = match editor.readline(&prompt) {
                    Ok(line) => Ok(Typed::Line(line)),
                    Err(ReadlineError::Interrupted) => Ok(Typed::Interrupt),
                    Err(ReadlineError::Eof) => Ok(Typed::End),
                    Err(error) => Err(error),
                };
                let _ = reply.send(line);
            }
            Ask::Remember(entry) => {
                let _ = editor.add_history_entry(entry);
                if let Some(history) = &history {
                    // The editor makes the file for its user's eyes only.
                    let _ = editor.append_history(history);
                }
            }
        }
    }
}

/// Runs what is typed until its end.
pub(super) async fn run(
    context: &mut Context,
    execution: &mut Execution,
    options: &Sql,
) -> Result<(), ClientError> {
    let lines = Lines::open(context)?;
    let mut input = Input::default();
    execution.pauses = true;
    context
        .notes
        .line("Statements end with a semicolon; \\? for help, \\q to quit.");
    loop {
        let prompt = prompt_text(execution, options, &input);
        match next_line(context, execution, &lines, prompt).await? {
            Typed::Line(line) => input.push(&line),
            Typed::Interrupt => input.clear(),
            Typed::End => {
                context.notes.line("");
                return Ok(());
            }
        }
        while let Some(entered) = input.next(execution.strings) {
            match entered {
                Entered::Meta(Meta::Quit) => return Ok(()),
                entered => {
                    let outcome = enter(context, execution, options, &lines, entered).await;
                    if let Err(error) = outcome {
                        recover(context, execution, options, error).await?;
                        input.clear();
                    }
                }
            }
        }
    }
}

/// The next line; meanwhile an idle session is kept alive.
async fn next_line(
    context: &mut Context,
    execution: &mut Execution,
    lines: &Lines,
    prompt: String,
) -> Result<Typed, ClientError> {
    let line = lines.next(prompt);
    let mut line = std::pin::pin!(line);
    let mut ticks = interval(KEEP_ALIVE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    loop {
        tokio::select! {
            biased;
            line = &mut line => return line,
            _ = ticks.tick() => {
                let in_block = [TransactionStatus::InTransaction, TransactionStatus::Failed];
                if !in_block.contains(&execution.transaction()) {
                    // A session that is gone is noticed with the next statement.
                    let _ = session::keep_alive(context, &execution.session).await;
                }
            }
        }
    }
}

async fn enter(
    context: &mut Context,
    execution: &mut Execution,
    options: &Sql,
    lines: &Lines,
    entered: Entered,
) -> Result<(), ClientError> {
    match entered {
        Entered::Statement {
            sql: statement,
            hidden,
        } => {
            if !hidden {
                lines.remember(&format!("{statement};")).await;
            }
            if classify(&statement) == StatementKind::CopyFromStdin {
                let Some(data) = typed_data(context, lines).await? else {
                    return Ok(());
                };
                let timeout = options.statement_timeout;
                let copy = Copy {
                    sql: &statement,
                    statement_timeout: timeout,
                    lines_before: 0,
                    quiet: options.quiet,
                };
                copy_in(context, execution, copy, Cursor::new(data)).await?;
                return Ok(());
            }
            execution.run(context, options.script(&statement), 0).await?;
            while execution.is_suspended() {
                match lines.next("-- more: Enter, or q ".to_owned()).await? {
                    Typed::Line(line) if line.trim().is_empty() => execution.more(context).await?,
                    Typed::Line(_) | Typed::Interrupt | Typed::End => execution.no_more(context).await,
                }
            }
            Ok(())
        }
        Entered::Meta(Meta::Include(file)) => {
            script::run_file(
                context,
                execution,
                &file,
                &options.script(""),
                options.continues(),
            )
            .await
        }
        Entered::Meta(meta) => {
            script::simple_meta(context, execution, &meta);
            Ok(())
        }
    }
}

/// The lines of a COPY as a person types them; none where they changed their mind.
async fn typed_data(context: &mut Context, lines: &Lines) -> Result<Option<String>, ClientError> {
    context
        .notes
        .line("Enter the data, a line for each row, and \\. at the end; Ctrl-C to give up.");
    let mut data = String::new();
    loop {
        match lines.next(">> ".to_owned()).await? {
            Typed::Line(line) if line == "\\." => return Ok(Some(data)),
            Typed::Line(line) => {
                data.push_str(&line);
                data.push('\n');
            }
            Typed::End => return Ok(Some(data)),
            Typed::Interrupt => return Ok(None),
        }
    }
}

/// Tells the error and goes on; with a new session where the old one is gone. Never runs anything again.
async fn recover(
    context: &mut Context,
    execution: &mut Execution,
    options: &Sql,
    error: ClientError,
) -> Result<(), ClientError> {
    if error.exit() == Exit::OutputClosed {
        return Err(error);
    }
    if !matches!(error, ClientError::Reported(_)) {
        context.notes.text(&error_text::text(&error));
    }
    let ClientError::Status(status) = &error else {
        return Ok(());
    };
    if !session::is_lost(status) || options.session.is_some() {
        return Ok(());
    }
    let server = execution
        .session
        .name
        .split("/sessions/")
        .next()
        .unwrap_or_default()
        .to_owned();
    let mut wishes = options.session_options();
    wishes.database.clone_from(&execution.session.database);
    let opening = async |context: &mut Context| session::open_on(context, server, &wishes).await;
    match context.interruptible(opening).await {
        Ok(session) => {
            execution.session = session;
            context.notes.line(
                "a new session was opened: the transaction, temporary tables and settings of the old one are gone",
            );
        }
        Err(error) => context.notes.text(&error_text::text(&error)),
    }
    Ok(())
}

/// `server/database=> `, with `*` in a transaction, `!` in a failed one, and what is open where a statement
/// goes on.
fn prompt_text(execution: &Execution, options: &Sql, input: &Input) -> String {
    let id = execution.session.name.split('/').nth(1).unwrap_or_default();
    let server = options.server.as_deref().unwrap_or(id);
    let state = match input.open(execution.strings) {
        '=' => match execution.transaction() {
            TransactionStatus::InTransaction => '*',
            TransactionStatus::Failed => '!',
            TransactionStatus::Idle | TransactionStatus::Unspecified => '=',
        },
        open => open,
    };
    format!("{server}/{}{state}> ", execution.session.database)
}

/// The history's file, in a directory for its user's eyes only; none where there is no home.
fn history_file(context: &Context) -> Result<Option<PathBuf>, ClientError> {
    use std::os::unix::fs::DirBuilderExt as _;
    let Some(directory) = context.environment.state_directory() else {
        return Ok(None);
    };
    let made = std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&directory);
    made.map_err(ClientError::writing(&directory))?;
    Ok(Some(directory.join("sql_history")))
}
