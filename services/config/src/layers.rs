//! Defaults, then the file, then the environment: a later layer wins key by key.
//!
//! A variable is `PGMOOR_<SECTION>__<KEY>`, with two underscores between the parts of a key. The config
//! database's URL has the short names `PGMOOR_CONFIG_DATABASE_URL` and `PGMOOR_CONFIG_DATABASE_URL_FILE`.
//! Other variables of the prefix are left alone (Kubernetes makes `PGMOOR_API_PORT` out of a service's name),
//! unless one is clearly a key that was written with a single underscore.

use std::path::Path;

use figment::error::{Actual, Kind};
use figment::providers::{Format, Toml};
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};
use serde::Deserialize;
use serde::de::{Error as _, Visitor};

use crate::problem::variable_of;
use crate::{Config, Environment, InvalidConfig, Problem};

/// Variables without a section that set a key.
const SHORT_NAMES: [(&str, [&str; 2]); 2] = [
    ("CONFIG_DATABASE_URL", ["config_database", "url"]),
    ("CONFIG_DATABASE_URL_FILE", ["config_database", "url_file"]),
];

impl Config {
    /// Reads the file, when there is one, and the environment over it; reads the files that hold secrets;
    /// checks every value.
    ///
    /// # Errors
    /// All problems found, each with its key. Of values that cannot be parsed, only the first of each layer
    /// is found.
    pub fn load(file: Option<&Path>, environment: &Environment) -> Result<Self, InvalidConfig> {
        let mut layers = Figment::new();
        if let Some(path) = file {
            // Read here first: figment takes a file it cannot read for an empty one.
            std::fs::read_to_string(path).map_err(|error| Problem {
                key: path.display().to_string(),
                origin: "configuration file".to_owned(),
                reason: format!("cannot be read: {error}"),
            })?;
            layers = layers.merge(Toml::file_exact(path));
        }
        let variables = Variables::of(environment)?;
        let mut config: Self = layers.merge(variables).extract().map_err(invalid)?;
        config.resolve_secrets()?;
        config.validate()?;
        Ok(config)
    }

    fn resolve_secrets(&mut self) -> Result<(), InvalidConfig> {
        self.config_database.resolve()?;
        self.oidc.resolve()?;
        Ok(())
    }

    fn validate(&self) -> Result<(), InvalidConfig> {
        let problems: Vec<Problem> = [
            self.config_database.validate(),
            self.api.validate(),
            self.audit.validate(),
            self.oidc.validate(),
            self.api.validate_logins(&self.oidc),
            self.pooler.validate(),
            self.trust.validate(),
            self.egress.validate(),
            self.storage.validate(),
            self.worker.validate(),
            self.telemetry.validate(),
        ]
        .concat();
        if problems.is_empty() {
            Ok(())
        } else {
            Err(InvalidConfig { problems })
        }
    }
}

/// The layer of the environment.
struct Variables(Dict);

impl Variables {
    fn of(environment: &Environment) -> Result<Self, InvalidConfig> {
        let mut dict = Dict::new();
        for (name, value) in environment.ours()? {
            let short = SHORT_NAMES.iter().find(|(short, _)| *short == name);
            let path: Vec<String> = match short {
                Some((_, path)) => path.map(str::to_owned).to_vec(),
                None if name.contains("__") => name.to_lowercase().split("__").map(str::to_owned).collect(),
                None => {
                    refuse_single_underscore(name)?;
                    continue;
                }
            };
            insert(&mut dict, &path, value);
        }
        Ok(Self(dict))
    }
}

fn insert(dict: &mut Dict, path: &[String], value: &str) {
    let [key, rest @ ..] = path else { return };
    if rest.is_empty() {
        dict.insert(key.clone(), Value::from(value));
        return;
    }
    let table = dict
        .entry(key.clone())
        .or_insert_with(|| Value::from(Dict::new()));
    if !matches!(table, Value::Dict(..)) {
        *table = Value::from(Dict::new());
    }
    if let Value::Dict(_, table) = table {
        insert(table, rest, value);
    }
}

