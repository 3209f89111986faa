//! The secrets of a world, so that a test can look for them where none may be.

use std::sync::{Mutex, PoisonError};

use data_encoding::{BASE64, BASE64URL, HEXLOWER, HEXUPPER};
use memchr::memmem;

/// Every password and token that was handed out, with what it is.
#[derive(Default)]
pub struct Secrets(Mutex<Vec<Secret>>);

struct Secret {
    what: String,
    /// As it is, and in every way that code would write bytes by mistake.
    needles: Vec<Vec<u8>>,
}

impl Secrets {
    /// Remembers a secret. `what` names it in a failure's text, which never shows the secret itself.
    pub fn remember(&self, what: &str, secret: &str) {
        assert!(secret.len() >= 8, "{what} is too short to be looked for");
        let mut secrets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !secrets.iter().any(|other| other.needles[0] == secret.as_bytes()) {
            secrets.push(Secret {
                what: what.to_owned(),
                needles: written(secret.as_bytes()),
            });
        }
    }

    /// What each secret found in `text` is.
    #[must_use]
    pub fn found_in(&self, text: &str) -> Vec<String> {
        self.found_in_bytes(text.as_bytes())
    }

    /// What each secret found in `bytes` is.
    #[must_use]
    pub fn found_in_bytes(&self, bytes: &[u8]) -> Vec<String> {
        let secrets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = secrets.iter().filter(|secret| {
            let mut needles = secret.needles.iter();
            needles.any(|needle| memmem::find(bytes, needle).is_some())
        });
        found.map(|secret| secret.what.clone()).collect()
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

/// As it is, in hexadecimal, as Rust's `Debug` writes bytes, and in base64 wherever in what was encoded it stands.
fn written(secret: &[u8]) -> Vec<Vec<u8>> {
    let decimal: Vec<String> = secret.iter().map(u8::to_string).collect();
    let mut needles = vec![
        secret.to_vec(),
        HEXLOWER.encode(secret).into_bytes(),
        HEXUPPER.encode(secret).into_bytes(),
        decimal.join(", ").into_bytes(),
    ];
    for encoding in [&BASE64, &BASE64URL] {
        for before in 0..3 {
            // Only whole groups of three bytes are the same whatever stands around them.
            let whole = &secret[(3 - before) % 3..];
            let whole = &whole[..whole.len() / 3 * 3];
            needles.push(encoding.encode(whole).into_bytes());
        }
    }
    needles
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Secrets").field("count", &self.count()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secret_is_found_however_it_was_written() {
        let (secrets, secret) = (Secrets::default(), "correct horse battery");
        secrets.remember("a password", secret);
        let bytes = secret.as_bytes();
        for text in [
            format!("x{secret}y"),
            format!("\\x{}", HEXLOWER.encode(bytes)),
            HEXUPPER.encode(bytes),
            format!("{bytes:?}"),
            BASE64.encode(bytes),
            BASE64.encode(format!("me:{secret}").as_bytes()),
            BASE64URL.encode(format!("user:{secret}~").as_bytes()),
            BASE64.encode(format!("users:{secret}").as_bytes()),
            BASE64.encode(format!("a:user:{secret}").as_bytes()),
        ] {
            assert_eq!(secrets.found_in(&text), ["a password"], "{text}");
        }
        assert_eq!(secrets.found_in("correct battery horse"), [] as [&str; 0]);
    }
}
