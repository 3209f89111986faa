//! What is in an archive, by the table of contents that `pg_restore --list` prints.
//!
//! A table of contents is what the archive says of itself: pg_dump's is true, a forged one need not be. What a restore may
//! do in the end is the role's, as in a session.

/// Kinds of entries that live in a schema, in the words of pg_dump. A kind that is not here is above schema level, one that
/// a later pg_dump invents included.
const IN_A_SCHEMA: &[&str] = &[
    "AGGREGATE",
    "CHECK CONSTRAINT",
    "COLLATION",
    "COMMENT",
    "CONSTRAINT",
    "CONVERSION",
    "DEFAULT",
    "DOMAIN",
    "FK CONSTRAINT",
    "FOREIGN TABLE",
    "FUNCTION",
    "INDEX",
    "INDEX ATTACH",
    "MATERIALIZED VIEW",
    "MATERIALIZED VIEW DATA",
    "OPERATOR",
    "OPERATOR CLASS",
    "OPERATOR FAMILY",
    "POLICY",
    "PROCEDURE",
    "ROW SECURITY",
    "RULE",
    "SECURITY LABEL",
    "SEQUENCE",
    "SEQUENCE OWNED BY",
    "SEQUENCE SET",
    "SHELL TYPE",
    "STATISTICS",
    "STATISTICS DATA",
    "TABLE",
    "TABLE ATTACH",
    "TABLE DATA",
    "TEXT SEARCH CONFIGURATION",
    "TEXT SEARCH DICTIONARY",
    "TEXT SEARCH PARSER",
    "TEXT SEARCH TEMPLATE",
    "TRIGGER",
    "TYPE",
    "VIEW",
];

/// A schema itself, and what is said about one.
const OF_A_SCHEMA: &[&str] = &["SCHEMA - ", "COMMENT - SCHEMA ", "SECURITY LABEL - SCHEMA "];

/// Entries above schema level that are kept.
const NAMED: usize = 5;
/// Characters of each.
const NAMED_CHARS: usize = 100;
/// Most bytes of a line that are looked at.
const LINE_BYTES: usize = 16 * 1024;

/// PostgreSQL's own schemas.
fn is_of_the_system(schema: &str) -> bool {
    schema.starts_with("pg_") || schema == "information_schema"
}

/// What a table of contents says, read while it arrives: it may have millions of entries, and is not kept.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Contents {
    entries: u64,
    above: u64,
    first_above: Vec<String>,
    /// The line that has not ended yet.
    line: Vec<u8>,
}

impl Contents {
    /// Takes the next bytes, wherever they are cut.
    pub fn take(&mut self, mut bytes: &[u8]) {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            self.extend_line(&bytes[..end]);
            self.end_line();
            bytes = &bytes[end + 1..];
        }
        self.extend_line(bytes);
    }

    /// No more comes.
    pub fn end(&mut self) {
        self.end_line();
        self.line = Vec::new();
    }

    /// How many entries it has.
    #[must_use]
    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// How many entries are neither in a schema of users nor such a schema.
    #[must_use]
    pub fn above_schemas(&self) -> u64 {
        self.above
    }

    /// The first of those, each as pg_restore prints it: kind, schema or `-`, name, owner. A long one is cut.
    #[must_use]
    pub fn first_above_schemas(&self) -> &[String] {
        &self.first_above
    }

    /// A longer line is cut: what it is about is said at its beginning.
    fn extend_line(&mut self, part: &[u8]) {
        let room = LINE_BYTES.saturating_sub(self.line.len());
        self.line.extend_from_slice(&part[..part.len().min(room)]);
    }

    fn end_line(&mut self) {
        let bytes = std::mem::take(&mut self.line);
        let text = String::from_utf8_lossy(&bytes);
        self.take_line(text.strip_suffix('\r').unwrap_or(&text));
        // To be filled again.
        self.line = bytes;
        self.line.clear();
    }

    fn take_line(&mut self, line: &str) {
        let entry = entry(line);
        self.entries += u64::from(entry.is_some());
        let above = match entry {
            Some(entry) => !is_within_schemas(entry),
            // A line that is no entry is nothing that could be allowed.
            None => !line.is_empty() && !line.starts_with(';'),
        };
        if !above {
            return;
        }
        self.above += 1;
        if self.first_above.len() < NAMED {
            let told = entry.unwrap_or(line).trim_end();
            self.first_above.push(told.chars().take(NAMED_CHARS).collect());
        }
    }
}

/// `TABLE DATA public t postgres` of `3351; 0 16390 TABLE DATA public t postgres`. Comments begin with a semicolon.
fn entry(line: &str) -> Option<&str> {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let (id, rest) = line.split_once("; ")?;
    let mut parts = rest.splitn(3, ' ');
    let (table, object, entry) = (parts.next()?, parts.next()?, parts.next()?);
    (is_number(id) && is_number(table) && is_number(object)).then_some(entry)
}

