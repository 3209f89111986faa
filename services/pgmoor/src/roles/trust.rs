//! Mutual TLS between roles, from the files of `[trust]`.

use std::path::Path;

use anyhow::{Context, ensure};
use config::{Identity, Role};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tonic::transport::{Certificate, ClientTlsConfig, ServerTlsConfig};

use crate::certificates::{self, Peer};

/// What a server shows, and whom it lets in: holders of a certificate of our authority.
///
/// # Errors
/// When a file cannot be read, or the certificate is not that role's.
pub(crate) fn server(identity: &Identity<'_>) -> anyhow::Result<ServerTlsConfig> {
    let (authority, own) = read(identity)?;
    Ok(ServerTlsConfig::new().identity(own).client_ca_root(authority))
}

/// What a client of poolers shows, and whom it takes for a pooler.
///
/// # Errors
/// When a file cannot be read, or the certificate is not that role's.
pub(crate) fn client(identity: &Identity<'_>) -> anyhow::Result<ClientTlsConfig> {
    let (authority, own) = read(identity)?;
    let name = certificates::dns_name(Role::Pooler);
    Ok(ClientTlsConfig::new()
        .ca_certificate(authority)
        .identity(own)
        .domain_name(name))
}

fn read(identity: &Identity<'_>) -> anyhow::Result<(Certificate, tonic::transport::Identity)> {
    let text =
        |path: &Path| std::fs::read(path).with_context(|| format!("{} cannot be read", path.display()));
    let certificate = text(identity.certificate)?;
    let der = CertificateDer::from_pem_slice(&certificate)
        .with_context(|| format!("{} is not a certificate in PEM", identity.certificate.display()))?;
    let peer = Peer::of_certificate(&der)
        .with_context(|| format!("{} names no process of pgmoor's", identity.certificate.display()))?;
    ensure!(
        peer.role == identity.role,
        "{} is for {peer}, not for the role {}",
        identity.certificate.display(),
        identity.role
    );
    let own = tonic::transport::Identity::from_pem(certificate, text(identity.key)?);
    Ok((Certificate::from_pem(text(identity.authority)?), own))
}
