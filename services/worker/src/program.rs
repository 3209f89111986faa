//! Running a program: its output goes to a sink, its messages to the journal, and it ends when the operation is stopped.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use target::tools::{Step, ToolProcess, step};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::failure::{Failure, Halt};
use crate::journal::Journal;
use crate::stop::Stop;

/// How long a program has to end by itself when it is told to.
const GRACE: Duration = Duration::from_secs(5);
/// Bytes read from a program at once.
const READ_BYTES: usize = 256 * 1024;
/// Longest line that is put together; a longer one is cut.
const LINE_BYTES: usize = 16 * 1024;

/// Where a program's output goes.
pub(crate) trait Sink: Send {
    /// Takes the next bytes; the program waits meanwhile.
    fn take(&mut self, bytes: Bytes) -> impl Future<Output = Result<(), Halt>> + Send;
}

/// For a program that has nothing to say but messages.
#[derive(Debug)]
pub(crate) struct Nowhere;

impl Sink for Nowhere {
    async fn take(&mut self, _: Bytes) -> Result<(), Halt> {
        Ok(())
    }
}

/// Runs a program to its end. It failed where it says so or where the sink does.
pub(crate) async fn run(
    mut process: ToolProcess,
    journal: &Journal,
    stop: &Stop,
    sink: &mut impl Sink,
) -> Result<(), Halt> {
    let (Some(stdout), Some(stderr)) = (process.take_stdout(), process.take_stderr()) else {
        return Err(Failure::tool("the program has no output".to_owned(), None).into());
    };
    let pumped = stop
        .guard(async { tokio::try_join!(pump(stdout, sink), log_lines(stderr, journal)) })
        .await;
    let ended = match pumped {
        Ok(Ok(_)) => stop.guard(process.wait()).await.map_err(Halt::from),
        Ok(Err(halt)) => Err(halt),
        Err(interrupted) => Err(interrupted.into()),
    };
    let status = match ended {
        Ok(status) => status.map_err(|error| Failure::internal("the program's end is not known", &error))?,
        Err(halt) => {
            if let Err(error) = process.end(GRACE).await {
                tracing::error!(%error, "the end of a program is not known");
            }
            return Err(halt);
        }
    };
    if status.success() {
        return Ok(());
    }
    let tail = journal.tail();
    let message = if tail.is_empty() {
        format!("the program ended with {status}")
    } else {
        tail
    };
    Err(Failure::tool(message, status.code()).into())
}

async fn pump(mut stdout: impl AsyncRead + Unpin + Send, sink: &mut impl Sink) -> Result<(), Halt> {
    loop {
        let mut buffer = BytesMut::with_capacity(READ_BYTES);
        let read = stdout.read_buf(&mut buffer).await;
        match read.map_err(|error| Failure::internal("the program's output cannot be read", &error))? {
            0 => return Ok(()),
            _ => sink.take(buffer.freeze()).await?,
        }
    }
}

async fn log_lines(mut stderr: impl AsyncRead + Unpin + Send, journal: &Journal) -> Result<(), Halt> {
    let mut buffer = BytesMut::new();
    loop {
        let read = stderr.read_buf(&mut buffer).await;
        let read =
            read.map_err(|error| Failure::internal("the program's messages cannot be read", &error))?;
        while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
            let line = buffer.split_to(end + 1);
            log_line(&line[..end], journal);
        }
        if buffer.len() > LINE_BYTES || (read == 0 && !buffer.is_empty()) {
            log_line(&buffer.split(), journal);
        }
        if read == 0 {
            return Ok(());
        }
    }
}

fn log_line(line: &[u8], journal: &Journal) {
    let line = String::from_utf8_lossy(line);
    if matches!(step(&line), Some(Step::Dumping | Step::Restoring)) {
        journal.update(|progress| {
            progress.objects_done += 1;
            progress.objects_total = progress
                .objects_total
                .map(|total| total.max(progress.objects_done));
        });
    }
    journal.line(&line);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn messages_are_cut_into_lines_and_steps_counted() {
        let journal = Journal::new(1_000_000);
        let text = format!(
            "pg_dump: dumping contents of table \"a\"\n\n{}\nlast \u{fc} without end",
            "x".repeat(50_000)
        );
        log_lines(text.as_bytes(), &journal).await.unwrap();
        assert_eq!(journal.progress().objects_done, 1);
        assert!(
            journal.tail().ends_with("\nlast ü without end"),
            "{}",
            journal.tail()
        );
    }
}
