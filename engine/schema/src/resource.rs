//! One served resource: its names, its shape and what can be asked of it.

use std::borrow::Cow;
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value;

use crate::custom::{Custom, JsonPath};
use crate::lookup;
use crate::strategy::{Strategy, below};
use crate::tree::Schema;

/// A name that is either known when compiling (built-in kinds) or not (custom resources).
pub type Name = Cow<'static, str>;

/// What can be done with a stored resource, in the order discovery lists it.
pub(crate) const VERBS: &[&str] = &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

/// Group, version and kind; group is empty for the core group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gvk {
    /// API group.
    pub group: &'static str,
    /// Version.
    pub version: &'static str,
    /// Kind.
    pub kind: &'static str,
}

/// A path below an object, such as `status` or `scale`.
#[derive(Clone, Copy, Debug)]
pub struct Subresource {
    /// The last part of the path.
    pub name: &'static str,
    /// The kind it speaks, where that is not the resource's own.
    pub kind: Option<Gvk>,
    /// What can be done with it.
    pub verbs: &'static [&'static str],
}

/// A column of the table that `kubectl get` prints.
#[derive(Clone, Copy)]
pub(crate) struct Column {
    pub(crate) name: &'static str,
    /// `string`, `integer`, ...
    pub(crate) kind: &'static str,
    /// 0 is always shown, 1 only with `-o wide`.
    pub(crate) priority: u8,
    pub(crate) cell: Cell,
}

/// Where a cell's value comes from.
#[derive(Clone, Copy)]
pub(crate) enum Cell {
    /// `metadata.name`.
    Name,
    /// The time since `metadata.creationTimestamp`.
    Age,
    /// The text at a path, else a stand-in.
    Text(&'static str, &'static str),
    /// The whole number at a path, else 0.
    Number(&'static str),
    /// Worked out.
    With(fn(&Value, Timestamp) -> Value),
}

/// A column of a resource: a built-in kind's as written in its row, or a custom one's.
#[derive(Clone)]
pub(crate) struct ShownColumn {
    pub(crate) name: Name,
    /// `string`, `integer`, `date`, ...
    pub(crate) kind: Name,
    pub(crate) format: Name,
    pub(crate) description: Name,
    pub(crate) priority: i64,
    pub(crate) cell: ShownCell,
}

/// Where a shown cell's value comes from.
#[derive(Clone)]
pub(crate) enum ShownCell {
    Built(Cell),
    /// The first value that a path leads to.
    Path(JsonPath),
}

impl From<&Column> for ShownColumn {
    fn from(column: &Column) -> Self {
        Self {
            name: column.name.into(),
            kind: column.kind.into(),
            format: if matches!(column.cell, Cell::Name) { "name".into() } else { "".into() },
            description: "".into(),
            priority: column.priority.into(),
            cell: ShownCell::Built(column.cell),
        }
    }
}

/// A selectable field of a resource, built-in or custom.
#[derive(Clone)]
pub(crate) struct SelectableField {
    pub(crate) field: Name,
    pub(crate) absent: Name,
    pub(crate) with: Option<fn(&Value) -> String>,
}

impl From<&Selectable> for SelectableField {
    fn from(row: &Selectable) -> Self {
        Self { field: row.field.into(), absent: row.absent.into(), with: row.with }
    }
}

/// Where the `scale` subresource finds what it shows, as dotted paths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScalePaths {
    /// The wished count.
    pub spec_replicas: Name,
    /// The count there is.
    pub status_replicas: Name,
    /// A label selector, as an object or as text.
    pub selector: Option<Name>,
}

impl Default for ScalePaths {
    fn default() -> Self {
        Self {
            spec_replicas: "spec.replicas".into(),
            status_replicas: "status.replicas".into(),
            selector: Some("spec.selector".into()),
        }
    }
}

/// A field that a field selector may name, beside `metadata.name` and `metadata.namespace`.
#[derive(Clone, Copy)]
pub(crate) struct Selectable {
    pub(crate) field: &'static str,
    /// What the field reads as when it is not there.
    pub(crate) absent: &'static str,
    /// Where to look instead of at `field`.
    pub(crate) with: Option<fn(&Value) -> String>,
}

/// Brings an object of one version of a kind into the form of another, named by its `apiVersion`.
pub type Convert = fn(Value, &str) -> Value;

/// How the versions of one kind become each other.
#[derive(Clone, Debug)]
pub enum Conversion {
    /// They differ in `apiVersion` alone.
    Rename,
    /// By a function.
    With(Convert),
    /// By a webhook: a custom resource's `spec.conversion.webhook`.
    Webhook(Arc<Value>),
}

/// Under which names the objects of a resource are kept. Several resources kept under the same names are versions of one
/// kind: they show the same objects.
#[derive(Clone, Debug)]
pub struct Kept {
    /// API group.
    pub group: Name,
    /// The version that new objects are written in.
    pub version: Name,
    /// Name in paths.
    pub plural: Name,
    /// How objects get from one version to another.
    pub conversion: Conversion,
}

/// Where the shape of a resource comes from.
pub(crate) enum Shape {
    /// It is part of the built-in kinds' tree.
    Built(Schema),
    /// It is read from the definition when it is first needed.
    Custom(Arc<Custom>),
}

