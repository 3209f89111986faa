use std::collections::VecDeque;
use std::sync::Arc;

use client::{Exit, Typed};
use parking_lot::Mutex;

use crate::fake::Fake;
use crate::login::logged_in;
use crate::pgmoor::{Ends, Machine, until};

type Prompts = Arc<Mutex<Vec<String>>>;

/// Types these, then Ctrl-D.
fn typing(machine: &Machine, lines: &[Typed]) -> (Ends, Prompts) {
    let prompts = Prompts::default();
    let mut lines: VecDeque<_> = lines.iter().cloned().collect();
    let seen = Arc::clone(&prompts);
    let typist = move |prompt: &str| {
        seen.lock().push(prompt.to_owned());
        lines.pop_front().unwrap_or(Typed::End)
    };
    (machine.ends_typed(Box::new(typist)), prompts)
}

fn line(text: &str) -> Typed {
    Typed::Line(text.into())
}

#[tokio::test]
async fn statements_are_typed_over_several_lines_in_one_session() {
    let fake = Fake::start().await;
    let machine = logged_in(&fake).await;
    let typed = [
        line("SELECT"),
        line("1; BEGIN;"),
        line("SELECT x;"),
        line("SELECT '"),
        Typed::Interrupt,
        line("\\timing"),
        line("\\nonsense"),
        line("\\q"),
    ];
    let (ends, prompts) = typing(&machine, &typed);
    let (stdout, stderr) = (ends.stdout.clone(), ends.stderr.clone());
    let exit = machine.start(&["sql", "-s", "wiki", "-q"], ends).await;
    assert_eq!(
        exit,
        Exit::Success,
        "an error at the prompt is its user's to see: {}",
        stderr.text()
    );
    let expected = [
        "wiki/wiki=> ",
        "wiki/wiki-> ",
        "wiki/wiki*> ",
        "wiki/wiki!> ",
        "wiki/wiki'> ",
        "wiki/wiki!> ",
        "wiki/wiki!> ",
        "wiki/wiki!> ",
    ];
    assert_eq!(*prompts.lock(), expected);
    assert!(stdout.text().starts_with(" n | t\n"), "{}", stdout.text());
    for told in ["LINE 1: SELECT x", "Timing is on.", "\\nonsense is not known"] {
        assert!(stderr.text().contains(told), "{}", stderr.text());
    }
    assert_eq!(fake.state.count(|counts| &counts.execute), 3);
    assert_eq!(fake.state.count(|counts| &counts.close_session), 1);
}

#[tokio::test]
async fn interrupt_cancels_the_statement_and_the_session_lives_on() {
    let fake = Fake::start().await;
    let machine = logged_in(&fake).await;
    let (ends, _) = typing(&machine, &[line("SELECT pg_sleep(100);"), line("SELECT;")]);
    let (interrupter, stdout, stderr) = (ends.interrupter.clone(), ends.stdout.clone(), ends.stderr.clone());
    let command = machine.start(&["sql", "-s", "wiki"], ends);
    let interrupting = async {
        until("the statement's notice", || stderr.text().contains("asleep")).await;
        interrupter.interrupt();
    };
    let (exit, ()) = tokio::join!(command, interrupting);
    assert_eq!(exit, Exit::Success, "{}", stderr.text());
    assert!(
        stdout.text().contains("(3 rows)"),
        "the next statement ran: {}",
        stdout.text()
    );
    assert_eq!(fake.state.count(|counts| &counts.open_session), 1);
}

#[tokio::test]
async fn session_that_was_lost_is_replaced_and_nothing_run_again() {
    let fake = Fake::start().await;
    let machine = logged_in(&fake).await;
    let (ends, _) = typing(&machine, &[line("lose the session;"), line("SELECT;")]);
    let (stdout, stderr) = (ends.stdout.clone(), ends.stderr.clone());
    let exit = machine.start(&["sql", "-s", "wiki"], ends).await;
    assert_eq!(exit, Exit::Success, "{}", stderr.text());
    assert!(
        stderr.text().contains("[SESSION_STATE_LOST]"),
        "{}",
        stderr.text()
    );
    assert!(
        stderr.text().contains("a new session was opened"),
        "{}",
        stderr.text()
    );
    assert!(stdout.text().contains("(3 rows)"), "{}", stdout.text());
    assert_eq!(fake.state.count(|counts| &counts.open_session), 2);
    assert_eq!(fake.state.count(|counts| &counts.execute), 2);
}

#[tokio::test]
async fn data_of_a_copy_is_typed() {
    let fake = Fake::start().await;
    let machine = logged_in(&fake).await;
    let typed = [
        line("COPY t FROM STDIN;"),
        line("1;"),
        line("2"),
        line("\\."),
        line("SELECT;"),
    ];
    let (ends, prompts) = typing(&machine, &typed);
    let exit = machine.start(&["sql", "-s", "wiki"], ends).await;
    assert_eq!(exit, Exit::Success);
    assert_eq!(*fake.state.received.lock(), b"1;\n2\n");
    assert_eq!(prompts.lock()[1..4], [">> ", ">> ", ">> "]);
}

#[tokio::test]
async fn suspended_result_goes_on_as_long_as_enter_is_pressed() {
    let fake = Fake::start().await;
    let machine = logged_in(&fake).await;
    let typed = [
        line("SELECT by the page;"),
        line(""),
        line("q"),
        line("SELECT by the page;"),
        line(""),
    ];
    let (ends, prompts) = typing(&machine, &typed);
    let stdout = ends.stdout.clone();
    let exit = machine
        .start(
            &["sql", "-s", "wiki", "--max-rows", "2", "--on-limit", "suspend"],
            ends,
        )
        .await;
    assert_eq!(exit, Exit::Success);
    let (statement, more) = ("wiki/wiki=> ", "-- more: Enter, or q ");
    assert_eq!(
        *prompts.lock(),
        [statement, more, more, statement, more, statement]
    );
    assert_eq!(fake.state.count(|counts| &counts.fetch_more), 2);
    assert_eq!(
        fake.state.count(|counts| &counts.cancel),
        1,
        "q closes the portal"
    );
    assert_eq!(stdout.text().matches(" n | t\n").count(), 4, "{}", stdout.text());
    assert!(stdout.text().contains("(1 row)"), "{}", stdout.text());
}
