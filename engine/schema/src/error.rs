//! What can be wrong with a schema or a document.

use thiserror::Error;

/// A schema that cannot be read.
#[derive(Debug, Error)]
pub enum SchemaError {
    /// A `$ref` names a definition that is not there.
    #[error("schema refers to the unknown definition {0}")]
    UnknownDefinition(String),
    /// `type` is none of JSON Schema's.
    #[error("schema at {path} has the unknown type {named:?}")]
    UnknownType {
        /// Where in the schema.
        path: String,
        /// The type it names.
        named: String,
    },
}

/// A request body that cannot be read.
#[derive(Debug, Error)]
pub enum DecodeError {
    /// The body is longer than a request may be.
    #[error("request body is {size} bytes long, the limit is {limit}")]
    TooLarge {
        /// Its length.
        size: usize,
        /// The longest body taken.
        limit: usize,
    },
    /// Objects and lists are nested too deeply.
    #[error("{path} is nested deeper than {limit} levels")]
    TooDeep {
        /// The path of the value that is one level too deep.
        path: String,
        /// The deepest level taken.
        limit: usize,
    },
    /// The body is no JSON.
    #[error("json: {0}")]
    Json(#[from] serde_json::Error),
    /// The body does not begin with the protobuf envelope's mark.
    #[error("protobuf: the body does not begin with the Kubernetes envelope")]
    NoEnvelope,
    /// The bytes break protobuf's rules.
    #[error("protobuf: {path}: {problem}")]
    Protobuf {
        /// The field in which it happened.
        path: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// The envelope names a kind that is not served.
    #[error("no kind {kind:?} is registered for version {api_version:?}")]
    UnknownKind {
        /// The `apiVersion` of the envelope.
        api_version: String,
        /// The `kind` of the envelope.
        kind: String,
    },
}
