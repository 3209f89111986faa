//! A running program, as a group of processes that ends as a whole.

use std::io;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};
use tokio::time::timeout;

use super::environment::ToolEnvironment;

/// An OS user to run programs as, which takes root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OsUser {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

/// A running program. Dropping it kills its whole process group.
#[derive(Debug)]
pub struct ToolProcess {
    child: Child,
    group: Option<Pid>,
}

impl ToolProcess {
    /// Starts a program in its environment. Its output comes through pipes; it has no input.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn spawn(
        program: &Path,
        arguments: &[String],
        environment: Option<&ToolEnvironment>,
        user: Option<OsUser>,
    ) -> io::Result<Self> {
        let mut command = Command::new(program);
        command
            .args(environment.map(ToolEnvironment::database_argument))
            .args(arguments)
            .env_clear()
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        if let Some(environment) = environment {
            command
                .envs(environment.variables().iter().map(|(name, value)| (name, value)))
                .current_dir(environment.directory());
        } else {
            command.current_dir("/");
        }
        if let Some(user) = user {
            command.uid(user.uid).gid(user.gid);
        }
        let child = command.spawn()?;
        let group = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        Ok(Self { child, group })
    }

    /// The process id, while it runs.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// The program's standard output; given once.
    pub fn take_stdout(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// The program's standard error; given once.
    pub fn take_stderr(&mut self) -> Option<ChildStderr> {
        self.child.stderr.take()
    }

    /// Waits for the program to end.
    ///
    /// # Errors
    /// Where the operating system does not say how it ended.
    pub async fn wait(&mut self) -> io::Result<ExitStatus> {
        let status = self.child.wait().await?;
        // From here on the number may belong to another group.
        self.group = None;
        Ok(status)
    }

    /// Ends the program: politely, then after `grace` by force. Returns when it is gone.
    ///
    /// # Errors
    /// Where the operating system does not say how it ended.
    pub async fn end(&mut self, grace: Duration) -> io::Result<ExitStatus> {
        self.signal(Signal::TERM);
        match timeout(grace, self.wait()).await {
            Ok(status) => status,
            Err(_) => {
                self.signal(Signal::KILL);
                self.wait().await
            }
        }
    }

    fn signal(&self, signal: Signal) {
        if let Some(group) = self.group {
            // It may have ended by itself.
            let _ = kill_process_group(group, signal);
        }
    }
}

impl Drop for ToolProcess {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}
