//! Exit statuses: one for each thing a script calling us can do about it.

/// What the process tells its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It worked.
    Success,
    /// The server refused, or an SQL statement failed.
    Failed,
    /// The command line is wrong.
    Usage,
    /// Nobody is logged in, or whoever is may not do this.
    Denied,
    /// There is no such thing, or it may not be seen.
    NotFound,
    /// The server cannot be reached, or did not answer in time.
    Unavailable,
    /// Ctrl-C.
    Interrupted,
    /// Whoever read the standard output went away: what a shell shows for SIGPIPE.
    OutputClosed,
}

/// The exit statuses as `--help` explains them.
pub const EXIT_STATUS_HELP: &str = "\
Exit status of the client's commands:
  0    success
  1    the server refused the call, or an SQL statement failed
  2    the command line is wrong
  3    not logged in, or not allowed
  4    not found
  5    the server is not available, or the time was over
  130  interrupted
  141  the reader of the output went away";

impl Exit {
    /// The status as a number.
    #[must_use]
    pub const fn status(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Denied => 3,
            Self::NotFound => 4,
            Self::Unavailable => 5,
            Self::Interrupted => 130,
            Self::OutputClosed => 141,
        }
    }
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.status())
    }
}
