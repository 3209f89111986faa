//! Result sets written as CSV (RFC 4180), the way the `csv.*` settings say.
//!
//! Invariant: a reader can tell NULL from any text. NULL is the `null_text` without quotes; a text of the
//! same letters is put in quotes, as PostgreSQL's own `COPY ... (FORMAT csv)` does.

use crate::settings::{CsvDelimiter, CsvLineEnding, CsvQuoting};

/// How CSV is written.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CsvFormat {
    /// What stands between values.
    pub delimiter: CsvDelimiter,
    /// What ends a line.
    pub line_ending: CsvLineEnding,
    /// Which values stand in quotes.
    pub quoting: CsvQuoting,
    /// What stands for NULL. Free of quotes, delimiters and line breaks.
    pub null_text: String,
    /// True for a first line of the columns' names.
    pub header: bool,
}

/// A column of the result set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CsvColumn {
    /// Its name.
    pub name: String,
    /// True where its values are numbers, which `STRINGS` leaves without quotes.
    pub numeric: bool,
}

/// Writes one result set.
#[derive(Debug)]
pub struct CsvWriter {
    format: CsvFormat,
    numeric: Vec<bool>,
    text: String,
}

impl CsvWriter {
    /// Begins a result set, with its header if the format has one.
    #[must_use]
    pub fn new(format: CsvFormat, columns: &[CsvColumn]) -> Self {
        let numeric = columns.iter().map(|column| column.numeric).collect();
        let mut writer = Self {
            format,
            numeric,
            text: String::new(),
        };
        if writer.format.header {
            for (index, column) in columns.iter().enumerate() {
                writer.delimit(index);
                writer.value(&column.name, false);
            }
            writer.end_line();
        }
        writer
    }

    /// Writes a row: one value for each column, none for NULL.
    pub fn row<'a>(&mut self, values: impl IntoIterator<Item = Option<&'a str>>) {
        for (index, value) in values.into_iter().enumerate() {
            self.delimit(index);
            match value {
                Some(value) => self.value(value, self.numeric.get(index).copied().unwrap_or(false)),
                None => self.text.push_str(&self.format.null_text),
            }
        }
        self.end_line();
    }

    /// What was written so far, in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.text.len()
    }

    /// True where nothing was written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// The CSV.
    #[must_use]
    pub fn finish(self) -> String {
        self.text
    }

    fn delimit(&mut self, index: usize) {
        if index > 0 {
            self.text.push(self.format.delimiter.char());
        }
    }

    fn value(&mut self, value: &str, numeric: bool) {
        let quoted = match self.format.quoting {
            CsvQuoting::All => true,
            CsvQuoting::Strings => !numeric || self.needs_quotes(value),
            CsvQuoting::Minimal => self.needs_quotes(value),
        };
        if !quoted {
            self.text.push_str(value);
            return;
        }
        self.text.push('"');
        for (index, piece) in value.split('"').enumerate() {
            if index > 0 {
                self.text.push_str("\"\"");
            }
            self.text.push_str(piece);
        }
        self.text.push('"');
    }

    fn needs_quotes(&self, value: &str) -> bool {
        let special = |char| matches!(char, '"' | '\r' | '\n') || char == self.format.delimiter.char();
        // An empty line is no row to most readers, so an empty text is never left bare, whatever stands for
        // NULL.
        value.is_empty() || value == self.format.null_text || value.contains(special)
    }

    fn end_line(&mut self) {
        self.text.push_str(match self.format.line_ending {
            CsvLineEnding::Crlf => "\r\n",
            CsvLineEnding::Lf => "\n",
        });
    }
}

