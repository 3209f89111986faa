//! `pgmoor admin rotate-keys`: seals every stored password to the youngest key of the ring, while everything
//! serves. Each is opened and sealed again in this process and replaced only if nobody replaced it meanwhile.

use std::io::Write;

use anyhow::{Context, bail};
use clap::Args;
use config::Config;
use domain::credential::CredentialKind;
use domain::id::CredentialId;
use domain::random::SystemRandom;
use sealing::{Binding, KeyId, OpenError, Opener, OpeningKey, Sealed, Sealer};
use store::Store;
use store::servers::SealedFor;

use crate::{database, roles};

/// Passwords read at once.
const BATCH: u32 = 200;
/// Most servers named in the output.
const MOST_NAMED: usize = 20;

/// Arguments of `rotate-keys`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Key to seal to, one of the ring. The last of the ring where none is named
    #[arg(long, value_name = "KEY")]
    to: Option<String>,
}

/// What came of the passwords.
#[derive(Debug, Default)]
struct Outcome {
    rewrapped: usize,
    /// Sealed for what their servers were before: they open nowhere, whatever the key.
    void: Vec<String>,
}

/// Seals everything to one key.
///
/// # Errors
/// When the ring lacks a key that a password is sealed to; then nothing has changed.
pub(crate) async fn run(arguments: &Arguments, config: &Config) -> anyhow::Result<()> {
    let ring = roles::key_ring::read(&config.sealing)?;
    let target = target(&ring, arguments.to.as_deref())?;
    let id = target.sealing_key().id();
    let store = database::connect(&config.config_database, "pgmoor admin").await?;
    let opener = Opener::new(ring.iter().cloned());
    check(&store, &opener).await?;
    announce(&store, target).await?;
    let sealer = Sealer::new(target.sealing_key());
    let mut outcome = Outcome::default();
    // What was set on its way to another key may come in behind the first round.
    loop {
        let round = rewrap(&store, &opener, &sealer).await;
        let round = round.context("run it again: what was done stays done")?;
        outcome.rewrapped += round.rewrapped;
        outcome.void = round.void;
        if round.rewrapped == 0 {
            break;
        }
    }
    let mut retired = store.sealing_keys().retire_all_but(id.as_str()).await?;
    let in_use = store.sealing_keys().in_use().await?;
    retired.retain(|key| in_use.iter().all(|(used, _)| used != key));
    store.close().await;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", report(&outcome, &id))?;
    for key in retired {
        writeln!(
            out,
            "nothing is sealed to {key} any more; its line is of use only with an older copy of the config database"
        )?;
    }
    Ok(())
}

fn target<'a>(ring: &'a [OpeningKey], named: Option<&str>) -> anyhow::Result<&'a OpeningKey> {
    let Some(named) = named else {
        return ring.last().context("the ring holds no key");
    };
    let found = ring.iter().find(|key| key.sealing_key().id().as_str() == named);
    found.with_context(|| format!("the ring does not hold the key {named}"))
}

/// Whether the ring opens everything.
async fn check(store: &Store, opener: &Opener) -> anyhow::Result<()> {
    let held = opener.key_ids();
    let in_use = store.sealing_keys().in_use().await?;
    let missing: Vec<String> = in_use
        .into_iter()
        .filter(|(key, _)| !held.contains(&KeyId::from_stored(key.clone())))
        .map(|(key, count)| format!("{key} ({count} passwords)"))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    bail!(
        "the ring lacks keys that passwords are sealed to: {}; add their lines, here and on every pooler and worker",
        missing.join(", ")
    )
}

/// Has API instances seal to the key from now on.
async fn announce(store: &Store, target: &OpeningKey) -> anyhow::Result<()> {
    let key = target.sealing_key();
    let id = key.id();
    let keys = store.sealing_keys();
    keys.publish(id.as_str(), &key.to_bytes()).await?;
    keys.prefer(id.as_str()).await?;
    match keys.current().await? {
        Some(current) if current.key_id == id.as_str() => Ok(()),
        _ => bail!("somebody else is changing the keys at this moment: run it again"),
    }
}

async fn rewrap(store: &Store, opener: &Opener, sealer: &Sealer) -> anyhow::Result<Outcome> {
    let mut outcome = Outcome::default();
    let mut after: Option<CredentialId> = None;
    let target = sealer.key_id();
    loop {
        let batch = store
            .servers()
            .sealed_to_others(target.as_str(), after, BATCH)
            .await?;
        let Some(last) = batch.last() else {
            return Ok(outcome);
        };
        after = Some(last.credential.id);
        for found in &batch {
            one(store, opener, sealer, found, &mut outcome).await?;
        }
    }
}

async fn one(
    store: &Store,
    opener: &Opener,
    sealer: &Sealer,
    found: &SealedFor,
    outcome: &mut Outcome,
) -> anyhow::Result<()> {
    let SealedFor { server, credential } = found;
    let binding = Binding {
        server: server.id,
        kind: credential.kind,
        username: credential.role.as_str(),
        destination: &server.destination,
    };
    let sealed = Sealed {
        key: KeyId::from_stored(credential.key_id.clone()),
        bytes: credential.sealed.clone(),
    };
    let name = match credential.kind {
        CredentialKind::Shared => format!("servers/{}", server.id),
        CredentialKind::ReadOnly => format!("the read-only one of servers/{}", server.id),
        CredentialKind::Personal(user) => format!("that of users/{user} for servers/{}", server.id),
    };
    match opener.open(&binding, &sealed) {
        Ok(password) => {
            let sealed = sealer.seal(&binding, &password, &SystemRandom)?;
            // Where it was replaced meanwhile, it was sealed to the new key.
            let replaced = store
                .servers()
                .rewrap(credential, &sealed.bytes, sealed.key.as_str())
                .await?;
            outcome.rewrapped += usize::from(replaced);
        }
        Err(OpenError::Void) => outcome.void.push(name),
        Err(error @ OpenError::UnknownKey { .. }) => {
            return Err(anyhow::Error::new(error).context(format!("{name} has been changed meanwhile")));
        }
    }
    Ok(())
}

fn report(outcome: &Outcome, key: &KeyId) -> String {
    let mut text = format!(
        "credentials are sealed to {key} from now on; {} were sealed to it anew",
        outcome.rewrapped
    );
    if !outcome.void.is_empty() {
        text += &format!(
            "\n{} open nowhere, because they were sealed for another destination or altered; set the password again: {}",
            outcome.void.len(),
            named(&outcome.void)
        );
    }
    text
}

fn named(servers: &[String]) -> String {
    let mut text = servers
        .iter()
        .take(MOST_NAMED)
        .map(String::as_str)
        .collect::<Vec<_>>()
        .join(", ");
    if servers.len() > MOST_NAMED {
        text += &format!(" and {} more", servers.len() - MOST_NAMED);
    }
    text
}
