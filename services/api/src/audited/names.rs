//! What a request's message names: resources, a database, the user of a login.
//!
//! Which fields these are is found in the descriptors once, at the start. A message is then gone through as it arrives, byte
//! by byte, whatever the order and the size of its fields; nothing of it is kept but the names, and a field that is marked
//! as secret is never looked at.

use std::collections::HashMap;

use prost_reflect::{DescriptorPool, FieldDescriptor, Kind, MessageDescriptor, Value};
use rpc::options::v1::AuditMode;
use rpc::policy::PolicyTable;
use thiserror::Error;

/// Fields that name resources. What they hold is kept where it looks like a resource's name.
const RESOURCE_FIELDS: &[&str] = &[
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
const DATABASE_FIELD: &str = "database";
/// In requests of callers who are not known yet.
const USERNAME_FIELD: &str = "username";
/// Names that are kept of one message: the last ones, since of a field that is given twice the last counts.
const MOST_NAMES: usize = 64;
/// Bytes of a name.
const MOST_NAME_BYTES: u64 = 500;
/// Messages within messages that are looked into.
const MOST_LEVELS: usize = 32;

/// The descriptors cannot be read: a mistake in `proto/`.
#[derive(Debug, Error)]
pub(crate) enum MethodsError {
    /// They are no descriptors.
    #[error("the descriptors cannot be read")]
    Descriptors(#[from] prost_reflect::DescriptorError),
    /// The option that marks secrets is not there.
    #[error("the descriptor set has no option pgmoor.options.v1.secret")]
    NoSecretOption,
}

/// What is to be known of a method.
#[derive(Debug)]
pub(crate) struct Method {
    /// `package.Service/Method`.
    pub(super) name: String,
    /// Every call is recorded, not only those that were refused.
    pub(super) is_recorded: bool,
    /// It lets in callers who are not known.
    pub(super) is_anonymous: bool,
    /// Its answer is a stream.
    pub(super) is_stream: bool,
    shape: usize,
}

/// The methods of the API by their paths, and the shapes of their requests.
#[derive(Debug)]
pub(crate) struct Methods {
    by_path: HashMap<String, std::sync::Arc<Method>>,
    shapes: std::sync::Arc<Vec<Shape>>,
}

/// The fields of a message that matter.
#[derive(Debug, Default)]
struct Shape(Vec<(u32, Wanted)>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Resource,
    Database,
    Username,
    Message(usize),
}

impl Methods {
    /// Reads the methods out of an encoded descriptor set.
    ///
    /// # Errors
    /// Where it is none of ours.
    pub(crate) fn read(descriptors: &[u8], policies: &PolicyTable) -> Result<Self, MethodsError> {
        let pool = DescriptorPool::decode(descriptors)?;
        let mut shapes = Shapes::new(&pool)?;
        let mut by_path = HashMap::new();
        for method in pool
            .services()
            .flat_map(|service| service.methods().collect::<Vec<_>>())
        {
            let name = format!("{}/{}", method.parent_service().full_name(), method.name());
            let path = format!("/{name}");
            let Some(policy) = policies.get(&path) else {
                continue;
            };
            let found = Method {
                name,
                is_recorded: policy.audit() == AuditMode::Record,
                is_anonymous: policy.anonymous,
                is_stream: method.is_server_streaming(),
                shape: shapes.of(&method.input()),
            };
            by_path.insert(path, std::sync::Arc::new(found));
        }
        Ok(Self {
            by_path,
            shapes: std::sync::Arc::new(shapes.pruned()),
        })
    }

    pub(super) fn get(&self, path: &str) -> Option<(std::sync::Arc<Method>, Names)> {
        let method = self.by_path.get(path)?;
        let names = Names::new(self.shapes.clone(), method.shape);
        Some((method.clone(), names))
    }
}

/// Makes shapes of message types, each once.
struct Shapes {
    secret: prost_reflect::ExtensionDescriptor,
    by_name: HashMap<String, usize>,
    shapes: Vec<Shape>,
}

impl Shapes {
    fn new(pool: &DescriptorPool) -> Result<Self, MethodsError> {
        let secret = pool
            .get_extension_by_name("pgmoor.options.v1.secret")
            .ok_or(MethodsError::NoSecretOption)?;
        Ok(Self {
            secret,
            by_name: HashMap::new(),
            shapes: Vec::new(),
        })
    }

    fn of(&mut self, message: &MessageDescriptor) -> usize {
        if let Some(shape) = self.by_name.get(message.full_name()) {
            return *shape;
        }
        let index = self.shapes.len();
        self.by_name.insert(message.full_name().to_owned(), index);
        self.shapes.push(Shape::default());
        let mut fields: Vec<_> = message
            .fields()
            .filter_map(|field| Some((field.number(), self.wanted(&field)?)))
            .collect();
        fields.sort_unstable_by_key(|(number, _)| *number);
        self.shapes[index] = Shape(fields);
        index
    }

    fn wanted(&mut self, field: &FieldDescriptor) -> Option<Wanted> {
        if matches!(
            field.options().get_extension(&self.secret).as_ref(),
            Value::Bool(true)
        ) {
            return None;
        }
        match field.kind() {
            Kind::Message(message) => Some(Wanted::Message(self.of(&message))),
            Kind::String if RESOURCE_FIELDS.contains(&field.name()) => Some(Wanted::Resource),
            Kind::String if field.name() == DATABASE_FIELD => Some(Wanted::Database),
            Kind::String if field.name() == USERNAME_FIELD => Some(Wanted::Username),
            _ => None,
        }
    }

    /// Without the messages in which nothing is wanted.
    fn pruned(mut self) -> Vec<Shape> {
        loop {
            let empty: Vec<bool> = self.shapes.iter().map(|shape| shape.0.is_empty()).collect();
            let mut changed = false;
            for shape in &mut self.shapes {
                let before = shape.0.len();
                shape
                    .0
                    .retain(|(_, wanted)| !matches!(wanted, Wanted::Message(inner) if empty[*inner]));
                changed |= shape.0.len() < before;
            }
            if !changed {
                return self.shapes;
            }
        }
    }
}

/// What was found in a message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) resources: Vec<String>,
    /// More names than are kept.
    pub(super) dropped: usize,
    pub(super) database: String,
    pub(super) username: String,
}

/// Goes through the first message of a request as it arrives.
#[derive(Debug)]
pub(super) struct Names {
    shapes: std::sync::Arc<Vec<Shape>>,
    root: usize,
    /// The messages it is in, from the outermost, each with where it ends.
    levels: Vec<Level>,
    /// Groups (an encoding of old) it is in. Nothing in them is looked at.
    groups: usize,
    /// Bytes of the message so far.
    at: u64,
    step: Step,
    found: Found,
}

#[derive(Debug, Clone, Copy)]
struct Level {
    shape: usize,
    end: u64,
}

#[derive(Debug)]
enum Step {
    /// Five bytes before the message: whether it is compressed, and its length.
    Header {
        bytes: [u8; 5],
        read: usize,
    },
    Key(Varint),
    Number(Varint),
    Length {
        wanted: Option<Wanted>,
        varint: Varint,
    },
    Skip(u64),
    Text {
        wanted: Wanted,
        left: u64,
        bytes: Vec<u8>,
    },
    Done,
}

#[derive(Debug, Clone, Copy, Default)]
struct Varint {
    value: u64,
    shift: u32,
}

impl Varint {
    /// Takes a byte in. The value, once it is whole; nothing valid is longer than ten bytes.
    fn push(&mut self, byte: u8) -> Option<Result<u64, ()>> {
        if self.shift >= 70 {
            return Some(Err(()));
        }
        self.value |= u64::from(byte & 0x7f).checked_shl(self.shift).unwrap_or(0);
        self.shift += 7;
        (byte & 0x80 == 0).then_some(Ok(self.value))
    }
}

impl Names {
    fn new(shapes: std::sync::Arc<Vec<Shape>>, root: usize) -> Self {
        Self {
            shapes,
            root,
            levels: Vec::new(),
            groups: 0,
            at: 0,
            step: Step::Header {
                bytes: [0; 5],
                read: 0,
            },
            found: Found::default(),
        }
    }

    /// What was found so far.
    pub(super) const fn found(&self) -> &Found {
        &self.found
    }

    /// True once nothing that follows matters.
    pub(super) fn is_done(&self) -> bool {
        matches!(self.step, Step::Done)
    }

    /// Looks at the next bytes of the request's body.
    pub(super) fn read(&mut self, mut chunk: &[u8]) {
        while !chunk.is_empty() && !self.is_done() {
            let taken = self.advance(chunk);
            chunk = chunk.get(taken..).unwrap_or_default();
        }
    }

    /// Takes as many of the bytes as belong to the step it is in, at least one.
    fn advance(&mut self, chunk: &[u8]) -> usize {
        let Some(first) = chunk.first().copied() else {
            return 0;
        };
        match &mut self.step {
            Step::Header { bytes, read } => {
                bytes[*read] = first;
                *read += 1;
                if *read == bytes.len() {
                    let [compressed, a, b, c, d] = *bytes;
                    let end = u64::from(u32::from_be_bytes([a, b, c, d]));
                    self.levels.push(Level {
                        shape: self.root,
                        end,
                    });
                    self.step = if compressed == 0 {
                        self.next_field()
                    } else {
                        Step::Done
                    };
                }
                return 1;
            }
            Step::Key(varint) => {
                if let Some(key) = varint.push(first) {
                    self.at += 1;
                    self.step = key.map_or(Step::Done, |key| self.field(key));
                    return 1;
                }
            }
            Step::Number(varint) => {
                if let Some(number) = varint.push(first) {
                    self.at += 1;
                    self.step = number.map_or(Step::Done, |_| self.next_field());
                    return 1;
                }
            }
            Step::Length { wanted, varint } => {
                let wanted = *wanted;
                if let Some(length) = varint.push(first) {
                    self.at += 1;
                    self.step = length.map_or(Step::Done, |length| self.value(wanted, length));
                    return 1;
                }
            }
            Step::Skip(left) => {
                let taken = chunk.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= taken as u64;
                self.at += taken as u64;
                if *left == 0 {
                    self.step = self.next_field();
                }
                return taken;
            }
            Step::Text { wanted, left, bytes } => {
                let taken = chunk.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                bytes.extend_from_slice(&chunk[..taken]);
                *left -= taken as u64;
                self.at += taken as u64;
                if *left == 0 {
                    let (wanted, bytes) = (*wanted, std::mem::take(bytes));
                    self.found.add(wanted, bytes);
                    self.step = self.next_field();
                }
                return taken;
            }
            Step::Done => return chunk.len(),
        }
        self.at += 1;
        1
    }

    /// What comes where a field is over.
    fn next_field(&mut self) -> Step {
        while self.levels.last().is_some_and(|level| level.end <= self.at) {
            self.levels.pop();
        }
        if self.levels.is_empty() {
            Step::Done
        } else {
            Step::Key(Varint::default())
        }
    }

    fn field(&mut self, key: u64) -> Step {
        let (number, wire_type) = (key >> 3, key & 7);
        match wire_type {
            0 => Step::Number(Varint::default()),
            1 => Step::Skip(8),
            2 => {
                let shape = self.levels.last().and_then(|level| self.shapes.get(level.shape));
                let fields = shape.map_or(&[][..], |shape| shape.0.as_slice());
                let number = u32::try_from(number).unwrap_or(0);
                let found = fields.binary_search_by_key(&number, |(number, _)| *number);
                let wanted = found.ok().filter(|_| self.groups == 0);
                Step::Length {
                    wanted: wanted.and_then(|at| fields.get(at)).map(|(_, wanted)| *wanted),
                    varint: Varint::default(),
                }
            }
            3 => {
                self.groups += 1;
                self.next_field()
            }
            4 => {
                self.groups = self.groups.saturating_sub(1);
                self.next_field()
            }
            5 => Step::Skip(4),
            _ => Step::Done,
        }
    }

    fn value(&mut self, wanted: Option<Wanted>, length: u64) -> Step {
        let end = self.at.saturating_add(length);
        if self.levels.last().is_none_or(|level| end > level.end) {
            // No message of ours: it will be refused.
            return Step::Done;
        }
        match wanted {
            Some(Wanted::Message(shape)) if self.levels.len() < MOST_LEVELS => {
                self.levels.push(Level { shape, end });
                self.next_field()
            }
            Some(wanted @ (Wanted::Resource | Wanted::Database | Wanted::Username))
                if (1..=MOST_NAME_BYTES).contains(&length) =>
            {
                Step::Text {
                    wanted,
                    left: length,
                    bytes: Vec::new(),
                }
            }
            _ if length == 0 => self.next_field(),
            _ => Step::Skip(length),
        }
    }
}

impl Found {
    fn add(&mut self, wanted: Wanted, bytes: Vec<u8>) {
        let Ok(text) = String::from_utf8(bytes) else {
            return;
        };
        match wanted {
            Wanted::Resource if is_resource_name(&text) => {
                if self.resources.len() == MOST_NAMES {
                    self.resources.remove(0);
                    self.dropped += 1;
                }
                if !self.resources.contains(&text) {
                    self.resources.push(text);
                }
            }
            Wanted::Database => self.database = text,
            Wanted::Username => self.username = text,
            Wanted::Resource | Wanted::Message(_) => {}
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
    use rpc::query::v1::{ExecuteRequest, Parameter, Script, parameter};
    use rpc::server::v1::{CreateServerRequest, Server};

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
            assert_eq!(found.resources, ["servers/a/sessions/b"]);
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
            assert_eq!(found.resources, ["servers/late/sessions/x"]);
        }
    }

    #[test]
    fn last_of_many_names_are_kept() {
        let mut message = Vec::new();
        for number in 0..1000 {
            prost::encoding::string::encode(1, &format!("servers/{number}"), &mut message);
        }
        let found = found_in(EXECUTE, &message, 64);
        assert_eq!(found.resources.last().unwrap(), "servers/999");
        assert_eq!(
            (found.resources.len(), found.dropped),
            (MOST_NAMES, 1000 - MOST_NAMES)
        );
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
        assert_eq!(found.resources, ["servers/nested"]);
    }

    #[test]
    fn username_of_a_login_is_found_and_its_password_is_not() {
        let request = rpc::auth::v1::LoginWithPasswordRequest {
            username: "alice".to_owned(),
            password: "users/secret".to_owned(),
        };
        let path = "/pgmoor.auth.v1.AuthService/LoginWithPassword";
        let found = found_in(path, &request.encode_to_vec(), 3);
        assert_eq!((found.username.as_str(), found.resources.len()), ("alice", 0));
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
