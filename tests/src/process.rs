//! A program that dies with the test process, however that ends.
//!
//! The program is started through a small shell script whose standard input is a pipe held by this process,
//! the *lifeline*. The script leaves a watcher behind and becomes the program, so that the program is this
//! process's direct child, with its real pid and exit status. The kernel closes the lifeline when this
//! process ends, by SIGKILL too; the watcher then stops the program, kills what is left of its process group
//! and removes its directory. A lifeline that says a word first means that this process has reaped the
//! program itself.

use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

pub use rustix::process::Signal;
use rustix::process::{Pid, kill_process};
use tempfile::TempDir;

use crate::{eventually, unprivileged};

/// How long a program may take to stop on its own before it is killed.
const GRACE: Duration = Duration::from_secs(10);

/// Arguments: stop signal, directory to remove ("" for none), then the program and its arguments.
const SCRIPT: &str = r#"
signal=$1 directory=$2
shift 2
program=$$
runs() {
    # A zombie has ended: in a container there may be nobody to reap it.
    kill -0 "$program" && ! grep -q '^State:[[:space:]]*Z' "/proc/$program/status"
}
exec 3<&0 </dev/null
(
    {
        cd /
        if ! read -r _ <&3; then
            kill -s CONT "$program"
            kill -s "$signal" "$program"
            tenths=100
            while [ "$tenths" -gt 0 ] && runs; do
                sleep 0.1
                tenths=$((tenths - 1))
            done
            kill -s KILL "$program"
            [ -z "$directory" ] || rm -rf -- "$directory"
        fi
        kill -s KILL -- "-$program"
    } >/dev/null 2>&1 &
)
exec 3<&- "$@"
"#;

/// A program about to be started.
#[derive(Debug)]
pub struct ProcessBuilder {
    name: String,
    command: Command,
    words: Vec<OsString>,
    stop_signal: Signal,
    unprivileged: bool,
    directory: Option<PathBuf>,
}

impl ProcessBuilder {
    /// Adds one argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.words.push(arg.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args(mut self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.words
            .extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Sets an environment variable of the program.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Starts the program without this process's environment, but for what [`ProcessBuilder::env`] sets
    /// afterwards.
    #[must_use]
    pub fn env_clear(mut self) -> Self {
        self.command.env_clear();
        self
    }

    /// The program's working directory; this process's own unless set.
    #[must_use]
    pub fn current_dir(mut self, directory: impl AsRef<Path>) -> Self {
        self.command.current_dir(directory);
        self
    }

    /// The name the program has in failure texts; its file name unless set.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// The signal that asks the program to stop: SIGTERM unless set.
    #[must_use]
    pub fn stop_signal(mut self, signal: Signal) -> Self {
        self.stop_signal = signal;
        self
    }

    /// Starts the program as an ordinary OS user when this process is root.
    #[must_use]
    pub fn unprivileged(mut self) -> Self {
        self.unprivileged = true;
        self
    }

    /// Keeps the logs in this directory, appended to, instead of one of its own. The caller removes it; when
    /// this process dies first, the watcher does.
    #[must_use]
    pub fn directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directory = Some(directory.into());
        self
    }

    /// Starts the program. It has no standard input.
    ///
    /// # Panics
    /// When the shell or the log files cannot be started or made. A program that does not exist ends with
    /// status 127.
    #[must_use]
    pub fn spawn(mut self) -> Process {
        let own = self.directory.is_none().then(|| {
            tempfile::Builder::new()
                .prefix("pgmoor-process-")
                .tempdir()
                .expect("a temporary directory")
        });
        let directory = match (&own, self.directory) {
            (Some(own), _) => own.path().to_path_buf(),
            (None, Some(directory)) => directory,
            (None, None) => unreachable!("own is set when directory is not"),
        };
        let prefix = if self.unprivileged {
            unprivileged::os_user()
        } else {
            None
        };
        self.command
            .args(["-c", SCRIPT, "lifeline", signal_name(self.stop_signal)])
            .arg(&directory)
            .args(prefix.map(unprivileged::OsUser::prefix).unwrap_or_default())
            .args(&self.words)
            // A group of its own: an interrupt typed at the terminal reaches the test, whose end stops the
            // program.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(log_file(&directory, "stdout.log"))
            .stderr(log_file(&directory, "stderr.log"));
        let mut child = self
            .command
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", self.name));
        let lifeline = child.stdin.take();
        let pid = Pid::from_child(&child);
        let state = Mutex::new(State {
            child,
            lifeline,
            exit: None,
        });
        Process {
            name: self.name,
            pid,
            directory,
            stop_signal: self.stop_signal,
            state,
            _own: own,
        }
    }
}

