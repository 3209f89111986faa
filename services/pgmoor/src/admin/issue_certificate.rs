//! `pgmoor admin issue-certificate`: the files with which one process proves to the others who it is.

use std::io::Write;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use config::Role;
use domain::clock::SystemClock;
use secrecy::{ExposeSecret, SecretString};
use time::format_description::well_known::Rfc3339;

use crate::certificates::{Authority, DOMAIN, Peer, PeerName, Subject};
use crate::exit::BadArgument;
use crate::private_file::{self, Existing, PRIVATE, PUBLIC};

/// The authority's certificate, in its own directory and beside each certificate.
const AUTHORITY: &str = "authority.pem";
const AUTHORITY_KEY: &str = "authority-key.pem";
const CERTIFICATE: &str = "certificate.pem";
const KEY: &str = "key.pem";

/// Arguments of `issue-certificate`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// What the process does; the certificate is good for nothing else
    #[arg(long)]
    role: RoleName,
    /// The process among those of its role, such as pooler-1
    #[arg(long, value_parser = clap::value_parser!(PeerName))]
    name: PeerName,
    /// Directory for authority.pem, certificate.pem and key.pem; made where there is none
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Directory of the certificate authority; made where there is none. Keep it off the servers
    #[arg(long, value_name = "DIR", default_value = "pgmoor-ca")]
    ca_dir: PathBuf,
    /// A further DNS name of the process
    #[arg(long = "dns-name", value_name = "NAME")]
    dns_names: Vec<String>,
    /// An IP address of the process
    #[arg(long = "ip", value_name = "ADDRESS")]
    addresses: Vec<IpAddr>,
    /// How long the certificate is valid, such as 90days
    #[arg(long, value_name = "SPAN", default_value = "365days", value_parser = lifetime)]
    lifetime: Duration,
    /// Replace the files of an earlier certificate
    #[arg(long)]
    force: bool,
}

/// A role, as an argument.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum RoleName {
    Api,
    Pooler,
    Worker,
}

impl From<RoleName> for Role {
    fn from(name: RoleName) -> Self {
        match name {
            RoleName::Api => Self::Api,
            RoleName::Pooler => Self::Pooler,
            RoleName::Worker => Self::Worker,
        }
    }
}

fn lifetime(text: &str) -> Result<Duration, String> {
    let day = Duration::from_secs(24 * 60 * 60);
    match humantime::parse_duration(text) {
        Ok(lifetime) if (Duration::from_secs(60)..=3650 * day).contains(&lifetime) => Ok(lifetime),
        Ok(_) => Err("must be from 1min to 3650days".to_owned()),
        Err(_) => Err("wants a span of time with its unit, such as 90days".to_owned()),
    }
}

/// Issues the certificate and writes the files.
///
/// # Errors
/// When a name is not allowed, a file is there already, or a file cannot be read or written.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    for name in &arguments.dns_names {
        refuse_reserved(name)?;
    }
    let existing = if arguments.force {
        Existing::Replace
    } else {
        Existing::Keep
    };
    let [certificate, key] = [CERTIFICATE, KEY].map(|file| arguments.out.join(file));
    if existing == Existing::Keep
        && let Some(path) = [&certificate, &key].into_iter().find(|path| path.exists())
    {
        bail!("{} exists already; --force replaces it", path.display());
    }

    let (authority, authority_certificate) = authority(&arguments.ca_dir)?;
    let subject = Subject {
        peer: Peer {
            role: arguments.role.into(),
            name: arguments.name.clone(),
        },
        dns_names: arguments.dns_names.clone(),
        addresses: arguments.addresses.clone(),
        lifetime: arguments
            .lifetime
            .try_into()
            .context("the lifetime is too long")?,
    };
    let issued = authority.issue(&subject, &SystemClock)?;

    private_file::create_directory(&arguments.out)?;
    write_authority(&arguments.out.join(AUTHORITY), &authority_certificate, existing)?;
    private_file::write(&key, issued.key.expose_secret().as_bytes(), PRIVATE, existing)?;
    private_file::write(&certificate, issued.certificate.as_bytes(), PUBLIC, existing)?;

    let role = subject.peer.role;
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "issued {} until {}",
        subject.peer,
        issued.not_after.format(&Rfc3339)?
    )?;
    writeln!(out, "trust.authority = {:?}", arguments.out.join(AUTHORITY))?;
    writeln!(out, "trust.{role}.certificate = {certificate:?}")?;
    writeln!(out, "trust.{role}.key = {key:?}")?;
    Ok(())
}

/// Names below our own domain say what role a process has.
fn refuse_reserved(name: &str) -> Result<(), BadArgument> {
    let lower = name.trim_end_matches('.').to_ascii_lowercase();
    if lower == DOMAIN || lower.ends_with(&format!(".{DOMAIN}")) || lower.contains('*') {
        let reason = format!(
            "{name} is not allowed: names below {DOMAIN} say what role a process has, and wildcards would"
        );
        return Err(BadArgument {
            argument: "--dns-name",
            reason,
        });
    }
    Ok(())
}

/// The authority kept in the directory, made where there is none; and its certificate.
fn authority(directory: &Path) -> anyhow::Result<(Authority, String)> {
    let (certificate, key) = (directory.join(AUTHORITY), directory.join(AUTHORITY_KEY));
    if !certificate.exists() && !key.exists() {
        private_file::create_directory(directory)?;
        let made = Authority::generate(&SystemClock)?;
        // The key first: whoever finds a certificate can rely on its key.
        private_file::write(&key, made.key.expose_secret().as_bytes(), PRIVATE, Existing::Keep)?;
        private_file::write(&certificate, made.certificate.as_bytes(), PUBLIC, Existing::Keep)?;
        let until = made.not_after.format(&Rfc3339)?;
        writeln!(
            std::io::stdout(),
            "made a certificate authority in {} until {until}",
            directory.display()
        )?;
    }
    let read = |path: &Path| {
        std::fs::read_to_string(path)
            .with_context(|| format!("the authority's file {} cannot be read", path.display()))
    };
    let certificate = read(&certificate)?;
    let key = SecretString::from(read(&key)?);
    Ok((Authority::from_pem(&certificate, &key)?, certificate))
}

/// Two processes may share a directory's authority, so the same one may be there.
fn write_authority(path: &Path, certificate: &str, existing: Existing) -> anyhow::Result<()> {
    match std::fs::read_to_string(path) {
        Ok(found) if found == certificate => Ok(()),
        Ok(_) if existing == Existing::Keep => {
            bail!(
                "{} is another authority's; --force replaces it, or choose its --ca-dir",
                path.display()
            )
        }
        _ => private_file::write(path, certificate.as_bytes(), PUBLIC, existing),
    }
}
