//! The settings a server reports without being asked (PostgreSQL manual, "Asynchronous Operations").

use std::collections::BTreeMap;

use crate::text::ServerText;

/// More than any server reports; a server that invents names must not fill our memory.
const MOST_PARAMETERS: usize = 256;

/// Current values of the reported settings: `server_version`, `client_encoding`, `TimeZone`, ...
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Parameters(BTreeMap<String, ServerText>);

impl Parameters {
    /// The value of a setting, `None` when the server does not report it. Names are as the server spells
    /// them (`DateStyle`).
    pub fn get(&self, name: &str) -> Option<&ServerText> {
        self.0.get(name)
    }

    /// All settings in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &ServerText)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value))
    }

    pub(crate) fn set(&mut self, name: &ServerText, value: ServerText) {
        let name = name.to_str_lossy();
        if let Some(current) = self.0.get_mut(name.as_ref()) {
            *current = value;
        } else if self.0.len() < MOST_PARAMETERS {
            self.0.insert(name.into_owned(), value);
        }
    }
}
