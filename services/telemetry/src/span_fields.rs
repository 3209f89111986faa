//! The fields of a span as one JSON object, to which fields can be added cheaply.
//!
//! A call learns its ids one after the other. tracing-subscriber's own `JsonFields` reads and writes the whole
//! object again for each; this one appends. A field that is recorded twice stands in it twice, and whoever
//! reads the object takes the last.

use std::fmt;

use tracing::span::Record;
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::FormattedFields;
use tracing_subscriber::fmt::format::{FormatFields, JsonFields, Writer};

/// Formats fields for the JSON lines.
#[derive(Debug, Default)]
pub(crate) struct SpanFields(JsonFields);

impl<'writer> FormatFields<'writer> for SpanFields {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'writer>, fields: R) -> fmt::Result {
        self.0.format_fields(writer, fields)
    }

    fn add_fields(&self, current: &'writer mut FormattedFields<Self>, fields: &Record<'_>) -> fmt::Result {
        let mut added = String::new();
        self.0.format_fields(Writer::new(&mut added), fields)?;
        append(&mut current.fields, &added);
        Ok(())
    }
}

/// Adds the members of the object `added` to the object `fields`.
fn append(fields: &mut String, added: &str) {
    let members = added.strip_prefix('{').unwrap_or(added);
    if members == "}" {
        return;
    }
    match fields.strip_suffix('}').map(str::len) {
        None => added.clone_into(fields),
        Some(length) => {
            fields.truncate(length);
            if !fields.ends_with('{') {
                fields.push(',');
            }
            fields.push_str(members);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_appended_to_what_is_there() {
        for (fields, added, expected) in [
            ("", r#"{"a":1}"#, r#"{"a":1}"#),
            ("{}", r#"{"a":1}"#, r#"{"a":1}"#),
            (r#"{"a":1}"#, "{}", r#"{"a":1}"#),
            (r#"{"a":1}"#, r#"{"b":"}"}"#, r#"{"a":1,"b":"}"}"#),
        ] {
            let mut whole = fields.to_owned();
            append(&mut whole, added);
            assert_eq!(whole, expected);
        }
    }
}
