//! Cuts SQL into tokens (PostgreSQL manual, 4.1) and never fails: what is not closed runs to the end.

/// How the server reads `'...'`: the run-time parameter `standard_conforming_strings`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StringSyntax {
    /// A backslash is an ordinary character. The server's default.
    #[default]
    Standard,
    /// A backslash escapes, as in `E'...'`.
    Escape,
}

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenKind {
    /// Spaces, tabs, line ends, form feeds.
    Whitespace,
    /// `-- ...` to the end of the line, without the line end.
    LineComment,
    /// `/* ... */`, nested as they may be.
    BlockComment,
    /// A key word or an unquoted name.
    Word,
    /// `"..."` or `U&"..."`.
    QuotedName,
    /// Any string constant, dollar-quoted ones and continued ones among them.
    String,
    /// A number.
    Number,
    /// `$1`, `$2` and so on.
    Parameter,
    /// Any other character, one at a time.
    Symbol,
}

/// A piece of SQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token<'a> {
    /// What it is.
    pub kind: TokenKind,
    /// Its text, as it stands.
    pub text: &'a str,
    /// Where it starts, in bytes.
    pub start: usize,
    /// False for a string, name or comment that is not closed.
    pub closed: bool,
}

impl Token<'_> {
    /// True for what PostgreSQL ignores.
    #[must_use]
    pub fn is_blank(&self) -> bool {
        matches!(
            self.kind,
            TokenKind::Whitespace | TokenKind::LineComment | TokenKind::BlockComment
        )
    }

    /// True for this unquoted word, in any case.
    #[must_use]
    pub fn is_word(&self, word: &str) -> bool {
        self.kind == TokenKind::Word && self.text.eq_ignore_ascii_case(word)
    }

    /// True for this character.
    #[must_use]
    pub fn is_symbol(&self, symbol: char) -> bool {
        self.kind == TokenKind::Symbol && self.text.starts_with(symbol)
    }
}

/// The tokens of `sql`, which together are `sql`.
#[must_use]
pub fn tokens(sql: &str, strings: StringSyntax) -> Tokens<'_> {
    Tokens { sql, at: 0, strings }
}

/// Iterator of [`tokens`].
#[derive(Debug, Clone)]
pub struct Tokens<'a> {
    sql: &'a str,
    at: usize,
    strings: StringSyntax,
}

impl<'a> Iterator for Tokens<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        let start = self.at;
        let rest = Rest(self.sql.as_bytes().get(start..)?);
        let (kind, length, closed) = rest.token(self.strings)?;
        // Every token ends before an ASCII byte or at the end, or takes whole characters: a slice never cuts one.
        self.at = self.sql.ceil_char_boundary(start + length);
        Some(Token {
            kind,
            text: self.sql.get(start..self.at)?,
            start,
            closed,
        })
    }
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c)
}

fn is_line_end(byte: u8) -> bool {
    matches!(byte, b'\n' | b'\r')
}

/// Any byte of a character beyond ASCII may stand in a name.
fn starts_word(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80
}

fn continues_word(byte: u8) -> bool {
    starts_word(byte) || byte.is_ascii_digit() || byte == b'$'
}

/// What has not been cut yet. Lengths are in bytes.
#[derive(Clone, Copy)]
struct Rest<'a>(&'a [u8]);

type Cut = (TokenKind, usize, bool);