/// A served resource.
pub struct Resource {
    /// API group, empty for the core group.
    pub group: Name,
    /// Version.
    pub version: Name,
    /// Kind of one object.
    pub kind: Name,
    /// Name in paths.
    pub plural: Name,
    /// Name of one object in lower case.
    pub singular: Name,
    /// Further names that people type.
    pub short_names: Vec<Name>,
    /// Groups of resources such as `all`.
    pub categories: Vec<Name>,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// What can be done with it.
    pub verbs: &'static [&'static str],
    /// The paths below an object.
    pub subresources: Vec<Subresource>,
    /// Whether a delete answers with the object instead of a `Status`; clients with typed replies depend on it.
    pub returns_deleted: bool,
    /// Where the objects are.
    pub kept: Kept,
    /// What the `scale` subresource shows.
    pub scale: ScalePaths,
    /// What callers are warned of when they use this version.
    pub deprecation: Option<Name>,
    pub(crate) definition: Name,
    pub(crate) shape: Shape,
    pub(crate) columns: Vec<ShownColumn>,
    pub(crate) selectable: Vec<SelectableField>,
    pub(crate) strategy: Arc<dyn Strategy>,
}

impl Resource {
    /// The shape of one object.
    pub fn schema(&self) -> &Schema {
        match &self.shape {
            Shape::Built(schema) => schema,
            Shape::Custom(custom) => custom.schema(),
        }
    }

    /// What is particular to a custom resource.
    pub(crate) fn custom(&self) -> Option<&Arc<Custom>> {
        match &self.shape {
            Shape::Built(_) => None,
            Shape::Custom(custom) => Some(custom),
        }
    }

    /// Whether a CustomResourceDefinition made it.
    pub fn is_custom(&self) -> bool {
        self.custom().is_some()
    }

    /// A number that changes when the definition of a custom resource does.
    pub fn fingerprint(&self) -> Option<u64> {
        self.custom().map(|custom| custom.fingerprint)
    }

    /// Brings a stored custom object into the form of the version that it is stored in: without what that does not know
    /// any more, with the defaults that it has since got. Says whether that changed anything.
    pub fn settle(&self, object: &mut Value) -> bool {
        self.custom().is_some_and(|custom| custom.settle(object))
    }

    /// Takes out of a custom object what this version does not know.
    pub fn trim(&self, object: &mut Value) {
        if let Some(custom) = self.custom() {
            custom.trim(&self.version, object);
        }
    }

    /// Takes out of a custom object what the version does not know that objects are stored in.
    pub fn trim_kept(&self, object: &mut Value) {
        if let Some(custom) = self.custom() {
            custom.trim(&self.kept.version, object);
        }
    }

    /// `apps/v1`, or `v1` for the core group.
    pub fn api_version(&self) -> String {
        api_version(&self.group, &self.version)
    }

    /// The `apiVersion` that objects are stored in.
    pub fn kept_api_version(&self) -> String {
        api_version(&self.kept.group, &self.kept.version)
    }

    /// The kind of a list of these objects.
    pub fn list_kind(&self) -> String {
        format!("{}List", self.kind)
    }

    /// What is particular to this kind.
    pub fn strategy(&self) -> &dyn Strategy {
        &*self.strategy
    }

    /// The subresource of a name.
    pub fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.subresources.iter().find(|each| each.name == name)
    }

    /// The live object with the part that a subresource writes (`status`, `approval`, `finalize`, `ephemeralcontainers`,
    /// `resize`) taken from the wished one; `None` for a subresource that is no part of its object.
    pub fn isolate(&self, subresource: &str, wished: &Value, live: &Value) -> Option<Value> {
        self.subresource(subresource)?;
        below::isolate(subresource, wished, live)
    }

    /// The name of the OpenAPI definition of one object.
    pub fn definition(&self) -> &str {
        &self.definition
    }

    /// What a field selector compares; `None` when the field is not selectable for this kind.
    pub fn selectable(&self, object: &Value, field: &str) -> Option<String> {
        if field == "metadata.name" || (field == "metadata.namespace" && self.namespaced) {
            return Some(lookup::text(object, field).to_owned());
        }
        let row = self.selectable.iter().find(|row| row.field == field)?;
        if let Some(with) = row.with {
            return Some(with(object));
        }
        Some(match lookup::at(object, &row.field) {
            Some(Value::String(text)) if !text.is_empty() => text.clone(),
            Some(Value::Bool(flag)) => flag.to_string(),
            Some(Value::Number(number)) => number.to_string(),
            _ => row.absent.to_string(),
        })
    }

    /// Every field that a selector may name.
    pub fn selectable_fields(&self) -> impl Iterator<Item = &str> {
        let own = self.selectable.iter().map(|row| &*row.field);
        let namespace = self.namespaced.then_some("metadata.namespace");
        ["metadata.name"].into_iter().chain(namespace).chain(own)
    }
}

impl std::fmt::Debug for Resource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Resource({}/{})", self.api_version(), self.plural)
    }
}

pub(crate) fn api_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

/// A resource that is answered and never stored: a review, to be created only.
#[derive(Clone, Copy, Debug)]
pub struct VirtualResource {
    /// API group.
    pub group: &'static str,
    /// Version.
    pub version: &'static str,
    /// Kind.
    pub kind: &'static str,
    /// Name in paths.
    pub plural: &'static str,
    /// Name of one object in lower case.
    pub singular: &'static str,
    /// Whether it is asked for within a namespace.
    pub namespaced: bool,
    /// What can be done with it.
    pub verbs: &'static [&'static str],
    pub(crate) definition: &'static str,
}
