//! Reading a tree from JSON Schema: references followed once, `x-kubernetes-*` taken over, like places shared.

use std::collections::HashMap;

use indexmap::IndexMap;
use serde_json::{Map, Value};

use super::checks::Checks;
use super::{Kind, ListType, Node, PatchStrategy};
use crate::error::SchemaError;

/// What `metadata` of every object is.
pub(crate) const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// Collects the nodes of one tree.
pub(super) struct Reader<'a> {
    definitions: &'a Map<String, Value>,
    by_name: HashMap<String, u32>,
    leaves: HashMap<String, u32>,
    nodes: Vec<Node>,
    /// Whether what is read is a custom resource's.
    custom: bool,
}

impl<'a> Reader<'a> {
    pub(super) fn new(definitions: &'a Map<String, Value>) -> Self {
        Self { definitions, by_name: HashMap::new(), leaves: HashMap::new(), nodes: Vec::new(), custom: false }
    }

    /// A reader for a custom resource's schema.
    pub(super) fn custom(definitions: &'a Map<String, Value>) -> Self {
        Self { custom: true, ..Self::new(definitions) }
    }

    /// The place of a custom resource's root.
    pub(super) fn root(&mut self, schema: &Value) -> Result<u32, SchemaError> {
        let at = self.reserve();
        let mut node = self.shape(schema, "$")?;
        self.add_type_meta(&mut node)?;
        self.nodes[at as usize] = node;
        Ok(at)
    }

    /// Gives an object what makes it an API object.
    fn add_type_meta(&mut self, node: &mut Node) -> Result<(), SchemaError> {
        let text = self.read(&serde_json::json!({ "type": "string" }), "$")?;
        let custom = std::mem::replace(&mut self.custom, false);
        let metadata = self.definition(OBJECT_META)?;
        self.custom = custom;
        for (name, at) in [("apiVersion", text), ("kind", text), ("metadata", metadata)] {
            node.properties.insert(name.into(), at);
        }
        Ok(())
    }

    /// All that was read.
    pub(super) fn into_nodes(mut self) -> Vec<Node> {
        self.nodes.shrink_to_fit();
        self.nodes
    }

    /// The place of a named definition.
    pub(super) fn definition(&mut self, name: &str) -> Result<u32, SchemaError> {
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

    /// The place of a schema.
    pub(super) fn read(&mut self, schema: &Value, path: &str) -> Result<u32, SchemaError> {
        if let Some(name) = reference(schema).filter(|_| !self.custom) {
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
        node.kind = if self.custom { custom_kind_of(schema, path)? } else { kind_of(schema, path)? };
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
        if self.custom {
            node.checks = self.checks(schema, path)?.map(Box::new);
            if node.embedded_resource {
                self.add_type_meta(&mut node)?;
            }
        }
        Ok(node)
    }

    fn checks(&mut self, schema: &Value, path: &str) -> Result<Option<Checks>, SchemaError> {
        let mut checks = Checks::of(schema);
        for (key, found) in
            [("allOf", &mut checks.all_of), ("anyOf", &mut checks.any_of), ("oneOf", &mut checks.one_of)]
        {
            for branch in schema.get(key).and_then(Value::as_array).into_iter().flatten() {
                found.push(self.read(branch, path)?);
            }
        }
        if let Some(not) = schema.get("not").filter(|not| not.is_object()) {
            checks.not = Some(self.read(not, path)?);
        }
        Ok((checks != Checks::default()).then_some(checks))
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
            checks: None,
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
        // A default of `null` is none, as upstream reads it.
        if let Some(default) = schema.get("default").filter(|default| !default.is_null()) {
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

/// In a custom resource's schema an object without properties has none, and only what says so may be anything.
fn custom_kind_of(schema: &Value, path: &str) -> Result<Kind, SchemaError> {
    Ok(match kind_of(schema, path)? {
        Kind::Any if schema.get("type").and_then(Value::as_str) == Some("object") => {
            match schema.get("additionalProperties") {
                Some(Value::Bool(true)) => Kind::Map,
                _ => Kind::Object,
            }
        }
        // What refines a value need not say its type again.
        Kind::Any if schema.get("items").is_some_and(Value::is_object) => Kind::List,
        Kind::Any if schema.get("additionalProperties").is_some_and(Value::is_object) => Kind::Map,
        kind => kind,
    })
}
