//! What is kept of a statement. The values in it never are, unless the operator wants the whole text.
//!
//! A statement's form is its tokens without comments, with `?` for every constant and one space between them; its
//! fingerprint is a hash of the form.

use data_encoding::HEXLOWER;
use domain::sql::{StringSyntax, TokenKind, tokens};
use sha2::{Digest as _, Sha256};

/// Bytes of a statement that its form is made of. Of a longer one, its length goes into the fingerprint too.
const MOST_READ: usize = 64 * 1024;
/// Bytes of text that are kept.
const MOST_KEPT: usize = 8 * 1024;

/// What of a statement's text is kept beside its fingerprint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StatementText {
    /// Nothing.
    #[default]
    Fingerprint,
    /// Its form.
    Normalized,
    /// All of it, with the constants that stand in it. Values of parameters are kept in no case.
    Full,
}

/// What is kept of a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// 16 hexadecimal digits, the same for all statements of one form.
    pub fingerprint: String,
    /// The text, as far as it is wanted.
    pub text: String,
}

impl Statement {
    /// Of this SQL; of an empty one nothing.
    #[must_use]
    pub fn of(sql: &str, wanted: StatementText) -> Self {
        if sql.is_empty() {
            return Self {
                fingerprint: String::new(),
                text: String::new(),
            };
        }
        let read = cut(sql, MOST_READ);
        let form = form(read, StringSyntax::Standard);
        let text = match wanted {
            StatementText::Fingerprint => String::new(),
            StatementText::Full => cut(sql, MOST_KEPT).to_owned(),
            StatementText::Normalized if is_clear(read, &form) => cut(&form, MOST_KEPT).to_owned(),
            StatementText::Normalized => String::new(),
        };
        let mut hash = Sha256::new();
        hash.update(&form);
        if read.len() < sql.len() {
            hash.update((sql.len() as u64).to_be_bytes());
        }
        Self {
            fingerprint: HEXLOWER.encode(&hash.finalize()[..8]),
            text,
        }
    }
}

/// True where the text has one reading. With `standard_conforming_strings` off a backslash may move the end of a string, and
/// what looks like a word may be part of a value.
fn is_clear(sql: &str, form_of_it: &str) -> bool {
    let closed = |syntax| tokens(sql, syntax).all(|token| token.closed);
    closed(StringSyntax::Standard)
        && closed(StringSyntax::Escape)
        && form(sql, StringSyntax::Escape) == form_of_it
}

fn form(sql: &str, strings: StringSyntax) -> String {
    let mut form = String::with_capacity(sql.len().min(256));
    let mut constants = 0_usize;
    for token in tokens(sql, strings).filter(|token| !token.is_blank()) {
        let is_constant = matches!(token.kind, TokenKind::String | TokenKind::Number);
        // A list of constants is one, however long it is.
        if is_constant && constants > 0 && form.ends_with("? ,") {
            form.truncate(form.len() - 2);
            continue;
        }
        constants += usize::from(is_constant);
        if !form.is_empty() {
            form.push(' ');
        }
        match token.kind {
            TokenKind::String | TokenKind::Number => form.push('?'),
            TokenKind::Word => form.extend(token.text.chars().map(|char| char.to_ascii_lowercase())),
            _ => form.push_str(token.text),
        }
    }
    form
}

fn cut(text: &str, most: usize) -> &str {
    text.get(..text.floor_char_boundary(most)).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normalized(sql: &str) -> String {
        Statement::of(sql, StatementText::Normalized).text
    }

    fn fingerprint(sql: &str) -> String {
        Statement::of(sql, StatementText::Fingerprint).fingerprint
    }

    #[test]
    fn statements_of_one_form_have_one_fingerprint() {
        let one = "SELECT * FROM t WHERE a = 1 AND b IN (1, 2, 3) -- why";
        let other = "select *\nfrom t where a = 'x' and b in ($$y$$)";
        assert_eq!(normalized(one), "select * from t where a = ? and b in ( ? )");
        assert_eq!(fingerprint(one), fingerprint(other));
        assert_eq!(fingerprint(one).len(), 16);
        assert_ne!(fingerprint(one), fingerprint("SELECT * FROM t WHERE a = 1"));
        assert_ne!(fingerprint("SELECT \"A\""), fingerprint("SELECT \"a\""));
    }

    #[test]
    fn no_value_is_left_in_a_form() {
        let canary = "c4n4ry";
        for sql in [
            "ALTER ROLE x PASSWORD 'c4n4ry'",
            "ALTER ROLE x PASSWORD E'\\'c4n4ry'",
            "ALTER ROLE x PASSWORD $$c4n4ry$$",
            "ALTER ROLE x PASSWORD $q$c4n4ry$q$",
            "ALTER ROLE x PASSWORD U&'c4n4ry'",
            "SELECT 'a'\n'c4n4ry'",
            "SELECT 'a\\' c4n4ry '",
            "SELECT 'a\\'' || c4n4ry || '",
            "SELECT 'a /* c4n4ry",
            "SELECT $$ c4n4ry",
            "/* c4n4ry */ SELECT 1 -- c4n4ry",
        ] {
            assert!(!normalized(sql).contains(canary), "{sql}");
            assert_eq!(Statement::of(sql, StatementText::Fingerprint).text, "");
            assert_eq!(Statement::of(sql, StatementText::Full).text, sql);
        }
    }

    #[test]
    fn long_statements_are_told_apart_by_their_length() {
        let long = |rows: usize| format!("SELECT {}", "a + ".repeat(rows));
        assert_ne!(fingerprint(&long(100_000)), fingerprint(&long(100_001)));
        let kept = Statement::of(&"ü".repeat(100_000), StatementText::Full).text;
        assert!(kept.len() <= MOST_KEPT);
    }

    proptest::proptest! {
        #[test]
        fn any_text_has_a_form(sql in ".{0,200}") {
            let statement = Statement::of(&sql, StatementText::Normalized);
            assert!(statement.text.len() <= MOST_KEPT);
        }
    }
}
