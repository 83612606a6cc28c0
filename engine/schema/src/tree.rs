//! The shape of a JSON document as a tree that every walker shares: decoding, pruning, defaulting, both merge
//! patches and server-side apply all ask this type and nothing else what a field is.
//!
//! A tree is read from JSON Schema with the `x-kubernetes-*` extensions, be it the built-in kinds' or a custom
//! resource's. It knows nothing of HTTP, storage or any particular kind.

use std::collections::HashMap;
use std::sync::Arc;

use indexmap::IndexMap;
use serde_json::{Map, Value};

use crate::error::SchemaError;

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
        let mut reader =
            Reader { definitions: &empty, by_name: HashMap::new(), leaves: HashMap::new(), nodes: Vec::new() };
        let at = reader.read(schema, "$")?;
        Ok(Self { nodes: Arc::new(reader.nodes), at })
    }

    /// Reads the named roots of a set of definitions that refer to each other by `$ref: #/.../NAME`; all roots share
    /// one tree.
    pub fn from_definitions<'a>(
        definitions: &Map<String, Value>,
        roots: impl IntoIterator<Item = &'a str>,
    ) -> Result<HashMap<String, Self>, SchemaError> {
        let mut reader = Reader { definitions, by_name: HashMap::new(), leaves: HashMap::new(), nodes: Vec::new() };
        let mut at = Vec::new();
        for root in roots {
            at.push((root.to_owned(), reader.definition(root)?));
        }
        reader.nodes.shrink_to_fit();
        let nodes = Arc::new(reader.nodes);
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

    /// How the field merges under a strategic merge patch.
    pub fn patch_strategy(&self) -> &PatchStrategy {
        &self.node().patch
    }
}

struct Reader<'a> {
    definitions: &'a Map<String, Value>,
    by_name: HashMap<String, u32>,
    leaves: HashMap<String, u32>,
    nodes: Vec<Node>,
}

impl Reader<'_> {
    fn definition(&mut self, name: &str) -> Result<u32, SchemaError> {
        if let Some(at) = self.by_name.get(name) {
            return Ok(*at);
        }
        let definitions = self.definitions;
        let schema = definitions.get(name).ok_or_else(|| SchemaError::UnknownDefinition(name.to_owned()))?;
        let at = self.reserve();
        self.by_name.insert(name.to_owned(), at);
        let mut node = self.shape(schema, name)?;
        node.definition = Some(name.into());
        self.nodes[at as usize] = node;
        Ok(at)
    }

    fn reserve(&mut self) -> u32 {
        let at = u32::try_from(self.nodes.len()).expect("a schema has fewer than 2^32 places");
        self.nodes.push(Node::any());
        at
    }

    fn read(&mut self, schema: &Value, path: &str) -> Result<u32, SchemaError> {
        if let Some(name) = reference(schema) {
            let at = self.definition(name)?;
            if !overrides(schema) {
                return Ok(at);
            }
            let mut node = self.nodes[at as usize].clone();
            node.annotate(schema);
            let copy = self.reserve();
            self.nodes[copy as usize] = node;
            return Ok(copy);
        }
        if let Some(leaf) = leaf(schema) {
            return self.leaf(leaf, schema, path);
        }
        let at = self.reserve();
        self.nodes[at as usize] = self.shape(schema, path)?;
        Ok(at)
    }

    /// Places that say no more than type and format share one node: most of a tree is plain text and numbers.
    fn leaf(&mut self, leaf: String, schema: &Value, path: &str) -> Result<u32, SchemaError> {
        if let Some(at) = self.leaves.get(&leaf) {
            return Ok(*at);
        }
        let at = self.reserve();
        self.nodes[at as usize] = self.shape(schema, path)?;
        self.leaves.insert(leaf, at);
        Ok(at)
    }

    fn shape(&mut self, schema: &Value, path: &str) -> Result<Node, SchemaError> {
        let mut node = Node::any();
        node.kind = kind_of(schema, path)?;
        if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
            for (name, inner) in properties {
                let at = self.read(inner, &format!("{path}.{name}"))?;
                let (index, _) = node.properties.insert_full(name.as_str().into(), at);
                if self.nodes[at as usize].default.is_some() {
                    node.defaulted.push(u32::try_from(index).expect("an object has fewer than 2^32 properties"));
                }
            }
        }
        let inner = match node.kind {
            Kind::List => schema.get("items"),
            Kind::Map => schema.get("additionalProperties"),
            _ => None,
        };
        if let Some(inner) = inner.filter(|inner| inner.is_object()) {
            node.inner = Some(self.read(inner, &format!("{path}[]"))?);
        }
        node.annotate(schema);
        Ok(node)
    }
}

