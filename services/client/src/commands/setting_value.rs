//! A setting's value as a person writes and reads it.

use std::time::Duration;

use rpc::settings::v1::setting_value::Kind;
use rpc::settings::v1::{SettingDefinition, SettingType, SettingValue};

use super::token::wire_duration;
use crate::error::ClientError;

/// Reads a value of the type the definition states. The server checks its range.
pub(crate) fn parse(definition: Option<&SettingDefinition>, text: &str) -> Result<SettingValue, ClientError> {
    let wrong = |expected: &str| {
        let name = definition
            .map(|definition| definition.name.as_str())
            .unwrap_or_default();
        ClientError::usage(format!("{name} must be {expected}, not {text:?}"))
    };
    let kind = match definition.map(SettingDefinition::r#type) {
        Some(SettingType::Bool) => match text.to_ascii_lowercase().as_str() {
            "true" | "on" | "yes" => Kind::BoolValue(true),
            "false" | "off" | "no" => Kind::BoolValue(false),
            _ => return Err(wrong("true or false")),
        },
        Some(SettingType::Int) => Kind::IntValue(text.parse().map_err(|_| wrong("a whole number"))?),
        Some(SettingType::Duration) => {
            let seconds = text.parse().map(Duration::from_secs);
            let duration = seconds.or_else(|_| humantime::parse_duration(text));
            Kind::DurationValue(wire_duration(
                duration.map_err(|_| wrong("a time such as 30s or 5m"))?,
            ))
        }
        Some(SettingType::Enum) => {
            let known = definition.and_then(|definition| {
                definition
                    .enum_values
                    .iter()
                    .find(|value| value.eq_ignore_ascii_case(text))
            });
            Kind::StringValue(known.cloned().unwrap_or_else(|| text.to_owned()))
        }
        // A setting this client does not know: the server says what is wrong with it.
        Some(SettingType::String | SettingType::Unspecified) | None => Kind::StringValue(text.to_owned()),
    };
    Ok(SettingValue { kind: Some(kind) })
}

/// The value as text.
pub(crate) fn text(value: Option<&SettingValue>) -> Option<String> {
    Some(match value?.kind.as_ref()? {
        Kind::BoolValue(value) => value.to_string(),
        Kind::IntValue(value) => value.to_string(),
        Kind::StringValue(value) => value.clone(),
        Kind::DurationValue(value) => {
            let seconds = u64::try_from(value.seconds).unwrap_or_default();
            let nanos = u32::try_from(value.nanos).unwrap_or_default();
            humantime::format_duration(Duration::new(seconds, nanos)).to_string()
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(setting_type: SettingType, given: &str) -> Option<String> {
        let definition = SettingDefinition {
            name: "x.y".into(),
            r#type: setting_type.into(),
            enum_values: vec!["STOP".into(), "CONTINUE".into()],
            ..SettingDefinition::default()
        };
        text(parse(Some(&definition), given).ok().as_ref())
    }

    #[test]
    fn values_are_read_by_their_type() {
        assert_eq!(read(SettingType::Bool, "On").as_deref(), Some("true"));
        assert_eq!(read(SettingType::Int, "-3").as_deref(), Some("-3"));
        assert_eq!(read(SettingType::Duration, "90").as_deref(), Some("1m 30s"));
        assert_eq!(read(SettingType::Duration, "1500ms").as_deref(), Some("1s 500ms"));
        assert_eq!(read(SettingType::Enum, "continue").as_deref(), Some("CONTINUE"));
        assert_eq!(
            read(SettingType::Enum, "perhaps").as_deref(),
            Some("perhaps"),
            "the server refuses it"
        );
        for (setting_type, wrong) in [
            (SettingType::Bool, "2"),
            (SettingType::Int, "1.5"),
            (SettingType::Duration, "soon"),
        ] {
            assert_eq!(read(setting_type, wrong), None, "{wrong}");
        }
    }
}
