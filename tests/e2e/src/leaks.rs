//! Looks for secrets where none may be: logs, command lines, environments.

use std::collections::HashSet;

use crate::World;
use crate::secrets::Secrets;

/// Every place where a secret of the world was found, as `what in where`.
#[must_use]
pub fn find(world: &World) -> Vec<String> {
    let mut leaks = in_processes(world.secrets());
    for (place, text) in world.logs() {
        let found = world.secrets().found_in(&text);
        leaks.extend(found.into_iter().map(|what| format!("{what} in {place}")));
    }
    leaks.sort();
    leaks.dedup();
    leaks
}

/// Secrets in the command line or the environment of any process of this machine that may be looked at.
#[must_use]
pub fn in_processes(secrets: &Secrets) -> Vec<String> {
    Processes::default().look(secrets)
}

/// Looks at processes again and again, and only once at what has not changed.
#[derive(Debug, Default)]
pub struct Processes {
    seen: HashSet<Vec<u8>>,
    /// How many secrets there were.
    secrets: usize,
}

impl Processes {
    /// What is found in the command lines and environments that were not there, or were others, the last time.
    ///
    /// # Panics
    /// Where processes cannot be listed.
    pub fn look(&mut self, secrets: &Secrets) -> Vec<String> {
        let count = secrets.count();
        if self.secrets != count {
            // What was seen was not looked through for the new ones.
            self.seen.clear();
            self.secrets = count;
        }
        let mut leaks = Vec::new();
        let entries = std::fs::read_dir("/proc").expect("/proc can be listed");
        for entry in entries.flatten() {
            let path = entry.path();
            if entry.file_name().to_string_lossy().parse::<u32>().is_err() {
                continue;
            }
            for file in ["cmdline", "environ"] {
                // A process may end meanwhile, or belong to somebody else.
                let Ok(bytes) = std::fs::read(path.join(file)) else {
                    continue;
                };
                if self.seen.contains(&bytes) {
                    continue;
                }
                let found = secrets.found_in_bytes(&bytes);
                let name = std::fs::read_to_string(path.join("comm")).unwrap_or_default();
                let place = format!("{}/{file} ({})", path.display(), name.trim());
                leaks.extend(found.into_iter().map(|what| format!("{what} in {place}")));
                self.seen.insert(bytes);
            }
        }
        leaks
    }
}
