//! The kinds as data: what a resource is called, how its fields are shaped, defaulted, validated, merged and shown.
//!
//! Everything here is a pure function over `serde_json::Value`. It knows nothing of HTTP, storage or identity.

mod error;
mod tree;

pub use error::SchemaError;
pub use tree::{Kind, ListType, PatchStrategy, Schema};
