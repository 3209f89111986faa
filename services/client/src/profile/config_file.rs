//! `config.toml`: the profiles, in a file that people edit too.

use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use toml_edit::{DocumentMut, Item, Table, value};

use super::{ProfileError, failed};

/// The file's content.
#[derive(Debug, Default)]
pub(crate) struct ConfigFile(DocumentMut);

/// What the file says about one profile.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) url: Option<String>,
    pub(crate) user: Option<String>,
    pub(crate) provider: Option<String>,
    pub(crate) ca_file: Option<PathBuf>,
}

impl ConfigFile {
    /// Reads the file; a missing one is empty.
    pub(crate) fn read(path: &Path) -> Result<Self, ProfileError> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
            Err(error) => return Err(failed("read", path)(error)),
        };
        let malformed = |problem: String| ProfileError::Malformed {
            path: path.to_owned(),
            problem,
        };
        let document: DocumentMut = text
            .parse()
            .map_err(|error: toml_edit::TomlError| malformed(error.to_string()))?;
        let config = Self(document);
        config.check().map_err(malformed)?;
        Ok(config)
    }

    /// A key that is ignored is a wish that is not fulfilled.
    fn check(&self) -> Result<(), String> {
        for (key, item) in self.0.iter() {
            match key {
                "default_profile" if item.is_str() => {}
                "profiles" if item.is_table_like() => {}
                "default_profile" => return Err("default_profile must be a string".into()),
                "profiles" => return Err("profiles must be a table".into()),
                _ => return Err(format!("unknown key {key:?}")),
            }
        }
        for (name, profile) in self
            .0
            .get("profiles")
            .and_then(Item::as_table_like)
            .into_iter()
            .flat_map(|t| t.iter())
        {
            let profile = profile
                .as_table_like()
                .ok_or_else(|| format!("profiles.{name} must be a table"))?;
            for (key, item) in profile.iter() {
                if !matches!(key, "url" | "user" | "provider" | "ca_file") {
                    return Err(format!("unknown key {key:?} in profiles.{name}"));
                }
                if !item.is_str() {
                    return Err(format!("profiles.{name}.{key} must be a string"));
                }
            }
        }
        Ok(())
    }

    pub(crate) fn default_profile(&self) -> Option<String> {
        self.0.get("default_profile")?.as_str().map(str::to_owned)
    }

    pub(crate) fn entry(&self, name: &str) -> Entry {
        let profile = self.0.get("profiles").and_then(|profiles| profiles.get(name));
        let text = |key| {
            profile
                .and_then(|profile| profile.get(key))
                .and_then(Item::as_str)
                .map(str::to_owned)
        };
        Entry {
            url: text("url"),
            user: text("user"),
            provider: text("provider"),
            ca_file: text("ca_file").map(PathBuf::from),
        }
    }

    pub(crate) fn set(&mut self, name: &str, entry: &Entry) {
        let profiles = self.0.entry("profiles").or_insert_with(|| {
            let mut table = Table::new();
            table.set_implicit(true);
            Item::Table(table)
        });
        let Some(profiles) = profiles.as_table_like_mut() else {
            return;
        };
        let profile = profiles.entry(name).or_insert_with(|| Item::Table(Table::new()));
        let Some(profile) = profile.as_table_like_mut() else {
            return;
        };
        let ca_file = entry.ca_file.as_ref().map(|path| path.display().to_string());
        if entry.provider.is_none() {
            // Whoever logged in with a password does so the next time.
            profile.remove("provider");
        }
        for (key, text) in [
            ("url", &entry.url),
            ("user", &entry.user),
            ("provider", &entry.provider),
            ("ca_file", &ca_file),
        ] {
            if let Some(text) = text {
                match profile.get_mut(key).and_then(Item::as_value_mut) {
                    Some(old) => {
                        let decor = old.decor().clone();
                        *old = text.as_str().into();
                        *old.decor_mut() = decor;
                    }
                    None => {
                        profile.insert(key, value(text.as_str()));
                    }
                }
            }
        }
    }

    /// Replaces the file in one step.
    pub(crate) fn write(&self, path: &Path) -> Result<(), ProfileError> {
        let directory = path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(directory).map_err(failed("make", directory))?;
        let mut file = tempfile::NamedTempFile::new_in(directory).map_err(failed("write to", directory))?;
        file.write_all(self.0.to_string().as_bytes())
            .map_err(failed("write", path))?;
        file.as_file().sync_all().map_err(failed("write", path))?;
        file.persist(path)
            .map_err(|error| failed("write", path)(error.error))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_keys_are_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.toml");
        for (text, problem) in [
            ("[profile.x]\n", "unknown key \"profile\""),
            ("[profiles.x]\nuri = \"a\"\n", "unknown key \"uri\" in profiles.x"),
            ("[profiles.x]\nurl = 1\n", "profiles.x.url must be a string"),
            ("profiles = 3\n", "profiles must be a table"),
        ] {
            std::fs::write(&path, text).unwrap();
            let error = ConfigFile::read(&path).unwrap_err().to_string();
            assert!(error.ends_with(problem), "{error}");
        }
        std::fs::write(&path, "[profiles").unwrap();
        assert!(matches!(
            ConfigFile::read(&path),
            Err(ProfileError::Malformed { .. })
        ));
    }
}
