//! The OpenAPI v2 document as protobuf: the messages of `openapi.v2` in gnostic's `OpenAPIv2.proto`, which give the field
//! numbers here. Only what our documents say is written.

use serde_json::Value;

/// Gives names with values, one at a time.
type Each<'a> = &'a mut dyn FnMut(&str, &Value);

/// One message being written.
#[derive(Default)]
struct Message(Vec<u8>);

/// The document; `paths` and `definitions` give what is in it.
pub(super) fn document(paths: impl FnOnce(Each<'_>), definitions: impl FnOnce(Each<'_>)) -> Vec<u8> {
    let mut document = Message::default();
    document.text(1, "2.0");
    document.within(2, |info| {
        info.text(1, "Kubernetes");
        info.text(2, "v1.36.0");
    });
    document.within(8, |all| paths(&mut |path, item| all.named(2, path, |one| path_item(one, item))));
    document.within(9, |all| definitions(&mut |name, value| all.named(1, name, |one| schema(one, value))));
    document.0
}

impl Message {
    fn varint(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push(u8::try_from(number & 0x7f).expect("seven bits") | 0x80);
            number >>= 7;
        }
        self.0.push(u8::try_from(number).expect("seven bits"));
    }

    fn bytes(&mut self, field: u64, bytes: &[u8]) {
        self.varint(field << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn text(&mut self, field: u64, text: &str) {
        self.bytes(field, text.as_bytes());
    }

    fn texts(&mut self, field: u64, list: Option<&Value>) {
        for text in list.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
            self.text(field, text);
        }
    }

    /// A text, if there is one.
    fn said(&mut self, field: u64, text: Option<&Value>) {
        if let Some(text) = text.and_then(Value::as_str) {
            self.text(field, text);
        }
    }

    /// A flag that is set.
    fn flag(&mut self, field: u64, flag: Option<&Value>) {
        if flag == Some(&Value::Bool(true)) {
            self.varint(field << 3);
            self.varint(1);
        }
    }

    fn whole(&mut self, field: u64, number: Option<&Value>) {
        if let Some(number) = number.and_then(Value::as_i64) {
            self.varint(field << 3);
            self.varint(number.cast_unsigned());
        }
    }

    fn real(&mut self, field: u64, number: Option<&Value>) {
        if let Some(number) = number.and_then(Value::as_f64) {
            self.varint(field << 3 | 1);
            self.0.extend_from_slice(&number.to_le_bytes());
        }
    }

    fn within(&mut self, field: u64, write: impl FnOnce(&mut Self)) {
        let mut inner = Self::default();
        write(&mut inner);
        self.bytes(field, &inner.0);
    }

    /// An entry of what is a map in JSON.
    fn named(&mut self, field: u64, name: &str, write: impl FnOnce(&mut Self)) {
        self.within(field, |entry| {
            entry.text(1, name);
            entry.within(2, write);
        });
    }

    /// Any value, as text: JSON is YAML.
    fn any(&mut self, field: u64, value: &Value) {
        self.within(field, |any| any.text(2, &value.to_string()));
    }

    /// The extensions, whose names begin with `x-`.
    fn extensions(&mut self, field: u64, of: &Value) {
        for (name, value) in of.as_object().into_iter().flatten().filter(|(name, _)| name.starts_with("x-")) {
            self.within(field, |entry| {
                entry.text(1, name);
                entry.any(2, value);
            });
        }
    }
}

fn schema(to: &mut Message, of: &Value) {
    for (name, field) in [("$ref", 1), ("format", 2), ("title", 3), ("description", 4), ("pattern", 13)] {
        to.said(field, of.get(name));
    }
    for (name, field) in [("multipleOf", 6), ("maximum", 7), ("minimum", 9)] {
        to.real(field, of.get(name));
    }
    for (name, field) in [("exclusiveMaximum", 8), ("exclusiveMinimum", 10), ("uniqueItems", 16), ("readOnly", 27)] {
        to.flag(field, of.get(name));
    }
    let counts = [("maxLength", 11), ("minLength", 12), ("maxItems", 14), ("minItems", 15)];
    for (name, field) in counts.into_iter().chain([("maxProperties", 17), ("minProperties", 18)]) {
        to.whole(field, of.get(name));
    }
    if let Some(default) = of.get("default") {
        to.any(5, default);
    }
    to.texts(19, of.get("required"));
    for value in of.get("enum").and_then(Value::as_array).into_iter().flatten() {
        to.any(20, value);
    }
    match of.get("additionalProperties") {
        Some(Value::Bool(_)) => to.within(21, |item| item.flag(2, of.get("additionalProperties"))),
        Some(inner) => to.within(21, |item| item.within(1, |to| schema(to, inner))),
        None => {}
    }
    if let Some(kind) = of.get("type") {
        to.within(22, |item| item.said(1, Some(kind)));
    }
    if let Some(inner) = of.get("items") {
        to.within(23, |item| item.within(1, |to| schema(to, inner)));
    }
    for inner in of.get("allOf").and_then(Value::as_array).into_iter().flatten() {
        to.within(24, |to| schema(to, inner));
    }
    if let Some(properties) = of.get("properties").and_then(Value::as_object) {
        to.within(25, |all| {
            for (name, inner) in properties {
                all.named(1, name, |to| schema(to, inner));
            }
        });
    }
    to.extensions(31, of);
}

