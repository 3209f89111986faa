//! Whether there is a key to seal credentials to.

use store::Store;

use super::Finding;

const SUBJECT: &str = "sealing key";

/// Looks for the current public key.
pub(crate) async fn look(store: &Store) -> Finding {
    match store.sealing_keys().current().await {
        Ok(Some(key)) => Finding::fine(SUBJECT, format!("credentials are sealed to {}", key.key_id)),
        Ok(None) => Finding::failed(
            SUBJECT,
            "there is none, and no password can be stored: make one with `pgmoor admin create-sealing-key`",
        ),
        Err(error) => Finding::failed(SUBJECT, error.to_string()),
    }
}
