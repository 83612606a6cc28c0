//! The kinds as data: what a resource is called, how its fields are shaped, defaulted, validated, merged and shown.
//!
//! Everything here is a pure function over `serde_json::Value`. It knows nothing of HTTP, storage or identity.

mod convert;
pub mod custom;
mod decode;
mod definitions;
mod discovery;
pub mod duration;
mod error;
pub mod expression;
mod invalid;
mod lookup;
pub mod names;
mod openapi;
pub mod patch;
mod path;
pub mod quantity;
mod registry;
mod resource;
mod rows;
pub mod schedule;
pub mod selector;
mod strategy;
mod table;
mod tree;
mod walk;

pub use decode::{Encoding, MAX_BODY, MAX_DEPTH, decode_json, decode_protobuf};
pub use discovery::priority as version_priority;
pub use error::{DecodeError, SchemaError};
pub use invalid::{FieldError, Reason};
pub use openapi::Swagger;
pub use registry::Registry;
pub use resource::{Conversion, Convert, Gvk, Kept, Name, Resource, ScalePaths, Subresource, VirtualResource};
pub use strategy::below::isolate;
pub use strategy::{Generations, Strategy, validate_ephemeral_containers};
pub use table::{IncludeObject, TableInput, human_duration, table};
pub use tree::{Kind, ListType, PatchStrategy, Schema};
pub use walk::{apply_defaults, check_types, prune, prune_unknown};
