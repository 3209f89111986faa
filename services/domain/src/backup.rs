//! What a backup takes along and how a restore puts it back, in the terms of whoever asks for it.
//!
//! These are the `request` of an operation: the API writes them, a worker reads them. Invariant: names are names
//! ([`Identifier`], [`FilePath`]), never patterns, paths or options of a program.

use serde_json::{Value, json};
use thiserror::Error;

use crate::file_path::FilePath;
use crate::name::Identifier;

/// Neither schemas nor tables were chosen, or both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("schemas or tables must be chosen, and not both")]
pub struct InvalidSelection;

/// A stored request that no program of ours could have written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the operation's request cannot be read: {field} is missing or wrong")]
pub struct InvalidRequest {
    /// The part that cannot be read.
    pub field: &'static str,
}

/// How hard a backup can be compressed at most.
pub const MAX_COMPRESSION: u8 = 9;

/// What of a database is backed up. pg_dump ignores schemas where tables are named, so it is one or the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BackupSelection {
    /// Whole schemas; at least one.
    Schemas(Vec<Identifier>),
    /// Tables, each by schema and name; at least one.
    Tables(Vec<(Identifier, Identifier)>),
}

impl BackupSelection {
    /// A selection of schemas or of tables.
    ///
    /// # Errors
    /// Where both are empty, or neither is.
    pub fn new(
        schemas: Vec<Identifier>,
        tables: Vec<(Identifier, Identifier)>,
    ) -> Result<Self, InvalidSelection> {
        match (schemas.is_empty(), tables.is_empty()) {
            (false, true) => Ok(Self::Schemas(schemas)),
            (true, false) => Ok(Self::Tables(tables)),
            _ => Err(InvalidSelection),
        }
    }

    /// The schemas that are named.
    #[must_use]
    pub fn schemas(&self) -> &[Identifier] {
        match self {
            Self::Schemas(schemas) => schemas,
            Self::Tables(_) => &[],
        }
    }

    /// The tables that are named.
    #[must_use]
    pub fn tables(&self) -> &[(Identifier, Identifier)] {
        match self {
            Self::Schemas(_) => &[],
            Self::Tables(tables) => tables,
        }
    }
}

/// A wish for a backup. Its server, database and backup id are the operation's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupRequest {
    /// What is backed up.
    pub selection: BackupSelection,
    /// How hard to compress, 0 (not at all) to [`MAX_COMPRESSION`].
    pub compression: u8,
    /// True to take all large objects of the database along.
    pub large_objects: bool,
}

impl BackupRequest {
    /// How often a backup may be begun: it changes nothing on the server, so that a lost one is simply begun anew.
    pub const MAX_ATTEMPTS: u32 = 3;

    /// The request as an operation keeps it.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let schemas = self.selection.schemas().iter();
        let tables = self.selection.tables().iter();
        json!({
            "schemas": schemas.map(Identifier::as_str).collect::<Vec<_>>(),
            "tables": tables.map(|(schema, table)| [schema.as_str(), table.as_str()]).collect::<Vec<_>>(),
            "compression": self.compression,
            "large_objects": self.large_objects,
        })
    }

    /// The request as an operation kept it.
    ///
    /// # Errors
    /// Where it is not one.
    pub fn from_json(value: &Value) -> Result<Self, InvalidRequest> {
        let schemas = list(value, "schemas", |schema| schema.as_str()?.parse().ok())?;
        let tables = list(value, "tables", |table| {
            let name = |index| table.get(index)?.as_str()?.parse().ok();
            Some((name(0)?, name(1)?))
        })?;
        let compression = value.get("compression").and_then(Value::as_u64);
        Ok(Self {
            selection: BackupSelection::new(schemas, tables)
                .map_err(|_| InvalidRequest { field: "schemas" })?,
            compression: compression
                .and_then(|level| u8::try_from(level).ok())
                .filter(|level| *level <= MAX_COMPRESSION)
                .ok_or(InvalidRequest { field: "compression" })?,
            large_objects: boolean(value, "large_objects")?,
        })
    }
}

