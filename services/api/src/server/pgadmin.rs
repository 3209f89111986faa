//! pgAdmin's servers.json: what of an entry can be taken over, what is ignored, and what is refused.
//!
//! Invariant: an entry is taken over only if the server it describes is reached in the same way. What would
//! make pgmoor read a file, run a command or open a tunnel is refused; what only concerns pgAdmin's looks or
//! habits is ignored and named.

use std::fmt;

use domain::endpoint::{Destination, Endpoint, SslMode, TlsPolicy};
use domain::name::{DisplayName, Identifier};
use serde::Deserialize;
use serde::de::{MapAccess, Visitor};
use serde_json::{Map, Value, json};
use store::servers::Server;

use super::convert::{DEFAULT_DATABASE, DEFAULT_GROUP, checked_comment, checked_tls};

/// Largest document.
const MAX_BYTES: usize = 2 * 1024 * 1024;
/// Most entries of a document.
const MAX_ENTRIES: usize = 1000;
/// Ours, so that an export is read back whole: pgAdmin keeps certificates in files and ignores the key.
const ROOT_CERTIFICATES: &str = "PgmoorRootCertificates";

/// Keys that name a file on pgAdmin's machine. There is none of it here.
const FILE_KEYS: [&str; 6] = [
    "PassFile",
    "SSLCert",
    "SSLKey",
    "SSLRootCert",
    "SSLCrl",
    "TunnelIdentityFile",
];
/// The same among the connection parameters, which are libpq's (PostgreSQL manual, 34.1.2).
const FILE_PARAMETERS: [&str; 8] = [
    "passfile",
    "sslcert",
    "sslkey",
    "sslrootcert",
    "sslcrl",
    "sslcrldir",
    "sslkeylogfile",
    "servicefile",
];
/// Keys that are taken over.
const KNOWN_KEYS: [&str; 10] = [
    "Name",
    "Group",
    "Host",
    "Port",
    "Username",
    "MaintenanceDB",
    "Comment",
    "SSLMode",
    "ConnectionParameters",
    ROOT_CERTIFICATES,
];
/// Connection parameters that are taken over.
const KNOWN_PARAMETERS: [&str; 2] = ["sslmode", "port"];

/// An entry of a document, unread.
pub(super) struct Entry {
    /// Its key in the file.
    pub(super) key: String,
    /// What stands there.
    value: Value,
}

/// What an entry describes.
pub(super) struct Described {
    pub(super) group: DisplayName,
    pub(super) display_name: DisplayName,
    pub(super) destination: Destination,
    pub(super) maintenance_database: Identifier,
    pub(super) username: Identifier,
    pub(super) comment: String,
}

/// Reads a document into its entries, in the order of the file.
pub(super) fn entries(document: &[u8]) -> Result<Vec<Entry>, String> {
    if document.len() > MAX_BYTES {
        return Err(format!(
            "the document is larger than {} MiB",
            MAX_BYTES / 1024 / 1024
        ));
    }
    // Editors on Windows put a byte order mark before it.
    let document = document.strip_prefix(b"\xef\xbb\xbf").unwrap_or(document);
    let read: Document = serde_json::from_slice(document).map_err(|error| {
        // The error's own text may quote the document.
        let what = match error.classify() {
            serde_json::error::Category::Data => {
                "is not a servers.json: \"Servers\" with an object is missing"
            }
            _ => "is not JSON",
        };
        format!(
            "the document {what} (line {}, column {})",
            error.line(),
            error.column()
        )
    })?;
    if read.servers.0.len() > MAX_ENTRIES {
        return Err(format!("the document has more than {MAX_ENTRIES} servers"));
    }
    Ok(read.servers.0)
}

#[derive(Deserialize)]
struct Document {
    #[serde(rename = "Servers")]
    servers: Entries,
}

/// The entries in their order: serde_json's own map would sort them.
struct Entries(Vec<Entry>);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Entries;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of servers")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
                let mut entries = Vec::new();
                while let Some((key, value)) = map.next_entry()? {
                    entries.push(Entry { key, value });
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

impl Entry {
    /// The name and group as they stand there, for the report.
    pub(super) fn labels(&self) -> (String, String) {
        let text = |key| match self.value.get(key) {
            Some(Value::String(text)) => text.chars().take(200).collect(),
            _ => String::new(),
        };
        let group: String = text("Group");
        (
            text("Name"),
            if group.is_empty() {
                DEFAULT_GROUP.to_owned()
            } else {
                group
            },
        )
    }

    /// What the entry describes, or why it is refused; and the keys that are ignored either way.
    pub(super) fn describe(&self) -> (Result<Described, String>, Vec<String>) {
        let Value::Object(keys) = &self.value else {
            return (Err("the entry is not an object".to_owned()), Vec::new());
        };
        let none = Map::new();
        let parameters = match keys.get("ConnectionParameters") {
            None | Some(Value::Null) => &none,
            Some(Value::Object(parameters)) => parameters,
            Some(_) => {
                return (
                    Err("ConnectionParameters must be an object".to_owned()),
                    Vec::new(),
                );
            }
        };
        let source = Source { keys, parameters };
        let mut ignored = source.ignored();
        let described = source
            .refusal()
            .map_or(Ok(()), Err)
            .and_then(|()| source.describe(&mut ignored));
        (described, ignored)
    }
}

struct Source<'a> {
    keys: &'a Map<String, Value>,
    parameters: &'a Map<String, Value>,
}

