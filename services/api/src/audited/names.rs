//! Which fields of a request name something, and what of it is kept: resources, a database, the user of a login.
//!
//! Invariant: what a call is decided by is kept, whatever else its message names. That is in fields that have one value, of which
//! the last that is sent counts; they always have room. Lists have what is left.

use super::methods::Wanted;

/// Fields that name resources. What they hold is kept where it looks like a resource's name.
pub(super) const RESOURCE_FIELDS: &[&str] = &[
    "api_token",
    "backend",
    "backup",
    "binding",
    "credential",
    "destination",
    "elevation",
    "execution",
    "file",
    "grant",
    "group",
    "groups",
    "instance",
    "login",
    "member",
    "members",
    "name",
    "names",
    "operation",
    "owner",
    "parent",
    "pooler",
    "principal",
    "request",
    "resource",
    "resources",
    "role",
    "roles",
    "scope",
    "server",
    "servers",
    "session",
    "source",
    "subject",
    "target",
    "user",
    "users",
];
pub(super) const DATABASE_FIELD: &str = "database";
/// In requests of callers who are not known yet.
pub(super) const USERNAME_FIELD: &str = "username";
/// Names of lists that are kept of one message: the first ones.
const MOST_NAMES: usize = 64;

/// A field that is wanted, as it stands in a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sought {
    pub(super) wanted: Wanted,
    /// Which one it is, where there is only one such: neither it nor a message around it is in a list.
    pub(super) place: Option<usize>,
}

/// What was found in a message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Found {
    resources: Vec<Named>,
    /// Names of lists that are kept.
    listed: usize,
    dropped: usize,
    database: Option<Named>,
    username: String,
}

/// A value, and the place of its field.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Named {
    text: String,
    place: Option<usize>,
}

impl Found {
    /// The resources that are named, each once, and how many more there were.
    pub(super) fn resources(&self) -> Vec<String> {
        let mut resources: Vec<String> = Vec::with_capacity(self.resources.len());
        for Named { text, .. } in &self.resources {
            if !resources.contains(text) {
                resources.push(text.clone());
            }
        }
        if self.dropped > 0 {
            resources.push(format!("and {} more", self.dropped));
        }
        resources
    }

    /// The database; empty for none.
    pub(super) fn database(&self) -> &str {
        self.database.as_ref().map_or("", |named| named.text.as_str())
    }

    /// The user of a login; empty for none.
    pub(super) fn username(&self) -> &str {
        &self.username
    }

    /// Takes the value of a field in. One that is no name, or too long to be one, is none.
    pub(super) fn add(&mut self, sought: Sought, bytes: Vec<u8>) {
        let text = String::from_utf8(bytes).unwrap_or_default();
        match sought.wanted {
            Wanted::Resource => self.add_resource(text, sought.place),
            Wanted::Database => self.set_database(text, sought.place),
            Wanted::Username => self.username = text,
            Wanted::Message(_) => {}
        }
    }

    fn add_resource(&mut self, text: String, place: Option<usize>) {
        if place.is_some() {
            self.resources.retain(|named| named.place != place);
        }
        if !is_resource_name(&text) {
            return;
        }
        if place.is_none() {
            let is_known = self.resources.iter().any(|named| named.text == text);
            if is_known {
                return;
            }
            if self.listed == MOST_NAMES {
                self.dropped += 1;
                return;
            }
            self.listed += 1;
        }
        self.resources.push(Named { text, place });
    }

    fn set_database(&mut self, text: String, place: Option<usize>) {
        let is_another = self.database.as_ref().is_some_and(|named| named.place != place);
        // Another field that is empty takes nothing back.
        if !(text.is_empty() && is_another) {
            self.database = Some(Named { text, place });
        }
    }
}

