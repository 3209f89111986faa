//! A certificate authority for one test, and the certificates it issues.

use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

/// The names [`Identity::write_to`] gives to certificate, key and authority.
pub const FILE_NAMES: (&str, &str, &str) = ("certificate.pem", "key.pem", "authority.pem");

/// An authority nobody else trusts.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// A certificate with its private key and the authority that issued it, all PEM.
#[derive(Clone)]
pub struct Identity {
    /// The certificate.
    pub certificate: String,
    /// Its private key (PKCS #8).
    pub key: String,
    /// The certificate of the authority that issued it.
    pub authority: String,
}

/// Where an identity was written.
#[derive(Debug, Clone)]
pub struct IdentityFiles {
    /// The certificate.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The authority's certificate.
    pub authority: PathBuf,
}

impl Authority {
    /// A new authority with a key of its own.
    ///
    /// # Panics
    /// When no key can be made.
    #[must_use]
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::CommonName, "pgmoor test authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("a key can be made");
        let pem = params.self_signed(&key).expect("an authority signs itself").pem();
        Self {
            issuer: Issuer::new(params, key),
            pem,
        }
    }

    /// The authority's certificate, PEM.
    #[must_use]
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// A server's certificate for `localhost`, 127.0.0.1 and ::1.
    #[must_use]
    pub fn server(&self) -> Identity {
        self.issue("localhost", &["localhost", "127.0.0.1", "::1"])
    }

    /// A client's certificate with this common name (for PostgreSQL the role's name).
    #[must_use]
    pub fn client(&self, common_name: &str) -> Identity {
        self.issue(common_name, &[])
    }

    /// A certificate, good for servers and clients, with a common name and alternative names: DNS names,
    /// addresses.
    ///
    /// # Panics
    /// When a name is not valid.
    #[must_use]
    pub fn issue(&self, common_name: &str, alternative_names: &[&str]) -> Identity {
        let names: Vec<String> = alternative_names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("valid alternative names");
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let key = KeyPair::generate().expect("a key can be made");
        let certificate = params
            .signed_by(&key, &self.issuer)
            .expect("the authority signs")
            .pem();
        Identity {
            certificate,
            key: key.serialize_pem(),
            authority: self.pem.clone(),
        }
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

impl Identity {
    /// Writes the three files of [`FILE_NAMES`] into an existing directory, the key readable by its owner
    /// only.
    ///
    /// # Panics
    /// When they cannot be written.
    #[must_use]
    pub fn write_to(&self, directory: &Path) -> IdentityFiles {
        use std::os::unix::fs::PermissionsExt;

        let (certificate, key, authority) = FILE_NAMES;
        let files = IdentityFiles {
            certificate: directory.join(certificate),
            key: directory.join(key),
            authority: directory.join(authority),
        };
        std::fs::write(&files.certificate, &self.certificate).expect("the certificate's file");
        std::fs::write(&files.authority, &self.authority).expect("the authority's file");
        std::fs::write(&files.key, &self.key).expect("the key's file");
        let owner_only = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(&files.key, owner_only).expect("the key's mode");
        files
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity")
            .field("certificate", &self.certificate)
            .finish_non_exhaustive()
    }
}
