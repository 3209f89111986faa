//! What the server says about columns, errors and tags, in the words of the contract.

use std::borrow::Cow;

use pgconn::{Field, ServerError, ServerText};
use rpc::query::v1::{Column, ServerMessage};

use super::type_name::type_name;

/// Longer fields of a message are cut.
const MOST_FIELD_BYTES: usize = 64 * 1024;

fn text(text: &ServerText) -> String {
    let text = match text.to_str_lossy() {
        Cow::Borrowed(text) => &text[..text.floor_char_boundary(MOST_FIELD_BYTES)],
        Cow::Owned(mut text) => {
            text.truncate(text.floor_char_boundary(MOST_FIELD_BYTES));
            return text;
        }
    };
    text.to_owned()
}

fn optional(field: Option<&ServerText>) -> String {
    field.map(text).unwrap_or_default()
}

fn number(field: Option<u32>) -> i32 {
    field
        .and_then(|number| i32::try_from(number).ok())
        .unwrap_or_default()
}

/// An error or notice with every field the server sent.
pub(crate) fn server_message(error: &ServerError) -> ServerMessage {
    ServerMessage {
        severity: text(&error.severity),
        sqlstate: error.sqlstate.as_str().to_owned(),
        message: text(&error.message),
        detail: optional(error.detail.as_ref()),
        hint: optional(error.hint.as_ref()),
        position: number(error.position),
        internal_position: number(error.internal_position),
        internal_query: optional(error.internal_query.as_ref()),
        r#where: optional(error.context.as_ref()),
        schema: optional(error.schema.as_ref()),
        table: optional(error.table.as_ref()),
        column: optional(error.column.as_ref()),
        data_type: optional(error.data_type.as_ref()),
        constraint: optional(error.constraint.as_ref()),
        file: optional(error.file.as_ref()),
        line: number(error.line),
        routine: optional(error.routine.as_ref()),
    }
}

/// The columns of a result set.
pub(crate) fn columns(fields: &[Field]) -> Vec<Column> {
    let column = |field: &Field| Column {
        name: text(&field.name),
        type_oid: field.type_oid,
        type_modifier: field.type_modifier,
        type_name: type_name(field.type_oid).to_owned(),
        table_oid: field.table_oid,
        table_column: field.column.into(),
    };
    fields.iter().map(column).collect()
}

/// The rows a command tag counts: the number at its end, as in `INSERT 0 1` (PostgreSQL manual, "Message Formats").
pub(crate) fn row_count(tag: &ServerText) -> Option<i64> {
    let (_, last) = tag.as_str()?.rsplit_once(' ')?;
    last.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| last.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read_from_tags_that_count() {
        for (tag, count) in [
            ("INSERT 0 5", Some(5)),
            ("SELECT 1000000", Some(1_000_000)),
            ("COPY 0", Some(0)),
            ("CREATE TABLE", None),
            ("BEGIN", None),
            ("", None),
        ] {
            assert_eq!(row_count(&ServerText::from(tag)), count, "{tag}");
        }
    }

    #[test]
    fn long_field_is_cut_between_characters() {
        let long = "é".repeat(MOST_FIELD_BYTES);
        assert_eq!(text(&ServerText::from(long.as_str())).len(), MOST_FIELD_BYTES);
        let broken = ServerText::new([b"\xff".as_slice(), &[b'x'; 70_000]].concat().into());
        assert!(text(&broken).len() <= MOST_FIELD_BYTES);
    }
}
