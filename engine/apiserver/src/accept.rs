//! What the client wants to read: the object itself, a table for people, or metadata alone; compressed or not.
//!
//! Replies are always JSON: every client that prefers protobuf also names JSON.

use http::HeaderMap;
use http::header::{ACCEPT, ACCEPT_ENCODING};

use crate::error::ApiError;

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
    pub(crate) gzip: bool,
}

/// The media type of aggregated discovery, which the reply must repeat letter by letter.
pub(crate) const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

impl Accept {
    /// Takes the first clause of `Accept` that can be served.
    pub(crate) fn parse(headers: &HeaderMap) -> Result<Self, ApiError> {
        let gzip = texts(headers, ACCEPT_ENCODING)
            .any(|coding| coding.split(';').next().is_some_and(|name| name.trim().eq_ignore_ascii_case("gzip")));
        let mut clauses = texts(headers, ACCEPT).peekable();
        if clauses.peek().is_none() {
            return Ok(Self { shape: Shape::Object, gzip });
        }
        let shape = clauses.find_map(shape).ok_or(ApiError::NotAcceptable)?;
        Ok(Self { shape, gzip })
    }
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
    let media = clause.split(';').next().unwrap_or_default().trim();
    if !matches!(media, "application/json" | "application/*" | "*/*") {
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
        ];
        for (accept, expected) in cases {
            assert_eq!(read(accept), expected, "{accept}");
        }
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
