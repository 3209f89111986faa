//! The public keys of access tokens as a JSON Web Key Set (RFC 7517, RFC 8037), for whoever wants to check a token of ours.

use data_encoding::BASE64URL_NOPAD;
use serde_json::{Value, json};
use store::{Store, StoreError};

/// The keys that verify now, oldest first.
///
/// # Errors
/// When the config database fails.
pub async fn published_keys(store: &Store) -> Result<Value, StoreError> {
    let keys = store.signing_keys().verifying().await?;
    let keys: Vec<Value> = keys
        .iter()
        .map(|key| {
            json!({
                "kty": "OKP",
                "crv": "Ed25519",
                "use": "sig",
                "alg": "EdDSA",
                "kid": key.id.to_string(),
                "x": BASE64URL_NOPAD.encode(&key.public_key),
            })
        })
        .collect();
    Ok(json!({ "keys": keys }))
}
