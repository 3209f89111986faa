//! The authority that issues every role's certificate. Its key is the root of trust between processes.

use std::net::IpAddr;

use anyhow::Context;
use domain::clock::Clock;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use secrecy::{ExposeSecret, SecretString};
use time::{Duration, OffsetDateTime};

use super::{Peer, dns_name};

/// How long an authority is valid.
const AUTHORITY_LIFETIME: Duration = Duration::days(3650);
/// Certificates are valid from a little before they are made, for clocks that lag.
const SKEW: Duration = Duration::minutes(5);

/// Whom a certificate is for.
#[derive(Debug, Clone)]
pub(crate) struct Subject {
    /// The process.
    pub(crate) peer: Peer,
    /// Further DNS names.
    pub(crate) dns_names: Vec<String>,
    /// Further addresses.
    pub(crate) addresses: Vec<IpAddr>,
    /// How long it is valid from now.
    pub(crate) lifetime: Duration,
}

/// A certificate and its private key, as PEM.
#[derive(Debug)]
pub(crate) struct Issued {
    /// The certificate.
    pub(crate) certificate: String,
    /// The private key (PKCS #8).
    pub(crate) key: SecretString,
    /// When it ends.
    pub(crate) not_after: OffsetDateTime,
}

/// An authority that can issue.
#[derive(Debug)]
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// A new authority: its certificate and key, to be kept.
    ///
    /// # Errors
    /// When the operating system gives no randomness.
    pub(crate) fn generate(clock: &dyn Clock) -> anyhow::Result<Issued> {
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::CommonName, "pgmoor authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let not_after = set_validity(&mut params, clock, AUTHORITY_LIFETIME);
        let key = KeyPair::generate().context("a key pair cannot be made")?;
        let certificate = params.self_signed(&key).context("the authority cannot be made")?;
        Ok(Issued {
            certificate: certificate.pem(),
            key: SecretString::from(key.serialize_pem()),
            not_after,
        })
    }

    /// Takes up an authority that was kept.
    ///
    /// # Errors
    /// When the texts are not a certificate and a private key.
    pub(crate) fn from_pem(certificate: &str, key: &SecretString) -> anyhow::Result<Self> {
        let key = KeyPair::from_pem(key.expose_secret())
            .context("the authority's key is not a private key in PEM")?;
        let issuer = Issuer::from_ca_cert_pem(certificate, key);
        Ok(Self {
            issuer: issuer.context("the authority's certificate is not a certificate in PEM")?,
        })
    }

    /// Issues a certificate with a new key.
    ///
    /// # Errors
    /// When a name cannot stand in a certificate.
    pub(crate) fn issue(&self, subject: &Subject, clock: &dyn Clock) -> anyhow::Result<Issued> {
        let peer = &subject.peer;
        let mut names = vec![dns_name(peer.role)];
        names.extend(subject.dns_names.iter().cloned());
        let mut params = CertificateParams::new(names).context("a DNS name cannot stand in a certificate")?;
        params
            .subject_alt_names
            .push(SanType::URI(peer.to_string().try_into()?));
        params
            .subject_alt_names
            .extend(subject.addresses.iter().copied().map(SanType::IpAddress));
        params
            .distinguished_name
            .push(DnType::CommonName, format!("pgmoor {} {}", peer.role, peer.name));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = match peer.role {
            // Poolers also call each other.
            config::Role::Pooler => {
                vec![
                    ExtendedKeyUsagePurpose::ServerAuth,
                    ExtendedKeyUsagePurpose::ClientAuth,
                ]
            }
            config::Role::Api | config::Role::Worker => vec![ExtendedKeyUsagePurpose::ClientAuth],
        };
        params.use_authority_key_identifier_extension = true;
        let not_after = set_validity(&mut params, clock, subject.lifetime);
        let key = KeyPair::generate().context("a key pair cannot be made")?;
        let certificate = params
            .signed_by(&key, &self.issuer)
            .context("the certificate cannot be issued")?;
        Ok(Issued {
            certificate: certificate.pem(),
            key: SecretString::from(key.serialize_pem()),
            not_after,
        })
    }
}

fn set_validity(params: &mut CertificateParams, clock: &dyn Clock, lifetime: Duration) -> OffsetDateTime {
    let now = clock.now();
    params.not_before = now - SKEW;
    params.not_after = now + lifetime;
    params.not_after
}

#[cfg(test)]
mod tests {
    use config::Role;
    use domain::clock::ManualClock;
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;
    use time::macros::datetime;

    use super::*;

    fn issued(role: Role) -> Issued {
        let clock = ManualClock::new(datetime!(2030-01-01 00:00 UTC));
        let made = Authority::generate(&clock).unwrap();
        let authority = Authority::from_pem(&made.certificate, &made.key).unwrap();
        let subject = Subject {
            peer: Peer {
                role,
                name: "one".parse().unwrap(),
            },
            dns_names: vec!["pooler-1.example.com".to_owned()],
            addresses: vec!["10.0.0.1".parse().unwrap()],
            lifetime: Duration::days(10),
        };
        authority.issue(&subject, &clock).unwrap()
    }

    #[test]
    fn certificate_names_the_process() {
        let issued = issued(Role::Api);
        let der = CertificateDer::from_pem_slice(issued.certificate.as_bytes()).unwrap();
        assert_eq!(
            Peer::of_certificate(&der).unwrap().to_string(),
            "pgmoor://api/one"
        );
        assert_eq!(issued.not_after, datetime!(2030-01-11 00:00 UTC));
    }

    #[test]
    fn only_a_pooler_can_serve() {
        for role in Role::ALL {
            let issued = issued(role);
            let der = CertificateDer::from_pem_slice(issued.certificate.as_bytes()).unwrap();
            let (_, certificate) = x509_parser::parse_x509_certificate(&der).unwrap();
            let usage = certificate.extended_key_usage().unwrap().unwrap().value;
            assert_eq!(usage.server_auth, role == Role::Pooler, "{role}");
            assert!(usage.client_auth, "{role}");
        }
    }
}
