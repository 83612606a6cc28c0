//! How objects are shown: as they are, as a table, or as metadata alone; one, a list, or an event.
//!
//! Objects as they are leave as the bytes that are held; metadata leaves as a slice of them; only tables are worked out.

use std::sync::Arc;

use bytes::Bytes;
use http::{Response, StatusCode};
use serde_json::{Value, json};
use shipway_schema::{IncludeObject, Resource, TableInput, table};
use shipway_store::Revision;

use crate::accept::Shape;
use crate::body::Body;
use crate::call::Call;
use crate::clock;
use crate::error::ApiError;
use crate::list::Page;
use crate::object::Object;
use crate::reply;

/// The form of a reply.
pub(crate) struct View {
    pub(crate) shape: Shape,
    pub(crate) gzip: bool,
    resource: Arc<Resource>,
    include: IncludeObject,
    /// Whether the table's columns have been described already in this watch.
    described: bool,
}

const PARTIAL: &[u8] = br#"{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":"#;

impl View {
    /// What the request asked for.
    pub(crate) fn of(call: &Call, resource: Arc<Resource>) -> Result<Self, ApiError> {
        let accept = call.accept()?;
        let include = match call.query.get("includeObject") {
            Some("None") => IncludeObject::None,
            Some("Object") => IncludeObject::Object,
            _ => IncludeObject::Metadata,
        };
        Ok(Self { shape: accept.shape, gzip: accept.gzip, resource, include, described: false })
    }

    /// The content type of a watch in another form than the object's own.
    pub(crate) fn content_type(&self) -> &'static str {
        match self.shape {
            Shape::Object => reply::JSON,
            Shape::Table => "application/json;as=Table;g=meta.k8s.io;v=v1",
            Shape::Metadata => "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1",
        }
    }

    /// One object.
    pub(crate) fn object(&self, code: StatusCode, object: &Object) -> Response<Body> {
        let bytes = match self.shape {
            Shape::Object => object.wire(),
            Shape::Metadata => partial(object).into(),
            Shape::Table => encode(&self.table(&[object], object.revision, true)),
        };
        reply::json(code, bytes, self.gzip)
    }

    /// A page of a list.
    pub(crate) fn list(&self, page: Page) -> Response<Body> {
        let metadata = list_metadata(&page);
        if self.shape == Shape::Table {
            let objects: Vec<&Object> = page.objects.iter().map(|object| &**object).collect();
            let mut table = self.table(&objects, page.revision, true);
            table["metadata"] = metadata;
            return reply::json(StatusCode::OK, encode(&table), self.gzip);
        }
        let (kind, version) = match self.shape {
            Shape::Metadata => ("PartialObjectMetadataList".to_owned(), "meta.k8s.io/v1".to_owned()),
            _ => (self.resource.list_kind(), self.resource.api_version()),
        };
        let head = format!(r#"{{"kind":"{kind}","apiVersion":"{version}","metadata":{metadata},"items":["#);
        let only_metadata = self.shape == Shape::Metadata;
        let length = |object: &Arc<Object>| {
            let own = if only_metadata { PARTIAL.len() + object.metadata().len() + 1 } else { object.len() };
            own as u64
        };
        let commas = page.objects.len().saturating_sub(1) as u64;
        let total = head.len() as u64 + page.objects.iter().map(length).sum::<u64>() + commas + 2;
        let items = page.objects.into_iter().enumerate().flat_map(move |(at, object)| {
            let comma = (at > 0).then_some(Bytes::from_static(b","));
            let item =
                if only_metadata { [partial(&object).into(), Bytes::new(), Bytes::new()] } else { object.pieces() };
            comma.into_iter().chain(item)
        });
        let pieces = std::iter::once(Bytes::from(head)).chain(items).chain([Bytes::from_static(b"]}")]);
        reply::json_parts(StatusCode::OK, pieces, total, self.gzip)
    }

    /// An event of a watch.
    pub(crate) fn event(&mut self, lines: &mut Vec<u8>, kind: &str, object: &Object) {
        open(lines, kind);
        match self.shape {
            Shape::Object => object.write(lines),
            Shape::Metadata => lines.extend_from_slice(&partial(object)),
            Shape::Table => {
                let columns = !std::mem::replace(&mut self.described, true);
                lines.extend_from_slice(&encode(&self.table(&[object], object.revision, columns)));
            }
        }
        lines.extend_from_slice(b"}\n");
    }

    /// A bookmark: everything up to the revision has been sent.
    pub(crate) fn bookmark(&self, lines: &mut Vec<u8>, revision: Revision, ends_initial: bool) {
        let mut metadata = json!({"resourceVersion": revision.to_string(), "creationTimestamp": null});
        if ends_initial {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let (kind, version) = match self.shape {
            Shape::Object => (self.resource.kind.to_string(), self.resource.api_version()),
            Shape::Metadata => ("PartialObjectMetadata".to_owned(), "meta.k8s.io/v1".to_owned()),
            Shape::Table => ("Table".to_owned(), "meta.k8s.io/v1".to_owned()),
        };
        let mut object = json!({"kind": kind, "apiVersion": version, "metadata": metadata});
        if self.shape == Shape::Table {
            object["columnDefinitions"] = json!([]);
            object["rows"] = json!([]);
        }
        open(lines, "BOOKMARK");
        lines.extend_from_slice(&encode(&object));
        lines.extend_from_slice(b"}\n");
    }

    fn table(&self, objects: &[&Object], revision: Revision, columns: bool) -> Value {
        let values: Vec<Value> = objects.iter().map(|object| object.value()).collect();
        let rows: Vec<TableInput<'_>> = values.iter().map(|object| TableInput { object }).collect();
        let mut table = table(&self.resource, &rows, self.include, columns, clock::now());
        table["metadata"] = json!({"resourceVersion": revision.to_string()});
        table
    }
}

/// Tells a watcher why its watch is over.
pub(crate) fn failure(lines: &mut Vec<u8>, error: &ApiError) {
    open(lines, "ERROR");
    lines.extend_from_slice(&encode(&error.status().1));
    lines.extend_from_slice(b"}\n");
}

fn open(lines: &mut Vec<u8>, kind: &str) {
    lines.extend_from_slice(br#"{"type":""#);
    lines.extend_from_slice(kind.as_bytes());
    lines.extend_from_slice(br#"","object":"#);
}

fn partial(object: &Object) -> Vec<u8> {
    [PARTIAL, &object.metadata(), b"}"].concat()
}

fn encode(value: &Value) -> Bytes {
    serde_json::to_vec(value).expect("a JSON value can be encoded").into()
}

fn list_metadata(page: &Page) -> Value {
    let mut metadata = json!({"resourceVersion": page.revision.to_string()});
    if let Some(next) = &page.next {
        metadata["continue"] = next.as_str().into();
    }
    if let Some(remaining) = page.remaining {
        metadata["remainingItemCount"] = remaining.into();
    }
    metadata
}
