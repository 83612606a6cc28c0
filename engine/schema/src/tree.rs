//! The shape of a JSON document as a tree that every walker shares: decoding, pruning, defaulting, both merge
//! patches and server-side apply all ask this type and nothing else what a field is.
//!
//! A tree is read from JSON Schema with the `x-kubernetes-*` extensions, be it the built-in kinds' or a custom
//! resource's. It knows nothing of HTTP, storage or any particular kind.

mod checks;
mod read;

use std::collections::HashMap;
use std::sync::Arc;

use indexmap::IndexMap;
use serde_json::{Map, Value};

use crate::error::SchemaError;
pub(crate) use checks::{Checks, RuleText, compile_pattern};
pub(crate) use read::OBJECT_META;
use read::Reader;

/// What a value may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Anything: raw JSON whose inside is not described.
    Any,
    /// `true` or `false`.
    Boolean,
    /// A whole number.
    Integer,
    /// Any number.
    Number,
    /// Text; [`Schema::format`] narrows it (`date-time`, `byte`, `quantity`).
    String,
    /// A whole number or text, such as a port by number or name.
    IntOrString,
    /// Fixed properties.
    Object,
    /// Free keys over one value schema.
    Map,
    /// A list over one item schema.
    List,
}

/// How a list merges under server-side apply.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ListType {
    /// Replaced as a whole.
    #[default]
    Atomic,
    /// Unordered scalars, each owned by itself.
    Set,
    /// Objects told apart by these keys.
    Map(Vec<Box<str>>),
}

/// How a field merges under a strategic merge patch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PatchStrategy {
    /// Merge a list (by [`PatchStrategy::merge_key`], or as a set of scalars) instead of replacing it.
    pub merge: bool,
    /// Replace an object that would merge by default.
    pub replace: bool,
    /// Drop the keys that `$retainKeys` does not name.
    pub retain_keys: bool,
    /// The key that tells a list's objects apart.
    pub merge_key: Option<Box<str>>,
}

#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of JSON Schema, independent of the others")]
struct Node {
    kind: Kind,
    format: Option<Box<str>>,
    properties: IndexMap<Box<str>, u32>,
    /// Which of the properties have a default: few, so that filling in need not look at the others.
    defaulted: Vec<u32>,
    /// The item schema of a list, the value schema of a map.
    inner: Option<u32>,
    required: Vec<Box<str>>,
    default: Option<Value>,
    nullable: bool,
    preserve_unknown: bool,
    embedded_resource: bool,
    list_type: ListType,
    atomic_map: bool,
    patch: PatchStrategy,
    definition: Option<Box<str>>,
    /// What a custom resource's schema says beside the shape; built-in kinds have strategies for that.
    checks: Option<Box<Checks>>,
}

/// A place in a schema tree; cheap to clone.
#[derive(Clone)]
pub struct Schema {
    nodes: Arc<Vec<Node>>,
    at: u32,
}

impl std::fmt::Debug for Schema {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let node = self.node();
        f.debug_struct("Schema").field("kind", &node.kind).field("definition", &node.definition).finish_non_exhaustive()
    }
}

impl Schema {
    /// Reads one self-contained JSON schema, such as a custom resource's `openAPIV3Schema`.
    pub fn from_json(schema: &Value) -> Result<Self, SchemaError> {
        let empty = Map::new();
        let mut reader = Reader::new(&empty);
        let at = reader.read(schema, "$")?;
        Ok(Self { nodes: Arc::new(reader.into_nodes()), at })
    }

    /// Reads a custom resource's `openAPIV3Schema` with its constraints; `apiVersion`, `kind` and `metadata` are added to
    /// the root and to embedded objects.
    pub(crate) fn custom(schema: &Value) -> Result<Self, SchemaError> {
        let definitions = crate::custom::metadata_definitions();
        let mut reader = Reader::custom(definitions);
        let at = reader.root(schema)?;
        Ok(Self { nodes: Arc::new(reader.into_nodes()), at })
    }

    /// Reads a part of a custom resource's schema.
    pub(crate) fn fragment(schema: &Value) -> Result<Self, SchemaError> {
        let definitions = crate::custom::metadata_definitions();
        let mut reader = Reader::custom(definitions);
        let at = reader.read(schema, "$")?;
        Ok(Self { nodes: Arc::new(reader.into_nodes()), at })
    }

