//! Messages of the API as JSON: the protobuf mapping that grpcurl prints, with unset scalars written out.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prost::Message;
use prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MapKey, ReflectMessage as _, Value,
};
use serde_json::{Map, Value as Json, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::error::ClientError;

/// Turns messages into JSON.
#[derive(Debug)]
pub(crate) struct JsonMapping(DescriptorPool);

impl JsonMapping {
    pub(crate) fn new() -> Result<Self, ClientError> {
        let pool = DescriptorPool::decode(rpc::descriptors::PUBLIC);
        pool.map(Self)
            .map_err(|_| ClientError::Incomplete { field: "descriptors" })
    }

    /// A message, given its full name, as JSON.
    pub(crate) fn json(&self, name: &str, message: &impl Message) -> Result<Json, ClientError> {
        let descriptor = self
            .0
            .get_message_by_name(name)
            .ok_or(ClientError::Incomplete { field: "descriptors" })?;
        let dynamic = DynamicMessage::decode(descriptor, message.encode_to_vec().as_slice())?;
        Ok(message_json(&dynamic))
    }
}

fn message_json(message: &DynamicMessage) -> Json {
    match message.descriptor().full_name() {
        "google.protobuf.Timestamp" => return timestamp(message),
        "google.protobuf.Duration" => return duration(message),
        _ => {}
    }
    let mut object = Map::new();
    for field in message.descriptor().fields() {
        // What can be absent is left out then; a scalar that cannot is shown with its value, be it zero.
        if field.supports_presence() && !message.has_field(&field) {
            continue;
        }
        object.insert(
            field.json_name().to_owned(),
            field_json(&field, &message.get_field(&field)),
        );
    }
    Json::Object(object)
}

fn field_json(field: &FieldDescriptor, value: &Value) -> Json {
    match value {
        Value::List(values) => values
            .iter()
            .map(|value| value_json(&field.kind(), value))
            .collect(),
        Value::Map(values) => {
            let Kind::Message(entry) = field.kind() else {
                return Json::Null;
            };
            let kind = entry.map_entry_value_field().kind();
            let pairs = values
                .iter()
                .map(|(key, value)| (map_key(key), value_json(&kind, value)));
            Json::Object(pairs.collect())
        }
        value => value_json(&field.kind(), value),
    }
}

fn map_key(key: &MapKey) -> String {
    match key {
        MapKey::Bool(key) => key.to_string(),
        MapKey::I32(key) => key.to_string(),
        MapKey::I64(key) => key.to_string(),
        MapKey::U32(key) => key.to_string(),
        MapKey::U64(key) => key.to_string(),
        MapKey::String(key) => key.clone(),
    }
}

fn value_json(kind: &Kind, value: &Value) -> Json {
    match value {
        Value::Bool(value) => json!(value),
        Value::I32(value) => json!(value),
        Value::U32(value) => json!(value),
        // Beyond 2^53 a JSON number loses digits in many readers, so the mapping makes them strings.
        Value::I64(value) => json!(value.to_string()),
        Value::U64(value) => json!(value.to_string()),
        Value::F32(value) => json!(value),
        Value::F64(value) => json!(value),
        Value::String(value) => json!(value),
        Value::Bytes(value) => json!(STANDARD.encode(value)),
        Value::EnumNumber(number) => match kind {
            Kind::Enum(descriptor) => descriptor
                .get_value(*number)
                .map_or_else(|| json!(number), |value| json!(value.name())),
            _ => json!(number),
        },
        Value::Message(message) => message_json(message),
        Value::List(_) | Value::Map(_) => Json::Null,
    }
}

fn parts(message: &DynamicMessage) -> (i64, i32) {
    let field = |number| message.get_field_by_number(number);
    let seconds = field(1).and_then(|value| value.as_i64()).unwrap_or_default();
    let nanos = field(2).and_then(|value| value.as_i32()).unwrap_or_default();
    (seconds, nanos)
}

fn timestamp(message: &DynamicMessage) -> Json {
    let (seconds, nanos) = parts(message);
    timestamp_text(&prost_types::Timestamp { seconds, nanos }).map_or(Json::Null, Json::String)
}

/// A timestamp in the form of RFC 3339.
pub(crate) fn timestamp_text(timestamp: &prost_types::Timestamp) -> Option<String> {
    let nanos = i128::from(timestamp.seconds) * 1_000_000_000 + i128::from(timestamp.nanos);
    OffsetDateTime::from_unix_timestamp_nanos(nanos)
        .ok()?
        .format(&Rfc3339)
        .ok()
}

fn duration(message: &DynamicMessage) -> Json {
    let (seconds, nanos) = parts(message);
    let sign = if seconds < 0 || nanos < 0 { "-" } else { "" };
    let (seconds, nanos) = (seconds.unsigned_abs(), nanos.unsigned_abs());
    if nanos == 0 {
        return json!(format!("{sign}{seconds}s"));
    }
    let fraction = format!("{nanos:09}");
    json!(format!("{sign}{seconds}.{}s", fraction.trim_end_matches('0')))
}

#[cfg(test)]
mod tests {
    use rpc::operation::v1::{Operation, OperationProgress};
    use rpc::settings::v1::{Setting, SettingValue, setting_value::Kind as SettingKind};

    use super::*;

    #[test]
    fn message_reads_as_grpcurl_prints_it() {
        let operation = Operation {
            name: "operations/1".into(),
            kind: 1,
            state: 3,
            done: true,
            progress: Some(OperationProgress {
                phase: 4,
                bytes_done: 5_000_000_000,
                ..Default::default()
            }),
            create_time: Some(prost_types::Timestamp {
                seconds: 1_700_000_000,
                nanos: 500_000_000,
            }),
            ..Default::default()
        };
        let json = JsonMapping::new()
            .unwrap()
            .json("pgmoor.operation.v1.Operation", &operation)
            .unwrap();
        let expected = json!({
            "name": "operations/1",
            "kind": "OPERATION_KIND_BACKUP",
            "state": "OPERATION_STATE_SUCCEEDED",
            "done": true,
            "progress": {
                "phase": "OPERATION_PHASE_FINISHING",
                "bytesDone": "5000000000",
                "bytesTotal": "0",
                "objectsDone": "0",
                "objectsTotal": "0",
            },
            "server": "",
            "database": "",
            "backup": "",
            "owner": "",
            "createTime": "2023-11-14T22:13:20.5Z",
            "attempt": 0,
            "cancelRequested": false,
            "logSizeBytes": "0",
        });
        assert_eq!(json, expected);
    }

    #[test]
    fn durations_and_oneofs_follow_the_mapping() {
        let value = SettingKind::DurationValue(prost_types::Duration {
            seconds: 1,
            nanos: 250_000_000,
        });
        let setting = Setting {
            value: Some(SettingValue { kind: Some(value) }),
            ..Default::default()
        };
        let json = JsonMapping::new()
            .unwrap()
            .json("pgmoor.settings.v1.Setting", &setting)
            .unwrap();
        assert_eq!(json["value"], json!({ "durationValue": "1.25s" }));
    }
}
