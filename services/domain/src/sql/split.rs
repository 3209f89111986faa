//! The statements of a script, cut where psql cuts them: at a `;` outside strings, comments, parentheses and the body
//! of a function in standard SQL (`BEGIN ATOMIC ... END`).

use super::lexer::{StringSyntax, Token, TokenKind, tokens};

/// A script that is being cut. How strings are read is asked for each piece, since a statement may change it.
#[derive(Debug, Clone)]
pub struct Script<'a> {
    sql: &'a str,
    at: usize,
    chars: usize,
}

/// A statement with the blanks before it and its `;`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece<'a> {
    /// All of it. The pieces of a script together are the script.
    pub text: &'a str,
    /// The statement: without the white space around it and without its `;`. Empty where there is nothing to run.
    pub statement: &'a str,
    /// Characters of the script before [`Piece::statement`].
    pub chars_before: usize,
}

impl<'a> Script<'a> {
    /// A script at its beginning.
    #[must_use]
    pub fn new(sql: &'a str) -> Self {
        Self { sql, at: 0, chars: 0 }
    }

    /// The next piece; nothing at the end.
    pub fn next_piece(&mut self, strings: StringSyntax) -> Option<Piece<'a>> {
        let rest = self.sql.get(self.at..).filter(|rest| !rest.is_empty())?;
        let mut block = FunctionBody::default();
        let mut parentheses = 0_usize;
        // From the first token that is not white space; to the end of the last that is neither blank nor the `;`.
        let (mut begin, mut end, mut length) = (None, 0, rest.len());
        for token in tokens(rest, strings) {
            if token.kind == TokenKind::Whitespace {
                continue;
            }
            if token.is_symbol(';') && parentheses == 0 && block.depth == 0 {
                length = token.start + 1;
                break;
            }
            begin.get_or_insert(token.start);
            if token.is_blank() {
                continue;
            }
            end = token.start + token.text.len();
            if token.is_symbol('(') {
                parentheses += 1;
            } else if token.is_symbol(')') {
                parentheses = parentheses.saturating_sub(1);
            } else if token.kind == TokenKind::Word {
                block.word(&token, parentheses);
            }
        }
        let text = rest.get(..length)?;
        let statement = begin
            .filter(|begin| *begin < end)
            .and_then(|begin| text.get(begin..end))
            .unwrap_or("");
        let before = if statement.is_empty() {
            0
        } else {
            begin.unwrap_or(0)
        };
        let chars_before = self.chars + text.get(..before)?.chars().count();
        self.at += length;
        self.chars += text.chars().count();
        Some(Piece {
            text,
            statement,
            chars_before,
        })
    }
}

/// Whether we are inside a body in standard SQL, told as psql tells it: in a statement that begins with
/// `CREATE [OR REPLACE] {FUNCTION | PROCEDURE}`, BEGIN opens, CASE inside opens too, and END closes.
#[derive(Default)]
struct FunctionBody {
    words: usize,
    /// First letters of the first four words, where they are among those that matter.
    first: [u8; 4],
    depth: usize,
}

impl FunctionBody {
    fn word(&mut self, token: &Token<'_>, parentheses: usize) {
        const HEAD: [&str; 5] = ["create", "or", "replace", "function", "procedure"];
        if let Some(slot) = self.first.get_mut(self.words)
            && HEAD.iter().any(|word| token.is_word(word))
        {
            *slot = token.text.as_bytes().first().map_or(0, u8::to_ascii_lowercase);
        }
        self.words += 1;
        let makes_function = matches!(
            self.first,
            [b'c', b'f' | b'p', ..] | [b'c', b'o', b'r', b'f' | b'p']
        );
        if !makes_function || parentheses > 0 {
            return;
        }
        if token.is_word("begin") || (token.is_word("case") && self.depth > 0) {
            self.depth += 1;
        } else if token.is_word("end") {
            self.depth = self.depth.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pieces(sql: &str) -> Vec<Piece<'_>> {
        let mut script = Script::new(sql);
        std::iter::from_fn(|| script.next_piece(StringSyntax::Standard)).collect()
    }

    fn statements(sql: &str) -> Vec<&str> {
        pieces(sql)
            .iter()
            .map(|piece| piece.statement)
            .filter(|statement| !statement.is_empty())
            .collect()
    }

    #[test]
    fn script_is_cut_at_semicolons_that_end_statements() {
        assert_eq!(
            statements("select 1; select ';' ;\n-- ;\nselect 2"),
            ["select 1", "select ';'", "-- ;\nselect 2"]
        );
        assert_eq!(statements("select (1;2); x"), ["select (1;2)", "x"]);
        assert_eq!(statements("do $$begin; end;$$; y"), ["do $$begin; end;$$", "y"]);
        assert_eq!(
            statements("create rule r as on insert to t do (select 1; select 2); z").len(),
            2
        );
    }

    #[test]
    fn nothing_to_run_is_an_empty_statement() {
        assert!(statements(" ; -- nothing\n; /* none */ ").is_empty());
        assert!(pieces("").is_empty());
    }

    #[test]
    fn body_in_standard_sql_is_one_statement() {
        let function = "create or replace function f(a int) returns int begin atomic \
                        select case when a > 1 then 1 else 2 end; select 2; end";
        assert_eq!(
            statements(&format!("{function}; select 1")),
            [function, "select 1"]
        );
        let procedure = "CREATE PROCEDURE p() BEGIN ATOMIC insert into t values (1); END";
        assert_eq!(statements(&format!("{procedure};")), [procedure]);
        // A transaction is not a body.
        assert_eq!(statements("begin; select 1; end;"), ["begin", "select 1", "end"]);
        assert_eq!(statements("create table \"function\" (); begin; x").len(), 3);
    }

    #[test]
    fn position_counts_characters_of_the_whole_script() {
        let sql = "select 'é';\n  /* ü */ select x";
        let last = pieces(sql)[1];
        assert_eq!(last.statement, "/* ü */ select x");
        assert_eq!(
            last.chars_before,
            sql.chars().count() - last.statement.chars().count()
        );
    }

    proptest! {
        #[test]
        fn pieces_together_are_the_script(sql in r#"([ \n;'"$()é]|begin|end|case|create|function|--|/\*|\*/|a){0,60}"#) {
            let joined: String = pieces(&sql).iter().map(|piece| piece.text).collect();
            prop_assert_eq!(&joined, &sql);
            for piece in pieces(&sql) {
                let rest: String = sql.chars().skip(piece.chars_before).collect();
                prop_assert!(rest.starts_with(piece.statement));
            }
        }

        #[test]
        fn any_text_is_a_script(sql in any::<String>()) {
            let joined: String = pieces(&sql).iter().map(|piece| piece.text).collect();
            prop_assert_eq!(joined, sql);
        }
    }
}