/// A wish for a restore. Its server, database, and the backup where it is of one, are the operation's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoreRequest {
    /// The file of the operation's owner to restore; none where the operation names a backup.
    pub file: Option<FilePath>,
    /// True to drop the objects before they are made again.
    pub clean: bool,
    /// True for one transaction: all of it or nothing.
    pub single_transaction: bool,
}

impl RestoreRequest {
    /// How often a restore may be begun: nobody knows what a lost one has done.
    pub const MAX_ATTEMPTS: u32 = 1;

    /// The request as an operation keeps it.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({
            "file": self.file.as_ref().map(FilePath::as_str),
            "clean": self.clean,
            "single_transaction": self.single_transaction,
        })
    }

    /// The request as an operation kept it.
    ///
    /// # Errors
    /// Where it is not one.
    pub fn from_json(value: &Value) -> Result<Self, InvalidRequest> {
        let file = match value.get("file") {
            None | Some(Value::Null) => None,
            Some(file) => {
                let file = file.as_str().and_then(|file| file.parse().ok());
                Some(file.ok_or(InvalidRequest { field: "file" })?)
            }
        };
        Ok(Self {
            file,
            clean: boolean(value, "clean")?,
            single_transaction: boolean(value, "single_transaction")?,
        })
    }
}

fn list<T>(
    value: &Value,
    field: &'static str,
    element: impl Fn(&Value) -> Option<T>,
) -> Result<Vec<T>, InvalidRequest> {
    let elements = value.get(field).and_then(Value::as_array);
    let elements = elements.and_then(|elements| elements.iter().map(element).collect());
    elements.ok_or(InvalidRequest { field })
}

fn boolean(value: &Value, field: &'static str) -> Result<bool, InvalidRequest> {
    value
        .get(field)
        .and_then(Value::as_bool)
        .ok_or(InvalidRequest { field })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Identifier {
        text.parse().unwrap()
    }

    #[test]
    fn requests_survive_their_stored_form() {
        for selection in [
            BackupSelection::Schemas(vec![name("public"), name("--file=x")]),
            BackupSelection::Tables(vec![(name("a.b"), name("c\"d"))]),
        ] {
            let request = BackupRequest {
                selection,
                compression: 9,
                large_objects: true,
            };
            assert_eq!(BackupRequest::from_json(&request.to_json()), Ok(request));
        }
        for file in [None, Some("a/b".parse().unwrap())] {
            let request = RestoreRequest {
                file,
                clean: true,
                single_transaction: false,
            };
            assert_eq!(RestoreRequest::from_json(&request.to_json()), Ok(request));
        }
    }

    #[test]
    fn stored_requests_are_not_trusted() {
        let wrong = |value| BackupRequest::from_json(&value).unwrap_err().field;
        let valid = json!({ "schemas": ["s"], "tables": [], "compression": 1, "large_objects": true });
        assert!(BackupRequest::from_json(&valid).is_ok());
        for (field, value) in [
            ("schemas", json!([])),
            ("schemas", json!([""])),
            ("tables", json!([["a"]])),
            ("compression", json!(10)),
            ("compression", json!("1")),
            ("large_objects", json!(null)),
        ] {
            let mut altered = valid.clone();
            altered[field] = value;
            assert_eq!(wrong(altered), field);
        }
        let file = json!({ "file": "../x", "clean": false, "single_transaction": false });
        assert_eq!(RestoreRequest::from_json(&file).unwrap_err().field, "file");
    }

    #[test]
    fn schemas_and_tables_exclude_each_other() {
        assert_eq!(BackupSelection::new(vec![], vec![]), Err(InvalidSelection));
        let table = (name("a"), name("b"));
        assert_eq!(
            BackupSelection::new(vec![name("a")], vec![table]),
            Err(InvalidSelection)
        );
    }
}
