//! Whether the files of `[trust]` are what the other processes will accept.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use config::{Config, Identity, Role};
use domain::clock::{Clock, SystemClock};
use rcgen::{KeyPair, PublicKeyData};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use time::OffsetDateTime;

use super::Finding;
use crate::certificates::Peer;
use crate::private_file;

/// A certificate that ends sooner than this is worth a word.
const SOON: time::Duration = time::Duration::days(30);

/// Looks at the files of one role, or of every role that is mentioned.
pub(crate) fn look(config: &Config, role: Option<Role>) -> Vec<Finding> {
    let roles = Role::ALL.into_iter().filter(|&known| match role {
        Some(role) => known == role,
        None => config.trust.mentions(known),
    });
    let now = SystemClock.now();
    roles
        .flat_map(|role| {
            let subject = format!("certificate of {role}");
            match config.trust.require_identity(role) {
                Ok(identity) => look_at(&subject, &identity, now),
                Err(problem) => vec![Finding::failed(&subject, problem.to_string())],
            }
        })
        .collect()
}

fn look_at(subject: &str, identity: &Identity<'_>, now: OffsetDateTime) -> Vec<Finding> {
    let mut findings = vec![match verify(identity, now) {
        Ok(verified) if verified.not_after - now < SOON => {
            let text = format!(
                "{} ends on {}: issue another",
                verified.peer,
                verified.not_after.date()
            );
            Finding::notice(subject, text)
        }
        Ok(verified) => Finding::fine(
            subject,
            format!("{} until {}", verified.peer, verified.not_after.date()),
        ),
        Err(error) => Finding::failed(subject, format!("{error:#}")),
    }];
    if matches!(private_file::is_exposed(identity.key), Ok(true)) {
        let text = format!("others may read {}: chmod 600 it", identity.key.display());
        findings.push(Finding::notice(subject, text));
    }
    findings
}

struct Verified {
    peer: Peer,
    not_after: OffsetDateTime,
}

/// Does with the certificate what a peer will do, and compares it with its key.
fn verify(identity: &Identity<'_>, now: OffsetDateTime) -> anyhow::Result<Verified> {
    let certificate = read(identity.certificate)?;
    let not_after = {
        let (_, parsed) =
            x509_parser::parse_x509_certificate(&certificate).context("the certificate cannot be read")?;
        let key = std::fs::read_to_string(identity.key)
            .with_context(|| format!("{} cannot be read", identity.key.display()))?;
        let key = KeyPair::from_pem(&key)
            .with_context(|| format!("{} is not a private key in PEM", identity.key.display()))?;
        ensure!(
            parsed.public_key().subject_public_key.data.as_ref() == key.der_bytes(),
            "{} is not the key of {}",
            identity.key.display(),
            identity.certificate.display()
        );
        parsed.validity().not_after.to_datetime()
    };
    if not_after <= now {
        bail!(
            "it ended on {}: issue another with `pgmoor admin issue-certificate`",
            not_after.date()
        );
    }

    let mut roots = RootCertStore::empty();
    roots
        .add(read(identity.authority)?)
        .with_context(|| format!("{} is no authority", identity.authority.display()))?;
    let verifier = WebPkiClientVerifier::builder(Arc::new(roots))
        .build()
        .context("the authority cannot be used")?;
    let seconds = u64::try_from(now.unix_timestamp()).context("the clock is before 1970")?;
    verifier
        .verify_client_cert(
            &certificate,
            &[],
            UnixTime::since_unix_epoch(Duration::from_secs(seconds)),
        )
        .with_context(|| format!("{} did not issue it", identity.authority.display()))?;

    let peer = Peer::of_certificate(&certificate).context("it names no process of pgmoor's")?;
    ensure!(
        peer.role == identity.role,
        "it is for {}, not for the role {}",
        peer,
        identity.role
    );
    Ok(Verified { peer, not_after })
}

fn read(path: &Path) -> anyhow::Result<CertificateDer<'static>> {
    CertificateDer::from_pem_file(path)
        .with_context(|| format!("{} cannot be read as a certificate", path.display()))
}
