//! What is restored on a server whose databases belong to several: what lives in a schema, and nothing above.

use domain::access::Tenancy;
use rpc::errors::v1::ErrorReason;
use target::tools::Contents;

use crate::failure::{Failure, Halt};
use crate::job::Job;

/// Refuses an archive that the server does not take, by its policy as it is now. `refusal` is what is said where its databases
/// belong to several.
pub(crate) async fn check(job: &Job<'_>, refusal: Option<&Failure>) -> Result<(), Halt> {
    let id = job.operation.server_id;
    let server = job
        .context
        .patient(|store| async move { store.servers().get(id).await })
        .await?;
    let gone = || Failure::new(ErrorReason::ResourceNotFound, "the server's registration is gone");
    match server.ok_or_else(gone)?.policy.tenancy {
        Tenancy::Single => Ok(()),
        Tenancy::Multi { .. } => refusal.map_or(Ok(()), |failure| Err(failure.clone().into())),
    }
}

/// What is said of an archive that has what lives in no schema.
pub(crate) fn refusal(contents: &Contents) -> Option<Failure> {
    let named = contents.first_above_schemas();
    if named.is_empty() {
        return None;
    }
    let more = match contents.above_schemas().saturating_sub(named.len() as u64) {
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
        let mut contents = Contents::default();
        contents.take(b"5; 2615 2200 SCHEMA - shop ann\n");
        assert_eq!(refusal(&contents), None);
        contents.take(b"6; 3079 16400 EXTENSION - hstore \n");
        for number in 0..7 {
            let line = format!("7; 0 0 PUBLICATION - p{number} {}\n", "x".repeat(500));
            contents.take(line.as_bytes());
        }
        let failure = refusal(&contents).unwrap();
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
