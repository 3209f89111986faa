use std::io::{Cursor, Write};

use client::Exit;

use crate::fake::Fake;
use crate::login::logged_in;
use crate::pgmoor::until;

fn opened_and_closed(fake: &Fake) {
    assert_eq!(fake.state.count(|counts| &counts.open_session), 1);
    assert_eq!(fake.state.count(|counts| &counts.close_session), 1);
}

#[tokio::test]
async fn rows_go_to_stdout_and_tags_to_stderr() {
    let fake = Fake::start().await;
    let machine = logged_in(&fake).await;
    let done = machine.run(&["sql", "-s", "wiki", "-c", "SELECT"]).await;
    assert_eq!(done.exit, Exit::Success, "{}", done.stderr);
    insta::assert_snapshot!(done.stdout, @r"
     n | t
    ---+---
     1 |
     2 |
     3 |
    (3 rows)
    ");
    assert_eq!(done.stderr, "INSERT 0 1\n");
    opened_and_closed(&fake);
    let done = machine
        .run(&["sql", "-s", "test/wiki", "-c", "SELECT", "-q", "--format", "csv"])
        .await;
    assert_eq!(
        (done.stdout.as_str(), done.stderr.as_str()),
        ("n;t\n1;NULL\n2;NULL\n3;NULL\n", "")
    );
    let done = machine
        .run(&["sql", "-s", "servers/3", "-At", "-c", "SELECT"])
        .await;
    assert_eq!(done.stdout, "1|\n2|\n3|\n");
    let done = machine
        .run_with(&["sql", "-s", "wiki", "--format", "json"], "SELECT")
        .await;
    assert_eq!(
        done.stdout.lines().next(),
        Some(r#"{"n":1,"t":null}"#),
        "without -c and -f the input is the script"
    );
}

#[tokio::test]
async fn rows_are_written_while_the_statement_runs() {
    let fake = Fake::start().await;
    let machine = logged_in(&fake).await;
    for format in ["csv", "json", "table"] {
        let ends = machine.ends(std::io::empty());
        let stdout = ends.stdout.clone();
        let command = machine.start(
            &["sql", "-s", "wiki", "-c", "SELECT slowly", "--format", format],
            ends,
        );
        let looking = async {
            until("rows of a statement that has not ended", || {
                stdout.text().lines().count() > 1000
            })
            .await;
            fake.state.proceed.notify_one();
        };
        let (exit, ()) = tokio::join!(command, looking);
        assert_eq!(exit, Exit::Success);
        let rows = stdout
            .text()
            .lines()
            .filter(|line| line.contains(char::is_numeric))
            .count();
        assert!(rows >= 300_002, "{format}: {rows}");
    }
}

#[tokio::test]
async fn sql_error_is_shown_as_psql_does_and_the_session_closed() {
    let fake = Fake::start().await;
    let machine = logged_in(&fake).await;
    let done = machine
        .run(&["sql", "-s", "wiki", "-c", "SELECT 1;\n SELECT x", "-c", "SELECT"])
        .await;
    assert_eq!(done.exit, Exit::Failed);
    insta::assert_snapshot!(done.stderr, @r#"
    ERROR:  column "x" does not exist
    LINE 2:  SELECT x
                    ^
    SQLSTATE:  42703
    "#);
    assert!(
        done.stdout.contains("(1 row)"),
        "what succeeded before is shown: {}",
        done.stdout
    );
    assert_eq!(
        fake.state.count(|counts| &counts.execute),
        1,
        "the next command is not run"
    );
    opened_and_closed(&fake);
}

#[tokio::test]
async fn interrupt_cancels_the_statement_and_closes_the_session() {
    let fake = Fake::start().await;
    let machine = logged_in(&fake).await;
    let ends = machine.ends(std::io::empty());
    let (interrupter, stderr) = (ends.interrupter.clone(), ends.stderr.clone());
    let command = machine.start(&["sql", "-s", "wiki", "-c", "SELECT pg_sleep(100)"], ends);
    let interrupting = async {
        until("the statement's notice", || stderr.text() == "NOTICE:  asleep\n").await;
        interrupter.interrupt();
    };
    let (exit, ()) = tokio::join!(command, interrupting);
    assert_eq!(exit, Exit::Interrupted, "{}", stderr.text());
    assert_eq!(stderr.text(), "NOTICE:  asleep\ncancelled\n");
    assert_eq!(fake.state.count(|counts| &counts.cancel), 1);
    opened_and_closed(&fake);
}

#[tokio::test]
async fn statement_whose_answer_breaks_off_is_not_sent_again() {
    let fake = Fake::start().await;
    let machine = logged_in(&fake).await;
    let done = machine.run(&["sql", "-s", "wiki", "-c", "break off"]).await;
    assert_eq!(done.exit, Exit::Unavailable);
    assert!(
        done.stdout.contains(" 0 |"),
        "what came is shown: {}",
        done.stdout
    );
    assert!(done.stderr.contains("it ended: cancelled"), "{}", done.stderr);
    assert_eq!(fake.state.count(|counts| &counts.execute), 1);
    opened_and_closed(&fake);
}

#[tokio::test]
async fn statement_whose_answer_breaks_off_is_read_on() {
    let fake = Fake::start().await;
    let machine = logged_in(&fake).await;
    let done = machine
        .run(&["sql", "-s", "wiki", "--format", "csv", "-c", "go on"])
        .await;
    assert_eq!((done.exit, done.stderr.as_str()), (Exit::Success, ""));
    assert_eq!(done.stdout, "n;t\n0;NULL\n1;NULL\n2;NULL\n3;NULL\n");
    assert_eq!(fake.state.count(|counts| &counts.execute), 1);
    assert_eq!(fake.state.count(|counts| &counts.resume), 1);
    opened_and_closed(&fake);
}

#[tokio::test]
async fn what_became_of_a_commit_whose_answer_was_lost_is_said() {
    let fake = Fake::start().await;
    let machine = logged_in(&fake).await;
    let done = machine.run(&["sql", "-s", "wiki", "-c", "COMMIT"]).await;
    assert_eq!(done.exit, Exit::Unavailable);
    assert!(
        done.stderr.contains("note: the commit took effect"),
        "{}",
        done.stderr
    );
    let done = machine.run(&["sql", "-s", "wiki", "-c", "END"]).await;
    assert_eq!(done.exit, Exit::Failed);
    let said = "error: the connection to PostgreSQL was lost\nnote: the commit took effect\n";
    assert!(done.stderr.contains(said), "{}", done.stderr);
    assert_eq!(fake.state.count(|counts| &counts.execute), 2);
}

#[tokio::test]
async fn session_that_cannot_be_opened_is_asked_for_once() {
    let fake = Fake::start().await;
    let machine = logged_in(&fake).await;
    fake.state
        .unavailable
        .store(1, std::sync::atomic::Ordering::SeqCst);
    let done = machine.run(&["sql", "-s", "servers/3", "-c", "SELECT"]).await;
    assert_eq!(done.exit, Exit::Unavailable);
    assert_eq!(fake.state.count(|counts| &counts.open_session), 1);
}

#[tokio::test]
async fn copy_reads_the_standard_input() {
    let fake = Fake::start().await;
    let machine = logged_in(&fake).await;
    let done = machine
        .run_with(&["sql", "-s", "wiki", "-c", "COPY t FROM STDIN;"], "1\n2\n")
        .await;
    assert_eq!(done.exit, Exit::Success, "{}", done.stderr);
    assert_eq!(*fake.state.received.lock(), b"1\n2\n");
    assert_eq!(done.stderr, "COPY 2\n");
}

#[tokio::test]
async fn dump_with_inline_data_is_run_in_order() {
    let fake = Fake::start().await;
    let machine = logged_in(&fake).await;
    let file = machine.path("dump.sql");
    std::fs::write(
        &file,
        "\\restrict k\nSET a = 1;\nCOPY t FROM stdin;\n1;\n2\n\\.\nSET b = 2;\n",
    )
    .unwrap();
    let file = file.to_str().unwrap();
    let done = machine
        .run(&["sql", "-s", "wiki", "-q", "--on-error", "stop", "-f", file])
        .await;
    assert_eq!(done.exit, Exit::Success, "{}", done.stderr);
    assert_eq!(*fake.state.received.lock(), b"1;\n2\n");
    assert_eq!(fake.state.count(|counts| &counts.execute), 2);
    opened_and_closed(&fake);
}

#[tokio::test]
async fn session_can_be_left_open_and_used_again() {
    let fake = Fake::start().await;
    let machine = logged_in(&fake).await;
    let done = machine
        .run(&["sql", "-s", "wiki", "--open", "-q", "-At", "-c", "SELECT"])
        .await;
    assert_eq!(done.stdout.lines().next(), Some(crate::fake::SESSION));
    let done = machine
        .run(&["sql", "--session", crate::fake::SESSION, "-c", "SELECT"])
        .await;
    assert_eq!(done.exit, Exit::Success, "{}", done.stderr);
    let done = machine
        .run(&["sql", "--session", "servers/3/sessions/none", "-c", "SELECT"])
        .await;
    assert_eq!(done.exit, Exit::NotFound);
    assert_eq!(fake.state.count(|counts| &counts.open_session), 1);
    assert_eq!(fake.state.count(|counts| &counts.close_session), 0);
}

/// A reader that goes away after the first block, as `head` does.
struct Head(usize);

impl Write for Head {
    fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
        if self.0 > 0 {
            return Err(std::io::ErrorKind::BrokenPipe.into());
        }
        self.0 += 1;
        Ok(data.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn reader_that_goes_away_ends_the_statement_and_the_session() {
    let fake = Fake::start().await;
    let machine = logged_in(&fake).await;
    let ends = machine.ends_into(Box::new(Head(0)));
    let exit = machine
        .start(&["sql", "-s", "wiki", "-At", "-c", "endless"], ends)
        .await;
    assert_eq!(exit, Exit::OutputClosed);
    opened_and_closed(&fake);
}

#[tokio::test]
async fn input_that_breaks_copies_nothing() {
    struct Broken(Cursor<&'static [u8]>);
    impl std::io::Read for Broken {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            match self.0.read(buffer)? {
                0 => Err(std::io::Error::other("the disk is gone")),
                length => Ok(length),
            }
        }
    }
    let fake = Fake::start().await;
    let machine = logged_in(&fake).await;
    let ends = machine.ends(Broken(Cursor::new(b"1\n")));
    let stderr = ends.stderr.clone();
    let exit = machine
        .start(&["sql", "-s", "wiki", "-c", "COPY t FROM STDIN"], ends)
        .await;
    assert_eq!(exit, Exit::Failed);
    assert!(stderr.text().contains("the disk is gone"), "{}", stderr.text());
    assert!(
        !stderr.text().contains("COPY 2"),
        "the call was given up, not finished"
    );
}

/// A reader that never reads, as a pager that waits for its user.
struct Stuck(std::sync::mpsc::Receiver<()>);

impl Write for Stuck {
    fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
        // Ends when the test does.
        let _ = self.0.recv();
        Err(std::io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn reader_that_does_not_read_does_not_hold_ctrl_c_up() {
    let fake = Fake::start().await;
    let machine = logged_in(&fake).await;
    let (_stays, receiver) = std::sync::mpsc::channel();
    let ends = machine.ends_into(Box::new(Stuck(receiver)));
    let (interrupter, stderr) = (ends.interrupter.clone(), ends.stderr.clone());
    let command = machine.start(&["sql", "-s", "wiki", "-At", "-c", "endless"], ends);
    let interrupting = async {
        until("the statement's notice", || stderr.text().contains("endless")).await;
        interrupter.interrupt();
        until("its cancellation", || {
            fake.state.count(|counts| &counts.cancel) == 1
        })
        .await;
        interrupter.interrupt();
    };
    let (exit, ()) = tokio::join!(command, interrupting);
    assert_eq!(exit, Exit::Interrupted);
    opened_and_closed(&fake);
}

#[tokio::test]
async fn recovered_session_goes_on_where_it_held_nothing() {
    let fake = Fake::start().await;
    let machine = logged_in(&fake).await;
    let done = machine
        .run(&[
            "sql",
            "-s",
            "wiki",
            "--auto",
            "-c",
            "be recovered",
            "-c",
            "be recovered",
        ])
        .await;
    assert_eq!(done.exit, Exit::Success, "{}", done.stderr);
    assert_eq!(
        done.stderr.matches("goes on on another").count(),
        1,
        "{}",
        done.stderr
    );
    assert_eq!(done.stderr.matches("DONE").count(), 2, "{}", done.stderr);
    assert_eq!(fake.state.count(|counts| &counts.execute), 3);
}

#[tokio::test]
async fn recovered_session_that_held_something_is_left_to_its_user() {
    let fake = Fake::start().await;
    let machine = logged_in(&fake).await;
    let done = machine
        .run(&["sql", "-s", "wiki", "-c", "BEGIN", "-c", "be recovered"])
        .await;
    assert_ne!(done.exit, Exit::Success);
    assert!(done.stderr.contains("[SESSION_RECOVERED]"), "{}", done.stderr);
    assert_eq!(fake.state.count(|counts| &counts.execute), 2);
}

#[tokio::test]
async fn suspended_result_is_fetched_to_its_end_where_nobody_can_be_asked() {
    let fake = Fake::start().await;
    let machine = logged_in(&fake).await;
    let args = [
        "sql",
        "-s",
        "wiki",
        "-c",
        "SELECT by the page",
        "--on-limit",
        "suspend",
    ];
    let done = machine.run(&args).await;
    assert_eq!(done.exit, Exit::Success, "{}", done.stderr);
    assert!(done.stdout.contains("(5 rows)"), "one result: {}", done.stdout);
    assert_eq!(fake.state.count(|counts| &counts.fetch_more), 2);
}
