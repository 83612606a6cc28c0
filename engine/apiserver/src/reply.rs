//! Replies: bodies with their headers.
//!
//! JSON only. Large bodies are compressed when the client asked; warnings ride in headers.

use std::io::Write;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{
    CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, VARY, WARNING,
};
use http::{Response, StatusCode};
use serde_json::{Value, json};

use crate::body::{Body, CHUNK, full, parts, stream};
use crate::error::ApiError;

/// Bodies below this many bytes are not worth compressing.
const GZIP_FROM: u64 = 128 * 1024;
pub(crate) const JSON: &str = "application/json";

fn respond(code: StatusCode, content_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

/// Known bytes.
pub(crate) fn bytes(code: StatusCode, content_type: &'static str, bytes: impl Into<Bytes>) -> Response<Body> {
    respond(code, content_type, full(bytes))
}

/// A JSON document, compressed if that is wanted and worth it.
pub(crate) fn json_parts(
    code: StatusCode,
    pieces: impl Iterator<Item = Bytes> + Send + Unpin + 'static,
    length: u64,
    gzip: bool,
) -> Response<Body> {
    if !gzip || length < GZIP_FROM {
        return respond(code, JSON, parts(pieces, length));
    }
    let encoder = Some(GzEncoder::new(Vec::new(), Compression::fast()));
    let compressed = futures::stream::iter(Compressed { pieces, encoder }.map(Ok));
    let mut response = respond(code, JSON, stream(compressed));
    response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    response.headers_mut().insert(VARY, HeaderValue::from_static("Accept-Encoding"));
    response
}

/// A JSON document of one piece.
pub(crate) fn json(code: StatusCode, document: impl Into<Bytes>, gzip: bool) -> Response<Body> {
    let document = document.into();
    let length = document.len() as u64;
    json_parts(code, std::iter::once(document), length, gzip)
}

/// A JSON value.
pub(crate) fn value(code: StatusCode, value: &Value, gzip: bool) -> Response<Body> {
    json(code, serde_json::to_vec(value).expect("a JSON value can be encoded"), gzip)
}

/// `v1` Status of something that worked.
pub(crate) fn success(code: StatusCode, details: Option<Value>) -> Response<Body> {
    let mut status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"});
    if let Some(details) = details {
        status["details"] = details;
    }
    if code != StatusCode::OK {
        status["code"] = code.as_u16().into();
    }
    value(code, &status, false)
}

/// `v1` Status of a failure.
pub(crate) fn failure(error: &ApiError) -> Response<Body> {
    let (code, status) = error.status();
    if code >= 500 {
        tracing::warn!(code, %error, "request failed");
    }
    let code = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    // Clients that show the body as it is expect upstream's end of line.
    let mut response = bytes(code, JSON, format!("{status}\n"));
    if matches!(error, ApiError::TooManyRequests) {
        set(&mut response, RETRY_AFTER, "1");
    }
    response
}

/// Adds one `Warning` header a text.
pub(crate) fn add_warnings(response: &mut Response<Body>, mut warnings: Vec<String>) {
    warnings.dedup();
    for text in warnings {
        let quoted: String = text.chars().filter(|letter| !letter.is_control()).collect();
        let quoted = quoted.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(header) = HeaderValue::from_str(&format!("299 - \"{quoted}\"")) {
            response.headers_mut().append(WARNING, header);
        }
    }
}

/// Sets one header that the server itself words.
pub(crate) fn set(response: &mut Response<Body>, name: HeaderName, text: &str) {
    if let Ok(header) = HeaderValue::from_str(text) {
        response.headers_mut().insert(name, header);
    }
}

/// Compresses pieces chunk by chunk while they are taken.
struct Compressed<I> {
    pieces: I,
    encoder: Option<GzEncoder<Vec<u8>>>,
}

impl<I: Iterator<Item = Bytes>> Iterator for Compressed<I> {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        let mut encoder = self.encoder.take()?;
        for piece in self.pieces.by_ref() {
            encoder.write_all(&piece).expect("writing to memory does not fail");
            if encoder.get_ref().len() >= CHUNK / 2 {
                let chunk = std::mem::take(encoder.get_mut());
                self.encoder = Some(encoder);
                return Some(chunk.into());
            }
        }
        Some(encoder.finish().expect("writing to memory does not fail").into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn compressed_pieces_come_out_whole() {
        let text: Vec<u8> = (0..3_000_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let pieces: Vec<Bytes> = text.chunks(1000).map(Bytes::copy_from_slice).collect();
        let encoder = Some(GzEncoder::new(Vec::new(), Compression::fast()));
        let compressed: Vec<Bytes> = Compressed { pieces: pieces.into_iter(), encoder }.collect();
        assert!(compressed.len() > 2);
        let mut plain = Vec::new();
        flate2::read::GzDecoder::new(&compressed.concat()[..]).read_to_end(&mut plain).unwrap();
        assert!(plain == text);
    }

    #[test]
    fn warnings_are_quoted() {
        let mut response = success(StatusCode::OK, None);
        add_warnings(&mut response, vec!["unknown field \"a\"\n".into()]);
        assert_eq!(response.headers()[WARNING], r#"299 - "unknown field \"a\"""#);
    }
}
