//! What types say of themselves: messages by `JsonSchema`, errors by [`DescribeError`], methods by what the macro writes.

use crate::wire::error::{Code, Error, ServiceError};
use crate::wire::spec::MethodSpec;
use crate::wire::stream::ByteStream;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Map, Value, json};
use std::borrow::Cow;
use std::convert::Infallible;

/// An error type that can say what its variants are. `#[derive(ServiceError)]` implements it where every field has a JSON
/// Schema; implement it by hand for a `ServiceError` that you implemented by hand.
///
/// ```
/// use nats_service::ServiceError;
/// use nats_service::contract::DescribeError;
///
/// #[derive(Debug, ServiceError)]
/// enum ProfileError {
///     #[service_error(code = AlreadyExists, message = "{email} belongs to another profile")]
///     EmailTaken { email: String },
/// }
/// let variants = ProfileError::variants(&mut Default::default());
/// assert_eq!(variants[0].name(), "EmailTaken");
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot describe its variants",
    label = "the contract's document cannot say what this error is",
    note = "derive `ServiceError` for it, and see that every field implements `nats_service::schemars::JsonSchema`"
)]
pub trait DescribeError: ServiceError {
    /// Its variants; none where nothing is known of them but what every error has.
    fn variants(generator: &mut SchemaGenerator) -> Vec<ErrorVariant>;
}

impl DescribeError for Error {
    fn variants(_: &mut SchemaGenerator) -> Vec<ErrorVariant> {
        Vec::new()
    }
}

impl DescribeError for Infallible {
    fn variants(_: &mut SchemaGenerator) -> Vec<ErrorVariant> {
        Vec::new()
    }
}

/// One variant of a typed error.
///
/// ```
/// use nats_service::Code;
/// use nats_service::contract::ErrorVariant;
/// let mut generator = Default::default();
/// let taken = ErrorVariant::new("EmailTaken", Code::AlreadyExists, "")
///     .field::<String>(&mut generator, "email");
/// assert_eq!(taken.code(), Code::AlreadyExists);
/// ```
#[derive(Debug, Clone)]
pub struct ErrorVariant {
    name: &'static str,
    code: Code,
    description: &'static str,
    fields: Vec<(&'static str, Value)>,
    items: Vec<Value>,
}

impl ErrorVariant {
    /// A variant without fields.
    #[must_use]
    pub fn new(name: &'static str, code: Code, description: &'static str) -> Self {
        Self {
            name,
            code,
            description,
            fields: Vec::new(),
            items: Vec::new(),
        }
    }

    /// Adds a named field.
    #[must_use]
    pub fn field<T: JsonSchema + ?Sized>(
        mut self,
        generator: &mut SchemaGenerator,
        name: &'static str,
    ) -> Self {
        let schema = generator.subschema_for::<T>().to_value();
        self.fields.push((name, schema));
        self
    }

    /// Adds a numbered field.
    #[must_use]
    pub fn item<T: JsonSchema + ?Sized>(mut self, generator: &mut SchemaGenerator) -> Self {
        self.items.push(generator.subschema_for::<T>().to_value());
        self
    }

    /// Its name, as it stands in an error's body.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Its code.
    #[must_use]
    pub fn code(&self) -> Code {
        self.code
    }

    /// The body of an error reply of this variant.
    pub(super) fn schema(&self) -> Value {
        let (name, code) = (self.name, self.code.name());
        let mut fields = vec![
            ("code", json!({ "type": "string", "const": code })),
            ("message", json!({ "type": "string" })),
            ("variant", json!({ "type": "string", "const": name })),
        ];
        fields.extend(self.details().map(|details| ("details", details)));
        let mut schema = object(&fields);
        if !self.description.is_empty() {
            schema["description"] = self.description.into();
        }
        schema
    }

    /// What it carries besides.
    pub(super) fn details(&self) -> Option<Value> {
        if !self.items.is_empty() {
            let (items, count) = (&self.items, self.items.len());
            return Some(json!({
                "type": "array", "items": items, "minItems": count, "maxItems": count,
            }));
        }
        (!self.fields.is_empty()).then(|| object(&self.fields))
    }
}

/// The schema of an object with these fields. One that may be null may be missing too, as serde has it for an `Option`.
fn object(fields: &[(&'static str, Value)]) -> Value {
    let required: Vec<_> = fields
        .iter()
        .filter(|(_, schema)| !may_be_null(schema))
        .map(|(name, _)| *name)
        .collect();
    let properties: Map<String, Value> = fields
        .iter()
        .map(|(name, schema)| ((*name).to_owned(), schema.clone()))
        .collect();
    json!({ "type": "object", "properties": properties, "required": required })
}

fn may_be_null(schema: &Value) -> bool {
    let null = |it: &Value| it == "null";
    schema["type"]
        .as_array()
        .is_some_and(|types| types.iter().any(null))
        || schema["anyOf"]
            .as_array()
            .is_some_and(|any| any.iter().any(|one| null(&one["type"])))
}

impl JsonSchema for ByteStream {
    fn schema_name() -> Cow<'static, str> {
        "ByteStream".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "contentMediaType": "application/octet-stream" })
    }
}

/// A method that can say what it takes and answers; the macro implements it.
pub trait Described {
    /// Says it.
    fn describe(method: &mut MethodBuilder<'_>);
    /// Its constants; `None` where a `cfg` has removed it.
    fn spec() -> Option<&'static MethodSpec>;
}

/// Stands for a method that a `cfg` has removed.
#[derive(Debug)]
pub enum NoMethod {}

impl Described for NoMethod {
    fn describe(_: &mut MethodBuilder<'_>) {}

    fn spec() -> Option<&'static MethodSpec> {
        None
    }
}

/// Gathers what a method says.
#[derive(Debug)]
pub struct MethodBuilder<'g> {
    generator: &'g mut SchemaGenerator,
    arguments: Vec<(&'static str, Value)>,
    pub(super) answer: Value,
    pub(super) errors: Vec<ErrorVariant>,
    /// Of the stream that the caller sends.
    pub(super) item: Value,
    /// What the stream of answers may end with.
    pub(super) item_errors: Vec<ErrorVariant>,
}

impl<'g> MethodBuilder<'g> {
    pub(super) fn new(generator: &'g mut SchemaGenerator) -> Self {
        Self {
            generator,
            arguments: Vec::new(),
            answer: Value::Null,
            errors: Vec::new(),
            item: Value::Null,
            item_errors: Vec::new(),
        }
    }

    /// One argument.
    pub fn argument<T: JsonSchema>(&mut self, name: &'static str) {
        let schema = self.generator.subschema_for::<T>().to_value();
        self.arguments.push((name, schema));
    }

    /// The answer, or one item of a stream of answers.
    pub fn answer<T: JsonSchema>(&mut self) {
        self.answer = self.generator.subschema_for::<T>().to_value();
    }

    /// The error; where answers are a stream, what keeps it from beginning.
    pub fn error<E: DescribeError>(&mut self) {
        self.errors = E::variants(self.generator);
    }

    /// One item of the stream that the caller sends.
    pub fn item<T: JsonSchema>(&mut self) {
        self.item = self.generator.subschema_for::<T>().to_value();
    }

    /// What the stream of answers may end with.
    pub fn item_error<E: DescribeError>(&mut self) {
        self.item_errors = E::variants(self.generator);
    }

    /// The body of a request, as the server takes it.
    pub(super) fn request(&self) -> Value {
        match &self.arguments[..] {
            [] => json!({ "type": "null", "description": "An empty body does as well." }),
            [(_, schema)] => schema.clone(),
            several => object(several),
        }
    }
}
