//! Encryption to the server: what is trusted, the handshake, and what SCRAM binds itself to.

use std::fmt;
use std::io;
use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use sha2::{Digest, Sha224, Sha256, Sha384, Sha512};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::signature_algorithm::SignatureAlgorithm;

use crate::error::TlsRootsError;

/// How the connection is encrypted, in libpq's terms (PostgreSQL manual, "SSL Support").
#[derive(Debug, Clone)]
pub enum TlsMode {
    /// Not at all.
    Disable,
    /// Encrypted, but whoever answers is believed: no protection against an active attacker.
    Require,
    /// Encrypted, and the certificate must be issued by one of `roots` for the host name.
    VerifyFull {
        /// Who may issue certificates.
        roots: TlsRoots,
    },
}

/// Trusted certificate authorities, ready for use. Make one and clone it: reading roots is slow.
#[derive(Clone)]
pub struct TlsRoots(Arc<ClientConfig>);

impl TlsRoots {
    /// The authorities the operating system trusts. Reads files; call it once, not per connection.
    ///
    /// # Errors
    /// [`TlsRootsError`] when the system has none.
    pub fn native() -> Result<Self, TlsRootsError> {
        Self::from_certificates(rustls_native_certs::load_native_certs().certs)
    }

    /// The authorities in a PEM text.
    ///
    /// # Errors
    /// [`TlsRootsError`] when the text is not PEM or holds no usable certificate.
    pub fn from_pem(pem: &[u8]) -> Result<Self, TlsRootsError> {
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
        Self::from_certificates(certificates.map_err(|_| TlsRootsError::Pem)?)
    }

    fn from_certificates(certificates: Vec<CertificateDer<'static>>) -> Result<Self, TlsRootsError> {
        let mut roots = RootCertStore::empty();
        let (usable, _) = roots.add_parsable_certificates(certificates);
        if usable == 0 {
            return Err(TlsRootsError::NoCertificate);
        }
        let provider = provider();
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .build()
            .map_err(|error| TlsRootsError::Configuration(rustls::Error::General(error.to_string())))?;
        client_config(provider, verifier)
            .map(Self)
            .map_err(TlsRootsError::Configuration)
    }
}

impl fmt::Debug for TlsRoots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsRoots")
    }
}

/// The one crypto provider, always passed by hand so that nothing depends on a process-wide default.
fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    Arc::clone(PROVIDER.get_or_init(|| Arc::new(rustls::crypto::ring::default_provider())))
}

fn client_config(
    provider: Arc<CryptoProvider>,
    verifier: Arc<dyn ServerCertVerifier>,
) -> Result<Arc<ClientConfig>, rustls::Error> {
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    // A resumed handshake does not show the certificate again, and channel binding needs the current one.
    config.resumption = Resumption::disabled();
    // What libpq 17 sends; keeps another protocol's server from answering (ALPACA).
    config.alpn_protocols = vec![b"postgresql".to_vec()];
    Ok(Arc::new(config))
}

/// The TLS configuration for a mode, `None` when it is [`TlsMode::Disable`].
pub(crate) fn config_of(mode: &TlsMode) -> io::Result<Option<Arc<ClientConfig>>> {
    match mode {
        TlsMode::Disable => Ok(None),
        TlsMode::VerifyFull { roots } => Ok(Some(Arc::clone(&roots.0))),
        TlsMode::Require => {
            static CONFIG: OnceLock<Arc<ClientConfig>> = OnceLock::new();
            if let Some(config) = CONFIG.get() {
                return Ok(Some(Arc::clone(config)));
            }
            let verifier = Arc::new(AnyCertificate(provider()));
            let config = client_config(provider(), verifier).map_err(io::Error::other)?;
            Ok(Some(Arc::clone(CONFIG.get_or_init(|| config))))
        }
    }
}