impl Node {
    fn any() -> Self {
        Self {
            kind: Kind::Any,
            format: None,
            properties: IndexMap::new(),
            defaulted: Vec::new(),
            inner: None,
            required: Vec::new(),
            default: None,
            nullable: false,
            preserve_unknown: false,
            embedded_resource: false,
            list_type: ListType::Atomic,
            atomic_map: false,
            patch: PatchStrategy::default(),
            definition: None,
        }
    }

    /// Takes over what the schema says beside its shape; a reference's siblings override the definition's own.
    fn annotate(&mut self, schema: &Value) {
        let text = |key: &str| schema.get(key).and_then(Value::as_str);
        let flag = |key: &str| schema.get(key).and_then(Value::as_bool);
        if let Some(format) = text("format") {
            self.format = Some(format.into());
        }
        if let Some(required) = schema.get("required").and_then(Value::as_array) {
            self.required = names(required);
        }
        if let Some(default) = schema.get("default") {
            self.default = Some(default.clone());
        }
        self.nullable = flag("nullable").unwrap_or(self.nullable);
        self.preserve_unknown = flag("x-kubernetes-preserve-unknown-fields").unwrap_or(self.preserve_unknown);
        self.embedded_resource = flag("x-kubernetes-embedded-resource").unwrap_or(self.embedded_resource);
        if let Some(map_type) = text("x-kubernetes-map-type") {
            self.atomic_map = map_type == "atomic";
        }
        match text("x-kubernetes-list-type") {
            Some("set") => self.list_type = ListType::Set,
            Some("map") => {
                let keys = schema.get("x-kubernetes-list-map-keys").and_then(Value::as_array);
                self.list_type = ListType::Map(keys.map(|keys| names(keys)).unwrap_or_default());
            }
            Some(_) => self.list_type = ListType::Atomic,
            None => {}
        }
        if let Some(strategy) = text("x-kubernetes-patch-strategy") {
            for word in strategy.split(',') {
                match word {
                    "merge" => self.patch.merge = true,
                    "replace" => self.patch.replace = true,
                    "retainKeys" => self.patch.retain_keys = true,
                    _ => {}
                }
            }
        }
        if let Some(key) = text("x-kubernetes-patch-merge-key") {
            self.patch.merge_key = Some(key.into());
        }
    }
}

fn names(list: &[Value]) -> Vec<Box<str>> {
    list.iter().filter_map(Value::as_str).map(Into::into).collect()
}

/// The definition a schema refers to, by `$ref` or by the single-element `allOf` that OpenAPI 3.0 wants around it.
fn reference(schema: &Value) -> Option<&str> {
    let direct = schema.get("$ref").or_else(|| match schema.get("allOf")?.as_array()?.as_slice() {
        [only] => only.get("$ref"),
        _ => None,
    })?;
    direct.as_str()?.rsplit('/').next()
}

/// What tells a place apart that says nothing but its type and format.
fn leaf(schema: &Value) -> Option<String> {
    let object = schema.as_object()?;
    let text = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or("");
    let plain = object.keys().all(|key| matches!(key.as_str(), "type" | "format" | "description"));
    (plain && object.get("type").is_none_or(Value::is_string)).then(|| format!("{}/{}", text("type"), text("format")))
}

fn overrides(schema: &Value) -> bool {
    schema.as_object().is_some_and(|object| {
        object.keys().any(|key| key == "default" || key == "nullable" || key.starts_with("x-kubernetes-"))
    })
}

fn kind_of(schema: &Value, path: &str) -> Result<Kind, SchemaError> {
    let flag = |key: &str| schema.get(key).and_then(Value::as_bool).unwrap_or(false);
    if flag("x-kubernetes-int-or-string") || schema.get("format").and_then(Value::as_str) == Some("int-or-string") {
        return Ok(Kind::IntOrString);
    }
    let named = match schema.get("type") {
        Some(Value::String(named)) => named.as_str(),
        // JSON Schema's ["string", "null"].
        Some(Value::Array(several)) => {
            several.iter().filter_map(Value::as_str).find(|named| *named != "null").unwrap_or("")
        }
        _ if schema.get("properties").is_some() => "object",
        _ => "",
    };
    Ok(match named {
        "boolean" => Kind::Boolean,
        "integer" => Kind::Integer,
        "number" => Kind::Number,
        "string" => Kind::String,
        "array" => Kind::List,
        "object" if schema.get("properties").is_some() => Kind::Object,
        "object" if schema.get("additionalProperties").is_some_and(Value::is_object) => Kind::Map,
        // A described object without any property holds raw JSON (RawExtension, FieldsV1).
        "object" | "" => Kind::Any,
        other => return Err(SchemaError::UnknownType { path: path.to_owned(), named: other.to_owned() }),
    })
}