impl Rest<'_> {
    fn byte(self, at: usize) -> Option<u8> {
        self.0.get(at).copied()
    }

    fn starts_with(self, at: usize, what: &[u8]) -> bool {
        self.0.get(at..).is_some_and(|rest| rest.starts_with(what))
    }

    /// Bytes from `at` on for which `holds`.
    fn span(self, at: usize, holds: impl Fn(u8) -> bool) -> usize {
        self.0
            .get(at..)
            .unwrap_or_default()
            .iter()
            .take_while(|byte| holds(**byte))
            .count()
    }

    fn token(self, strings: StringSyntax) -> Option<Cut> {
        let first = self.byte(0)?;
        let second = self.byte(1);
        Some(match (first, second) {
            (byte, _) if is_space(byte) => (TokenKind::Whitespace, self.span(0, is_space), true),
            (b'-', Some(b'-')) => (TokenKind::LineComment, self.line_comment(0), true),
            (b'/', Some(b'*')) => self.block_comment(),
            (b'\'', _) => self.string(0, strings),
            (b'e' | b'E', Some(b'\'')) => self.string(1, StringSyntax::Escape),
            (b'b' | b'B' | b'x' | b'X', Some(b'\'')) => self.string(1, StringSyntax::Standard),
            (b'u' | b'U', Some(b'&')) if self.byte(2) == Some(b'\'') => {
                self.string(2, StringSyntax::Standard)
            }
            (b'u' | b'U', Some(b'&')) if self.byte(2) == Some(b'"') => self.quoted_name(2),
            (b'"', _) => self.quoted_name(0),
            (b'$', _) => self.dollar(),
            (b'0'..=b'9', _) => (TokenKind::Number, self.number(), true),
            (b'.', Some(b'0'..=b'9')) => (TokenKind::Number, self.number(), true),
            (byte, _) if starts_word(byte) => (TokenKind::Word, self.span(0, continues_word), true),
            _ => (TokenKind::Symbol, 1, true),
        })
    }

    fn line_comment(self, at: usize) -> usize {
        self.span(at, |byte| !is_line_end(byte))
    }

    fn block_comment(self) -> Cut {
        let (mut at, mut depth) = (2, 1_usize);
        while depth > 0 {
            if self.starts_with(at, b"/*") {
                (at, depth) = (at + 2, depth + 1);
            } else if self.starts_with(at, b"*/") {
                (at, depth) = (at + 2, depth - 1);
            } else if at < self.0.len() {
                at += 1;
            } else {
                return (TokenKind::BlockComment, at, false);
            }
        }
        (TokenKind::BlockComment, at, true)
    }

    /// A string whose quote is at `quote`, with the strings that continue it: after white space with a line end, another
    /// quote goes on in the same syntax (manual, 4.1.2.1), so that `E'a'⏎'\''` is one string.
    fn string(self, quote: usize, syntax: StringSyntax) -> Cut {
        let mut end = quote + 1;
        loop {
            match self.string_end(end, syntax) {
                None => return (TokenKind::String, self.0.len(), false),
                Some(after) => end = after,
            }
            match self.continuation(end) {
                None => return (TokenKind::String, end, true),
                Some(next) => end = next + 1,
            }
        }
    }

    /// Where the string ends whose content begins at `at`.
    fn string_end(self, mut at: usize, syntax: StringSyntax) -> Option<usize> {
        loop {
            match self.byte(at)? {
                b'\'' if self.byte(at + 1) == Some(b'\'') => at += 2,
                b'\'' => return Some(at + 1),
                b'\\' if syntax == StringSyntax::Escape => at += 2,
                _ => at += 1,
            }
        }
    }

    /// Where the quote is that continues a string which ended at `at`.
    fn continuation(self, mut at: usize) -> Option<usize> {
        let mut line_end = false;
        loop {
            match self.byte(at)? {
                b'\'' => return line_end.then_some(at),
                byte if is_space(byte) => {
                    line_end |= is_line_end(byte);
                    at += 1;
                }
                b'-' if self.byte(at + 1) == Some(b'-') => at += self.line_comment(at),
                _ => return None,
            }
        }
    }

    fn quoted_name(self, quote: usize) -> Cut {
        let mut at = quote + 1;
        loop {
            at += self.span(at, |byte| byte != b'"');
            if self.byte(at).is_none() {
                return (TokenKind::QuotedName, at, false);
            }
            if self.byte(at + 1) != Some(b'"') {
                return (TokenKind::QuotedName, at + 1, true);
            }
            at += 2;
        }
    }

    /// `$1`, `$$...$$`, `$tag$...$tag$` or a lone `$`.
    fn dollar(self) -> Cut {
        let digits = self.span(1, |byte| byte.is_ascii_digit());
        if digits > 0 {
            return (TokenKind::Parameter, 1 + digits, true);
        }
        let tag = self.span(1, |byte| continues_word(byte) && byte != b'$');
        if self.byte(1 + tag) != Some(b'$') {
            return (TokenKind::Symbol, 1, true);
        }
        let open = tag + 2;
        let delimiter = &self.0[..open];
        let content = &self.0[open..];
        match find(content, delimiter) {
            Some(length) => (TokenKind::String, open + length + open, true),
            None => (TokenKind::String, self.0.len(), false),
        }
    }

    /// Digits, a point unless it begins `..`, and an exponent if it is complete.
    fn number(self) -> usize {
        let digit = |byte: u8| byte.is_ascii_digit();
        let mut end = self.span(0, digit);
        if self.byte(end) == Some(b'.') && self.byte(end + 1) != Some(b'.') {
            end += 1;
            end += self.span(end, digit);
        }
        if matches!(self.byte(end), Some(b'e' | b'E')) {
            let sign = usize::from(matches!(self.byte(end + 1), Some(b'+' | b'-')));
            let exponent = self.span(end + 1 + sign, digit);
            if exponent > 0 {
                end += 1 + sign + exponent;
            }
        }
        end
    }
}

