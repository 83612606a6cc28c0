//! Reading a tree from JSON Schema: references followed once, `x-kubernetes-*` taken over, like places shared.

use std::collections::HashMap;

use indexmap::IndexMap;
use serde_json::{Map, Value};

use super::{Kind, ListType, Node, PatchStrategy};
use crate::error::SchemaError;

/// Collects the nodes of one tree.
pub(super) struct Reader<'a> {
    definitions: &'a Map<String, Value>,
    by_name: HashMap<String, u32>,
    leaves: HashMap<String, u32>,
    nodes: Vec<Node>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(definitions: &'a Map<String, Value>) -> Self {
        Self { definitions, by_name: HashMap::new(), leaves: HashMap::new(), nodes: Vec::new() }
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