impl Source<'_> {
    fn describe(&self, ignored: &mut Vec<String>) -> Result<Described, String> {
        let name = self.text("Name")?.ok_or("Name is missing")?;
        let group = self.text("Group")?.unwrap_or_else(|| DEFAULT_GROUP.to_owned());
        let database = self
            .text("MaintenanceDB")?
            .unwrap_or_else(|| DEFAULT_DATABASE.to_owned());
        let username = self.text("Username")?.ok_or("Username is missing")?;
        let named = |key: &str, error: &dyn fmt::Display| format!("{key} {error}");
        let tls = self.tls(ignored)?;
        Ok(Described {
            display_name: name.parse().map_err(|error| named("Name", &error))?,
            group: group.parse().map_err(|error| named("Group", &error))?,
            destination: Destination::new(self.endpoints()?, tls).map_err(|error| named("Host:", &error))?,
            maintenance_database: database.parse().map_err(|error| named("MaintenanceDB", &error))?,
            username: username.parse().map_err(|error| named("Username", &error))?,
            comment: checked_comment(self.text("Comment")?.unwrap_or_default())
                .map_err(|error| named("Comment", &error))?,
        })
    }

    /// Why the entry cannot be taken over, whatever else it says.
    fn refusal(&self) -> Option<String> {
        let files = FILE_KEYS
            .iter()
            .filter(|key| says_something(self.keys.get(**key)))
            .map(ToString::to_string);
        let parameters = FILE_PARAMETERS
            .iter()
            .filter(|key| says_something(self.parameters.get(**key)))
            .map(|key| format!("ConnectionParameters.{key}"));
        let files: Vec<_> = files.chain(parameters).collect();
        if !files.is_empty() {
            return Some(format!("{} names a file of another machine", files.join(", ")));
        }
        if says_something(self.keys.get("Service")) || says_something(self.parameters.get("service")) {
            return Some("Service names a connection service file; give Host, Port and Username".to_owned());
        }
        if says_something(self.keys.get("UseSSHTunnel")) {
            return Some("SSH tunnels are not offered".to_owned());
        }
        None
    }

    /// Keys that say something and are not taken over.
    fn ignored(&self) -> Vec<String> {
        let keys = self
            .keys
            .iter()
            .filter(|(key, value)| !KNOWN_KEYS.contains(&key.as_str()) && says_something(Some(value)))
            .map(|(key, _)| key.clone());
        let parameters = self
            .parameters
            .iter()
            .filter(|(key, value)| !KNOWN_PARAMETERS.contains(&key.as_str()) && says_something(Some(value)))
            .map(|(key, _)| format!("ConnectionParameters.{key}"));
        keys.chain(parameters)
            .map(|key| key.chars().take(100).collect())
            .collect()
    }

    fn text(&self, key: &str) -> Result<Option<String>, String> {
        match self.keys.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) if text.is_empty() => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err(format!("{key} must be a string")),
        }
    }

    /// The hosts and ports, each a list between commas as libpq takes it; one port serves all hosts.
    fn endpoints(&self) -> Result<Vec<Endpoint>, String> {
        let hosts = self.text("Host")?.ok_or("Host is missing")?;
        let ports = match (self.parameters.get("port"), self.keys.get("Port")) {
            (Some(Value::String(ports)), _) | (None, Some(Value::String(ports))) => ports.clone(),
            (Some(Value::Number(port)), _) | (None, Some(Value::Number(port))) => port.to_string(),
            (None, None | Some(Value::Null)) => "0".to_owned(),
            _ => return Err("Port must be a number".to_owned()),
        };
        let ports: Vec<i64> = ports
            .split(',')
            .map(|port| {
                port.trim()
                    .parse()
                    .map_err(|_| "Port must be a number".to_owned())
            })
            .collect::<Result<_, _>>()?;
        let hosts: Vec<_> = hosts.split(',').map(str::trim).collect();
        if ports.len() != 1 && ports.len() != hosts.len() {
            return Err("there must be one Port, or one for each Host".to_owned());
        }
        hosts
            .iter()
            .zip(ports.iter().cycle())
            .map(|(host, port)| Endpoint::new(host, *port).map_err(|error| format!("Host: {error}")))
            .collect()
    }

    /// pgAdmin's own default is `prefer`, which falls back to cleartext when anybody on the way says so. It
    /// becomes `require`: the connection either is encrypted or fails where it can be seen.
    fn tls(&self, ignored: &mut Vec<String>) -> Result<TlsPolicy, String> {
        let mode = match self
            .parameters
            .get("sslmode")
            .or_else(|| self.keys.get("SSLMode"))
        {
            None | Some(Value::Null) => "prefer",
            Some(Value::String(mode)) => mode.as_str(),
            Some(_) => return Err("SSLMode must be a string".to_owned()),
        };
        let mode = match mode {
            "disable" => SslMode::Disable,
            "require" => SslMode::Require,
            "verify-full" => SslMode::VerifyFull,
            "prefer" | "allow" | "" => {
                ignored.push(
                    "SSLMode: prefer and allow become require, which never falls back to cleartext"
                        .to_owned(),
                );
                SslMode::Require
            }
            "verify-ca" => {
                return Err(
                    "SSLMode verify-ca is not offered: use verify-full, with a certificate that names the \
                            host, or require"
                        .to_owned(),
                );
            }
            _ => return Err("SSLMode must be disable, require or verify-full".to_owned()),
        };
        let roots = self.text(ROOT_CERTIFICATES)?.unwrap_or_default();
        checked_tls(mode, &roots).map_err(|error| format!("{ROOT_CERTIFICATES}: {error}"))
    }
}

