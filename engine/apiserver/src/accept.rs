//! What the client wants to read: the object itself, a table for people, or metadata alone; compressed or not.
//!
//! Replies are JSON, or YAML for those who ask for it: every client that prefers protobuf also names JSON.

use http::HeaderMap;
use http::header::{ACCEPT, ACCEPT_ENCODING};

use crate::error::ApiError;
use crate::yaml::YAML;

/// The form of the objects in a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// As stored.
    Object,
    /// `meta.k8s.io/v1` Table.
    Table,
    /// `meta.k8s.io/v1` PartialObjectMetadata.
    Metadata,
}

/// What the reply should look like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Accept {
    pub(crate) shape: Shape,
    /// Whether the body may be compressed.
    pub(crate) gzip: bool,
    /// Whether it should be YAML.
    pub(crate) yaml: bool,
}

/// The media type of aggregated discovery, which the reply must repeat letter by letter.
pub(crate) const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

impl Accept {
    /// Takes the first clause of `Accept` that can be served.
    pub(crate) fn parse(headers: &HeaderMap) -> Result<Self, ApiError> {
        let gzip = takes_gzip(headers);
        let mut clauses = texts(headers, ACCEPT).peekable();
        if clauses.peek().is_none() {
            return Ok(Self { shape: Shape::Object, gzip, yaml: false });
        }
        let find = |clause| Some((shape(clause)?, is_yaml(clause)));
        let (shape, yaml) = clauses.find_map(find).ok_or(ApiError::NotAcceptable)?;
        // What is compressed cannot be turned over.
        Ok(Self { shape, gzip: gzip && !yaml, yaml })
    }
}

/// Whether the body may be compressed.
pub(crate) fn takes_gzip(headers: &HeaderMap) -> bool {
    texts(headers, ACCEPT_ENCODING)
        .any(|coding| coding.split(';').next().is_some_and(|name| name.trim().eq_ignore_ascii_case("gzip")))
}

/// Whether the first clause that can be served is one of YAML.
pub(crate) fn wants_yaml(headers: &HeaderMap) -> bool {
    headers.contains_key(ACCEPT) && Accept::parse(headers).is_ok_and(|accept| accept.yaml)
}

/// The media types that are accepted, without parameters, in their order; any, where none is named.
pub(crate) fn media(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let any = (!headers.contains_key(ACCEPT)).then_some("*/*");
    texts(headers, ACCEPT).map(media_type).chain(any)
}

fn media_type(clause: &str) -> &str {
    clause.split(';').next().unwrap_or_default().trim()
}

fn is_yaml(clause: &str) -> bool {
    media_type(clause) == YAML
}

/// Whether the client takes aggregated discovery.
pub(crate) fn wants_aggregated(headers: &HeaderMap) -> bool {
    texts(headers, ACCEPT)
        .any(|clause| parameter(clause, "as") == Some("APIGroupDiscoveryList") && parameter(clause, "v") == Some("v2"))
}

fn texts(headers: &HeaderMap, name: http::HeaderName) -> impl Iterator<Item = &str> {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|clause| !clause.is_empty())
}

fn parameter<'a>(clause: &'a str, name: &str) -> Option<&'a str> {
    clause.split(';').skip(1).find_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        (key.trim() == name).then(|| value.trim())
    })
}

fn shape(clause: &str) -> Option<Shape> {
    if !matches!(media_type(clause), "application/json" | "application/*" | "*/*" | YAML) {
        return None;
    }
    let ours = parameter(clause, "g") == Some("meta.k8s.io") && parameter(clause, "v") == Some("v1");
    match parameter(clause, "as") {
        None => Some(Shape::Object),
        Some("Table") if ours => Some(Shape::Table),
        Some("PartialObjectMetadata" | "PartialObjectMetadataList") if ours => Some(Shape::Metadata),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(accept: &'static str) -> Option<Shape> {
        let headers = HeaderMap::from_iter([(ACCEPT, accept.parse().unwrap())]);
        Accept::parse(&headers).ok().map(|accept| accept.shape)
    }

    #[test]
    fn the_first_clause_that_can_be_served_wins() {
        let cases = [
            ("", Some(Shape::Object)),
            ("*/*", Some(Shape::Object)),
            ("application/json;as=Table;v=v1;g=meta.k8s.io,application/json", Some(Shape::Table)),
            ("application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json", Some(Shape::Object)),
            ("application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1", Some(Shape::Metadata)),
            ("application/vnd.kubernetes.protobuf, application/json", Some(Shape::Object)),
            ("application/vnd.kubernetes.protobuf", None),
            ("text/html", None),
            ("application/yaml", Some(Shape::Object)),
        ];
        for (accept, expected) in cases {
            assert_eq!(read(accept), expected, "{accept}");
        }
    }

    #[test]
    fn yaml_is_written_for_whom_it_is_the_first_choice() {
        let wants = |accept: &'static str| wants_yaml(&HeaderMap::from_iter([(ACCEPT, accept.parse().unwrap())]));
        assert!(wants("application/yaml") && wants("text/html, application/yaml, application/json"));
        assert!(!wants("application/json, application/yaml") && !wants("*/*"));
        assert!(!wants_yaml(&HeaderMap::new()));
    }

    #[test]
    fn aggregated_discovery_is_told_from_the_old_form() {
        let headers = |text: &str| HeaderMap::from_iter([(ACCEPT, text.parse().unwrap())]);
        assert!(wants_aggregated(&headers(AGGREGATED)));
        assert!(!wants_aggregated(&headers(
            "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList"
        )));
    }
}
