//! Aligned columns as psql draws them, and text that cannot steer a terminal.

use std::borrow::Cow;
use std::fmt::Write as _;

use comfy_table::{
    Cell, CellAlignment, ColumnConstraint, ContentLineStyle, LineStyle, Table, TableStyle, Width,
};

const PSQL: TableStyle = TableStyle::new()
    .header_lines(ContentLineStyle::none().junction('|'))
    .header_separator(LineStyle::none().fill('-').junction('+'))
    .content_lines(ContentLineStyle::none().junction('|'));

/// A column of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TableColumn {
    pub(crate) name: String,
    /// Numbers stand at the right.
    pub(crate) numeric: bool,
}

/// Draws a table in parts: the first decides how wide columns are at least.
#[derive(Debug)]
pub(crate) struct Aligned {
    columns: Vec<TableColumn>,
    header: bool,
    widths: Option<Vec<u16>>,
}

impl Aligned {
    pub(crate) fn new(columns: Vec<TableColumn>) -> Self {
        Self {
            columns,
            header: true,
            widths: None,
        }
    }

    /// The same without the names of the columns.
    pub(crate) fn without_header(mut self) -> Self {
        self.header = false;
        self
    }

    /// The next rows, with the header before the first.
    pub(crate) fn part(&mut self, rows: &[Vec<Option<String>>]) -> String {
        let header = self.header && self.widths.is_none();
        if self.columns.is_empty() || (rows.is_empty() && !header) {
            return String::new();
        }
        let mut table = Table::new();
        table.load_style(PSQL);
        if header {
            table.set_header(
                self.columns
                    .iter()
                    .map(|column| Cell::new(one_line(&column.name)).set_alignment(CellAlignment::Center)),
            );
        }
        for row in rows {
            table.add_row(row.iter().zip(&self.columns).map(|(value, column)| {
                let text = value.as_deref().map(printable).unwrap_or_default();
                let side = if column.numeric {
                    CellAlignment::Right
                } else {
                    CellAlignment::Left
                };
                Cell::new(text).set_alignment(side)
            }));
        }
        match &self.widths {
            Some(widths) => {
                // The boundary counts a space on either side.
                let least = widths
                    .iter()
                    .map(|width| ColumnConstraint::LowerBoundary(Width::Fixed(width + 2)));
                table.set_constraints(least);
            }
            None => self.widths = Some(table.column_max_content_widths()),
        }
        let mut text = table.trim_fmt();
        text.push('\n');
        text
    }

    /// True until the header is drawn.
    pub(crate) fn is_untouched(&self) -> bool {
        self.widths.is_none()
    }
}

/// Rows under a header, all of them.
pub(crate) fn table(columns: &[&str], rows: &[Vec<Option<String>>]) -> String {
    let columns = columns
        .iter()
        .map(|name| TableColumn {
            name: (*name).to_owned(),
            numeric: false,
        })
        .collect();
    Aligned::new(columns).part(rows)
}

/// Names with their values, one on a line.
pub(crate) fn pairs(pairs: &[(String, String)]) -> String {
    let rows: Vec<_> = pairs
        .iter()
        .map(|(name, value)| vec![Some(name.clone()), Some(value.clone())])
        .collect();
    let mut table = Table::new();
    table.load_style(PSQL);
    for row in &rows {
        table.add_row(
            row.iter()
                .map(|value| Cell::new(value.as_deref().map(printable).unwrap_or_default())),
        );
    }
    let mut text = table.trim_fmt();
    text.push('\n');
    text
}

/// The text with control characters made visible, line ends apart: what comes from a database must not steer
/// the terminal. Tabs become spaces, which keep columns aligned.
pub(crate) fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '\n' => shown.push('\n'),
            '\t' => shown.push_str("    "),
            '\r' => shown.push_str("\\r"),
            char if char.is_control() || is_direction(char) => {
                let _ = write!(shown, "\\x{:02X}", u32::from(char));
            }
            char => shown.push(char),
        }
    }
    shown
}

/// Marks that make a terminal show text in another order than it stands.
fn is_direction(char: char) -> bool {
    matches!(char, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn one_line(text: &str) -> Cow<'_, str> {
    Cow::Owned(printable(text).replace('\n', "\\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(values: &[Option<&str>]) -> Vec<Option<String>> {
        values.iter().map(|value| value.map(str::to_owned)).collect()
    }

    #[test]
    fn columns_are_aligned_as_psql_does() {
        let columns = vec![
            TableColumn {
                name: "id".into(),
                numeric: true,
            },
            TableColumn {
                name: "name".into(),
                numeric: false,
            },
        ];
        let mut aligned = Aligned::new(columns);
        let first = aligned.part(&[row(&[Some("1"), Some("Jörg")]), row(&[Some("100"), None])]);
        insta::assert_snapshot!(first, @r"
          id | name
        -----+------
           1 | Jörg
         100 |
        ");
        let second = aligned.part(&[
            row(&[Some("2"), Some("x")]),
            row(&[Some("20000"), Some("two\nlines")]),
        ]);
        insta::assert_snapshot!(second, @r"
             2 | x
         20000 | two
               | lines
        ");
    }

    #[test]
    fn second_part_is_as_wide_as_the_first() {
        let mut aligned = Aligned::new(vec![
            TableColumn {
                name: "a".into(),
                numeric: false,
            },
            TableColumn {
                name: "b".into(),
                numeric: false,
            },
        ]);
        let first = aligned.part(&[row(&[Some("12345"), Some("x")])]);
        let second = aligned.part(&[row(&[Some("1"), Some("y")])]);
        let bar = |text: &str| text.lines().last().and_then(|line| line.find('|'));
        assert_eq!(bar(&first), bar(&second));
    }

    #[test]
    fn control_characters_are_shown_and_not_sent() {
        assert_eq!(
            printable("a\u{1b}[2J\tb\u{202e}\r\nc"),
            "a\\x1B[2J    b\\x202E\\r\nc"
        );
    }
}