/// Where `delimiter`, which begins and ends with `$`, first occurs. After a near miss the search goes on at its last
/// `$`, which may begin the real one.
fn find(content: &[u8], delimiter: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        at += content.get(at..)?.iter().position(|byte| *byte == b'$')?;
        if content[at..].starts_with(delimiter) {
            return Some(at);
        }
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn kinds(sql: &str) -> Vec<(TokenKind, &str)> {
        tokens(sql, StringSyntax::Standard)
            .filter(|token| token.kind != TokenKind::Whitespace)
            .map(|token| (token.kind, token.text))
            .collect()
    }

    fn only(sql: &str, kind: TokenKind) {
        assert_eq!(kinds(sql), [(kind, sql)], "{sql}");
    }

    #[test]
    fn strings_of_every_kind_are_one_token() {
        for sql in [
            "'a;b'",
            "'it''s'",
            r"'a\'",
            r"E'a\';'",
            r"e'\\'",
            "U&'\\0041;'",
            "B'01'",
            "x'ff'",
            "$$a;$b$ 'c$$",
            "$tag$ $$;$$ $tag $tag$",
            "'a'\n ';b'",
            "E'a' -- c\n'\\';'",
            "$größe$;$größe$",
        ] {
            only(sql, TokenKind::String);
        }
    }

    #[test]
    fn backslash_escapes_a_quote_only_where_the_server_says_so() {
        let sql = r"'a\';'";
        assert_eq!(tokens(sql, StringSyntax::Standard).next().unwrap().text, r"'a\'");
        assert_eq!(tokens(sql, StringSyntax::Escape).next().unwrap().text, sql);
    }

    #[test]
    fn strings_on_one_line_do_not_continue_each_other() {
        assert_eq!(
            kinds("'a' 'b'"),
            [(TokenKind::String, "'a'"), (TokenKind::String, "'b'")]
        );
    }

    #[test]
    fn names_comments_and_parameters_are_told_apart() {
        only("\"a\"\";b\"", TokenKind::QuotedName);
        only("U&\"d\\0061t;\"", TokenKind::QuotedName);
        only("/* a /* ; */ b */", TokenKind::BlockComment);
        only("-- a ; b", TokenKind::LineComment);
        only("a$b$c", TokenKind::Word);
        only("größe_1", TokenKind::Word);
        assert_eq!(
            kinds("$1$2"),
            [(TokenKind::Parameter, "$1"), (TokenKind::Parameter, "$2")]
        );
        assert_eq!(
            kinds("n'x'"),
            [(TokenKind::Word, "n"), (TokenKind::String, "'x'")]
        );
    }

    #[test]
    fn comment_inside_an_operator_is_a_comment() {
        assert_eq!(kinds("1+--;")[2], (TokenKind::LineComment, "--;"));
        assert_eq!(kinds("1*/*;*/2")[2], (TokenKind::BlockComment, "/*;*/"));
    }

    #[test]
    fn numbers_leave_what_is_not_theirs() {
        for (sql, number) in [
            ("1.5e-3;", "1.5e-3"),
            ("1..2", "1"),
            ("1e;", "1"),
            (".5,", ".5"),
            ("1.;", "1."),
        ] {
            assert_eq!(kinds(sql)[0], (TokenKind::Number, number), "{sql}");
        }
    }

    #[test]
    fn what_is_not_closed_runs_to_the_end() {
        for sql in ["'a;", "E'a\\", "\"a;", "/* /* */ ;", "$x$ $y$;"] {
            let token = tokens(sql, StringSyntax::Standard).next().unwrap();
            assert_eq!((token.text, token.closed), (sql, false));
        }
    }

    proptest! {
        #[test]
        fn tokens_together_are_the_input(sql in r#"([ \n;'"$\\/*\-().éE0-9a-cU&]|\$a\$|/\*|--){0,60}"#) {
            for strings in [StringSyntax::Standard, StringSyntax::Escape] {
                let joined: String = tokens(&sql, strings).map(|token| token.text).collect();
                prop_assert_eq!(&joined, &sql);
                prop_assert!(tokens(&sql, strings).all(|token| !token.text.is_empty()));
            }
        }

        #[test]
        fn any_text_can_be_cut(sql in any::<String>()) {
            let joined: String = tokens(&sql, StringSyntax::Escape).map(|token| token.text).collect();
            prop_assert_eq!(joined, sql);
        }
    }
}
