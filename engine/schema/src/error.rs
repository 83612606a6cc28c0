//! What can be wrong with a schema, a document or a patch.

use thiserror::Error;

/// A failure of this crate.
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
