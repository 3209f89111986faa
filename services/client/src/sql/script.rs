//! Scripts that are not typed: `-c` and `-f`. A file is read as psql reads one, with the data of a COPY in
//! the lines after it and a few backslash commands.

use std::io::{Cursor, Read as _};
use std::path::Path;

use domain::sql::{Script as Pieces, StatementKind, StringSyntax, classify};
use rpc::query::v1::{OnError, Script, ScriptMode};
use rpc::settings::v1::GetSettingRequest;
use rpc::settings::v1::setting_value::Kind as SettingKind;

use super::copy_in::{Copy, copy_in};
use super::execution::{Ended, Execution};
use super::input::{is_complete, meta_line};
use super::meta::{HELP, Meta};
use crate::context::Context;
use crate::error::ClientError;
use crate::exit::Exit;

/// A script up to this size is sent as it is: the API takes 16 MiB.
const WHOLE_BYTES: usize = 8 * 1024 * 1024;
/// Statements of a larger one are sent together up to this size.
const BATCH_BYTES: usize = 1024 * 1024;
/// Files that run files that run files.
const MAX_DEPTH: usize = 16;

/// A part of a file.
#[derive(Debug, PartialEq, Eq)]
enum Step<'a> {
    Statements {
        sql: &'a str,
        lines_before: usize,
    },
    Copy {
        sql: &'a str,
        data: &'a str,
        lines_before: usize,
    },
    Meta(Meta),
}

/// Runs what `-c` gave.
pub(super) async fn run_command(
    context: &mut Context,
    execution: &mut Execution,
    script: Script,
    continues: bool,
) -> Result<(), ClientError> {
    let mut pieces = Pieces::new(&script.sql);
    let first = pieces
        .next_piece(execution.strings)
        .map(|piece| piece.statement)
        .unwrap_or_default();
    let alone =
        std::iter::from_fn(|| pieces.next_piece(execution.strings)).all(|piece| piece.statement.is_empty());
    let ended = if alone && classify(first) == StatementKind::CopyFromStdin {
        let copy = Copy {
            sql: first,
            statement_timeout: timeout_of(&script),
            lines_before: 0,
            quiet: false,
        };
        let stdin = context.take_stdin()?;
        copy_in(context, execution, copy, stdin).await?
    } else {
        execution.run(context, script, 0).await?
    };
    settle(ended, continues)
}

fn timeout_of(script: &Script) -> Option<std::time::Duration> {
    script
        .statement_timeout
        .and_then(|timeout| std::time::Duration::try_from(timeout).ok())
}

/// Whether the next script follows.
fn settle(ended: Ended, continues: bool) -> Result<(), ClientError> {
    if ended.interrupted {
        return Err(ClientError::Reported(Exit::Interrupted));
    }
    if ended.is_success() || continues {
        Ok(())
    } else {
        Err(ClientError::Reported(Exit::Failed))
    }
}

/// Runs a file; `-` is the standard input.
pub(super) async fn run_file(
    context: &mut Context,
    execution: &mut Execution,
    file: &Path,
    options: &Script,
    continues: bool,
) -> Result<(), ClientError> {
    Box::pin(run_nested(context, execution, file, options, continues, 0)).await
}

