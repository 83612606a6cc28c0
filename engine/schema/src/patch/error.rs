//! Why a patch is refused.

use std::collections::BTreeMap;
use std::fmt;

use thiserror::Error;

/// A patch that cannot be applied; the target is as it was.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum PatchError {
    /// The patch or the applied configuration is no object.
    #[error("the patch must be a JSON object, not {found}")]
    NotAnObject {
        /// What it is instead.
        found: &'static str,
    },
    /// A JSON patch is no list.
    #[error("a JSON patch must be a list of operations, not {found}")]
    NotAList {
        /// What it is instead.
        found: &'static str,
    },
    /// A JSON patch with too many operations.
    #[error("the patch has {count} operations, no more than {limit} are allowed")]
    TooManyOperations {
        /// How many it has.
        count: usize,
        /// How many it may have.
        limit: usize,
    },
    /// The patch, or what it would make, is nested too deeply.
    #[error("the patched object would be nested more than {limit} levels deep")]
    TooDeep {
        /// How deep it may be.
        limit: usize,
    },
    /// The `copy` operations of a JSON patch multiply the object beyond all bounds.
    #[error("the copy operations of the patch add more than {limit} bytes")]
    TooLarge {
        /// How many bytes they may add.
        limit: usize,
    },
    /// The operations of a JSON patch move too much about.
    #[error("the operations of the patch move or shift more than {limit} bytes")]
    TooMuchWork {
        /// How many bytes they may move or shift.
        limit: usize,
    },
    /// An operation of a JSON patch is malformed.
    #[error("operation {index} of the patch is malformed: {reason}")]
    MalformedOperation {
        /// Which one, counted from 0.
        index: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// A `test` operation found another value.
    #[error("operation {index} of the patch: the value at {path:?} is not the one tested for")]
    TestFailed {
        /// Which one, counted from 0.
        index: usize,
        /// Where it looked.
        path: String,
    },
    /// An operation names a place that is not there.
    #[error("operation {index} of the patch: there is nothing at {path:?}")]
    NoSuchPath {
        /// Which one, counted from 0.
        index: usize,
        /// The place.
        path: String,
    },
    /// A `move` into what is moved.
    #[error("operation {index} of the patch would move {path:?} into itself")]
    MoveIntoItself {
        /// Which one, counted from 0.
        index: usize,
        /// What was to be moved.
        path: String,
    },
    /// A value that cannot be merged into its field.
    #[error("{field}: must be {expected}, not {found}")]
    WrongType {
        /// The field, or the directive.
        field: String,
        /// What it should be.
        expected: &'static str,
        /// What it is.
        found: &'static str,
    },
    /// A configuration names a field that the schema does not know.
    #[error(".{field}: field not declared in schema")]
    UnknownField {
        /// The field.
        field: String,
    },
    /// A configuration of a policy names what is replaced as a whole.
    #[error("may not mutate atomic arrays, maps or structs: {fields}")]
    Atomic {
        /// The fields, parted by commas.
        fields: String,
    },
    /// `$patch` is none of its values.
    #[error("{field}: unknown directive {directive}, $patch takes \"merge\", \"replace\" or \"delete\"")]
    UnknownDirective {
        /// The object that holds the directive.
        field: String,
        /// What it says, as JSON.
        directive: String,
    },
    /// An item of a list lacks the key that tells the items apart.
    #[error("{field}: the merge key {key} is missing")]
    MissingKey {
        /// The item.
        field: String,
        /// The key, or the keys.
        key: String,
    },
    /// An item of a list is there twice.
    #[error("{field}: the item {item} is there more than once")]
    DuplicateItem {
        /// The list.
        field: String,
        /// The item, by its key.
        item: String,
    },
    /// `$setElementOrder` names the items of the patch in another order, or not at all.
    #[error("{field}: the items are not in the order that $setElementOrder gives, or it does not name all of them")]
    OrderMismatch {
        /// The list.
        field: String,
    },
    /// `$retainKeys` does not name a field that the patch sets.
    #[error("{field}: is set by the patch but not named by $retainKeys")]
    NotRetained {
        /// The field.
        field: String,
    },
    /// The applied configuration brings its own `managedFields`.
    #[error("metadata.managedFields: must not be part of an applied configuration")]
    ManagedFieldsGiven,
    /// Other managers own applied fields with other values.
    #[error("{}", summary(.0))]
    Conflicts(Vec<Conflict>),
}

/// A field of an applied configuration that another manager owns with another value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The other manager.
    pub manager: String,
    /// The field, such as `.spec.template.spec.containers[name="web"].image`.
    pub field: String,
    /// The subresource through which the other manager wrote.
    pub subresource: Option<String>,
    /// The version it wrote and when, where it wrote other than by apply.
    pub update: Option<(String, Option<String>)>,
}

impl Conflict {
    /// What stands in the cause of a `Status`.
    pub fn message(&self) -> String {
        format!("conflict with {self}")
    }
}

impl fmt::Display for Conflict {
    /// The other manager in the words that kubectl's users know.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.manager)?;
        if let Some(subresource) = &self.subresource {
            write!(f, " with subresource {subresource:?}")?;
        }
        match &self.update {
            Some((version, Some(time))) => write!(f, " using {version} at {time}"),
            Some((version, None)) => write!(f, " using {version}"),
            None => Ok(()),
        }
    }
}

fn summary(conflicts: &[Conflict]) -> String {
    if let [only] = conflicts {
        return format!("apply failed with 1 conflict: {}: {}", only.message(), only.field);
    }
    let mut by_manager: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for conflict in conflicts {
        by_manager.entry(conflict.to_string()).or_default().push(&conflict.field);
    }
    let mut text = format!("apply failed with {} conflicts:", conflicts.len());
    for (manager, fields) in by_manager {
        for part in [" conflicts with ", &manager, ":\n- ", &fields.join("\n- "), "\n"] {
            text.push_str(part);
        }
    }
    text.trim_end().to_owned()
}
