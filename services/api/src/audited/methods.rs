//! The methods of the API, and the fields of their requests that matter: found in the descriptors once, at the start.

use std::collections::HashMap;
use std::sync::Arc;

use prost_reflect::{DescriptorPool, FieldDescriptor, Kind, MessageDescriptor, Value};
use rpc::options::v1::AuditMode;
use rpc::policy::PolicyTable;
use thiserror::Error;

use super::names::{DATABASE_FIELD, RESOURCE_FIELDS, USERNAME_FIELD};
use super::reader::NameReader;

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
    by_path: HashMap<String, Arc<Method>>,
    shapes: Arc<Vec<Shape>>,
}

/// The fields of a message that matter.
#[derive(Debug, Default)]
pub(super) struct Shape(Vec<(u32, Field)>);

/// A field that matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Field {
    pub(super) wanted: Wanted,
    /// It has one value: the last that is sent.
    pub(super) is_single: bool,
}

/// What a field holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    /// The name of a resource.
    Resource,
    /// The name of a database.
    Database,
    /// The name a user logs in with.
    Username,
    /// A message of this shape.
    Message(usize),
}

impl Shape {
    /// The field of that number, if it matters.
    pub(super) fn field(&self, number: u32) -> Option<Field> {
        let found = self.0.binary_search_by_key(&number, |(number, _)| *number);
        found.ok().and_then(|at| self.0.get(at)).map(|(_, field)| *field)
    }
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
            by_path.insert(path, Arc::new(found));
        }
        Ok(Self {
            by_path,
            shapes: Arc::new(shapes.pruned()),
        })
    }

    pub(super) fn get(&self, path: &str) -> Option<(Arc<Method>, NameReader)> {
        let method = self.by_path.get(path)?;
        let names = NameReader::new(self.shapes.clone(), method.shape);
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
            .filter_map(|field| {
                let wanted = self.wanted(&field)?;
                // A map is a list of its entries.
                let is_single = !field.is_list() && !field.is_map();
                Some((field.number(), Field { wanted, is_single }))
            })
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
                    .retain(|(_, field)| !matches!(field.wanted, Wanted::Message(inner) if empty[inner]));
                changed |= shape.0.len() < before;
            }
            if !changed {
                return self.shapes;
            }
        }
    }
}