async fn run_nested(
    context: &mut Context,
    execution: &mut Execution,
    file: &Path,
    options: &Script,
    continues: bool,
    depth: usize,
) -> Result<(), ClientError> {
    if depth >= MAX_DEPTH {
        return Err(ClientError::usage(format!(
            "{} is included too deeply",
            file.display()
        )));
    }
    let text = read(context, file)?;
    let steps = steps(&text, execution.strings);
    if let [] | [Step::Statements { .. }] = steps.as_slice()
        && text.len() <= WHOLE_BYTES
    {
        let script = Script {
            sql: text,
            ..options.clone()
        };
        return settle(execution.run(context, script, 0).await?, continues);
    }
    if options.mode() == ScriptMode::OneMessage {
        return Err(ClientError::usage(format!(
            "{} cannot be sent as one message: it has the data of a COPY or a backslash command in it, or more than \
             {WHOLE_BYTES} bytes",
            file.display()
        )));
    }
    let continues =
        continues || (options.on_error() == OnError::Unspecified && continues_by_setting(context).await?);
    for step in steps {
        let ended = match step {
            Step::Statements { sql, lines_before } => {
                let mut script = Script {
                    sql: sql.to_owned(),
                    ..options.clone()
                };
                script.set_mode(ScriptMode::Split);
                execution.run(context, script, lines_before).await?
            }
            Step::Copy {
                sql,
                data,
                lines_before,
            } => {
                let copy = Copy {
                    sql,
                    statement_timeout: timeout_of(options),
                    lines_before,
                    quiet: false,
                };
                copy_in(context, execution, copy, Cursor::new(data.to_owned())).await?
            }
            Step::Meta(Meta::Quit) => return Ok(()),
            Step::Meta(Meta::Include(included)) => {
                Box::pin(run_nested(
                    context,
                    execution,
                    &included,
                    options,
                    continues,
                    depth + 1,
                ))
                .await?;
                continue;
            }
            Step::Meta(meta) => {
                let known = simple_meta(context, execution, &meta);
                if !known && !continues {
                    return Err(ClientError::Reported(Exit::Failed));
                }
                continue;
            }
        };
        settle(ended, continues)?;
    }
    Ok(())
}

/// Carries out a command that runs no SQL. False where there is no such command.
pub(super) fn simple_meta(context: &mut Context, execution: &mut Execution, meta: &Meta) -> bool {
    match meta {
        Meta::Help => context.notes.text(HELP),
        Meta::Timing(wish) => {
            execution.timing = wish.unwrap_or(!execution.timing);
            let state = if execution.timing { "on" } else { "off" };
            context.notes.line(&format!("Timing is {state}."));
        }
        Meta::ConnectionInfo => {
            let session = &execution.session;
            context.notes.line(&format!(
                "database {} as {}, backend {}, session {}",
                session.database, session.username, session.backend_pid, session.name
            ));
        }
        Meta::Unknown(line) => {
            context
                .notes
                .line(&format!("error: {line} is not known; \\? lists what there is"));
            execution.note_failure();
            return false;
        }
        Meta::Quit | Meta::Include(_) | Meta::Nothing => {}
    }
    true
}

async fn continues_by_setting(context: &mut Context) -> Result<bool, ClientError> {
    let client = context.connection()?.settings();
    let request = GetSettingRequest {
        name: "users/me/settings/query.on_error".to_owned(),
    };
    let answer = context
        .read(async || client.clone().get_setting(request.clone()).await)
        .await?;
    let kind = answer
        .setting
        .and_then(|setting| setting.value)
        .and_then(|value| value.kind);
    Ok(matches!(kind, Some(SettingKind::StringValue(word)) if word == "CONTINUE"))
}

fn read(context: &mut Context, file: &Path) -> Result<String, ClientError> {
    let mut text = String::new();
    if file == Path::new("-") {
        context
            .take_stdin()?
            .read_to_string(&mut text)
            .map_err(ClientError::Input)?;
        return Ok(text);
    }
    std::fs::read_to_string(file).map_err(ClientError::reading(file))
}

/// Cuts a file where something else than statements follows, and where it is too large to send whole.
fn steps(text: &str, strings: StringSyntax) -> Vec<Step<'_>> {
    let mut steps = Vec::new();
    let whole = text.len() <= WHOLE_BYTES;
    // Statements that are not in a step yet: from `start` to `at`.
    let (mut start, mut at) = (0, 0);
    let (mut lines, mut counted) = (0, 0);
    let mut lines_before = |to: usize| {
        lines += text.get(counted..to).map_or(0, |part| part.matches('\n').count());
        counted = to;
        lines
    };
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        let meta = meta_line(rest, strings);
        let piece = Pieces::new(rest).next_piece(strings);
        let copy = piece.filter(|piece| {
            is_complete(piece.text, piece.statement, strings)
                && classify(piece.statement) == StatementKind::CopyFromStdin
        });
        let full = !whole && at - start >= BATCH_BYTES;
        if (meta.is_some() || copy.is_some() || full) && start < at {
            flush(&mut steps, text, start, at, &mut lines_before);
            start = at;
        }
        if let Some(length) = meta {
            let line = rest.get(..length).unwrap_or_default().trim_end();
            let line = line.rfind('\n').map_or(line, |end| &line[end + 1..]);
            steps.push(Step::Meta(Meta::parse(line)));
            at += length;
            start = at;
        } else if let Some(piece) = copy {
            let begin = at + piece.text.find(piece.statement).unwrap_or_default();
            let after = rest.get(piece.text.len()..).unwrap_or_default();
            let line_end = after.find('\n').map_or(after.len(), |end| end + 1);
            let (data, taken) = inline_data(after.get(line_end..).unwrap_or_default());
            steps.push(Step::Copy {
                sql: piece.statement,
                data,
                lines_before: lines_before(begin),
            });
            at += piece.text.len() + line_end + taken;
            start = at;
        } else {
            at += piece.map_or(rest.len(), |piece| piece.text.len());
        }
    }
    if start < at {
        flush(&mut steps, text, start, at, &mut lines_before);
    }
    steps
}

