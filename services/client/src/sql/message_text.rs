//! PostgreSQL's messages as psql shows them, with the line of the script an error points at.

use std::fmt::Write as _;

use rpc::query::v1::{ServerMessage, SqlError};

use crate::output::table::printable;

/// A line longer than this is shown around the place in question.
const LINE_CHARS: usize = 72;

/// An SQL error in the script it comes from; `lines_before` are lines of the user's text that precede the
/// script.
pub(super) fn sql_error(error: &SqlError, sql: &str, lines_before: usize) -> String {
    let Some(message) = &error.message else {
        return "ERROR:  unknown\n".to_owned();
    };
    let mut text = format!("{}:  {}\n", severity(message), message.message);
    let position = usize::try_from(error.script_position).unwrap_or_default();
    if let Some((number, line, before)) = place(sql, position) {
        let (shown, caret) = excerpt(&line, before);
        let label = format!("LINE {}: ", number + lines_before);
        let _ = writeln!(text, "{label}{shown}");
        let _ = writeln!(text, "{}^", " ".repeat(label.len() + caret));
    }
    rest(message, &mut text);
    let _ = writeln!(text, "SQLSTATE:  {}", message.sqlstate);
    printable(&text)
}

/// A notice or a warning.
pub(super) fn message(message: &ServerMessage) -> String {
    let mut text = format!("{}:  {}\n", severity(message), message.message);
    rest(message, &mut text);
    printable(&text)
}

fn severity(message: &ServerMessage) -> &str {
    if message.severity.is_empty() {
        "ERROR"
    } else {
        &message.severity
    }
}

fn rest(message: &ServerMessage, text: &mut String) {
    for (label, value) in [
        ("DETAIL", &message.detail),
        ("HINT", &message.hint),
        ("QUERY", &message.internal_query),
        ("CONTEXT", &message.r#where),
    ] {
        if !value.is_empty() {
            let _ = writeln!(text, "{label}:  {value}");
        }
    }
}

/// The line, counted from 1, that a position in characters from 1 is in, and how many of its characters are
/// before it.
fn place(sql: &str, position: usize) -> Option<(usize, String, usize)> {
    let index = position.checked_sub(1)?;
    let (mut number, mut start) = (1, 0);
    for (at, char) in sql.chars().enumerate().take(index) {
        if char == '\n' {
            (number, start) = (number + 1, at + 1);
        }
    }
    // A statement's end is a place too.
    if index > sql.chars().count() {
        return None;
    }
    let line: String = sql
        .chars()
        .skip(start)
        .take_while(|char| *char != '\n' && *char != '\r')
        .collect();
    Some((number, line, index - start))
}

/// The part of a line around a place, and how many columns are before it. Wide characters count two.
fn excerpt(line: &str, before: usize) -> (String, usize) {
    // One column for each character of ASCII, so that tabs and control characters do not shift the caret.
    let chars: Vec<char> = line
        .chars()
        .map(|char| if char.is_control() { ' ' } else { char })
        .collect();
    let before = before.min(chars.len());
    if chars.len() <= LINE_CHARS {
        return (chars.iter().collect(), columns(&chars[..before]));
    }
    let start = before
        .saturating_sub(LINE_CHARS / 2)
        .min(chars.len() - LINE_CHARS);
    let end = start + LINE_CHARS;
    let lead = if start > 0 { "..." } else { "" };
    let tail = if end < chars.len() { "..." } else { "" };
    let shown: String = chars[start..end].iter().collect();
    (
        format!("{lead}{shown}{tail}"),
        lead.len() + columns(&chars[start..before]),
    )
}

/// How wide a terminal shows a text.
fn columns(chars: &[char]) -> usize {
    let mut table = comfy_table::Table::new();
    table.set_header([chars.iter().collect::<String>()]);
    table
        .column_max_content_widths()
        .first()
        .copied()
        .map_or(0, usize::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(position: i32) -> SqlError {
        let message = ServerMessage {
            severity: "ERROR".into(),
            sqlstate: "42703".into(),
            message: "column \"prise\" does not exist".into(),
            hint: "Perhaps you meant \"price\".".into(),
            ..ServerMessage::default()
        };
        SqlError {
            message: Some(message),
            script_position: position,
            ..SqlError::default()
        }
    }

    #[test]
    fn caret_points_at_the_place_in_the_script() {
        let sql = "SELECT 1;\nSELECT 'größe', prise\n  FROM items";
        let position = sql.chars().take_while(|char| *char != 'p').count() + 1;
        insta::assert_snapshot!(sql_error(&error(i32::try_from(position).unwrap()), sql, 10), @r#"
        ERROR:  column "prise" does not exist
        LINE 12: SELECT 'größe', prise
                                 ^
        HINT:  Perhaps you meant "price".
        SQLSTATE:  42703
        "#);
    }

    #[test]
    fn long_line_is_shown_around_the_place() {
        let sql = format!("SELECT {}, prise, {}", "a".repeat(200), "b".repeat(200));
        let position = sql.find("prise").unwrap() + 1;
        let text = sql_error(&error(i32::try_from(position).unwrap()), &sql, 0);
        let mut lines = text.lines().skip(1);
        let (line, caret) = (lines.next().unwrap(), lines.next().unwrap());
        assert!(
            line.starts_with("LINE 1: ...aaa") && line.ends_with("bbb..."),
            "{line}"
        );
        assert_eq!(caret.find('^'), line.find("prise"));
    }

    #[test]
    fn wide_characters_and_tabs_do_not_shift_the_caret() {
        let text = sql_error(&error(9), "SELECT\t\u{6f22}x", 0);
        let mut lines = text.lines().skip(1);
        assert_eq!(lines.next(), Some("LINE 1: SELECT \u{6f22}x"));
        assert_eq!(lines.next().unwrap().find('^'), Some("LINE 1: SELECT ".len() + 2));
    }

    #[test]
    fn error_without_a_place_has_no_line() {
        for position in [0, -1, 1000] {
            let text = sql_error(&error(position), "SELECT 1", 0);
            assert!(!text.contains("LINE"), "{text}");
        }
    }
}
