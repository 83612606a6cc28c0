//! Which path an object of a kind has: the kinds of the registry, and custom ones by the usual plural.

use http::Uri;
use k8s_openapi::ClusterResourceScope;
use kube::Resource;
use serde_json::Value;
use shipway_schema::Registry;

/// Namespace and name from `name` (in `default`) or `namespace/name`.
pub(crate) fn split(key: &str) -> (&str, &str) {
    key.split_once('/').unwrap_or(("default", key))
}

/// The folder of the objects of a type, in a namespace when they have one.
pub(crate) fn folder<K: Resource<DynamicType = ()>>(namespace: &str) -> String
where
    K::Scope: 'static,
{
    let cluster = std::any::TypeId::of::<K::Scope>() == std::any::TypeId::of::<ClusterResourceScope>();
    K::url_path(&(), (!cluster && !namespace.is_empty()).then_some(namespace))
}

/// The path of the object that a document describes.
pub(crate) fn path(registry: &Registry, object: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (api_version, kind) = (text(&object["apiVersion"]), text(&object["kind"]));
    let (namespace, name) = (text(&object["metadata"]["namespace"]), text(&object["metadata"]["name"]));
    assert!(!api_version.is_empty() && !kind.is_empty() && !name.is_empty(), "no object: {object}");
    let known = registry.of_kind(&api_version, &kind);
    let plural = known.as_ref().map_or_else(|| format!("{}s", kind.to_lowercase()), |known| known.plural.to_string());
    let root = if api_version.contains('/') { "/apis" } else { "/api" };
    let namespaced = known.map_or(!namespace.is_empty(), |known| known.namespaced);
    let namespace = if namespace.is_empty() { "default" } else { &namespace };
    let within = if namespaced { format!("namespaces/{namespace}/") } else { String::new() };
    format!("{root}/{api_version}/{within}{plural}/{name}")
}

/// A path with a query.
pub(crate) fn uri(path: &str, query: &str) -> Uri {
    let text = if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") };
    text.parse().unwrap_or_else(|error| panic!("{text} is no path: {error}"))
}
