//! `pgmoor admin`: what an operator does once, before the first start, and what is looked at
//! without a running process. No secret is ever taken from the
//! command line.

pub(crate) mod create_login_key;
pub(crate) mod create_sealing_key;
pub(crate) mod create_user;
pub(crate) mod issue_certificate;
pub(crate) mod rotate_keys;
pub(crate) mod rotate_login_key;
pub(crate) mod rotate_signing_key;
pub(crate) mod verify_audit;

use clap::Subcommand;
use config::Config;

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Issue the certificate of a role, and make the certificate authority where there is none
    IssueCertificate(issue_certificate::Arguments),
    /// Make a key pair for credentials: the opening key for poolers and workers, the public key for the
    /// config database
    CreateSealingKey(create_sealing_key::Arguments),
    /// Seal every stored password to the youngest key of the ring, while everything serves
    RotateKeys(rotate_keys::Arguments),
    /// Make the key that API instances share for logins with a provider, and for what signs access tokens
    CreateLoginKey(create_login_key::Arguments),
    /// Seal with the first login key what is sealed with another one, while everything serves
    RotateLoginKey(rotate_login_key::Arguments),
    /// Make another key the one that signs access tokens, at once
    RotateSigningKey(rotate_signing_key::Arguments),
    /// Make a user
    CreateUser(create_user::Arguments),
    /// Go along the chains of the audit trail and say whether anybody touched them
    VerifyAudit(verify_audit::Arguments),
}

/// Runs a command.
///
/// # Errors
/// Why it failed.
pub(crate) async fn run(command: Command, config: &Config) -> anyhow::Result<()> {
    match command {
        Command::IssueCertificate(arguments) => issue_certificate::run(&arguments),
        Command::CreateSealingKey(arguments) => create_sealing_key::run(&arguments, config).await,
        Command::RotateKeys(arguments) => rotate_keys::run(&arguments, config).await,
        Command::CreateLoginKey(arguments) => create_login_key::run(&arguments),
        Command::RotateLoginKey(arguments) => rotate_login_key::run(&arguments, config).await,
        Command::RotateSigningKey(arguments) => rotate_signing_key::run(&arguments, config).await,
        Command::CreateUser(arguments) => create_user::run(&arguments, config).await,
        Command::VerifyAudit(arguments) => verify_audit::run(&arguments, config).await,
    }
}
