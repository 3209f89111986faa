//! Settings between the domain, the wire and the config database.

use domain::settings::{Definition, InForce, Kind, Layer, SettingValue, Source};
use rpc::settings::v1 as proto;
use rpc::settings::v1::setting_value;
use serde_json::Value;
use store::settings::LayerSettings;

use crate::duration;

/// A value as the config database keeps it.
pub(crate) fn to_json(value: &SettingValue) -> Value {
    match value {
        SettingValue::Bool(value) => Value::from(*value),
        SettingValue::Int(value) => Value::from(*value),
        SettingValue::Text(_) | SettingValue::Duration(_) => Value::from(value.to_stored()),
    }
}

/// What the config database keeps, as the domain reads it; none for what no version of pgmoor writes.
pub(crate) fn stored_text(value: &Value) -> Option<String> {
    match value {
        Value::Bool(value) => Some(value.to_string()),
        Value::Number(value) => Some(value.to_string()),
        Value::String(value) => Some(value.clone()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// A layer as it was read.
pub(crate) fn layer(read: &LayerSettings) -> Layer {
    let mut layer = Layer::default();
    for (name, value) in &read.values {
        layer.restore(name, stored_text(&value.value).as_deref(), value.revision);
    }
    layer
}

/// Reads a value; which type it must have is for the definition to say.
pub(crate) fn value(value: Option<proto::SettingValue>) -> Result<SettingValue, &'static str> {
    match value.and_then(|value| value.kind) {
        Some(setting_value::Kind::BoolValue(value)) => Ok(SettingValue::Bool(value)),
        Some(setting_value::Kind::IntValue(value)) => Ok(SettingValue::Int(value)),
        Some(setting_value::Kind::StringValue(value)) => Ok(SettingValue::Text(value.into())),
        Some(setting_value::Kind::DurationValue(value)) => {
            duration::decode(value).map(SettingValue::Duration)
        }
        None => Err("must be given"),
    }
}

fn encode(value: &SettingValue) -> proto::SettingValue {
    proto::SettingValue {
        kind: Some(match value {
            SettingValue::Bool(value) => setting_value::Kind::BoolValue(*value),
            SettingValue::Int(value) => setting_value::Kind::IntValue(*value),
            SettingValue::Text(value) => setting_value::Kind::StringValue(value.to_string()),
            SettingValue::Duration(value) => setting_value::Kind::DurationValue(duration::encode(*value)),
        }),
    }
}

/// A setting in force.
pub(crate) fn setting(setting: InForce<'_>) -> proto::Setting {
    proto::Setting {
        name: setting.definition.name.to_owned(),
        value: Some(encode(setting.value)),
        layer: match setting.source {
            Source::BuiltIn => proto::SettingLayer::BuiltIn,
            Source::Defaults => proto::SettingLayer::Defaults,
            Source::User => proto::SettingLayer::User,
        }
        .into(),
        revision: setting.revision,
    }
}

/// What a setting is.
pub(crate) fn definition(definition: &Definition) -> proto::SettingDefinition {
    let mut message = proto::SettingDefinition {
        name: definition.name.to_owned(),
        default_value: Some(encode(&definition.default)),
        description: definition.description.to_owned(),
        ..proto::SettingDefinition::default()
    };
    match &definition.kind {
        Kind::Bool => message.set_type(proto::SettingType::Bool),
        Kind::Int { min, max } => {
            message.set_type(proto::SettingType::Int);
            (message.min_int, message.max_int) = (Some(*min), Some(*max));
        }
        Kind::Text { max_chars, .. } => {
            message.set_type(proto::SettingType::String);
            message.max_length = i32::try_from(*max_chars).ok();
        }
        Kind::Enum { words } => {
            message.set_type(proto::SettingType::Enum);
            message.enum_values = words.iter().map(|word| (*word).to_owned()).collect();
        }
        Kind::Duration { min, max } => {
            message.set_type(proto::SettingType::Duration);
            (message.min_duration, message.max_duration) =
                (Some(duration::encode(*min)), Some(duration::encode(*max)));
        }
    }
    message
}

#[cfg(test)]
mod tests {
    use domain::settings::DEFINITIONS;

    use super::*;

    #[test]
    fn values_survive_the_config_database() {
        for definition in DEFINITIONS {
            let text = stored_text(&to_json(&definition.default)).unwrap();
            let read = SettingValue::from_stored(&definition.kind, &text);
            assert_eq!(read.as_ref(), Some(&definition.default), "{}", definition.name);
        }
    }

    #[test]
    fn values_survive_the_wire() {
        for definition in DEFINITIONS {
            assert_eq!(
                value(Some(encode(&definition.default))),
                Ok(definition.default.clone())
            );
        }
        assert!(value(None).is_err());
        assert!(value(Some(proto::SettingValue { kind: None })).is_err());
    }
}
