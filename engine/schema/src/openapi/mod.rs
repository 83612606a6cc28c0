//! OpenAPI v3: an index, and one document a group version. Documents are put together as text from the embedded
//! definitions when somebody asks, and not kept.

mod gnostic;
mod paths;
mod swagger;

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;

use serde_json::{Map, Value, json};

pub use swagger::Swagger;

use crate::custom::openapi;
use crate::definitions::{FINGERPRINT, Prose};
use crate::registry::Registry;
use crate::resource::{Resource, api_version};
use crate::rows::TRANSIENT;

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";

/// The definition of a list of a kind.
fn list_definition(definition: &str) -> String {
    format!("{definition}List")
}

/// The hash of a document without custom resources. The fingerprint stands for the definitions, the rows and what writes
/// the paths.
fn begin(path: &str) -> u64 {
    let fingerprint = u64::from_str_radix(FINGERPRINT, 16).unwrap_or_default();
    path.bytes().fold(fingerprint, |hash, byte| mix(hash, u64::from(byte)))
}

/// FNV-1a, a word at a time.
fn mix(hash: u64, word: u64) -> u64 {
    (hash ^ word).wrapping_mul(0x0100_0000_01b3)
}

impl Registry {
    /// `GET /openapi/v3`: where each document is, with a hash that changes when the document does.
    pub fn openapi_index(&self) -> Value {
        let mut paths = Map::new();
        for (path, hash) in self.openapi_hashes() {
            let url = format!("/openapi/v3/{path}?hash={hash:016X}");
            paths.insert(path, json!({ "serverRelativeURL": url }));
        }
        json!({ "paths": paths })
    }

    /// Where all documents are, with their hashes: each custom resource is looked at once.
    pub(super) fn openapi_hashes(&self) -> Vec<(String, u64)> {
        let paths = self.group_versions().into_iter().map(|(group, version)| document_path(group, version));
        let mut all: Vec<(String, u64)> = paths.map(|path| (path.clone(), begin(&path))).collect();
        let places: HashMap<String, usize> = all.iter().enumerate().map(|(at, (path, _))| (path.clone(), at)).collect();
        for resource in self.custom() {
            if let Some(at) = places.get(&document_path(&resource.group, &resource.version)) {
                all[*at].1 = mix(all[*at].1, resource.fingerprint().unwrap_or_default());
            }
        }
        all
    }

    /// A document's hash, for the index, the `ETag` and the `hash` parameter.
    pub fn openapi_hash(&self, path: &str) -> String {
        let own = self.custom().filter(|each| document_path(&each.group, &each.version) == path);
        let hash = own.fold(begin(path), |hash, own| mix(hash, own.fingerprint().unwrap_or_default()));
        format!("{hash:016X}")
    }

