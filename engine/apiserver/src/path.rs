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

/// The parts of a path, decoded.
fn segments(path: &str) -> Result<Vec<String>, ApiError> {
    let mut segments = Vec::new();
    for segment in path.trim_start_matches('/').split('/') {
        segments.push(decode(segment, false)?);
    }
    if segments.last().is_some_and(String::is_empty) {
        segments.pop();
    }
    Ok(segments)
}

/// Reads a path below `/apis/<group>/<version>` of another server, which may go deeper than ours do; `None` for its own
/// documents. What the other server could read as another path than it looks like is refused.
pub(crate) fn parse_remote(path: &str) -> Result<Option<ResourcePath>, ApiError> {
    let segments = segments(path)?;
    if segments.iter().any(|segment| matches!(&**segment, "" | "." | "..") || segment.contains(['/', '\\'])) {
        return Err(ApiError::NoSuchPath);
    }
    let mut segments = segments.into_iter();
    if segments.next().as_deref() != Some("apis") {
        return Ok(None);
    }
    let (Some(group), Some(version)) = (segments.next(), segments.next()) else { return Ok(None) };
    let mut rest: Vec<String> = segments.collect();
    let within = matches!(&*rest, [first, _, third, ..] if first == "namespaces" && !is_namespace_subresource(third));
    rest.truncate(if within { 5 } else { 3 });
    Ok(below(group, version, rest))
}

/// Reads a resource path; `None` when the path is not of that form.
pub(crate) fn parse(path: &str) -> Result<Option<ResourcePath>, ApiError> {
    let mut segments = segments(path)?.into_iter();
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
    fn what_lies_deep_in_another_server_is_still_a_resource() {
        let read =
            |path: &str| parse_remote(path).map(|read| read.map(|read| (read.plural, read.name, read.subresource)));
        let deep = |plural: &str, name: &str, below: &str| {
            let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
            Some((plural.to_owned(), some(name), some(below)))
        };
        let root = "/apis/example.com/v1";
        assert_eq!(read(&format!("{root}/namespaces/n/pods/p/cpu/a/b")).unwrap(), deep("pods", "p", "cpu"));
        assert_eq!(read(&format!("{root}/nodes/n/cpu/a/b/c/d")).unwrap(), deep("nodes", "n", "cpu"));
        assert_eq!(read(&format!("{root}/namespaces/n/status/a/b/c")).unwrap(), deep("namespaces", "n", "status"));
        assert_eq!(read(&format!("{root}/pods")).unwrap(), deep("pods", "", ""));
        for own in [root.to_owned(), format!("{root}/"), "/openapi/v3/apis/example.com/v1".into()] {
            assert_eq!(read(&own).unwrap(), None, "{own}");
        }
        for path in ["a//b", "a/../b", "a/%2e%2e/b", "./a", "a%2Fb", "a%5Cb"] {
            assert!(matches!(read(&format!("{root}/{path}")), Err(ApiError::NoSuchPath)), "{path}");
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
