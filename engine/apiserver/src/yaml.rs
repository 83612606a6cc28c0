//! Replies as YAML, for those who ask for it: whole documents only, turned over from their JSON. A stream is never asked
//! for as YAML.

use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, Response};
use http_body::Body as _;
use serde_json::Value;

use crate::body::{self, Body, full};
use crate::error::ApiError;
use crate::reply;

/// The media type.
pub(crate) const YAML: &str = "application/yaml";
/// The longest document that is turned over, in bytes.
const LIMIT: usize = 32 * 1024 * 1024;

/// The reply as YAML, where it is a JSON document of known length; any other as it is.
pub(crate) async fn turned(response: Response<Body>) -> Response<Body> {
    if !is_document(response.headers()) || response.body().size_hint().exact().is_none() {
        return response;
    }
    let (mut head, body) = response.into_parts();
    let read = body::read(body, LIMIT).await;
    let text = read.and_then(|bytes| {
        let value = serde_json::from_slice(&bytes);
        let value: Value = value.map_err(|error| ApiError::Internal(format!("no JSON: {error}")))?;
        Ok(text(&value))
    });
    match text {
        Ok(text) => {
            head.headers.insert(CONTENT_TYPE, HeaderValue::from_static(YAML));
            head.headers.remove(CONTENT_LENGTH);
            Response::from_parts(head, full(text))
        }
        Err(error) => reply::failure(&error),
    }
}

fn is_document(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    kind.starts_with(reply::JSON) && !headers.contains_key(CONTENT_ENCODING)
}

/// The document in block form.
fn text(value: &Value) -> String {
    let mut text = String::new();
    match value {
        Value::Object(map) if !map.is_empty() => entries(value, 0, &mut text),
        Value::Array(list) if !list.is_empty() => entries(value, 0, &mut text),
        _ => {
            scalar(value, &mut text);
            text.push('\n');
        }
    }
    text
}

/// The lines of a map or a list; the first one begins where the text ends.
fn entries(value: &Value, depth: usize, text: &mut String) {
    let mut first = true;
    let mut margin = |text: &mut String| {
        if !std::mem::take(&mut first) {
            text.extend(std::iter::repeat_n(' ', depth));
        }
    };
    match value {
        Value::Object(map) => {
            for (key, inner) in map {
                margin(text);
                string(key, text);
                text.push(':');
                below(inner, depth, text);
            }
        }
        Value::Array(list) => {
            for inner in list {
                margin(text);
                text.push_str("- ");
                if is_block(inner) {
                    entries(inner, depth + 2, text);
                } else {
                    scalar(inner, text);
                    text.push('\n');
                }
            }
        }
        _ => {}
    }
}

/// What a key stands for. A list stands under its key, not behind it.
fn below(inner: &Value, depth: usize, text: &mut String) {
    if !is_block(inner) {
        text.push(' ');
        scalar(inner, text);
        return text.push('\n');
    }
    let depth = if inner.is_array() { depth } else { depth + 2 };
    text.push('\n');
    text.extend(std::iter::repeat_n(' ', depth));
    entries(inner, depth, text);
}

fn is_block(value: &Value) -> bool {
    match value {
        Value::Object(map) => !map.is_empty(),
        Value::Array(list) => !list.is_empty(),
        _ => false,
    }
}

fn scalar(value: &Value, text: &mut String) {
    match value {
        Value::String(own) => string(own, text),
        // Empty maps and lists, numbers, flags and null are the same in both.
        other => text.push_str(&other.to_string()),
    }
}

/// A text, in quotes unless it can be taken for nothing else.
fn string(own: &str, text: &mut String) {
    let plain = own.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_./-".contains(&byte));
    let begins = own.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic());
    let words = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    if plain && begins && !words.iter().any(|word| own.eq_ignore_ascii_case(word)) {
        text.push_str(own);
    } else {
        text.push_str(&Value::from(own).to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn documents_are_written_as_people_write_them() {
        let value = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "labels": {}},
            "spec": {"containers": [{"name": "c", "args": ["-x", "yes", "1"], "ports": []}], "replicas": 3},
        });
        let expected = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\n  labels: {}\nspec:\n  containers:\n  - name: c\n    \
                        args:\n    - \"-x\"\n    - \"yes\"\n    - \"1\"\n    ports: []\n  replicas: 3\n";
        assert_eq!(text(&value), expected);
    }

    fn anything() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "[ -~\n\té]{0,12}".prop_map(Value::from),
            "(true|No|~|1e3|0x1|null|a: b|- a|\\.inf|2026-01-01|#|@x|a #b|\\{|\\[)".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[ -~]{0,6}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_reads_as_what_it_was(value in anything()) {
            let text = text(&value);
            let read: Value = serde_saphyr::from_str(&text).map_err(|error| TestCaseError::fail(format!("{error}: {text}")))?;
            prop_assert_eq!(read, value, "{}", text);
        }
    }
}