impl CsvDelimiter {
    /// The delimiter itself.
    #[must_use]
    pub const fn char(self) -> char {
        match self {
            Self::Comma => ',',
            Self::Semicolon => ';',
            Self::Tab => '\t',
            Self::Pipe => '|',
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn format() -> CsvFormat {
        CsvFormat {
            line_ending: CsvLineEnding::Lf,
            ..CsvFormat::default()
        }
    }

    fn written(format: CsvFormat, rows: &[&[Option<&str>]]) -> String {
        let columns = [("id", true), ("na,me", false)].map(|(name, numeric)| CsvColumn {
            name: name.to_owned(),
            numeric,
        });
        let mut writer = CsvWriter::new(format, &columns);
        for row in rows {
            writer.row(row.iter().copied());
        }
        writer.finish()
    }

    #[test]
    fn minimal_quotes_what_needs_it() {
        let rows: &[&[_]] = &[
            &[Some("1"), Some("plain")],
            &[Some("2"), Some("a,b")],
            &[Some("3"), Some("say \"hi\"")],
            &[Some("4"), Some("two\nlines")],
        ];
        let expected = "1,plain\n2,\"a,b\"\n3,\"say \"\"hi\"\"\"\n4,\"two\nlines\"\n";
        assert_eq!(written(format(), rows), expected);
    }

    #[test]
    fn null_can_be_told_from_a_text() {
        let rows: &[&[_]] = &[&[None, Some("")], &[Some("5"), None]];
        assert_eq!(written(format(), rows), ",\"\"\n5,\n");
        let named = CsvFormat {
            null_text: "NULL".to_owned(),
            ..format()
        };
        assert_eq!(written(named, &[&[None, Some("NULL")]]), "NULL,\"NULL\"\n");
        let all = CsvFormat {
            quoting: CsvQuoting::All,
            ..format()
        };
        assert_eq!(written(all, &[&[None, Some("x")]]), ",\"x\"\n");
    }

    #[test]
    fn strings_leaves_numbers_bare() {
        let strings = CsvFormat {
            quoting: CsvQuoting::Strings,
            ..format()
        };
        assert_eq!(written(strings.clone(), &[&[Some("1"), Some("1")]]), "1,\"1\"\n");
        let comma = CsvFormat {
            null_text: "1".to_owned(),
            ..strings
        };
        assert_eq!(written(comma, &[&[Some("1"), None]]), "\"1\",1\n");
    }

    #[test]
    fn header_delimiter_and_line_ending_are_as_set() {
        let format = CsvFormat {
            header: true,
            delimiter: CsvDelimiter::Semicolon,
            ..CsvFormat::default()
        };
        assert_eq!(
            written(format, &[&[Some("1"), Some("a,b;c")]]),
            "id;na,me\r\n1;\"a,b;c\"\r\n"
        );
    }

    /// Reads what [`CsvWriter`] wrote: a bare field that equals the NULL text is NULL.
    fn read(text: &str, format: &CsvFormat) -> Vec<Vec<Option<String>>> {
        let mut chars = text.chars().peekable();
        let (mut rows, mut row) = (Vec::new(), Vec::new());
        while chars.peek().is_some() {
            let mut field = String::new();
            let quoted = chars.next_if_eq(&'"').is_some();
            while let Some(char) = chars.peek().copied() {
                let delimits = matches!(char, '\r' | '\n') || char == format.delimiter.char();
                if quoted && char == '"' {
                    chars.next();
                    if chars.next_if_eq(&'"').is_none() {
                        break;
                    }
                } else if !quoted && delimits {
                    break;
                } else {
                    chars.next();
                }
                field.push(char);
            }
            row.push((quoted || field != format.null_text).then_some(field));
            if chars.next_if_eq(&format.delimiter.char()).is_none() {
                chars.next_if_eq(&'\r');
                assert_eq!(chars.next(), Some('\n'));
                rows.push(std::mem::take(&mut row));
            }
        }
        rows
    }

    proptest::proptest! {
        #[test]
        fn whatever_is_written_can_be_read_back(
            rows in proptest::collection::vec(
                proptest::array::uniform2(proptest::option::of("[a,;|\t\r\n\"N1]{0,4}")),
                0..4,
            ),
            choices in (0..4_usize, 0..3_usize, 0..2_usize, 0..2_usize),
        ) {
            let format = CsvFormat {
                delimiter: CsvDelimiter::from_word(CsvDelimiter::WORDS[choices.0]),
                quoting: CsvQuoting::from_word(CsvQuoting::WORDS[choices.1]),
                line_ending: CsvLineEnding::from_word(CsvLineEnding::WORDS[choices.2]),
                null_text: ["", "N"][choices.3].to_owned(),
                header: false,
            };
            let columns = ["a", "b"].map(|name| CsvColumn { name: name.to_owned(), numeric: name == "a" });
            let mut writer = CsvWriter::new(format.clone(), &columns);
            for row in &rows {
                writer.row(row.iter().map(Option::as_deref));
            }
            let expected: Vec<Vec<_>> = rows.into_iter().map(Vec::from).collect();
            proptest::prop_assert_eq!(read(&writer.finish(), &format), expected);
        }
    }
}