fn flush<'a>(
    steps: &mut Vec<Step<'a>>,
    text: &'a str,
    start: usize,
    end: usize,
    lines_before: &mut impl FnMut(usize) -> usize,
) {
    let sql = text.get(start..end).unwrap_or_default();
    if !sql.trim().is_empty() {
        steps.push(Step::Statements {
            sql,
            lines_before: lines_before(start),
        });
    }
}

/// The lines up to `\.`, and how many bytes there are with it.
fn inline_data(text: &str) -> (&str, usize) {
    let mut length = 0;
    for line in text.split_inclusive('\n') {
        if matches!(line.trim_end_matches(['\r', '\n']), "\\.") {
            return (&text[..length], length + line.len());
        }
        length += line.len();
    }
    (text, text.len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cut(text: &str) -> Vec<Step<'_>> {
        steps(text, StringSyntax::Standard)
    }

    #[test]
    fn plain_script_is_one_step() {
        let text = "-- c\nSELECT 1;\nSELECT ';' -- end\n";
        assert_eq!(
            cut(text),
            [Step::Statements {
                sql: text,
                lines_before: 0
            }]
        );
        assert_eq!(cut(" \n"), []);
    }

    #[test]
    fn dump_is_cut_at_its_data() {
        let text = "\\restrict x\nSET a = b;\n\nCOPY t (a, b) FROM stdin;\n1\tx;\n2\t'y\n\\.\n\nSELECT 1;\n\\unrestrict x\n";
        assert_eq!(
            cut(text),
            [
                Step::Meta(Meta::Nothing),
                Step::Statements {
                    sql: "SET a = b;",
                    lines_before: 1
                },
                Step::Copy {
                    sql: "COPY t (a, b) FROM stdin",
                    data: "1\tx;\n2\t'y\n",
                    lines_before: 3
                },
                Step::Statements {
                    sql: "\nSELECT 1;",
                    lines_before: 7
                },
                Step::Meta(Meta::Nothing),
            ]
        );
    }

    #[test]
    fn data_without_an_end_goes_to_the_end_of_the_file() {
        let text = "COPY t FROM STDIN;\r\n1\r\n";
        assert_eq!(
            cut(text),
            [Step::Copy {
                sql: "COPY t FROM STDIN",
                data: "1\r\n",
                lines_before: 0
            }]
        );
    }

    #[test]
    fn large_script_is_sent_in_batches_that_are_all_of_it() {
        let text = "SELECT 'abcdefghijklmnopqrstuvwxyz';\n".repeat(WHOLE_BYTES / 30);
        let steps = cut(&text);
        assert!(steps.len() > 5);
        let mut joined = String::new();
        for step in &steps {
            let Step::Statements { sql, lines_before } = step else {
                panic!("{step:?}")
            };
            assert_eq!(*lines_before, joined.matches('\n').count());
            joined.push_str(sql);
        }
        assert_eq!(joined.trim_end(), text.trim_end());
    }

    proptest! {
        #[test]
        fn any_text_can_be_cut(text in r#"([ \n;'"$\\/*\-().a-c]|COPY t FROM STDIN;|\\\.\n|\\q\n){0,40}"#) {
            cut(&text);
        }
    }
}