/// A running program. Dropping it asks it to stop, kills it when it does not within ten seconds, and kills
/// what it left behind in its process group.
#[derive(Debug)]
pub struct Process {
    name: String,
    pid: Pid,
    directory: PathBuf,
    stop_signal: Signal,
    state: Mutex<State>,
    _own: Option<TempDir>,
}

#[derive(Debug)]
struct State {
    child: Child,
    lifeline: Option<ChildStdin>,
    exit: Option<ExitStatus>,
}

impl Process {
    /// A program about to be started, by path or by a name on the PATH.
    #[must_use]
    pub fn builder(program: impl AsRef<OsStr>) -> ProcessBuilder {
        let program = program.as_ref();
        ProcessBuilder {
            name: Path::new(program)
                .file_name()
                .unwrap_or(program)
                .to_string_lossy()
                .into_owned(),
            command: Command::new("/bin/sh"),
            words: vec![program.to_owned()],
            stop_signal: Signal::TERM,
            unprivileged: false,
            directory: None,
        }
    }

    /// The program's process id, also of one that has ended.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// The exit status, once the program has ended.
    ///
    /// # Panics
    /// When the operating system cannot tell.
    #[must_use]
    pub fn exit(&self) -> Option<ExitStatus> {
        let mut state = self.state();
        if state.exit.is_none() {
            state.exit = state.child.try_wait().expect("a child's status can be asked for");
        }
        state.exit
    }

    /// Whether the program has not ended.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.exit().is_none()
    }

    /// Sends a signal. A program that has ended gets none, since its pid may be somebody else's by now.
    pub fn signal(&self, signal: Signal) {
        let state = self.state();
        if state.exit.is_none() {
            // Not yet reaped: at worst a zombie, for which the signal is lost.
            let _ = kill_process(self.pid, signal);
        }
    }

    /// Kills the program as `kill -9` does. Its children live on until this value is dropped.
    pub fn kill9(&self) {
        self.signal(Signal::KILL);
    }

    /// Asks the program to stop, with its stop signal.
    pub fn terminate(&self) {
        self.signal(self.stop_signal);
    }

    /// Stops the program where it is (SIGSTOP): it answers nothing and its connections stay open.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets a frozen program go on.
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// Waits until the program has ended.
    ///
    /// # Panics
    /// When it has not within `deadline`; the text has its log.
    pub async fn wait_exit(&self, deadline: Duration) -> ExitStatus {
        let what = format!("{} ends", self.name);
        eventually(deadline, &what, async || {
            self.exit().ok_or_else(|| self.description())
        })
        .await
    }

    /// Waits for a line with this text on standard output or standard error and returns the line.
    ///
    /// # Panics
    /// When there is none within `deadline`, or the program ends without it; the text has its log.
    pub async fn wait_for_line(&self, text: &str, deadline: Duration) -> String {
        let what = format!("{} writes a line with {text:?}", self.name);
        eventually(deadline, &what, async || {
            let ended = self.exit();
            let log = self.log_text();
            if let Some(line) = log.lines().find(|line| line.contains(text)) {
                return Ok(line.to_owned());
            }
            assert!(
                ended.is_none(),
                "{} ended without a line with {text:?}: {}",
                self.name,
                self.description()
            );
            Err(self.description())
        })
        .await
    }

    /// What the program wrote on standard output so far.
    #[must_use]
    pub fn stdout_text(&self) -> String {
        read_log(&self.directory, "stdout.log")
    }

    /// What the program wrote on standard error so far.
    #[must_use]
    pub fn stderr_text(&self) -> String {
        read_log(&self.directory, "stderr.log")
    }

    /// Standard output, then standard error.
    #[must_use]
    pub fn log_text(&self) -> String {
        self.stdout_text() + &self.stderr_text()
    }

    /// Does what the kernel does to the lifeline when this process dies.
    #[cfg(test)]
    pub(crate) fn cut_lifeline(&self) {
        self.state().lifeline.take();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Pid, status and log, for failure texts.
    pub(crate) fn description(&self) -> String {
        let exit = self
            .exit()
            .map_or_else(|| "running".to_owned(), |exit| exit.to_string());
        format!(
            "{} (pid {}, {exit}) wrote:\n{}",
            self.name,
            self.pid(),
            self.log_text()
        )
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.is_running() {
            self.thaw();
            self.terminate();
            let end = Instant::now() + GRACE;
            while self.is_running() && Instant::now() < end {
                std::thread::sleep(Duration::from_millis(10));
            }
            self.kill9();
        }
        let mut state = self.state();
        let _ = state.child.wait();
        // Reaped: the watcher must not signal that pid any more. It clears the rest of the process group.
        if let Some(mut lifeline) = state.lifeline.take() {
            let _ = lifeline.write_all(b"reaped\n");
        }
    }
}