/// False for what pgAdmin writes where nothing was chosen.
fn says_something(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null | Value::Bool(false)) => false,
        Some(Value::Bool(true)) => true,
        Some(Value::Number(number)) => number.as_f64() != Some(0.0),
        Some(Value::String(text)) => !text.is_empty(),
        Some(Value::Array(items)) => !items.is_empty(),
        Some(Value::Object(keys)) => !keys.is_empty(),
    }
}

/// A document with these servers, without passwords.
pub(super) fn document(servers: &[Server]) -> Vec<u8> {
    let mut entries = Map::new();
    for (number, server) in (1_usize..).zip(servers) {
        entries.insert(number.to_string(), entry(server));
    }
    let mut text = format!("{:#}", json!({ "Servers": entries }));
    text.push('\n');
    text.into_bytes()
}

fn entry(server: &Server) -> Value {
    let endpoints = server.destination.endpoints();
    let hosts: Vec<_> = endpoints
        .iter()
        .map(|endpoint| endpoint.host.to_string())
        .collect();
    let ports: Vec<_> = endpoints.iter().map(|endpoint| endpoint.port.get()).collect();
    let tls = server.destination.tls();
    let mut entry = json!({
        "Name": server.display_name.as_str(),
        "Group": server.group.as_str(),
        "Host": hosts.join(","),
        "Port": ports.first(),
        "MaintenanceDB": server.maintenance_database.as_str(),
        "Username": server.username.as_str(),
        "Comment": server.comment,
        "ConnectionParameters": { "sslmode": tls.mode().as_str() },
    });
    if ports.windows(2).any(|pair| pair[0] != pair[1]) {
        let ports: Vec<_> = ports.iter().map(ToString::to_string).collect();
        entry["ConnectionParameters"]["port"] = Value::from(ports.join(","));
    }
    if let Some(roots) = tls.root_certificates() {
        entry[ROOT_CERTIFICATES] = Value::from(roots);
    }
    entry
}

#[cfg(test)]
mod tests {
    use super::*;

    fn described(entry: Value) -> (Result<Described, String>, Vec<String>) {
        let document = json!({ "Servers": { "1": entry } }).to_string();
        entries(document.as_bytes()).unwrap()[0].describe()
    }

    fn minimal() -> Value {
        json!({ "Name": "db", "Group": "g", "Host": "db.example.com", "Port": 5433, "Username": "app",
                "MaintenanceDB": "postgres", "SSLMode": "verify-full" })
    }

    fn with(key: &str, value: Value) -> Value {
        let mut entry = minimal();
        entry[key] = value;
        entry
    }

    #[test]
    fn entries_stand_in_the_order_of_the_file() {
        let document = br#"{"Servers": {"10": {}, "9": {}, "a": {}, "1": {}}}"#;
        let keys: Vec<_> = entries(document)
            .unwrap()
            .into_iter()
            .map(|entry| entry.key)
            .collect();
        assert_eq!(keys, ["10", "9", "a", "1"]);
    }

