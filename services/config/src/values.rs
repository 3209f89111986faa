//! How values are written: the same in the file and in the environment, where everything is text.

use std::time::Duration;

use secrecy::SecretString;
use serde::de::Error;
use serde::{Deserialize, Deserializer};

/// A number, or its digits as text.
pub(crate) fn number<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: TryFrom<u64>,
{
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Number(u64),
        Text(String),
    }
    let wanted = "wants a whole number";
    let number = match Written::deserialize(deserializer).map_err(|_| D::Error::custom(wanted))? {
        Written::Number(number) => number,
        Written::Text(text) => text.trim().parse().map_err(|_| D::Error::custom(wanted))?,
    };
    T::try_from(number).map_err(|_| D::Error::custom("is too large"))
}

/// A span of time with its unit: `30s`, `15m`, `1h 30m`, `500ms`.
pub(crate) fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let wanted = "wants a span of time with its unit, such as 30s, 15m or 1h";
    let text = String::deserialize(deserializer).map_err(|_| D::Error::custom(wanted))?;
    humantime::parse_duration(&text).map_err(|_| D::Error::custom(wanted))
}

/// A text that is shown to nobody.
pub(crate) fn secret<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SecretString>, D::Error> {
    let text = String::deserialize(deserializer).map_err(|_| D::Error::custom("wants a text"))?;
    Ok(Some(SecretString::from(text)))
}

/// A list of texts, or one text with commas between the entries.
pub(crate) fn list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        List(Vec<String>),
        Text(String),
    }
    match Written::deserialize(deserializer).map_err(|_| D::Error::custom("wants a list of texts"))? {
        Written::List(entries) => Ok(entries),
        Written::Text(text) => Ok(entries(&text).map(str::to_owned).collect()),
    }
}

/// A list of numbers, or one text with commas between them.
pub(crate) fn numbers<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: TryFrom<u64>,
{
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        List(Vec<u64>),
        Text(String),
    }
    let wanted = || D::Error::custom("wants a list of whole numbers");
    let numbers = match Written::deserialize(deserializer).map_err(|_| wanted())? {
        Written::List(numbers) => numbers,
        Written::Text(text) => entries(&text)
            .map(str::parse)
            .collect::<Result<_, _>>()
            .map_err(|_| wanted())?,
    };
    numbers
        .into_iter()
        .map(|number| T::try_from(number).map_err(|_| wanted()))
        .collect()
}

fn entries(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|entry| !entry.is_empty())
}
