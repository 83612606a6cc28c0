//! From a definition to a resource for each version that is served.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::Value;

use super::object::CustomObject;
use super::{Custom, JsonPath, Shapes};
use crate::discovery::priority;
use crate::lookup;
use crate::resource::{
    Conversion, Gvk, Kept, Name, Resource, ScalePaths, SelectableField, Shape, ShownCell, ShownColumn, Subresource,
    VERBS, api_version,
};
use crate::table;

/// The JSON of a definition, shared with whoever holds it anyway.
pub type Document = Arc<dyn AsRef<[u8]> + Send + Sync>;

const READ_WRITE: &[&str] = &["get", "patch", "update"];

/// The resources that an accepted definition describes; none for what is no definition.
pub fn resources(document: &Document) -> Vec<Arc<Resource>> {
    let definition: Value = serde_json::from_slice((**document).as_ref()).unwrap_or(Value::Null);
    let versions = lookup::list(&definition, "spec.versions");
    let shapes = Arc::new(Shapes::new(document, &definition));
    let served = versions.iter().filter(|version| lookup::flag(version, "served"));
    served.map(|version| Arc::new(resource(&shapes, &definition, version))).collect()
}

fn name(text: &str) -> Name {
    Cow::Owned(text.to_owned())
}

fn texts(list: &[Value]) -> Vec<Name> {
    list.iter().filter_map(Value::as_str).map(name).collect()
}

fn resource(shapes: &Arc<Shapes>, definition: &Value, version: &Value) -> Resource {
    let spec = &definition["spec"];
    let accepted = &definition["status"]["acceptedNames"];
    let names = if lookup::text(accepted, "plural").is_empty() { &spec["names"] } else { accepted };
    let (group, version_name) = (lookup::text(spec, "group"), lookup::text(version, "name"));
    let (kind, plural) = (lookup::text(names, "kind"), lookup::text(names, "plural"));
    let custom = Arc::new(Custom::new(shapes, definition, version_name));
    Resource {
        group: name(group),
        version: name(version_name),
        kind: name(kind),
        plural: name(plural),
        singular: name(lookup::text(names, "singular")),
        short_names: texts(lookup::list(names, "shortNames")),
        categories: texts(lookup::list(names, "categories")),
        namespaced: lookup::text(spec, "scope") == "Namespaced",
        verbs: VERBS,
        subresources: subresources(version),
        returns_deleted: false,
        kept: kept(spec, group, plural, version_name),
        scale: scale(version),
        deprecation: deprecation(version, spec, kind),
        definition: name(&definition_name(group, version_name, kind)),
        columns: columns(version),
        selectable: selectable(version),
        strategy: Arc::new(CustomObject::new(custom.clone(), api_version(group, version_name), kind, version)),
        shape: Shape::Custom(custom),
    }
}

/// `com.example.stable.v1.CronTab`
fn definition_name(group: &str, version: &str, kind: &str) -> String {
    let reversed: Vec<&str> = group.split('.').rev().collect();
    format!("{}.{version}.{kind}", reversed.join("."))
}

fn kept(spec: &Value, group: &str, plural: &str, own: &str) -> Kept {
    let versions = lookup::list(spec, "versions");
    let storage = versions.iter().find(|each| lookup::flag(each, "storage"));
    let conversion = match lookup::text(spec, "conversion.strategy") {
        "Webhook" => Conversion::Webhook(Arc::new(spec["conversion"]["webhook"].clone())),
        _ => Conversion::Rename,
    };
    let version = storage.map_or(own, |storage| lookup::text(storage, "name"));
    Kept { group: name(group), version: name(version), plural: name(plural), conversion }
}

fn subresources(version: &Value) -> Vec<Subresource> {
    let given = |key: &str| version.get("subresources").and_then(|all| all.get(key)).is_some_and(Value::is_object);
    let scale = Gvk { group: "autoscaling", version: "v1", kind: "Scale" };
    let scale = given("scale").then_some(Subresource { name: "scale", kind: Some(scale), verbs: READ_WRITE });
    let status = given("status").then_some(Subresource { name: "status", kind: None, verbs: READ_WRITE });
    scale.into_iter().chain(status).collect()
}

fn scale(version: &Value) -> ScalePaths {
    let scale = &version["subresources"]["scale"];
    let path = |key: &str| name(lookup::text(scale, key).trim_start_matches('.'));
    ScalePaths {
        spec_replicas: path("specReplicasPath"),
        status_replicas: path("statusReplicasPath"),
        selector: Some(path("labelSelectorPath")).filter(|path| !path.is_empty()),
    }
}

fn deprecation(version: &Value, spec: &Value, kind: &str) -> Option<Name> {
    if !lookup::flag(version, "deprecated") {
        return None;
    }
    let given = lookup::text(version, "deprecationWarning");
    if !given.is_empty() {
        return Some(name(given));
    }
    let (group, own) = (lookup::text(spec, "group"), lookup::text(version, "name"));
    let good = |each: &&Value| lookup::flag(each, "served") && !lookup::flag(each, "deprecated");
    let better = lookup::list(spec, "versions").iter().filter(good).map(|each| lookup::text(each, "name"));
    let better = better.filter(|each| priority(each) < priority(own)).min_by_key(|each| priority(each));
    let instead = better.map(|better| format!("; use {group}/{better} {kind}")).unwrap_or_default();
    Some(name(&format!("{group}/{own} {kind} is deprecated{instead}")))
}

