//! What a person typed, cut into statements as they become complete.

use domain::sql::{Script, StringSyntax, TokenKind, tokens};

use super::meta::Meta;

/// Lines that are not run yet.
#[derive(Debug, Default)]
pub(super) struct Input {
    text: String,
    /// True while nothing of the first line was taken.
    line_begins: bool,
}

/// Something that can be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Entered {
    Statement {
        sql: String,
        /// Typed after a space: not for the history, which may be read by others one day. What has a
        /// password in it.
        hidden: bool,
    },
    Meta(Meta),
}

impl Input {
    /// One more line.
    pub(super) fn push(&mut self, line: &str) {
        self.line_begins |= self.text.is_empty();
        self.text.push_str(line);
        self.text.push('\n');
    }

    /// Forgets what was typed.
    pub(super) fn clear(&mut self) {
        self.text.clear();
    }

    /// The next thing that is complete, if any.
    pub(super) fn next(&mut self, strings: StringSyntax) -> Option<Entered> {
        if let Some(length) = meta_line(&self.text, strings) {
            let rest = self.text.split_off(length);
            let line = std::mem::replace(&mut self.text, rest);
            // Comments before it belong to nothing.
            let start = line
                .rfind('\n')
                .filter(|at| at + 1 < line.len())
                .map_or(0, |at| at + 1);
            let start = line.trim_end().rfind('\n').map_or(start, |at| at + 1);
            return Some(Entered::Meta(Meta::parse(&line[start..])));
        }
        let piece = Script::new(&self.text).next_piece(strings)?;
        if !is_complete(piece.text, piece.statement, strings) {
            if is_blank(&self.text, strings) {
                self.text.clear();
            }
            return None;
        }
        let (length, sql) = (piece.text.len(), piece.statement.to_owned());
        let hidden = piece.text.starts_with(' ') && self.line_begins;
        self.text.drain(..length);
        self.line_begins = false;
        if sql.is_empty() {
            self.next(strings)
        } else {
            Some(Entered::Statement { sql, hidden })
        }
    }

    /// What the prompt shows: what is open, `=` where nothing is.
    pub(super) fn open(&self, strings: StringSyntax) -> char {
        if is_blank(&self.text, strings) {
            return '=';
        }
        let mut depth = 0_usize;
        for token in tokens(&self.text, strings) {
            if !token.closed {
                return match token.kind {
                    TokenKind::QuotedName => '"',
                    TokenKind::BlockComment => '*',
                    _ if token.text.starts_with('$') => '$',
                    _ => '\'',
                };
            }
            if token.is_symbol('(') {
                depth += 1;
            } else if token.is_symbol(')') {
                depth = depth.saturating_sub(1);
            }
        }
        if depth > 0 { '(' } else { '-' }
    }
}

/// True where a piece of a script ends with its own semicolon. One within parentheses or a function's body
/// belongs to the statement, which is open still.
pub(super) fn is_complete(text: &str, statement: &str, strings: StringSyntax) -> bool {
    let last = tokens(text, strings).last();
    last.is_some_and(|token| token.is_symbol(';')) && !statement.ends_with(';')
}

fn is_blank(text: &str, strings: StringSyntax) -> bool {
    tokens(text, strings).all(|token| token.is_blank() && token.closed)
}

/// Where the text begins with a backslash command, after comments perhaps: the length up to the end of its
/// line.
pub(super) fn meta_line(text: &str, strings: StringSyntax) -> Option<usize> {
    let first = tokens(text, strings).find(|token| !token.is_blank())?;
    if !first.is_symbol('\\') {
        return None;
    }
    let line = text.get(first.start..)?;
    Some(first.start + line.find('\n').map_or(line.len(), |end| end + 1))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entered(lines: &[&str]) -> Vec<Entered> {
        let mut input = Input::default();
        let mut all = Vec::new();
        for line in lines {
            input.push(line);
            while let Some(entered) = input.next(StringSyntax::Standard) {
                all.push(entered);
            }
        }
        all
    }

    fn statements(lines: &[&str]) -> Vec<String> {
        let text = |entered| match entered {
            Entered::Statement { sql, .. } => sql,
            Entered::Meta(meta) => format!("{meta:?}"),
        };
        entered(lines).into_iter().map(text).collect()
    }

    fn open(lines: &[&str]) -> char {
        let mut input = Input::default();
        lines.iter().for_each(|line| input.push(line));
        assert_eq!(input.next(StringSyntax::Standard), None);
        input.open(StringSyntax::Standard)
    }

    #[test]
    fn statement_ends_with_its_semicolon() {
        assert_eq!(statements(&["SELECT 1", ";"]), ["SELECT 1"]);
        assert_eq!(
            statements(&["SELECT 1; SELECT 2; SELECT", "3;"]),
            ["SELECT 1", "SELECT 2", "SELECT\n3"]
        );
        assert_eq!(statements(&[";;", "SELECT 1;"]), ["SELECT 1"]);
        assert_eq!(statements(&["SELECT ';", "';"]), ["SELECT ';\n'"]);
        assert_eq!(statements(&["SELECT (1;", ");"]), ["SELECT (1;\n)"]);
        assert_eq!(statements(&["-- a;"]), [""; 0]);
        assert_eq!(
            statements(&[
                "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC",
                "SELECT 1;",
                "END;"
            ]),
            ["CREATE FUNCTION f() RETURNS int BEGIN ATOMIC\nSELECT 1;\nEND"]
        );
    }

    #[test]
    fn statement_after_a_space_is_not_for_the_history() {
        let hidden = |lines: &[&str]| -> Vec<bool> {
            let hidden = |entered| matches!(entered, Entered::Statement { hidden: true, .. });
            entered(lines).into_iter().map(hidden).collect()
        };
        assert_eq!(hidden(&[" ALTER ROLE a", "PASSWORD 'x';"]), [true]);
        assert_eq!(hidden(&["SELECT 1; SELECT 2;"]), [false, false]);
        assert_eq!(hidden(&["SELECT 1;", " SELECT 2;"]), [false, true]);
    }

    #[test]
    fn backslash_command_is_a_line_where_a_statement_could_begin() {
        assert_eq!(statements(&["\\q"]), ["Quit"]);
        assert_eq!(
            statements(&["-- note", "\\timing on", "SELECT 1;"]),
            ["Timing(Some(true))", "SELECT 1"]
        );
        assert_eq!(statements(&["SELECT '", "\\q", "';"]), ["SELECT '\n\\q\n'"]);
    }

    #[test]
    fn prompt_shows_what_is_open() {
        assert_eq!(open(&[""]), '=');
        assert_eq!(open(&["-- only a comment"]), '=');
        assert_eq!(open(&["SELECT 1"]), '-');
        assert_eq!(open(&["SELECT (1"]), '(');
        assert_eq!(open(&["SELECT 'a"]), '\'');
        assert_eq!(open(&["SELECT \"a"]), '"');
        assert_eq!(open(&["SELECT $x$ a"]), '$');
        assert_eq!(open(&["/* a"]), '*');
    }

    proptest! {
        #[test]
        fn any_lines_can_be_typed(lines in proptest::collection::vec(r#"[ ;'"$\\/*\-()a-cé]{0,12}"#, 0..6)) {
            let mut input = Input::default();
            for line in &lines {
                input.push(line);
                // Each thing entered takes something away, so this ends.
                while input.next(StringSyntax::Standard).is_some() {}
                input.open(StringSyntax::Standard);
            }
        }
    }
}
