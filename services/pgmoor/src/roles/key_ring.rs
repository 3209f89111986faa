//! The keys that open credentials: read at the start, and read again when their file changes, so that a key
//! is brought in without a restart.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use config::Sealing;
use sealing::{InvalidKey, Opener, OpeningKey};
use secrecy::{ExposeSecret, SecretString};
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use crate::lifecycle::Lifecycle;

/// Time between two looks at the file.
const INTERVAL: Duration = Duration::from_secs(5);

/// Reads the ring: a key a line, in the configuration or in the file that it names.
///
/// # Errors
/// When neither is set, or what is there cannot be read or is no ring.
pub(crate) fn read(section: &Sealing) -> anyhow::Result<Vec<OpeningKey>> {
    if let Some(text) = section.opening_keys()? {
        return parse(text.expose_secret()).context("sealing.opening_keys cannot be used");
    }
    read_file(section.require_opening_key_file()?)
}

/// Reads a file with a key a line.
///
/// # Errors
/// When it cannot be read or is no ring; the message names it.
pub(crate) fn read_file(path: &Path) -> anyhow::Result<Vec<OpeningKey>> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("the opening key's file {} cannot be read", path.display()))?;
    parse(&Zeroizing::new(text)).with_context(|| format!("{} cannot be used", path.display()))
}

/// Keys that a process holds, and that stand in a file.
pub(crate) trait Ring: Clone + Send + 'static {
    /// The keys as the file has them.
    type Keys: Send + 'static;
    /// What the log calls it.
    const NAME: &'static str;

    /// Reads a file.
    ///
    /// # Errors
    /// When it cannot be read or is no ring; the message names it.
    fn read(path: &Path) -> anyhow::Result<Self::Keys>;

    /// What keys are called. What is not the same here is a change.
    fn ids(keys: &Self::Keys) -> Vec<String>;

    /// What the keys are called that the process holds.
    fn held(&self) -> Vec<String>;

    /// Holds these and no others.
    fn take(&self, keys: Self::Keys);
}

impl Ring for Opener {
    type Keys = Vec<OpeningKey>;
    const NAME: &'static str = "the key ring";

    fn read(path: &Path) -> anyhow::Result<Vec<OpeningKey>> {
        read_file(path)
    }

    /// In one order: any of them opens what is sealed to it.
    fn ids(keys: &Vec<OpeningKey>) -> Vec<String> {
        let ids: BTreeSet<_> = keys.iter().map(|key| key.sealing_key().id()).collect();
        ids.iter().map(ToString::to_string).collect()
    }

    fn held(&self) -> Vec<String> {
        self.key_ids().iter().map(ToString::to_string).collect()
    }

    fn take(&self, keys: Vec<OpeningKey>) {
        self.hold(keys);
    }
}

/// Makes what opens credentials in this process, and keeps it up with the file.
///
/// # Errors
/// As [`read`].
pub(crate) fn open(section: &Sealing) -> anyhow::Result<Opener> {
    Ok(Opener::new(read(section)?))
}

/// Takes up what is written to the ring's file, for as long as the process lives. A ring from the
/// environment stays what it is.
pub(crate) fn follow(lifecycle: &Lifecycle, section: &Sealing, opener: Opener) {
    let Some(path) = section.opening_key_file.clone() else {
        return;
    };
    follow_file(lifecycle, path, opener);
}

/// The same for any ring.
pub(crate) fn follow_file<R: Ring + Sync>(lifecycle: &Lifecycle, path: PathBuf, ring: R) {
    let retire = lifecycle.retiring();
    lifecycle.background(R::NAME, async move {
        watch(path, ring, INTERVAL, retire).await;
        Ok(())
    });
}

async fn watch<R: Ring>(path: PathBuf, ring: R, interval: Duration, retire: CancellationToken) {
    let mut complained = false;
    let mut lacking = None;
    while retire
        .run_until_cancelled(tokio::time::sleep(interval))
        .await
        .is_some()
    {
        let file = path.clone();
        // A disk that hangs must not hold up anybody else.
        let keys = match tokio::task::spawn_blocking(move || R::read(&file)).await {
            Ok(Ok(keys)) => keys,
            failed => {
                // What was read before still opens what it opened; once is enough to say so.
                if !std::mem::replace(&mut complained, true) {
                    let error = failed.map_or_else(|error| error.to_string(), |read| describe(read.err()));
                    tracing::warn!(
                        error,
                        "{} cannot be read again; the keys held before stay",
                        R::NAME
                    );
                }
                continue;
            }
        };
        complained = false;
        let ids = R::ids(&keys);
        // A file that lacks keys may be half written: it is believed when it says the same again.
        let held = ring.held();
        let is_whole = held.iter().all(|key| ids.contains(key));
        if !is_whole && lacking.replace(ids.clone()).as_ref() != Some(&ids) {
            continue;
        }
        lacking = None;
        if held != ids {
            ring.take(keys);
            tracing::info!(keys = ids.join(", "), "{} has changed", R::NAME);
        }
    }
}