    /// Reads the named roots of a set of definitions that refer to each other by `$ref: #/.../NAME`; all roots share
    /// one tree.
    pub fn from_definitions<'a>(
        definitions: &Map<String, Value>,
        roots: impl IntoIterator<Item = &'a str>,
    ) -> Result<HashMap<String, Self>, SchemaError> {
        let mut reader = Reader::new(definitions);
        let mut at = Vec::new();
        for root in roots {
            at.push((root.to_owned(), reader.definition(root)?));
        }
        let nodes = Arc::new(reader.into_nodes());
        Ok(at.into_iter().map(|(name, at)| (name, Self { nodes: nodes.clone(), at })).collect())
    }

    fn node(&self) -> &Node {
        &self.nodes[self.at as usize]
    }

    fn goto(&self, at: u32) -> Self {
        Self { nodes: self.nodes.clone(), at }
    }

    /// What the value may be.
    pub fn kind(&self) -> Kind {
        self.node().kind
    }

    /// The JSON Schema format, such as `int32`, `date-time`, `byte` or `quantity`.
    pub fn format(&self) -> Option<&str> {
        self.node().format.as_deref()
    }

    /// The name of the definition this place was read from, where it is one.
    pub fn definition(&self) -> Option<&str> {
        self.node().definition.as_deref()
    }

    /// The schema of a named property, or of any key of a map.
    pub fn field(&self, name: &str) -> Option<Self> {
        let node = self.node();
        match node.kind {
            Kind::Map => node.inner.map(|at| self.goto(at)),
            _ => node.properties.get(name).map(|at| self.goto(*at)),
        }
    }

    /// The fixed properties in the order of the schema.
    pub fn properties(&self) -> impl Iterator<Item = (&str, Self)> {
        self.node().properties.iter().map(|(name, at)| (&**name, self.goto(*at)))
    }

    /// The properties that have a default, with it.
    pub(crate) fn defaults(&self) -> impl Iterator<Item = (&str, &Value)> {
        let node = self.node();
        node.defaulted.iter().filter_map(|at| {
            let (name, at) = node.properties.get_index(*at as usize)?;
            Some((&**name, self.nodes[*at as usize].default.as_ref()?))
        })
    }

    /// The schema of a list's items or a map's values.
    pub fn inner(&self) -> Option<Self> {
        self.node().inner.map(|at| self.goto(at))
    }

    /// The names of the properties that must be there.
    pub fn required(&self) -> &[Box<str>] {
        &self.node().required
    }

    /// The value to fill in where the field is missing.
    pub fn default(&self) -> Option<&Value> {
        self.node().default.as_ref()
    }

    /// Whether `null` is a value of its own.
    pub fn nullable(&self) -> bool {
        self.node().nullable
    }

    /// Whether unknown properties are kept and not reported.
    pub fn preserves_unknown(&self) -> bool {
        self.node().preserve_unknown
    }

    /// Whether the value is an object with `apiVersion`, `kind` and `metadata` of its own.
    pub fn is_embedded_resource(&self) -> bool {
        self.node().embedded_resource
    }

    /// How a list merges under server-side apply.
    pub fn list_type(&self) -> &ListType {
        &self.node().list_type
    }

    /// Whether an object or a map is owned and replaced as a whole.
    pub fn is_atomic_map(&self) -> bool {
        self.node().atomic_map
    }

    /// The constraints of a custom resource's schema.
    pub(crate) fn checks(&self) -> Option<&Checks> {
        self.node().checks.as_deref()
    }

    /// The schemas that a constraint refers to.
    pub(crate) fn branches(&self, at: &[u32]) -> impl Iterator<Item = Self> {
        at.iter().map(|at| self.goto(*at))
    }

    /// The address of this place in the tree, to tell it from others.
    pub(crate) fn place(&self) -> u32 {
        self.at
    }

    /// Every place of the tree that has constraints.
    pub(crate) fn checked_places(&self) -> impl Iterator<Item = Self> {
        let checked = self.nodes.iter().enumerate().filter(|(_, node)| node.checks.is_some());
        checked.filter_map(|(at, _)| Some(self.goto(u32::try_from(at).ok()?)))
    }

    /// Whether anything in the tree has a default.
    pub(crate) fn has_defaults(&self) -> bool {
        self.nodes.iter().any(|node| !node.defaulted.is_empty())
    }

    /// How the field merges under a strategic merge patch.
    pub fn patch_strategy(&self) -> &PatchStrategy {
        &self.node().patch
    }
}