/// `PGMOOR_API_LISTEN` is a mistake worth a word: without it the value would be ignored in silence.
fn refuse_single_underscore(name: &str) -> Result<(), Problem> {
    let name = name.to_lowercase();
    for section in fields_of::<Config>() {
        let Some(key) = name.strip_prefix(section).and_then(|rest| rest.strip_prefix('_')) else {
            continue;
        };
        let known = KNOWN_KEYS.iter().find(|(other, _)| other == section);
        if known.is_some_and(|(_, fields)| fields().contains(&key)) {
            let meant = variable_of(&format!("{section}.{key}"));
            return Err(Problem {
                key: format!("PGMOOR_{}", name.to_uppercase()),
                origin: "environment".to_owned(),
                reason: format!("is not a key: write {meant}, with two underscores"),
            });
        }
    }
    Ok(())
}

/// Asks for the keys of one section.
type Keys = fn() -> &'static [&'static str];

/// The keys of each section.
const KNOWN_KEYS: [(&str, Keys); 12] = [
    ("config_database", fields_of::<crate::ConfigDatabase>),
    ("api", fields_of::<crate::Api>),
    ("audit", fields_of::<crate::Audit>),
    ("oidc", fields_of::<crate::Oidc>),
    ("pooler", fields_of::<crate::Pooler>),
    ("trust", fields_of::<crate::Trust>),
    ("sealing", fields_of::<crate::Sealing>),
    ("egress", fields_of::<crate::Egress>),
    ("storage", fields_of::<crate::Storage>),
    ("worker", fields_of::<crate::Worker>),
    ("metrics", fields_of::<crate::Metrics>),
    ("telemetry", fields_of::<crate::Telemetry>),
];

/// The names under which serde reads a struct's fields.
fn fields_of<'de, T: Deserialize<'de>>() -> &'static [&'static str] {
    struct Ask<'a>(&'a mut &'static [&'static str]);
    impl<'de> serde::Deserializer<'de> for Ask<'_> {
        type Error = figment::Error;

        fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
            Err(Self::Error::custom("only the names are asked for"))
        }

        fn deserialize_struct<V: Visitor<'de>>(
            self,
            _: &'static str,
            fields: &'static [&'static str],
            _: V,
        ) -> Result<V::Value, Self::Error> {
            *self.0 = fields;
            Err(Self::Error::custom("only the names are asked for"))
        }

        serde::forward_to_deserialize_any! {
            bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
            unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
        }
    }
    let mut fields: &'static [&'static str] = &[];
    // Always an error: nothing is deserialised.
    let _ = T::deserialize(Ask(&mut fields));
    fields
}

impl Provider for Variables {
    fn metadata(&self) -> Metadata {
        Metadata::named("environment")
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Map::from([(Profile::Default, self.0.clone())]))
    }
}

/// figment's errors in our words: the key first, then where it was found.
fn invalid(error: figment::Error) -> InvalidConfig {
    let problems = error.into_iter().map(|error| {
        let origin = match &error.metadata {
            Some(metadata) => match metadata.source.as_ref().and_then(figment::Source::file_path) {
                Some(path) => path.display().to_string(),
                None => metadata.name.to_string(),
            },
            None => String::new(),
        };
        let mut path = error.path.clone();
        let reason = match &error.kind {
            Kind::UnknownField(name, expected) => {
                if path.last() != Some(name) {
                    path.push(name.clone());
                }
                format!("is not a key here: expected one of {}", expected.join(", "))
            }
            Kind::UnknownVariant(given, expected) => {
                format!(
                    "has no such value as {given}: expected one of {}",
                    expected.join(", ")
                )
            }
            // The value itself stays out: it may be a secret.
            Kind::InvalidType(actual, expected) => format!("wants {expected}, not {}", shape(actual)),
            Kind::Message(text) => text.clone(),
            other => other.to_string(),
        };
        let key = if path.is_empty() {
            "configuration".to_owned()
        } else {
            path.join(".")
        };
        Problem { key, origin, reason }
    });
    InvalidConfig {
        problems: problems.collect(),
    }
}

fn shape(actual: &Actual) -> &'static str {
    match actual {
        Actual::Bool(_) => "true or false",
        Actual::Unsigned(_) | Actual::Signed(_) | Actual::Float(_) => "a number",
        Actual::Char(_) | Actual::Str(_) | Actual::Bytes(_) => "a text",
        Actual::Seq => "a list",
        Actual::Map => "a table",
        _ => "this",
    }
}

#[cfg(test)]
mod tests;