/// Runs the TLS handshake. `host` is the name the certificate has to be for.
pub(crate) async fn handshake(
    config: Arc<ClientConfig>,
    host: &str,
    stream: TcpStream,
) -> io::Result<Box<TlsStream<TcpStream>>> {
    let name = ServerName::try_from(host.to_owned()).map_err(|_| {
        io::Error::new(
            io::ErrorKind::InvalidInput,
            "host name cannot be in a certificate",
        )
    })?;
    TlsConnector::from(config)
        .connect(name, stream)
        .await
        .map(Box::new)
}

/// Accepts every certificate, but the server must prove that it holds its key: without that, binding SCRAM
/// to the certificate would mean nothing.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// The `tls-server-end-point` channel binding: a hash of the server's certificate (RFC 5929, section 4).
///
/// `None` when the certificate's signature algorithm defines no single hash (such as Ed25519).
pub(crate) fn server_end_point(stream: &TlsStream<TcpStream>) -> Option<Vec<u8>> {
    let certificate = stream.get_ref().1.peer_certificates()?.first()?;
    end_point_hash(certificate)
}

fn end_point_hash(certificate: &[u8]) -> Option<Vec<u8>> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let algorithm = &parsed.signature_algorithm;
    let oid = algorithm.algorithm.to_id_string();
    let oid = match oid.as_str() {
        // RSASSA-PSS names its hash in the parameters.
        "1.2.840.113549.1.1.10" => match SignatureAlgorithm::try_from(algorithm).ok()? {
            SignatureAlgorithm::RSASSA_PSS(parameters) => parameters.hash_algorithm_oid().to_id_string(),
            _ => return None,
        },
        _ => oid,
    };
    match oid.as_str() {
        // MD5 and SHA-1, alone, with RSA, DSA and ECDSA: RFC 5929 replaces them by SHA-256.
        "1.2.840.113549.1.1.4" | "1.2.840.113549.1.1.5" | "1.2.840.10045.4.1" | "1.3.14.3.2.26"
        // SHA-256 with RSA, with ECDSA, alone.
        | "1.2.840.113549.1.1.11" | "1.2.840.10045.4.3.2" | "2.16.840.1.101.3.4.2.1" => {
            Some(Sha256::digest(certificate).to_vec())
        }
        "1.2.840.113549.1.1.12" | "1.2.840.10045.4.3.3" | "2.16.840.1.101.3.4.2.2" => {
            Some(Sha384::digest(certificate).to_vec())
        }
        "1.2.840.113549.1.1.13" | "1.2.840.10045.4.3.4" | "2.16.840.1.101.3.4.2.3" => {
            Some(Sha512::digest(certificate).to_vec())
        }
        "1.2.840.113549.1.1.14" | "1.2.840.10045.4.3.1" | "2.16.840.1.101.3.4.2.4" => {
            Some(Sha224::digest(certificate).to_vec())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(algorithm: &'static rcgen::SignatureAlgorithm) -> Vec<u8> {
        let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
        let parameters = rcgen::CertificateParams::new(vec!["db.test".to_owned()]).unwrap();
        parameters.self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn the_hash_follows_the_signature_algorithm_of_the_certificate() {
        let der = certificate(&rcgen::PKCS_ECDSA_P256_SHA256);
        assert_eq!(end_point_hash(&der), Some(Sha256::digest(&der).to_vec()));
        let der = certificate(&rcgen::PKCS_ECDSA_P384_SHA384);
        assert_eq!(end_point_hash(&der), Some(Sha384::digest(&der).to_vec()));
        assert_eq!(end_point_hash(&certificate(&rcgen::PKCS_ED25519)), None);
        assert_eq!(end_point_hash(b"not a certificate"), None);
    }

    #[test]
    fn roots_without_a_certificate_are_refused() {
        assert!(matches!(
            TlsRoots::from_pem(b""),
            Err(TlsRootsError::NoCertificate)
        ));
        let broken = b"-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n";
        assert!(matches!(TlsRoots::from_pem(broken), Err(TlsRootsError::Pem)));
    }
}
