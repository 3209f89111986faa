//! Runs a command as the binary would, with its ends in memory.

use std::io::{Cursor, Read, Write};
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use client::{Command, Environment, Exit, Globals, Interrupter, Io, run};
use domain::clock::SystemClock;
use domain::random::SystemRandom;
use parking_lot::Mutex;
use tempfile::TempDir;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: Command,
}

/// Bytes that a command wrote.
#[derive(Clone, Default)]
pub struct Written(Arc<Mutex<Vec<u8>>>);

impl Written {
    pub fn text(&self) -> String {
        String::from_utf8(self.0.lock().clone()).unwrap()
    }
}

impl Write for Written {
    fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A user's machine: where profiles and logins are.
pub struct Machine {
    home: TempDir,
    pub url: String,
}

/// What a command did.
#[derive(Debug)]
pub struct Done {
    pub exit: Exit,
    pub stdout: String,
    pub stderr: String,
}

/// A command's ends, to look at while it runs.
pub struct Ends {
    pub stdout: Written,
    pub stderr: Written,
    pub interrupter: Interrupter,
    io: Io,
}

impl Machine {
    pub fn new(url: &str) -> Self {
        Self {
            home: TempDir::new().unwrap(),
            url: url.to_owned(),
        }
    }

    pub fn path(&self, name: &str) -> std::path::PathBuf {
        self.home.path().join(name)
    }

    pub fn ends(&self, stdin: impl Read + Send + 'static) -> Ends {
        let (stdout, stderr) = (Written::default(), Written::default());
        let (interrupter, interrupts) = Interrupter::new();
        let environment = Environment {
            config_home: Some(self.home.path().to_owned()),
            state_home: Some(self.home.path().to_owned()),
            ..Environment::default()
        };
        let io = Io {
            stdout: Box::new(stdout.clone()),
            stderr: Box::new(stderr.clone()),
            stdin: Box::new(stdin),
            stdin_is_terminal: false,
            stderr_is_terminal: false,
            interrupts: Some(interrupts),
            typist: None,
            environment,
            clock: Arc::new(SystemClock),
            random: Arc::new(SystemRandom),
        };
        Ends {
            stdout,
            stderr,
            interrupter,
            io,
        }
    }

    /// Runs a command to its end.
    pub async fn run(&self, arguments: &[&str]) -> Done {
        self.run_with(arguments, "").await
    }

    /// Runs a command that reads this.
    pub async fn run_with(&self, arguments: &[&str], stdin: &str) -> Done {
        let ends = self.ends(Cursor::new(stdin.to_owned()));
        let (stdout, stderr) = (ends.stdout.clone(), ends.stderr.clone());
        let exit = self.start(arguments, ends).await;
        Done {
            exit,
            stdout: stdout.text(),
            stderr: stderr.text(),
        }
    }

    /// Runs a command with these ends.
    pub fn start(&self, arguments: &[&str], ends: Ends) -> impl Future<Output = Exit> + use<> {
        let all = ["pgmoor", "--server-url", &self.url]
            .into_iter()
            .chain(arguments.iter().copied());
        let cli = Cli::try_parse_from(all).unwrap_or_else(|error| panic!("{error}"));
        async move {
            let running = run(cli.command, cli.globals, ends.io);
            tokio::time::timeout(Duration::from_secs(60), running)
                .await
                .expect("the command ends")
        }
    }

    /// Ends with a person who answers prompts.
    pub fn ends_typed(&self, typist: client::Typist) -> Ends {
        let mut ends = self.ends(std::io::empty());
        ends.io.stdin_is_terminal = true;
        ends.io.typist = Some(typist);
        ends
    }

    /// Ends with a writer of the test's for the data.
    pub fn ends_into(&self, stdout: Box<dyn Write + Send>) -> Ends {
        let mut ends = self.ends(std::io::empty());
        ends.io.stdout = stdout;
        ends
    }
}

/// What clap makes of a command line.
pub fn parse(arguments: &[&str]) -> Result<(), clap::Error> {
    Cli::try_parse_from(["pgmoor"].into_iter().chain(arguments.iter().copied())).map(|_| ())
}

/// Waits until something is so.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let looking = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), looking)
        .await
        .unwrap_or_else(|_| panic!("did not happen: {what}"));
}
