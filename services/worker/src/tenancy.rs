//! What is restored on a server whose databases belong to several: what lives in a schema, and nothing above.

use domain::access::Tenancy;
use rpc::errors::v1::ErrorReason;
use target::tools::entries_above_schemas;

use crate::failure::{Failure, Halt};
use crate::job::Job;

/// Entries that a refusal names.
const NAMED: usize = 5;
/// Characters of each.
const NAMED_CHARS: usize = 100;

/// Refuses an archive that the server does not take, by its policy as it is now.
pub(crate) async fn check(job: &Job<'_>, table_of_contents: &str) -> Result<(), Halt> {
    let id = job.operation.server_id;
    let server = job
        .context
        .patient(|store| async move { store.servers().get(id).await })
        .await?;
    let gone = || Failure::new(ErrorReason::ResourceNotFound, "the server's registration is gone");
    match server.ok_or_else(gone)?.policy.tenancy {
        Tenancy::Single => Ok(()),
        Tenancy::Multi { .. } => refused(table_of_contents).map_or(Ok(()), |failure| Err(failure.into())),
    }
}

fn refused(table_of_contents: &str) -> Option<Failure> {
    let above = entries_above_schemas(table_of_contents);
    if above.is_empty() {
        return None;
    }
    let named: Vec<String> = above
        .iter()
        .take(NAMED)
        .map(|entry| entry.trim_end().chars().take(NAMED_CHARS).collect())
        .collect();
    let more = match above.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let message = format!(
        "others have databases on the server, and the archive has what lives in no schema: {}{more}; restore a backup of \
         chosen schemas without large objects, or have who administers the server restore the archive there",
        named.join(", ")
    );
    Some(Failure::new(ErrorReason::RestoreAboveSchemaLevel, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusal_names_the_first_entries() {
        assert_eq!(refused("5; 2615 2200 SCHEMA - shop ann\n"), None);
        let mut contents = "6; 3079 16400 EXTENSION - hstore \n".to_owned();
        for number in 0..7 {
            contents.push_str(&format!("7; 0 0 PUBLICATION - p{number} {}\n", "x".repeat(500)));
        }
        let failure = refused(&contents).unwrap();
        assert_eq!(failure.reason, "RESTORE_ABOVE_SCHEMA_LEVEL");
        let message = failure.message;
        assert!(
            message.contains("EXTENSION - hstore, PUBLICATION - p0 x"),
            "{message}"
        );
        assert!(
            message.contains(" and 3 more;") && message.len() < 900,
            "{message}"
        );
    }
}
