//! From a URL path to what it addresses: a group-version, a resource, a namespace, a name, a subresource.
//!
//! Purely syntactic: whether the resource exists is the registry's to say.

use crate::error::ApiError;
use crate::query::decode;

/// What a path below `/api/v1` or `/apis/<group>/<version>` addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ResourcePath {
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) namespace: Option<String>,
    pub(crate) plural: String,
    pub(crate) name: Option<String>,
    pub(crate) subresource: Option<String>,
}

/// Reads a resource path; `None` when the path is not of that form.
pub(crate) fn parse(path: &str) -> Result<Option<ResourcePath>, ApiError> {
    let mut segments = Vec::new();
    for segment in path.trim_start_matches('/').split('/') {
        segments.push(decode(segment, false)?);
    }
    if segments.last().is_some_and(String::is_empty) {
        segments.pop();
    }
    let mut segments = segments.into_iter();
    let (group, version) = match segments.next().as_deref() {
        Some("api") => (Some(String::new()), segments.next()),
        Some("apis") => (segments.next(), segments.next()),
        _ => return Ok(None),
    };
    let (Some(group), Some(version)) = (group, version) else { return Ok(None) };
    let rest: Vec<String> = segments.collect();
    // A name never has a slash; one that does could reach into another namespace's keys.
    if rest.iter().any(|segment| segment.contains('/')) {
        return Err(ApiError::NoSuchPath);
    }
    Ok(below(group, version, rest))
}

/// Sorts the segments behind the group-version. `namespaces/x` is the object, `namespaces/x/pods` a collection in it,
/// `namespaces/x/status` its subresource.
fn below(group: String, version: String, rest: Vec<String>) -> Option<ResourcePath> {
    if rest.is_empty() || rest.len() > 5 || rest.iter().any(String::is_empty) {
        return None;
    }
    let namespaced = rest[0] == "namespaces" && rest.len() >= 3 && !is_namespace_subresource(&rest[2]);
    let mut rest = rest.into_iter();
    let mut namespace = None;
    if namespaced {
        rest.next();
        namespace = rest.next();
    }
    let plural = rest.next()?;
    let (name, subresource, more) = (rest.next(), rest.next(), rest.next());
    more.is_none().then_some(ResourcePath { group, version, namespace, plural, name, subresource })
}

fn is_namespace_subresource(segment: &str) -> bool {
    matches!(segment, "status" | "finalize")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(path: &str) -> Option<[String; 6]> {
        parse(path).unwrap().map(|read| {
            [
                read.group,
                read.version,
                read.namespace.unwrap_or_default(),
                read.plural,
                read.name.unwrap_or_default(),
                read.subresource.unwrap_or_default(),
            ]
        })
    }

    #[test]
    fn each_form_of_a_path_is_told_apart() {
        let cases = [
            ("/api/v1/pods", ["", "v1", "", "pods", "", ""]),
            ("/api/v1/namespaces", ["", "v1", "", "namespaces", "", ""]),
            ("/api/v1/namespaces/a", ["", "v1", "", "namespaces", "a", ""]),
            ("/api/v1/namespaces/a/", ["", "v1", "", "namespaces", "a", ""]),
            ("/api/v1/namespaces/a/status", ["", "v1", "", "namespaces", "a", "status"]),
            ("/api/v1/namespaces/a/pods/b/log", ["", "v1", "a", "pods", "b", "log"]),
            ("/apis/apps/v1/namespaces/a/deployments/b/scale", ["apps", "v1", "a", "deployments", "b", "scale"]),
            ("/api/v1/nodes/system%3Anode", ["", "v1", "", "nodes", "system:node", ""]),
        ];
        for (path, expected) in cases {
            assert_eq!(read(path), Some(expected.map(str::to_owned)), "{path}");
        }
    }

    #[test]
    fn a_slash_within_a_segment_is_refused() {
        for path in ["/api/v1/namespaces/a%2Fb/pods/c", "/api/v1/nodes/a%2fb"] {
            assert!(matches!(parse(path), Err(ApiError::NoSuchPath)), "{path}");
        }
    }

    #[test]
    fn other_paths_are_none_of_ours() {
        for path in ["/", "/api", "/api/v1", "/apis", "/apis/apps", "/apis/apps/v1", "/version", "/api/v1/a/b/c/d/e/f"]
        {
            assert_eq!(read(path), None, "{path}");
        }
    }
}