fn describe(error: Option<anyhow::Error>) -> String {
    error.map_or_else(String::new, |error| format!("{error:#}"))
}

fn parse(text: &str) -> anyhow::Result<Vec<OpeningKey>> {
    let keys: Result<Vec<_>, InvalidKey> = text
        .split_whitespace()
        .map(|key| OpeningKey::from_text(&SecretString::from(key)))
        .collect();
    let keys = keys?;
    ensure!(!keys.is_empty(), "there is no opening key in it");
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use domain::random::SeededRandom;
    use tokio_util::task::TaskTracker;

    use super::*;

    fn line(key: &OpeningKey) -> String {
        key.to_text().expose_secret().to_owned()
    }

    #[test]
    fn ring_has_a_key_a_line_and_says_where_none_is() {
        let random = SeededRandom::new(1);
        let (one, two) = (OpeningKey::generate(&random), OpeningKey::generate(&random));
        let ring = parse(&format!("\n{}\n  {}", line(&one), line(&two))).unwrap();
        let ids: Vec<_> = ring.iter().map(|key| key.sealing_key().id()).collect();
        assert_eq!(ids, [one.sealing_key().id(), two.sealing_key().id()]);
        assert!(parse(" \n").is_err());
        let broken = format!("{}\npgmoor-opening-key-1:tooshort", line(&one));
        let error = format!("{:#}", parse(&broken).unwrap_err());
        assert!(!error.contains("tooshort"), "{error}");
    }

    #[tokio::test]
    async fn file_that_lacks_a_key_for_a_moment_takes_none_away() {
        let random = SeededRandom::new(3);
        let (one, two) = (OpeningKey::generate(&random), OpeningKey::generate(&random));
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ring");
        let both = format!("{}\n{}", line(&one), line(&two));
        std::fs::write(&path, &both).unwrap();
        let opener = Opener::new(read_file(&path).unwrap());
        let interval = Duration::from_millis(50);
        let mut look = Box::pin(watch(
            path.clone(),
            opener.clone(),
            interval,
            CancellationToken::new(),
        ));
        // One look at the first half, as an editor leaves it.
        std::fs::write(&path, line(&one)).unwrap();
        let _ = tokio::time::timeout(interval + interval / 2, &mut look).await;
        assert_eq!(opener.key_ids().len(), 2);
        std::fs::write(&path, &both).unwrap();
        let _ = tokio::time::timeout(interval * 4, &mut look).await;
        assert_eq!(opener.key_ids().len(), 2);
        // One that stays so is meant.
        std::fs::write(&path, line(&one)).unwrap();
        let taken = async {
            while opener.key_ids().len() > 1 {
                tokio::time::sleep(interval).await;
            }
        };
        tokio::select! {
            () = look => {}
            taken = tokio::time::timeout(Duration::from_secs(30), taken) => taken.unwrap(),
        }
        assert_eq!(opener.key_ids(), [one.sealing_key().id()].into());
    }

    #[tokio::test]
    async fn key_that_is_added_is_taken_up_and_a_broken_file_takes_none_away() {
        let random = SeededRandom::new(2);
        let (one, two) = (OpeningKey::generate(&random), OpeningKey::generate(&random));
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ring");
        std::fs::write(&path, line(&one)).unwrap();
        let opener = Opener::new(read_file(&path).unwrap());
        let (tasks, retire) = (TaskTracker::new(), CancellationToken::new());
        let interval = Duration::from_millis(5);
        tasks.spawn(watch(path.clone(), opener.clone(), interval, retire.clone()));

        std::fs::write(&path, "no key").unwrap();
        let both = [one.sealing_key().id(), two.sealing_key().id()].into();
        let taken_up = async {
            // It may be looked at half written.
            std::fs::write(&path, format!("{}{}", line(&one), line(&two))).unwrap();
            while opener.key_ids() != both {
                assert!(opener.key_ids().contains(&one.sealing_key().id()));
                tokio::time::sleep(interval).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), taken_up)
            .await
            .unwrap();
        retire.cancel();
        tasks.close();
        tasks.wait().await;
    }
}