fn signal_name(signal: Signal) -> &'static str {
    match signal {
        Signal::INT => "INT",
        Signal::QUIT => "QUIT",
        Signal::TERM => "TERM",
        other => panic!("no program here stops on {other:?}"),
    }
}

fn log_file(directory: &Path, name: &str) -> File {
    let path = directory.join(name);
    let file = OpenOptions::new().create(true).append(true).open(&path);
    file.unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn read_log(directory: &Path, name: &str) -> String {
    std::fs::read(directory.join(name))
        .map(|log| String::from_utf8_lossy(&log).into_owned())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    fn exists(pid: u32) -> bool {
        // A zombie counts as gone: in a container nobody may reap it.
        std::fs::read_to_string(format!("/proc/{pid}/stat"))
            .is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or_default().starts_with(" Z"))
    }

    #[tokio::test]
    async fn output_and_exit_status_are_the_programs_own() {
        let process = Process::builder("sh")
            .args(["-c", "echo out; echo err >&2; exit 3"])
            .spawn();
        assert_eq!(process.wait_exit(SOON).await.code(), Some(3));
        assert_eq!(process.stdout_text(), "out\n");
        assert_eq!(process.stderr_text(), "err\n");
    }

    #[tokio::test]
    async fn a_killed_program_is_seen_as_killed() {
        let process = Process::builder("sleep").arg("600").spawn();
        assert!(process.is_running());
        process.kill9();
        assert_eq!(process.wait_exit(SOON).await.signal(), Some(9));
    }

    #[tokio::test]
    async fn dropping_stops_the_program_and_what_it_left_behind() {
        let process = Process::builder("sh")
            .args(["-c", "sleep 600 & echo child $!; exec sleep 600"])
            .spawn();
        let line = process.wait_for_line("child ", SOON).await;
        let child: u32 = line.trim_start_matches("child ").parse().unwrap();
        let (pid, directory) = (process.pid(), process.directory.clone());
        assert!(exists(pid) && exists(child));
        drop(process);
        assert!(!exists(pid) && !directory.exists());
        eventually(SOON, "the grandchild is gone", async || !exists(child)).await;
    }

    #[tokio::test]
    async fn a_closed_lifeline_stops_the_program_and_removes_its_directory() {
        let process = Process::builder("sleep").arg("600").spawn();
        let directory = process.directory.clone();
        process.cut_lifeline();
        assert_eq!(process.wait_exit(SOON).await.signal(), Some(15));
        eventually(SOON, "the directory is gone", async || !directory.exists()).await;
    }

    #[tokio::test]
    #[should_panic(expected = "ended without a line with \"ready\"")]
    async fn waiting_for_a_line_fails_at_once_when_the_program_ends() {
        let process = Process::builder("sh").args(["-c", "echo never mind"]).spawn();
        process.wait_for_line("ready", Duration::from_secs(60)).await;
    }
}
