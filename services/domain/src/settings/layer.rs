//! One layer: the choices of a user, or of the administrator.

use std::collections::BTreeMap;

use super::definition::{Definition, find};
use super::value::{InvalidValue, SettingValue};

/// What a layer last said about a setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// The value; none after a reset, which is kept so that a watcher who was away learns of it.
    pub value: Option<SettingValue>,
    /// The revision of the change.
    pub revision: i64,
}

/// The choices of one layer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Layer(BTreeMap<&'static str, Choice>);

impl Layer {
    /// Sets a value.
    ///
    /// # Errors
    /// Where it does not fit the definition; the layer is as it was then.
    pub fn choose(
        &mut self,
        definition: &'static Definition,
        value: SettingValue,
        revision: i64,
    ) -> Result<(), InvalidValue> {
        definition.kind.check(&value)?;
        self.0.insert(
            definition.name,
            Choice {
                value: Some(value),
                revision,
            },
        );
        Ok(())
    }

    /// Takes a value out.
    pub fn reset(&mut self, definition: &'static Definition, revision: i64) {
        self.0.insert(
            definition.name,
            Choice {
                value: None,
                revision,
            },
        );
    }

    /// Takes over what the config database keeps: `value` as [`SettingValue::to_stored`] wrote it, none for a
    /// reset.
    ///
    /// A name or a value that this version does not know (another version of pgmoor wrote it) counts as not
    /// chosen.
    pub fn restore(&mut self, name: &str, value: Option<&str>, revision: i64) {
        let Some(definition) = find(name) else { return };
        let value = value.and_then(|stored| SettingValue::from_stored(&definition.kind, stored));
        self.0.insert(definition.name, Choice { value, revision });
    }

    /// The layer's value for a setting with the revision of its change.
    #[must_use]
    pub fn chosen(&self, definition: &Definition) -> Option<(&SettingValue, i64)> {
        let choice = self.0.get(definition.name)?;
        choice.value.as_ref().map(|value| (value, choice.revision))
    }

    /// The settings that changed in this layer after a revision, resets included.
    pub fn changed_after(&self, revision: i64) -> impl Iterator<Item = &'static Definition> {
        self.0
            .iter()
            .filter(move |(_, choice)| choice.revision > revision)
            .filter_map(|(name, _)| find(name))
    }

    /// The revision of the layer's last change; 0 where it was never changed.
    #[must_use]
    pub fn revision(&self) -> i64 {
        self.0.values().map(|choice| choice.revision).max().unwrap_or(0)
    }

    /// True where the layer was never changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{PAGE_SIZE, ROW_LIMIT};

    #[test]
    fn value_that_does_not_fit_leaves_the_layer_as_it_was() {
        let mut layer = Layer::default();
        layer.choose(&PAGE_SIZE, SettingValue::Int(5), 1).unwrap();
        assert!(layer.choose(&PAGE_SIZE, SettingValue::Int(-5), 2).is_err());
        assert_eq!(layer.chosen(&PAGE_SIZE), Some((&SettingValue::Int(5), 1)));
    }

    #[test]
    fn resets_are_changes_too() {
        let mut layer = Layer::default();
        layer.choose(&PAGE_SIZE, SettingValue::Int(5), 1).unwrap();
        layer.choose(&ROW_LIMIT, SettingValue::Int(5), 2).unwrap();
        layer.reset(&PAGE_SIZE, 3);
        let names = |after| {
            layer
                .changed_after(after)
                .map(|definition| definition.name)
                .collect::<Vec<_>>()
        };
        assert_eq!(names(2), ["query.page_size"]);
        assert_eq!(names(0), ["query.page_size", "query.row_limit"]);
        assert_eq!(layer.revision(), 3);
    }

    #[test]
    fn what_another_version_stored_counts_as_not_chosen() {
        let mut layer = Layer::default();
        layer.restore("query.colour", Some("red"), 1);
        layer.restore("query.page_size", Some("many"), 2);
        assert_eq!(layer.chosen(&PAGE_SIZE), None);
        layer.restore("query.page_size", Some("7"), 3);
        assert_eq!(layer.chosen(&PAGE_SIZE), Some((&SettingValue::Int(7), 3)));
    }
}