/// `collection/id`, and perhaps more of both.
fn is_resource_name(text: &str) -> bool {
    text.split_once('/').is_some_and(|(collection, rest)| {
        collection.starts_with(|first: char| first.is_ascii_lowercase())
            && collection.bytes().all(|byte| byte.is_ascii_alphabetic())
            && !rest.is_empty()
    })
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use prost_reflect::DescriptorPool;
    use rpc::options::v1::AuditMode;
    use rpc::policy::PolicyTable;
    use rpc::query::v1::{ExecuteRequest, Parameter, Script, parameter};
    use rpc::server::v1::{CreateServerRequest, Server};
    use rpc::settings::v1::ResetSettingsRequest;

    use super::super::methods::Methods;
    use super::*;

    fn methods() -> Methods {
        let policies = PolicyTable::read(rpc::descriptors::ALL).unwrap();
        Methods::read(rpc::descriptors::PUBLIC, &policies).unwrap()
    }

    /// What is found in an encoded message that arrives in pieces of that size.
    fn found_in(path: &str, message: &[u8], piece: usize) -> Found {
        let (_, mut names) = methods().get(path).unwrap();
        let mut body = vec![0];
        body.extend_from_slice(&u32::try_from(message.len()).unwrap().to_be_bytes());
        body.extend_from_slice(message);
        for chunk in body.chunks(piece) {
            names.read(chunk);
        }
        assert!(names.is_done());
        names.found().clone()
    }

    const EXECUTE: &str = "/pgmoor.query.v1.QueryService/Execute";

    fn execute() -> ExecuteRequest {
        let parameter = Parameter {
            kind: Some(parameter::Kind::Text("servers/of-the-data".to_owned())),
            type_oid: 0,
        };
        ExecuteRequest {
            session: "servers/a/sessions/b".to_owned(),
            script: Some(Script {
                sql: "SELECT 'users/x'".repeat(1000),
                parameters: vec![parameter],
                ..Script::default()
            }),
            ..ExecuteRequest::default()
        }
    }

    #[test]
    fn session_is_found_and_nothing_of_the_script() {
        let message = execute().encode_to_vec();
        for piece in [1, 2, 7, 100_000] {
            let found = found_in(EXECUTE, &message, piece);
            assert_eq!(found.resources(), ["servers/a/sessions/b"]);
        }
    }

    #[test]
    fn order_and_size_of_fields_hide_nothing() {
        let script = ExecuteRequest {
            session: String::new(),
            ..execute()
        };
        // The name comes last, after the script, an unknown field, a group and an empty name.
        let mut message = script.encode_to_vec();
        let number = 1000_u32;
        prost::encoding::encode_key(number, prost::encoding::WireType::LengthDelimited, &mut message);
        prost::encoding::encode_varint(300_000, &mut message);
        message.extend(std::iter::repeat_n(b'x', 300_000));
        prost::encoding::encode_key(number, prost::encoding::WireType::StartGroup, &mut message);
        prost::encoding::string::encode(1, &"servers/in-a-group".to_owned(), &mut message);
        prost::encoding::encode_key(number, prost::encoding::WireType::EndGroup, &mut message);
        prost::encoding::encode_key(1, prost::encoding::WireType::LengthDelimited, &mut message);
        prost::encoding::encode_varint(0, &mut message);
        prost::encoding::string::encode(1, &"servers/late/sessions/x".to_owned(), &mut message);
        assert_eq!(
            ExecuteRequest::decode(message.as_slice()).unwrap().session,
            "servers/late/sessions/x"
        );
        for piece in [1, 4096, 1_000_000] {
            let found = found_in(EXECUTE, &message, piece);
            assert_eq!(found.resources(), ["servers/late/sessions/x"]);
        }
    }

    const RESET_SETTINGS: &str = "/pgmoor.settings.v1.SettingsService/ResetSettings";

    #[test]
    fn only_the_last_value_of_a_field_that_has_one_is_its_name() {
        let mut message = Vec::new();
        for number in 0..1000 {
            prost::encoding::string::encode(1, &format!("servers/{number}"), &mut message);
        }
        assert_eq!(found_in(EXECUTE, &message, 64).resources(), ["servers/999"]);
        // Nor one that was taken back, by nothing, by what is no name, and by what is too long for one.
        for last in [
            String::new(),
            "garbage".to_owned(),
            format!("servers/{}", "x".repeat(1000)),
        ] {
            let mut message = message.clone();
            prost::encoding::string::encode(1, &last, &mut message);
            assert_eq!(ExecuteRequest::decode(message.as_slice()).unwrap().session, last);
            assert_eq!(found_in(EXECUTE, &message, 64).resources(), [""; 0]);
        }
    }

    #[test]
    fn names_of_a_list_hide_no_other_and_those_that_are_left_out_are_counted() {
        let names = (0..1000).map(|number| format!("servers/{number}")).collect();
        let request = ResetSettingsRequest {
            names,
            ..ResetSettingsRequest::default()
        };
        // What the call is decided by comes first, last, or twice.
        let mut parent = Vec::new();
        prost::encoding::string::encode(1, &"users/one".to_owned(), &mut parent);
        let list = request.encode_to_vec();
        let mut own = Vec::new();
        prost::encoding::string::encode(1, &"users/me".to_owned(), &mut own);
        for message in [
            [own.clone(), list.clone()].concat(),
            [list.clone(), own.clone()].concat(),
            [parent, list, own].concat(),
        ] {
            let decoded = ResetSettingsRequest::decode(message.as_slice()).unwrap();
            assert_eq!((decoded.parent.as_str(), decoded.names.len()), ("users/me", 1000));
            let found = found_in(RESET_SETTINGS, &message, 64).resources();
            assert!(found.contains(&"users/me".to_owned()), "{found:?}");
            assert!(!found.contains(&"users/one".to_owned()), "{found:?}");
            assert!(found.contains(&"servers/0".to_owned()), "{found:?}");
            assert_eq!(found.last().unwrap(), "and 936 more");
            assert_eq!(found.len(), MOST_NAMES + 2);
        }
    }

    #[test]
    fn nested_names_are_found_and_secrets_are_not() {
        let request = CreateServerRequest {
            server: Some(Server {
                name: "servers/nested".to_owned(),
                display_name: "servers/of-the-display".to_owned(),
                ..Server::default()
            }),
            password: "servers/secret".to_owned(),
            ..CreateServerRequest::default()
        };
        let path = "/pgmoor.server.v1.ServerService/CreateServer";
        let found = found_in(path, &request.encode_to_vec(), 16);
        assert_eq!(found.resources(), ["servers/nested"]);
    }

    #[test]
    fn username_of_a_login_is_found_and_its_password_is_not() {
        let request = rpc::auth::v1::LoginWithPasswordRequest {
            username: "alice".to_owned(),
            password: "users/secret".to_owned(),
        };
        let path = "/pgmoor.auth.v1.AuthService/LoginWithPassword";
        let found = found_in(path, &request.encode_to_vec(), 3);
        assert_eq!((found.username(), found.resources().len()), ("alice", 0));
    }

    #[test]
    fn every_public_method_is_known() {
        let methods = methods();
        let policies = PolicyTable::read(rpc::descriptors::PUBLIC).unwrap();
        for (path, policy) in policies.iter() {
            let (method, _) = methods.get(path).unwrap();
            assert_eq!(method.is_recorded, policy.audit() == AuditMode::Record, "{path}");
        }
        assert!(methods.get("/grpc.health.v1.Health/Check").is_none());
    }

    /// Fields in requests that hold names of resources are all known: a field whose comment says so by its form.
    #[test]
    fn fields_named_like_resources_are_among_those_looked_at() {
        let pool = DescriptorPool::decode(rpc::descriptors::PUBLIC).unwrap();
        let collections = [
            "instance",
            "server",
            "session",
            "execution",
            "operation",
            "backup",
            "pooler",
            "user",
            "parent",
        ];
        for collection in collections {
            assert!(RESOURCE_FIELDS.contains(&collection), "{collection}");
        }
        let named = pool
            .all_messages()
            .filter(|message| message.name().ends_with("Request"))
            .filter(|message| {
                message
                    .fields()
                    .any(|field| RESOURCE_FIELDS.contains(&field.name()))
            })
            .count();
        assert!(named > 30, "{named}");
    }

    #[test]
    fn hostile_bytes_end_quietly() {
        use domain::random::{Random as _, SeededRandom};
        let random = SeededRandom::new(5);
        for length in 0..2000_usize {
            let mut bytes = vec![0; length % 200];
            random.fill(&mut bytes);
            let (_, mut names) = methods_once().get(EXECUTE).unwrap();
            for chunk in bytes.chunks(1 + length % 9) {
                names.read(chunk);
            }
        }
    }

    fn methods_once() -> &'static Methods {
        static METHODS: std::sync::OnceLock<Methods> = std::sync::OnceLock::new();
        METHODS.get_or_init(methods)
    }
}
