//! What a resource shows of itself in a table and in CSV. JSON shows all of it.

use domain::csv::{CsvColumn, CsvFormat, CsvWriter};
use domain::settings::CsvLineEnding;
use prost::Message;
use serde_json::Value as Json;

use super::json::{JsonMapping, timestamp_text};
use super::table;
use crate::error::ClientError;
use crate::globals::Format;

/// A message of the API that lists show.
pub(crate) trait Record: Message {
    /// The message's full name.
    const MESSAGE: &'static str;
    /// The columns of a list.
    const COLUMNS: &'static [&'static str];
    /// Its values for the columns.
    fn cells(&self) -> Vec<Option<String>>;
}

/// Many records in the chosen form.
pub(crate) fn list<R: Record>(records: &[R], format: Format) -> Result<String, ClientError> {
    match format {
        Format::Table => {
            let rows: Vec<_> = records.iter().map(Record::cells).collect();
            Ok(table::table(R::COLUMNS, &rows))
        }
        Format::Csv => Ok(csv(records)),
        Format::Json => {
            let mapping = JsonMapping::new()?;
            let values: Result<Vec<_>, _> = records
                .iter()
                .map(|record| mapping.json(R::MESSAGE, record))
                .collect();
            Ok(document(&Json::Array(values?)))
        }
    }
}

/// One record in the chosen form; with every field in a table.
pub(crate) fn one<R: Record>(record: &R, format: Format) -> Result<String, ClientError> {
    match format {
        Format::Csv => Ok(csv(std::slice::from_ref(record))),
        format => message(R::MESSAGE, record, format),
    }
}

/// A message that is no resource. CSV has no form for it but names with values.
pub(crate) fn message(name: &str, message: &impl Message, format: Format) -> Result<String, ClientError> {
    let json = JsonMapping::new()?.json(name, message)?;
    Ok(match format {
        Format::Json => document(&json),
        Format::Table => table::pairs(&flat(&json)),
        Format::Csv => csv_rows(
            &["name", "value"],
            flat(&json)
                .into_iter()
                .map(|(name, value)| vec![Some(name), Some(value)]),
        ),
    })
}

fn csv<R: Record>(records: &[R]) -> String {
    csv_rows(R::COLUMNS, records.iter().map(Record::cells))
}

/// Lists end their lines as scripts expect; query results do as the settings say.
pub(crate) fn csv_rows(columns: &[&str], rows: impl Iterator<Item = Vec<Option<String>>>) -> String {
    let format = CsvFormat {
        header: true,
        line_ending: CsvLineEnding::Lf,
        ..CsvFormat::default()
    };
    let columns: Vec<_> = columns
        .iter()
        .map(|name| CsvColumn {
            name: (*name).to_owned(),
            numeric: false,
        })
        .collect();
    let mut writer = CsvWriter::new(format, &columns);
    for row in rows {
        writer.row(row.iter().map(Option::as_deref));
    }
    writer.finish()
}

pub(crate) fn document(json: &Json) -> String {
    // Writing JSON values to a string cannot fail.
    let mut text = serde_json::to_string_pretty(json).unwrap_or_default();
    text.push('\n');
    text
}

/// The leaves of a document with the path to each, empty ones left out.
fn flat(json: &Json) -> Vec<(String, String)> {
    fn walk(path: &str, json: &Json, leaves: &mut Vec<(String, String)>) {
        let below = |key: &str| {
            if path.is_empty() {
                key.to_owned()
            } else {
                format!("{path}.{key}")
            }
        };
        match json {
            Json::Object(object) => object
                .iter()
                .for_each(|(key, value)| walk(&below(key), value, leaves)),
            Json::Array(values) if values.iter().all(|value| !value.is_object()) => {
                let text = values.iter().map(leaf).collect::<Vec<_>>().join(", ");
                leaves.push((path.to_owned(), text));
            }
            Json::Array(values) => {
                values
                    .iter()
                    .enumerate()
                    .for_each(|(index, value)| walk(&below(&index.to_string()), value, leaves));
            }
            value => leaves.push((path.to_owned(), leaf(value))),
        }
    }
    let mut leaves = Vec::new();
    walk("", json, &mut leaves);
    leaves.retain(|(_, value)| !value.is_empty());
    // The name first, whatever the alphabet says.
    leaves.sort_by_key(|(path, _)| path != "name");
    leaves
}

fn leaf(json: &Json) -> String {
    match json {
        Json::String(text) => text.clone(),
        Json::Null => String::new(),
        other => other.to_string(),
    }
}

/// A text, or nothing where it is empty.
pub(crate) fn text(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

/// A point in time.
pub(crate) fn time(timestamp: Option<&prost_types::Timestamp>) -> Option<String> {
    // Whole seconds are enough for a person.
    let timestamp = timestamp?;
    timestamp_text(&prost_types::Timestamp {
        seconds: timestamp.seconds,
        nanos: 0,
    })
}

/// An enum's value without the enum's name: `OPERATION_STATE_RUNNING` is `running`.
pub(crate) fn word(name: &str, prefix: &str) -> Option<String> {
    let word = name.strip_prefix(prefix).unwrap_or(name);
    (word != "UNSPECIFIED").then(|| word.to_ascii_lowercase().replace('_', "-"))
}
