//! The ends a command reads from and writes to: the process's own, or a test's.

use std::fmt;
use std::io::{IsTerminal, Read, Write};
use std::sync::Arc;

use domain::clock::{Clock, SystemClock};
use domain::random::{Random, SystemRandom};

use crate::environment::Environment;
use crate::interrupts::Interrupts;

/// What a person does at the prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Typed {
    /// A line, without its end.
    Line(String),
    /// Ctrl-C.
    Interrupt,
    /// Ctrl-D.
    End,
}

/// Answers each prompt.
pub type Typist = Box<dyn FnMut(&str) -> Typed + Send>;

/// What a command stands on.
pub struct Io {
    /// Data goes here and nothing else.
    pub stdout: Box<dyn Write + Send>,
    /// Notices, progress and errors go here.
    pub stderr: Box<dyn Write + Send>,
    /// Data and scripts come from here where the command line says so.
    pub stdin: Box<dyn Read + Send>,
    /// True where a person types.
    pub stdin_is_terminal: bool,
    /// True where a person watches: progress is drawn.
    pub stderr_is_terminal: bool,
    /// Ctrl-C; none for the process's own SIGINT.
    pub interrupts: Option<Interrupts>,
    /// Who answers prompts; none for whoever is at the terminal.
    pub typist: Option<Typist>,
    /// The environment's variables.
    pub environment: Environment,
    /// Now.
    pub clock: Arc<dyn Clock>,
    /// Randomness for request ids and waiting times.
    pub random: Arc<dyn Random>,
}

impl Io {
    /// The ends of this process.
    #[must_use]
    pub fn process() -> Self {
        Self {
            stdout: Box::new(std::io::stdout()),
            stderr: Box::new(std::io::stderr()),
            stdin: Box::new(std::io::stdin()),
            stdin_is_terminal: std::io::stdin().is_terminal(),
            stderr_is_terminal: std::io::stderr().is_terminal(),
            interrupts: None,
            typist: None,
            environment: Environment::process(),
            clock: Arc::new(SystemClock),
            random: Arc::new(SystemRandom),
        }
    }
}

impl fmt::Debug for Io {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Io")
            .field("stdin_is_terminal", &self.stdin_is_terminal)
            .finish_non_exhaustive()
    }
}
