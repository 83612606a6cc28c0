//! The OpenAPI v2 document ("Swagger"): one for everything, told from the same definitions and paths as the documents of
//! version 3. What version 2 cannot say is left out, as upstream does; nothing is kept once it has been written.

use serde_json::{Map, Value, json};

use super::{META, gnostic};
use crate::custom::openapi;
use crate::definitions::Prose;
use crate::registry::Registry;

/// How the document is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Swagger {
    /// As JSON.
    Json,
    /// As the protobuf messages of `gnostic`, which older clients ask for.
    Protobuf,
}

/// Where definitions are in version 3, and where in version 2.
const REFERENCES: [&str; 2] = ["#/components/schemas/", "#/definitions/"];
const JSON: &str = "application/json";

impl Registry {
    /// Changes when the document does.
    pub fn openapi_v2_hash(&self) -> String {
        let hashes = self.openapi_hashes().into_iter();
        format!("{:016X}", hashes.fold(2_u64, |all, (_, one)| all.wrapping_mul(0x0100_0000_01b3) ^ one))
    }

    /// `GET /openapi/v2`. It takes some ten megabytes and milliseconds to make.
    pub fn openapi_v2(&self, form: Swagger) -> Vec<u8> {
        match form {
            Swagger::Json => self.swagger_json(),
            Swagger::Protobuf => gnostic::document(|each| self.paths_v2(each), |each| self.definitions_v2(each)),
        }
    }