    /// `GET /openapi/v3/<path>` for `api/v1` or `apis/<group>/<version>`: the document as JSON text.
    pub fn openapi_document(&self, path: &str) -> Option<Vec<u8>> {
        let (group, version) =
            self.group_versions().into_iter().find(|(group, version)| document_path(group, version) == path)?;
        let kinds = self.kinds_of(group, version);
        let prose = Prose::load();
        let options = format!("{META}.DeleteOptions");
        let custom = self.custom_definitions(group, version);
        let extra = [options, format!("{META}.Patch"), format!("{META}.Status")];
        let roots = kinds.keys().map(String::as_str).chain(extra.iter().map(String::as_str));
        let roots = roots.chain(openapi::roots().into_iter().filter(|_| !custom.is_empty()));
        let roots: Vec<&str> = roots.collect();
        let schemas = prose.closure(roots.iter().map(|root| &**root));
        let mut text = format!(
            r#"{{"openapi":"3.0.0","info":{{"title":"Kubernetes","version":"v1.36.0"}},"paths":{},"components":{{"schemas":{{"#,
            Value::Object(self.paths_of(group, version))
        );
        let mut separator = "";
        for (name, schema) in schemas {
            let rest = schema.strip_prefix('{').expect("a definition is an object");
            write!(text, r#"{separator}"{name}":{{"#).expect("a String takes any text");
            if let Some(kinds) = kinds.get(name) {
                write!(text, r#""x-kubernetes-group-version-kind":{kinds},"#).expect("a String takes any text");
            }
            text.push_str(rest);
            separator = ",";
        }
        for (name, schema) in &custom {
            write!(text, r#"{separator}"{name}":{schema}"#).expect("a String takes any text");
            separator = ",";
        }
        text.push_str("}}}");
        Some(text.into_bytes())
    }

    /// The definitions that are kinds of their own, with the kinds they are.
    fn kinds_of(&self, group: &str, version: &str) -> BTreeMap<String, Value> {
        let mut kinds = BTreeMap::new();
        let gvk = |group: &str, version: &str, kind: &str| json!({ "group": group, "version": version, "kind": kind });
        for resource in self.all().filter(|each| each.group == group && each.version == version) {
            kinds.insert(resource.definition().to_owned(), json!([gvk(group, version, &resource.kind)]));
            kinds.insert(list_definition(resource.definition()), json!([gvk(group, version, &resource.list_kind())]));
            for sub in resource.subresources.iter().filter_map(|sub| sub.kind) {
                if let Some(definition) = self.definition_of(&api_version(sub.group, sub.version), sub.kind) {
                    kinds.insert(definition, json!([gvk(sub.group, sub.version, sub.kind)]));
                }
            }
        }
        for (api_version, kind, definition) in TRANSIENT {
            let (own_group, own_version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
            if (own_group, own_version) == (group, version) {
                kinds.insert((*definition).to_owned(), json!([gvk(group, version, kind)]));
            }
        }
        let options: Vec<Value> =
            self.group_versions().into_iter().map(|(group, version)| gvk(group, version, "DeleteOptions")).collect();
        kinds.insert(format!("{META}.DeleteOptions"), options.into());
        kinds
    }

    fn custom_definitions(&self, group: &str, version: &str) -> Map<String, Value> {
        let own = self.custom().filter(|each| each.group == group && each.version == version);
        own.flat_map(|resource| openapi::definitions(resource)).collect()
    }

    fn paths_of(&self, group: &str, version: &str) -> Map<String, Value> {
        let mut paths = Map::new();
        for resource in self.all().filter(|each| each.group == group && each.version == version) {
            paths::stored(self, resource, &root(resource), &mut paths);
        }
        for each in self.virtual_resources().filter(|each| each.group == group && each.version == version) {
            paths::created(each, &mut paths);
        }
        paths
    }
}

/// `/api/v1` or `/apis/apps/v1`
fn root(resource: &Resource) -> String {
    format!("/{}", document_path(&resource.group, &resource.version))
}

fn document_path(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::shared;

    fn document(path: &str) -> Value {
        let text = shared().openapi_document(path).expect("the document is served");
        serde_json::from_slice(&text).expect("it is JSON")
    }

    #[test]
    fn every_document_of_the_index_is_whole() {
        let registry = shared();
        let index = registry.openapi_index();
        let paths = index["paths"].as_object().expect("paths");
        assert_eq!(paths.len(), registry.group_versions().len());
        for (path, entry) in paths {
            let url = entry["serverRelativeURL"].as_str().expect("a URL");
            assert_eq!(url, format!("/openapi/v3/{path}?hash={}", registry.openapi_hash(path)));
            let document = document(path);
            let schemas = document["components"]["schemas"].as_object().expect("schemas");
            let text = document.to_string();
            for reference in text.split("#/components/schemas/").skip(1) {
                let name = reference.split('"').next().expect("a name");
                assert!(schemas.contains_key(name), "{path} refers to {name}");
            }
        }
        assert!(registry.openapi_document("apis/batch/v1beta1").is_none());
    }

    #[test]
    fn operations_say_what_kubectl_looks_for() {
        let document = document("apis/apps/v1");
        let one = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"];
        let names = |operation: &Value| -> Vec<String> {
            let parameters = operation["parameters"].as_array().expect("parameters");
            parameters.iter().filter_map(|each| each["name"].as_str()).map(str::to_owned).collect()
        };
        for wanted in ["fieldValidation", "dryRun", "fieldManager", "force"] {
            assert!(names(&one["patch"]).iter().any(|name| name == wanted), "{wanted}");
        }
        assert!(!names(&one["put"]).iter().any(|name| name == "force"));
        assert_eq!(one["patch"]["x-kubernetes-action"], "patch");
        let kind = json!({ "group": "apps", "version": "v1", "kind": "Deployment" });
        assert_eq!(one["patch"]["x-kubernetes-group-version-kind"], kind);
        let scale = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}/scale"];
        assert_eq!(scale["get"]["x-kubernetes-group-version-kind"]["kind"], "Scale");
        let all = &document["paths"]["/apis/apps/v1/deployments"];
        assert_eq!(all["get"]["x-kubernetes-action"], "list");
        assert!(all.get("post").is_none());
    }

    #[test]
    fn definitions_carry_kinds_prose_and_keys() {
        let document = document("api/v1");
        let pod = &document["components"]["schemas"]["io.k8s.api.core.v1.Pod"];
        assert_eq!(pod["x-kubernetes-group-version-kind"], json!([{ "group": "", "version": "v1", "kind": "Pod" }]));
        assert!(pod["description"].as_str().is_some_and(|text| !text.is_empty()));
        let spec = &document["components"]["schemas"]["io.k8s.api.core.v1.PodSpec"];
        let containers = &spec["properties"]["containers"];
        assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
        assert_eq!(containers["x-kubernetes-patch-strategy"], "merge");
        assert_eq!(spec["properties"]["volumes"]["x-kubernetes-patch-strategy"], "merge,retainKeys");
        let context = &spec["properties"]["securityContext"];
        assert_eq!(context["allOf"], json!([{ "$ref": "#/components/schemas/io.k8s.api.core.v1.PodSecurityContext" }]));
        assert!(context.get("$ref").is_none());
    }
}