    #[test]
    fn document_that_is_none_is_refused_without_being_quoted() {
        for bad in [
            "",
            "hunter2",
            "{\"Servers\": [\"hunter2\"]}",
            "{}",
            "[]",
            "{\"Servers\": {\"1\": }}",
        ] {
            let error = entries(bad.as_bytes()).err().unwrap();
            assert!(!error.contains("hunter2"), "{error}");
        }
        assert!(entries(&vec![b' '; MAX_BYTES + 1]).is_err());
        assert!(entries(format!("{{\"Servers\":{}", "[".repeat(10_000)).as_bytes()).is_err());
    }

    #[test]
    fn whole_entry_is_taken_over() {
        let (described, ignored) = described(minimal());
        let described = described.unwrap();
        assert!(ignored.is_empty(), "{ignored:?}");
        assert_eq!(described.destination.endpoints_key(), "db.example.com:5433");
        assert_eq!(described.destination.tls().mode(), SslMode::VerifyFull);
    }

    #[test]
    fn hosts_and_ports_may_be_lists() {
        let mut entry = with("Host", json!("a.example.com, b.example.com"));
        assert_eq!(
            described(entry.clone()).0.unwrap().destination.endpoints_key(),
            "a.example.com:5433,b.example.com:5433"
        );
        entry["ConnectionParameters"] = json!({ "port": "1,2" });
        assert_eq!(
            described(entry.clone()).0.unwrap().destination.endpoints_key(),
            "a.example.com:1,b.example.com:2"
        );
        entry["ConnectionParameters"] = json!({ "port": "1,2,3" });
        assert!(described(entry).0.is_err());
    }

    #[test]
    fn what_reads_files_or_goes_through_tunnels_is_refused() {
        for key in FILE_KEYS {
            let error = described(with(key, json!("/etc/x"))).0.err().unwrap();
            assert!(error.contains(key), "{error}");
        }
        for key in FILE_PARAMETERS {
            let error = described(with("ConnectionParameters", json!({ key: "/etc/x" })))
                .0
                .err()
                .unwrap();
            assert!(error.contains(key), "{error}");
        }
        for (key, value) in [
            ("Service", json!("prod")),
            ("UseSSHTunnel", json!(1)),
            ("Host", json!("/var/run/postgresql")),
            ("Host", json!("@abstract")),
            ("ConnectionParameters", json!({ "service": "prod" })),
        ] {
            assert!(described(with(key, value.clone())).0.is_err(), "{key} {value}");
        }
    }

    #[test]
    fn empty_values_refuse_nothing() {
        let mut entry = minimal();
        for key in FILE_KEYS {
            entry[key] = json!("");
        }
        entry["UseSSHTunnel"] = json!(0);
        entry["Service"] = Value::Null;
        assert!(described(entry).0.is_ok());
    }

    #[test]
    fn what_is_not_taken_over_is_named() {
        let mut entry = with("BGColor", json!("#ff0000"));
        entry["Shared"] = json!(false);
        entry["ConnectionParameters"] = json!({ "sslmode": "require", "connect_timeout": 10 });
        let (described, ignored) = described(entry);
        assert_eq!(described.unwrap().destination.tls().mode(), SslMode::Require);
        assert_eq!(ignored, ["BGColor", "ConnectionParameters.connect_timeout"]);
    }

    #[test]
    fn modes_that_may_fall_back_to_cleartext_become_require_and_say_so() {
        for mode in ["prefer", "allow"] {
            let (described, ignored) = described(with("SSLMode", json!(mode)));
            assert_eq!(described.unwrap().destination.tls().mode(), SslMode::Require);
            assert!(ignored[0].contains("become require"), "{ignored:?}");
        }
        let error = described(with("SSLMode", json!("verify-ca"))).0.err().unwrap();
        assert!(error.contains("verify-full"), "{error}");
    }

    #[test]
    fn entries_of_odd_types_are_refused_one_by_one() {
        for (key, value) in [
            ("Name", json!(1)),
            ("Name", json!("")),
            ("Name", json!("x".repeat(10_000))),
            ("Host", json!(["a"])),
            ("Host", json!("host=evil")),
            ("Port", json!("x")),
            ("Port", json!(70_000)),
            ("Port", json!(1.5)),
            ("Username", json!("")),
            ("Username", json!("a\0b")),
            ("Comment", json!("x".repeat(1025))),
            ("ConnectionParameters", json!([])),
            ("SSLMode", json!("maybe")),
        ] {
            assert!(described(with(key, value.clone())).0.is_err(), "{key} {value}");
        }
        assert!(described(json!("text")).0.is_err());
    }
}