    fn swagger_json(&self) -> Vec<u8> {
        let mut bytes = br#"{"swagger":"2.0","info":{"title":"Kubernetes","version":"v1.36.0"},"paths":{"#.to_vec();
        let add = |bytes: &mut Vec<u8>, name: &str, value: &Value| {
            if bytes.last() != Some(&b'{') {
                bytes.push(b',');
            }
            bytes.extend_from_slice(Value::from(name).to_string().as_bytes());
            bytes.push(b':');
            serde_json::to_writer(&mut *bytes, value).expect("a JSON value can be encoded");
        };
        self.paths_v2(&mut |path, item| add(&mut bytes, path, item));
        bytes.extend_from_slice(br#"},"definitions":{"#);
        self.definitions_v2(&mut |name, definition| add(&mut bytes, name, definition));
        bytes.extend_from_slice(b"}}");
        bytes
    }

    /// Gives each path with its operations, one group version at a time.
    fn paths_v2(&self, each: &mut dyn FnMut(&str, &Value)) {
        for (group, version) in self.group_versions() {
            for (path, item) in self.paths_of(group, version) {
                each(&path, &item_v2(item));
            }
        }
    }

    /// Gives each definition, one at a time.
    fn definitions_v2(&self, each: &mut dyn FnMut(&str, &Value)) {
        let mut kinds: Map<String, Value> = Map::new();
        for (group, version) in self.group_versions() {
            for (name, own) in self.kinds_of(group, version) {
                kinds.entry(name).or_insert(own);
            }
        }
        let extra = [format!("{META}.DeleteOptions"), format!("{META}.Patch"), format!("{META}.Status")];
        let roots = kinds.keys().map(String::as_str).chain(extra.iter().map(String::as_str)).chain(openapi::roots());
        let prose = Prose::load();
        for (name, text) in prose.closure(roots) {
            let mut definition: Value = serde_json::from_str(text).expect("the build wrote this");
            rewrite(&mut definition);
            if let Some(own) = kinds.get(name) {
                definition["x-kubernetes-group-version-kind"] = own.clone();
            }
            each(name, &definition);
        }
        for resource in self.custom() {
            for (name, mut definition) in openapi::definitions(resource) {
                rewrite(&mut definition);
                each(&name, &definition);
            }
        }
    }
}

/// A schema of version 3 in the words of version 2.
fn rewrite(schema: &mut Value) {
    let Some(object) = schema.as_object_mut() else { return };
    if let Some([only]) = object.get("allOf").and_then(Value::as_array).map(Vec::as_slice)
        && let Some(reference) = only.get("$ref").cloned()
    {
        object.shift_remove("allOf");
        object.insert("$ref".to_owned(), reference);
    }
    if let Some(Value::String(reference)) = object.get_mut("$ref") {
        *reference = reference.replacen(REFERENCES[0], REFERENCES[1], 1);
    }
    let is = |object: &Map<String, Value>, name: &str| object.get(name) == Some(&Value::Bool(true));
    match object.get("format").and_then(Value::as_str) {
        Some("int-or-string") => drop(object.insert("type".to_owned(), "string".into())),
        Some("quantity") => {
            object.shift_remove("format");
            object.insert("type".to_owned(), "string".into());
        }
        _ => {}
    }
    let mut lost = vec!["oneOf", "anyOf", "not", "nullable"];
    if is(object, "nullable") {
        lost.extend(["type", "items", "properties"]);
    }
    if is(object, "x-kubernetes-int-or-string") {
        lost.push("type");
    }
    if is(object, "x-kubernetes-preserve-unknown-fields") {
        lost.extend(["items", "properties"]);
    }
    object.retain(|key, _| !lost.contains(&key.as_str()));
    for (key, inner) in object {
        match (key.as_str(), inner) {
            ("properties", Value::Object(all)) => all.values_mut().for_each(rewrite),
            ("allOf", Value::Array(all)) => all.iter_mut().for_each(rewrite),
            ("items" | "additionalProperties", inner) => rewrite(inner),
            _ => {}
        }
    }
}

/// The operations of a path.
fn item_v2(item: Value) -> Value {
    let Value::Object(mut item) = item else { return item };
    for (key, inner) in &mut item {
        if key == "parameters" {
            inner.as_array_mut().into_iter().flatten().for_each(parameter);
        } else {
            operation(inner);
        }
    }
    Value::Object(item)
}

/// What stood in the parameter's schema stands in the parameter.
fn parameter(parameter: &mut Value) {
    let Some(object) = parameter.as_object_mut() else { return };
    if let Some(Value::Object(schema)) = object.shift_remove("schema") {
        object.extend(schema);
    }
}

fn operation(operation: &mut Value) {
    let Some(object) = operation.as_object_mut() else { return };
    let body = object.shift_remove("requestBody");
    let parameters = object.entry("parameters").or_insert_with(|| json!([]));
    let parameters = parameters.as_array_mut().expect("parameters are a list");
    parameters.iter_mut().for_each(self::parameter);
    let mut consumes = vec!["*/*".to_owned()];
    if let Some((media, mut schema)) = body.as_ref().and_then(content) {
        rewrite(&mut schema);
        let needed = body.as_ref().and_then(|body| body.get("required")).cloned();
        let mut parameter = json!({ "name": "body", "in": "body", "schema": schema });
        if let Some(needed) = needed {
            parameter["required"] = needed;
        }
        parameters.insert(0, parameter);
        consumes = media;
    }
    let mut produces = vec![JSON.to_owned()];
    for response in object["responses"].as_object_mut().into_iter().flatten().map(|(_, response)| response) {
        let found = content(response);
        let Some(response) = response.as_object_mut() else { continue };
        response.shift_remove("content");
        if let Some((media, mut schema)) = found {
            rewrite(&mut schema);
            response.insert("schema".to_owned(), schema);
            produces = media;
        }
    }
    object.insert("consumes".to_owned(), consumes.into());
    object.insert("produces".to_owned(), produces.into());
}

/// The media types of a body, and its schema.
fn content(body: &Value) -> Option<(Vec<String>, Value)> {
    let content = body.get("content")?.as_object()?;
    let schema = content.values().next()?.get("schema")?.clone();
    Some((content.keys().cloned().collect(), schema))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::shared;

    fn document() -> Value {
        serde_json::from_slice(&shared().openapi_v2(Swagger::Json)).expect("it is JSON")
    }

    #[test]
    fn the_document_is_whole_and_says_nothing_of_version_3() {
        let document = document();
        assert_eq!(document["swagger"], "2.0");
        let definitions = document["definitions"].as_object().expect("definitions");
        let text = document.to_string();
        for reference in text.split("#/definitions/").skip(1) {
            let name = reference.split('"').next().expect("a name");
            assert!(definitions.contains_key(name), "{name}");
        }
        assert!(!text.contains("#/components/"));
        for resource in shared().all() {
            let kind = json!([{ "group": resource.group, "version": resource.version, "kind": resource.kind }]);
            assert_eq!(definitions[resource.definition()]["x-kubernetes-group-version-kind"], kind);
        }
        let spec = &definitions["io.k8s.api.core.v1.PodSpec"]["properties"];
        assert_eq!(spec["containers"]["x-kubernetes-patch-merge-key"], "name");
        assert_eq!(spec["securityContext"]["$ref"], "#/definitions/io.k8s.api.core.v1.PodSecurityContext");
        let port = &definitions["io.k8s.apimachinery.pkg.util.intstr.IntOrString"];
        assert_eq!(
            (&port["type"], &port["format"], port.get("oneOf")),
            (&json!("string"), &json!("int-or-string"), None)
        );
        // The kinds that describe schemas have fields of the names that are rewritten.
        let props =
            &definitions["io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps"]["properties"];
        assert!(["$ref", "oneOf", "not", "nullable", "default"].iter().all(|name| props.get(name).is_some()));
    }

    #[test]
    fn operations_are_told_in_the_words_of_version_2() {
        let document = document();
        let one = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"];
        let patch = &one["patch"];
        let named =
            |name: &str| patch["parameters"].as_array().and_then(|all| all.iter().find(|each| each["name"] == name));
        let body = named("body").expect("a body");
        assert_eq!(
            (&body["in"], body["schema"]["$ref"].as_str()),
            (&json!("body"), Some("#/definitions/io.k8s.apimachinery.pkg.apis.meta.v1.Patch"))
        );
        let dry = named("dryRun").expect("dryRun");
        assert_eq!((&dry["in"], &dry["type"], dry.get("schema")), (&json!("query"), &json!("string"), None));
        assert!(patch["consumes"].as_array().is_some_and(|all| all.contains(&json!("application/apply-patch+yaml"))));
        assert_eq!(one["get"]["responses"]["200"]["schema"]["$ref"], "#/definitions/io.k8s.api.apps.v1.Deployment");
        assert_eq!(one["parameters"][0]["type"], "string");
    }

    #[test]
    fn what_version_2_cannot_say_is_left_out() {
        let mut schema = json!({
            "type": "object", "oneOf": [{ "required": ["a"] }],
            "properties": {
                "a": { "type": "string", "nullable": true },
                "b": { "x-kubernetes-int-or-string": true, "type": "string" },
                "c": { "type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": { "d": { "type": "string" } } },
                "oneOf": { "type": "array", "items": { "allOf": [{ "$ref": "#/components/schemas/x" }], "description": "d" } },
            },
        });
        rewrite(&mut schema);
        let expected = json!({
            "type": "object",
            "properties": {
                "a": {},
                "b": { "x-kubernetes-int-or-string": true },
                "c": { "type": "object", "x-kubernetes-preserve-unknown-fields": true },
                "oneOf": { "type": "array", "items": { "description": "d", "$ref": "#/definitions/x" } },
            },
        });
        assert_eq!(schema, expected);
    }
}
