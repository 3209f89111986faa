//! ImportServers.

use std::collections::HashSet;

use domain::id::ServerId;
use rpc::server::v1::{ImportOutcome, ImportServersRequest, ImportServersResponse, ImportedServer};
use store::servers::{ImportMode, ImportOutcome as Outcome, NewServer};

use super::pgadmin::{self, Entry};
use super::place;
use crate::context::{Call, Context};
use crate::error::Error;

/// Registers the servers of a pgAdmin servers.json; the caller's own of the same group and name are updated.
pub(super) async fn import_servers(
    api: &Context,
    call: Call<ImportServersRequest>,
) -> Result<ImportServersResponse, Error> {
    let entries =
        pgadmin::entries(&call.message.document).map_err(|problem| Error::InvalidDocument { problem })?;
    let mode = if call.message.validate_only {
        ImportMode::Validate
    } else {
        ImportMode::Apply
    };
    let mut seen = HashSet::new();
    let mut servers = Vec::with_capacity(entries.len());
    for entry in entries {
        servers.push(import(api, &call, &entry, mode, &mut seen).await?);
    }
    Ok(ImportServersResponse { servers })
}

/// Imports one entry. Only what would befall every entry fails the call; importing again then goes on where
/// it ended.
async fn import(
    api: &Context,
    call: &Call<ImportServersRequest>,
    entry: &Entry,
    mode: ImportMode,
    seen: &mut HashSet<(String, String)>,
) -> Result<ImportedServer, Error> {
    let (display_name, group) = entry.labels();
    let (described, ignored_keys) = entry.describe();
    let mut report = ImportedServer {
        key: entry.key.chars().take(100).collect(),
        display_name,
        group,
        ignored_keys,
        ..ImportedServer::default()
    };
    let described = match described {
        Ok(described) => described,
        Err(error) => return Ok(refused(report, error)),
    };
    if !seen.insert((described.group.to_string(), described.display_name.to_string())) {
        return Ok(refused(
            report,
            "another entry of the file has the same group and name".to_owned(),
        ));
    }
    let wanted = NewServer {
        id: ServerId::generate(api.random.as_ref()),
        owner_id: call.caller.user,
        group: described.group,
        display_name: described.display_name,
        destination: described.destination,
        maintenance_database: described.maintenance_database,
        username: described.username,
        comment: described.comment,
    };
    match place::check(api, &call.caller, &wanted).await {
        Ok(()) => {}
        Err(error @ (Error::EgressDenied(_) | Error::PermissionMissing { .. })) => {
            return Ok(refused(report, error.to_string()));
        }
        Err(error) => return Err(error),
    }
    let imported = api
        .store
        .servers()
        .import(&wanted, mode)
        .await
        .map_err(place::import_failed)?;
    report.set_outcome(match imported.outcome {
        Outcome::Created => ImportOutcome::Created,
        Outcome::Updated => ImportOutcome::Updated,
        Outcome::Unchanged => ImportOutcome::Unchanged,
    });
    // A new server that was only tried has no name.
    if mode == ImportMode::Apply || imported.outcome != Outcome::Created {
        report.server = format!("servers/{}", imported.server.id);
    }
    Ok(report)
}

fn refused(mut report: ImportedServer, error: String) -> ImportedServer {
    report.set_outcome(ImportOutcome::Refused);
    report.error = error;
    report
}
