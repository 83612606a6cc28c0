//! What OpenAPI documents say about a custom resource: its own schema, with what every object has.

use serde_json::{Map, Value, json};

use crate::resource::Resource;
use crate::tree::OBJECT_META;

const REFERENCE: &str = "#/components/schemas/";
const LIST_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta";

/// The definitions of the kind and of its list, by name; none for a built-in kind.
pub(crate) fn definitions(resource: &Resource) -> Map<String, Value> {
    let mut found = Map::new();
    let Some(custom) = resource.custom() else { return found };
    let mut kind = custom.source();
    if let Some(schema) = kind.as_object_mut() {
        let properties = schema.entry("properties").or_insert_with(|| json!({}));
        type_meta(properties, OBJECT_META);
        schema.insert("x-kubernetes-group-version-kind".to_owned(), gvk(resource, &resource.kind));
    }
    let mut properties = json!({ "items": {
        "description": format!("A list of {} objects.", resource.kind),
        "type": "array", "items": { "$ref": format!("{REFERENCE}{}", resource.definition()) },
    } });
    type_meta(&mut properties, LIST_META);
    let list = json!({
        "description": format!("{} is a list of {}.", resource.list_kind(), resource.kind),
        "type": "object", "required": ["items"], "properties": properties,
        "x-kubernetes-group-version-kind": gvk(resource, &resource.list_kind()),
    });
    found.insert(resource.definition().to_owned(), kind);
    found.insert(format!("{}List", resource.definition()), list);
    found
}

/// The built-in definitions that these refer to.
pub(crate) fn roots() -> [&'static str; 2] {
    [OBJECT_META, LIST_META]
}

fn gvk(resource: &Resource, kind: &str) -> Value {
    json!([{ "group": resource.group, "version": resource.version, "kind": kind }])
}

fn type_meta(properties: &mut Value, metadata: &str) {
    let Some(properties) = properties.as_object_mut() else { return };
    let said = [("apiVersion", "The version of this representation."), ("kind", "The kind of the object.")];
    for (name, description) in said {
        properties.insert(name.to_owned(), json!({ "description": description, "type": "string" }));
    }
    let reference = json!({ "allOf": [{ "$ref": format!("{REFERENCE}{metadata}") }], "description": "What every object says about itself." });
    properties.insert("metadata".to_owned(), reference);
}