fn columns(version: &Value) -> Vec<ShownColumn> {
    let given = lookup::list(version, "additionalPrinterColumns");
    if given.is_empty() {
        return table::shown(&[]);
    }
    let own = given.iter().filter_map(|column| {
        let text = |key: &str| name(lookup::text(column, key));
        Some(ShownColumn {
            name: text("name"),
            kind: text("type"),
            format: text("format"),
            description: text("description"),
            priority: lookup::integer(column, "priority").unwrap_or(0),
            cell: ShownCell::Path(JsonPath::parse(lookup::text(column, "jsonPath")).ok()?),
        })
    });
    std::iter::once(table::name_column()).chain(own).collect()
}

fn selectable(version: &Value) -> Vec<SelectableField> {
    let fields = lookup::list(version, "selectableFields").iter();
    let paths = fields.map(|field| lookup::text(field, "jsonPath").trim_start_matches('.'));
    paths.map(|field| SelectableField { field: name(field), absent: "".into(), with: None }).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing;
    use super::{Arc, Document, resources};
    use crate::table::{IncludeObject, TableInput, table};

    #[test]
    fn a_definition_becomes_a_resource() {
        let mut definition = testing::definition(
            &json!({ "type": "object", "properties": { "spec": { "type": "object", "properties": { "color": { "type": "string" } } } } }),
        );
        definition["spec"]["versions"][0]["subresources"] =
            json!({ "status": {}, "scale": { "specReplicasPath": ".spec.n", "statusReplicasPath": ".status.n" } });
        definition["spec"]["versions"][0]["selectableFields"] = json!([{ "jsonPath": ".spec.color" }]);
        definition["spec"]["versions"][0]["additionalPrinterColumns"] = json!([
            { "name": "Ready", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Ready\")].status" },
            { "name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp" },
        ]);
        let resource = testing::resource(&definition);
        assert_eq!(resource.definition(), "com.example.stable.v1.CronTab");
        assert!(resource.subresource("scale").is_some() && resource.subresource("status").is_some());
        let object = json!({ "metadata": { "name": "a", "creationTimestamp": "2024-01-01T00:00:00Z" }, "spec": { "color": "red" },
            "status": { "conditions": [{ "type": "Ready", "status": "True" }] } });
        assert_eq!(resource.selectable(&object, "spec.color").as_deref(), Some("red"));
        assert_eq!(resource.selectable(&object, "spec.other"), None);
        let now = "2024-01-01T00:01:00Z".parse().expect("a time");
        let printed = table(&resource, &[TableInput { object: &object }], IncludeObject::None, true, now);
        assert_eq!(printed["rows"][0]["cells"], json!(["a", "True", "60s"]));
        assert_eq!(printed["columnDefinitions"][0]["format"], "name");
    }

    #[test]
    fn a_deprecated_version_names_what_to_use_instead() {
        let mut definition = testing::definition(&json!({ "type": "object" }));
        let version = |name: &str, deprecated: bool| json!({ "name": name, "served": true, "deprecated": deprecated });
        definition["spec"]["versions"] =
            json!([version("v1beta1", true), version("v2", false), version("v1", false), version("v3", true)]);
        let document: Document = Arc::new(definition.to_string().into_bytes());
        let told: Vec<_> = resources(&document).iter().map(|resource| resource.deprecation.clone()).collect();
        let expected = "stable.example.com/v1beta1 CronTab is deprecated; use stable.example.com/v2 CronTab";
        assert_eq!((told[0].as_deref(), told[1].as_deref()), (Some(expected), None));
        assert_eq!(told[3].as_deref(), Some("stable.example.com/v3 CronTab is deprecated"));
    }

    #[test]
    fn a_definition_that_nobody_uses_is_not_read() {
        let resource = testing::resource(&testing::definition(
            &json!({ "type": "object", "properties": { "spec": { "type": "object" } } }),
        ));
        let custom = resource.custom().expect("a custom resource");
        let object = json!({ "metadata": { "name": "a" } });
        let now = "2024-01-01T00:01:00Z".parse().expect("a time");
        table(&resource, &[TableInput { object: &object }], IncludeObject::None, true, now);
        let registry = crate::registry::shared().with([resource.clone()]);
        registry.aggregated(false);
        registry.openapi_index();
        assert!(!custom.is_read());
        assert!(resource.schema().field("spec").is_some() && custom.is_read());
    }

    #[test]
    fn reading_an_object_fills_in_and_drops_what_the_schema_has_since_learnt() {
        let schema = json!({ "type": "object", "properties": { "spec": { "type": "object", "properties": { "n": { "type": "integer", "default": 3 } } } } });
        let resource = testing::resource(&testing::definition(&schema));
        let mut object = json!({ "apiVersion": "stable.example.com/v1", "kind": "CronTab", "metadata": { "name": "a" }, "spec": { "old": 1 } });
        assert!(resource.settle(&mut object));
        assert_eq!(object["spec"], json!({ "n": 3 }));
        assert!(!resource.settle(&mut object));
        assert_eq!(object["metadata"]["name"], "a");
    }
}