fn path_item(to: &mut Message, of: &Value) {
    for (method, field) in [("get", 2), ("put", 3), ("post", 4), ("delete", 5), ("patch", 8)] {
        if let Some(inner) = of.get(method) {
            to.within(field, |to| operation(to, inner));
        }
    }
    parameters(to, 9, of.get("parameters"));
}

fn operation(to: &mut Message, of: &Value) {
    to.texts(6, of.get("produces"));
    to.texts(7, of.get("consumes"));
    parameters(to, 8, of.get("parameters"));
    to.within(9, |all| {
        for (code, response) in of.get("responses").and_then(Value::as_object).into_iter().flatten() {
            all.named(1, code, |value| value.within(1, |to| self::response(to, response)));
        }
    });
    to.extensions(13, of);
}

fn response(to: &mut Message, of: &Value) {
    to.said(1, of.get("description"));
    if let Some(inner) = of.get("schema") {
        to.within(2, |item| item.within(1, |to| schema(to, inner)));
    }
}

fn parameters(to: &mut Message, field: u64, list: Option<&Value>) {
    for each in list.and_then(Value::as_array).into_iter().flatten() {
        to.within(field, |item| item.within(1, |to| parameter(to, each)));
    }
}

fn parameter(to: &mut Message, of: &Value) {
    match of.get("in").and_then(Value::as_str) {
        Some("body") => to.within(1, |body| {
            body.text(2, "body");
            body.text(3, "body");
            body.flag(4, of.get("required"));
            if let Some(inner) = of.get("schema") {
                body.within(5, |to| schema(to, inner));
            }
        }),
        // The path's parameters have one field less than the query's before the type.
        Some("path") => to.within(2, |other| other.within(4, |path| plain(path, of, 5, 19))),
        _ => to.within(2, |other| other.within(3, |query| plain(query, of, 6, 20))),
    }
}

fn plain(to: &mut Message, of: &Value, kind: u64, unique: u64) {
    to.flag(1, of.get("required"));
    to.said(2, of.get("in"));
    to.said(3, of.get("description"));
    to.said(4, of.get("name"));
    to.said(kind, of.get("type"));
    to.flag(unique, of.get("uniqueItems"));
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn messages_are_written_as_the_definition_numbers_them() {
        let mut message = Message::default();
        let value = json!({"type": "string", "required": ["a"], "x-y": 1, "maxLength": 300, "minimum": 0.5});
        schema(&mut message, &value);
        let mut expected = vec![0x49, 0, 0, 0, 0, 0, 0, 0xe0, 0x3f, 0x58, 0xac, 0x02];
        expected.extend([0x9a, 0x01, 1, b'a']);
        expected.extend([0xb2, 0x01, 8, 0x0a, 6]);
        expected.extend(b"string");
        expected.extend([0xfa, 0x01, 10, 0x0a, 3, b'x', b'-', b'y', 0x12, 3, 0x12, 1, b'1']);
        assert_eq!(message.0, expected);
    }

    #[test]
    fn parameters_are_told_apart_by_where_they_are() {
        let written = |value: &Value| {
            let mut message = Message::default();
            parameter(&mut message, value);
            message.0[..4].to_vec()
        };
        assert_eq!(written(&json!({"in": "body", "name": "body"}))[..1], [0x0a]);
        assert_eq!(written(&json!({"in": "path", "name": "name"}))[2], 0x22);
        assert_eq!(written(&json!({"in": "query", "name": "name"}))[2], 0x1a);
    }
}
