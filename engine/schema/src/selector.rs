//! Which objects a request or a workload means: by label and by field.
//!
//! Selectors are parsed once and then asked per object through a closure, so that they copy nothing and need not know
//! how an object is held.

mod field;
mod label;

use thiserror::Error;

pub use field::{FieldOperator, FieldSelector};
pub use label::{LabelSelector, Requirement};

/// Why a text or an object is no selector.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum SelectorError {
    /// The text breaks off or goes on where it should not.
    #[error("selector {selector:?}: found {found}, expected {expected}")]
    Syntax {
        /// The whole selector.
        selector: String,
        /// The offending part, quoted, or `the end`.
        found: String,
        /// What could stand there.
        expected: &'static str,
    },
    /// The key of a requirement is no label key.
    #[error("selector key {key:?}: {reason}")]
    Key {
        /// The key.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A value of a requirement cannot be one.
    #[error("selector value {value:?} of key {key:?}: {reason}")]
    Value {
        /// The key of the requirement.
        key: String,
        /// The value.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A requirement has too many or too few values for its operator.
    #[error("selector key {key:?}: {reason}")]
    Values {
        /// The key of the requirement.
        key: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// A selector in an object has a field of the wrong form.
    #[error("selector field {field}: {reason}")]
    Shape {
        /// The field within the selector.
        field: String,
        /// What it should be.
        reason: &'static str,
    },
}
