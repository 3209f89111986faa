//! Backups between the domain and the wire.

use data_encoding::HEXLOWER;
use domain::backup::BackupSelection;
use domain::name::Identifier;
use rpc::backup::v1 as proto;
use store::backups::{Backup, TableName};

use crate::duration::timestamp;
use crate::error::{Error, Violations};

/// Most schemas or tables of one backup: each becomes an argument of one command line.
const MAX_SELECTED: usize = 1000;

/// A backup.
pub(super) fn backup(backup: &Backup) -> proto::Backup {
    let table = |name: &TableName| proto::TableName {
        schema: name.schema.to_string(),
        table: name.table.to_string(),
    };
    proto::Backup {
        name: format!("backups/{}", backup.id),
        server: format!("servers/{}", backup.server_id),
        database: backup.database.to_string(),
        schemas: backup.schemas.iter().map(ToString::to_string).collect(),
        tables: backup.tables.iter().map(table).collect(),
        size_bytes: i64::try_from(backup.artifact.size_bytes).unwrap_or(i64::MAX),
        sha256: HEXLOWER.encode(&backup.artifact.sha256),
        tool_version: backup.tool_version.clone(),
        server_version: backup.server_version.clone(),
        owner: format!("users/{}", backup.owner_id),
        create_time: Some(timestamp(backup.create_time)),
        operation: format!("operations/{}", backup.operation_id),
    }
}

/// Reads what is to be backed up, with a note for each name that is wrong.
pub(super) fn selection(
    schemas: &[String],
    tables: &[proto::TableName],
    violations: &mut Violations,
) -> Option<BackupSelection> {
    for (field, got) in [("schemas", schemas.len()), ("tables", tables.len())] {
        if got > MAX_SELECTED {
            violations.add(field, format_args!("must be at most {MAX_SELECTED}, got {got}"));
            return None;
        }
    }
    let mut name = |field: String, name: &str| violations.check(&field, name.parse::<Identifier>());
    let schemas: Vec<_> = schemas
        .iter()
        .enumerate()
        .map(|(index, schema)| name(format!("schemas[{index}]"), schema))
        .collect();
    let tables: Vec<_> = tables
        .iter()
        .enumerate()
        .map(|(index, table)| {
            let schema = name(format!("tables[{index}].schema"), &table.schema);
            schema.zip(name(format!("tables[{index}].table"), &table.table))
        })
        .collect();
    let schemas: Option<Vec<_>> = schemas.into_iter().collect();
    let tables: Option<Vec<_>> = tables.into_iter().collect();
    let (schemas, tables) = schemas.zip(tables)?;
    violations.check("schemas", BackupSelection::new(schemas, tables))
}

/// The database that a request names, or the server's own where it names none.
pub(super) fn database(given: &str, maintenance_database: &Identifier) -> Result<Identifier, Error> {
    if given.is_empty() {
        return Ok(maintenance_database.clone());
    }
    given.parse().map_err(|error| Error::invalid("database", error))
}