fn is_within_schemas(entry: &str) -> bool {
    if let Some(schema) = OF_A_SCHEMA.iter().find_map(|kind| entry.strip_prefix(kind)) {
        return !is_of_the_system(schema.split(' ').next().unwrap_or(schema));
    }
    // Of two kinds that begin alike the longer one is meant: `TABLE DATA`, and not `TABLE` in the schema `DATA`.
    let after = |kind: &&str| entry.strip_prefix(*kind)?.strip_prefix(' ');
    let Some(rest) = IN_A_SCHEMA.iter().filter_map(after).min_by_key(|rest| rest.len()) else {
        return false;
    };
    // Names may hold blanks; a schema's first word is enough to tell.
    let schema = rest.split(' ').next().unwrap_or(rest);
    schema != "-" && !schema.is_empty() && !is_of_the_system(schema)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a text that comes in pieces of so many bytes.
    fn read(text: &str, piece: usize) -> Contents {
        let mut contents = Contents::default();
        for piece in text.as_bytes().chunks(piece) {
            contents.take(piece);
        }
        contents.end();
        contents
    }

    #[test]
    fn entries_are_counted_without_comments() {
        let text = ";\n; Archive created at 2026-01-01\n;     TOC Entries: 2\n;\n5; 2615 2200 SCHEMA - a b\n3351; 0 16390 TABLE DATA a t b\n";
        for piece in [1, 7, text.len()] {
            let contents = read(text, piece);
            assert_eq!((contents.entries(), contents.above_schemas()), (2, 0));
        }
        assert_eq!(read("", 1), Contents::default());
    }

    #[test]
    fn only_schemas_and_what_is_in_them_is_within_schemas() {
        for (entry, is_within) in [
            ("SCHEMA - shop ann", true),
            ("SCHEMA - pg_own ann", false),
            ("COMMENT - SCHEMA shop ann", true),
            ("COMMENT - EXTENSION pgcrypto ", false),
            ("COMMENT - DATABASE orders ann", false),
            ("COMMENT shop COLUMN orders.id ann", true),
            ("TABLE shop orders ann", true),
            ("TABLE DATA shop orders ann", true),
            ("TABLE two words t ann", true),
            ("TABLE - orders ann", false),
            ("TABLE pg_catalog pg_class ann", false),
            ("VIEW information_schema tables ann", false),
            ("SEQUENCE OWNED BY shop orders_id_seq ann", true),
            ("FUNCTION shop f(integer, text) ann", true),
            ("EXTENSION - pgcrypto ", false),
            ("EVENT TRIGGER - on_ddl ann", false),
            ("PUBLICATION - p ann", false),
            ("PUBLICATION TABLE shop p orders ann", false),
            ("PUBLICATION TABLES IN SCHEMA - p shop ann", false),
            ("SUBSCRIPTION - s ann", false),
            ("PROCEDURAL LANGUAGE - plperl ann", false),
            ("FOREIGN DATA WRAPPER - w ann", false),
            ("SERVER - other ann", false),
            ("USER MAPPING - USER MAPPING ann SERVER other ann", false),
            ("CAST - CAST (text AS shop.mood) ", false),
            ("TRANSFORM - TRANSFORM FOR integer LANGUAGE plperl ", false),
            ("ACCESS METHOD - heap2 ", false),
            ("BLOB - 16400 ann", false),
            ("BLOBS - BLOBS ", false),
            ("BLOB METADATA - 16400..16500 ann", false),
            ("DATABASE - orders ann", false),
            ("DATABASE PROPERTIES - orders ann", false),
            ("A KIND OF TOMORROW shop x ann", false),
        ] {
            let text = format!("; comment\n\n7; 1259 16390 {entry}\n");
            let expected = if is_within {
                Vec::new()
            } else {
                vec![entry.trim_end()]
            };
            let contents = read(&text, 5);
            assert_eq!(contents.first_above_schemas(), expected, "{entry}");
            assert_eq!(contents.above_schemas(), expected.len() as u64, "{entry}");
        }
    }

    #[test]
    fn line_that_is_no_entry_is_not_within_schemas() {
        for line in [
            "TABLE shop orders ann",
            "x; 1 2 TABLE shop orders ann",
            "7; TABLE shop",
        ] {
            assert_eq!(read(line, 4).first_above_schemas(), [line]);
        }
    }

    #[test]
    fn little_is_kept_of_many_and_long_entries() {
        let long = "\u{e4}".repeat(LINE_BYTES);
        let text =
            format!("7; 0 0 PUBLICATION - {long} ann\n7; 1259 1 TABLE shop {long} ann\r\n").repeat(1000);
        let contents = read(&text, 100_000);
        assert_eq!((contents.entries(), contents.above_schemas()), (2000, 1000));
        let kept: Vec<_> = contents
            .first_above_schemas()
            .iter()
            .map(|entry| entry.chars().count())
            .collect();
        assert_eq!(kept, [NAMED_CHARS; NAMED]);
        assert!(contents.line.capacity() <= 2 * LINE_BYTES);
    }
}
