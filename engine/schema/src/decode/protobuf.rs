//! Kubernetes' protobuf bodies to documents.
//!
//! A body is `k8s\0` and an envelope that names the kind and holds its message. Go writes every plain field, so zero
//! values are dropped here except where the tag table says that they mean something.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Map, Number, Value};

use super::json::decode_below;
use super::tags::{Cardinality, Field, Kind, Or, Tags};
use super::wire::{Reader, Wire};
use super::{MAX_BODY, MAX_DEPTH};
use crate::error::DecodeError;
use crate::path::Path;
use crate::registry::Registry;

const MARK: &[u8] = b"k8s\0";

/// Reads an enveloped message of any kind that the registry knows. Fields that the table does not know are skipped, as
/// protobuf wants it.
pub fn decode_protobuf(registry: &Registry, body: &[u8]) -> Result<Value, DecodeError> {
    if body.len() > MAX_BODY {
        return Err(DecodeError::TooLarge { size: body.len(), limit: MAX_BODY });
    }
    let envelope = body.strip_prefix(MARK).ok_or(DecodeError::NoEnvelope)?;
    let (api_version, kind, raw) = open(envelope).map_err(|problem| broken(&Path::Root, problem))?;
    let tags = registry.tags();
    let number = registry.definition_of(&api_version, &kind).and_then(|definition| tags.number_of(&definition));
    let Some(number) = number else {
        return Err(DecodeError::UnknownKind { api_version, kind });
    };
    let mut object = Map::new();
    object.insert("apiVersion".to_owned(), api_version.into());
    object.insert("kind".to_owned(), kind.into());
    Decoder { tags }.message(&Path::Root, 0, number, raw, &mut object)?;
    Ok(Value::Object(object))
}

fn broken(path: &Path<'_>, problem: &'static str) -> DecodeError {
    let path = path.to_string();
    DecodeError::Protobuf { path: if path.is_empty() { "body".to_owned() } else { path }, problem }
}

/// The envelope: `apiVersion`, `kind` and the message's bytes.
fn open(envelope: &[u8]) -> Result<(String, String, &[u8]), &'static str> {
    let (mut api_version, mut kind, mut raw) = (String::new(), String::new(), &[][..]);
    let mut fields = Reader::new(envelope);
    while let Some((tag, value)) = fields.next()? {
        match (tag, value) {
            (1, Wire::Bytes(bytes)) => {
                let mut fields = Reader::new(bytes);
                while let Some((tag, value)) = fields.next()? {
                    match tag {
                        1 => api_version = text(value)?,
                        2 => kind = text(value)?,
                        _ => {}
                    }
                }
            }
            (2, Wire::Bytes(bytes)) => raw = bytes,
            _ => {}
        }
    }
    Ok((api_version, kind, raw))
}

/// The depth of what lies in a list, a map or a message at this depth.
fn below(path: &Path<'_>, depth: usize) -> Result<usize, DecodeError> {
    if depth + 1 < MAX_DEPTH {
        return Ok(depth + 1);
    }
    Err(DecodeError::TooDeep { path: path.to_string(), limit: MAX_DEPTH })
}

fn text(value: Wire<'_>) -> Result<String, &'static str> {
    str::from_utf8(bytes(value)?).map(str::to_owned).map_err(|_| "text is not UTF-8")
}

fn bytes(value: Wire<'_>) -> Result<&[u8], &'static str> {
    match value {
        Wire::Bytes(bytes) => Ok(bytes),
        _ => Err("another wire type than the field's"),
    }
}

struct Decoder<'t> {
    tags: &'t Tags,
}

impl Decoder<'_> {
    fn message(
        &self,
        path: &Path<'_>,
        depth: usize,
        number: usize,
        bytes: &[u8],
        into: &mut Map<String, Value>,
    ) -> Result<(), DecodeError> {
        let message = self.tags.message(number);
        let mut fields = Reader::new(bytes);
        while let Some((tag, wire)) = fields.next().map_err(|problem| broken(path, problem))? {
            if let Some(field) = message.field(tag) {
                self.field(&path.field(field.name), depth, field, wire, into)?;
            }
        }
        Ok(())
    }

    fn field(
        &self,
        path: &Path<'_>,
        depth: usize,
        field: &Field,
        wire: Wire<'_>,
        into: &mut Map<String, Value>,
    ) -> Result<(), DecodeError> {
        match field.cardinality {
            Cardinality::Embedded => {
                if let Kind::Message(number) = field.kind {
                    let bytes = bytes(wire).map_err(|problem| broken(path, problem))?;
                    self.message(path, below(path, depth)?, number, bytes, into)?;
                }
            }
            Cardinality::One => {
                // A message that comes in parts is merged.
                let before = into.get_mut(field.name).map(Value::take);
                let value = self.value(path, depth, field.kind, wire, before)?;
                if field.keeps_zero && !value.is_null() || !is_zero(&value) {
                    into.insert(field.name.to_owned(), value);
                } else {
                    into.shift_remove(field.name);
                }
            }
            Cardinality::Many => {
                let list = into.entry(field.name).or_insert_with(|| Value::Array(Vec::new()));
                if let Value::Array(list) = list {
                    self.items(path, below(path, depth)?, field.kind, wire, list)?;
                }
            }
            Cardinality::Map => {
                let (key, value) = self.entry(path, below(path, depth)?, field.kind, wire)?;
                let map = into.entry(field.name).or_insert_with(|| Value::Object(Map::new()));
                if let Value::Object(map) = map {
                    map.insert(key, value);
                }
            }
        }
        Ok(())
    }

    /// One item, or many numbers packed into one field.
    fn items(
        &self,
        path: &Path<'_>,
        depth: usize,
        kind: Kind,
        wire: Wire<'_>,
        list: &mut Vec<Value>,
    ) -> Result<(), DecodeError> {
        if let (Kind::Integer, Wire::Bytes(packed)) = (kind, wire) {
            let mut packed = Reader::new(packed);
            while !packed.is_empty() {
                let number = packed.varint().map_err(|problem| broken(path, problem))?;
                list.push(number.cast_signed().into());
            }
            return Ok(());
        }
        let item = self.value(&path.index(list.len()), depth, kind, wire, None)?;
        list.push(item);
        Ok(())
    }

    fn entry(&self, path: &Path<'_>, depth: usize, kind: Kind, wire: Wire<'_>) -> Result<(String, Value), DecodeError> {
        let fail = |problem| broken(path, problem);
        let (mut key, mut value) = (String::new(), Wire::Bytes(&[]));
        let mut fields = Reader::new(bytes(wire).map_err(fail)?);
        while let Some((tag, wire)) = fields.next().map_err(fail)? {
            match tag {
                1 => key = text(wire).map_err(fail)?,
                2 => value = wire,
                _ => {}
            }
        }
        let value = self.value(&path.key(&key), depth, kind, value, None)?;
        Ok((key, value))
    }

    fn value(
        &self,
        path: &Path<'_>,
        depth: usize,
        kind: Kind,
        wire: Wire<'_>,
        before: Option<Value>,
    ) -> Result<Value, DecodeError> {
        let number = match kind {
            Kind::Message(number) => number,
            Kind::Either(or, number) => return self.either(path, depth, or, number, wire),
            _ => return scalar(kind, wire, depth).map_err(|problem| broken(path, problem)),
        };
        let bytes = bytes(wire).map_err(|problem| broken(path, problem))?;
        let mut object = match before {
            Some(Value::Object(object)) => object,
            _ => Map::new(),
        };
        self.message(path, below(path, depth)?, number, bytes, &mut object)?;
        Ok(Value::Object(object))
    }
}

impl Decoder<'_> {
    /// A message, or what stands in its place: `false` and the empty list are what an empty body says.
    fn either(
        &self,
        path: &Path<'_>,
        depth: usize,
        or: Or,
        number: usize,
        wire: Wire<'_>,
    ) -> Result<Value, DecodeError> {
        let fail = |problem| broken(path, problem);
        let (mut one, mut list, mut flag) = (None, Vec::new(), false);
        let mut fields = Reader::new(bytes(wire).map_err(fail)?);
        while let Some((tag, wire)) = fields.next().map_err(fail)? {
            match (or, tag) {
                (Or::Messages | Or::Texts, 1) | (Or::Boolean, 2) => {
                    one = Some(self.value(path, depth, Kind::Message(number), wire, None)?);
                }
                (Or::Messages, 2) => {
                    let at = path.index(list.len());
                    list.push(self.value(&at, below(path, depth)?, Kind::Message(number), wire, None)?);
                }
                (Or::Texts, 2) => list.push(text(wire).map_err(fail)?.into()),
                (Or::Boolean, 1) => flag = wire.integer().unwrap_or(0) != 0,
                _ => {}
            }
        }
        Ok(one.unwrap_or(if or == Or::Boolean { flag.into() } else { list.into() }))
    }
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(flag) => !flag,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(object) => object.is_empty(),
    }
}

fn scalar(kind: Kind, wire: Wire<'_>, depth: usize) -> Result<Value, &'static str> {
    const OTHER: &str = "another wire type than the field's";
    Ok(match kind {
        Kind::Text => text(wire)?.into(),
        Kind::Boolean => (wire.integer().ok_or(OTHER)? != 0).into(),
        Kind::Integer => wire.integer().ok_or(OTHER)?.into(),
        Kind::Number => match wire {
            Wire::Fixed64(bits) => Number::from_f64(f64::from_bits(bits)).map_or(Value::Null, Value::Number),
            _ => return Err(OTHER),
        },
        Kind::Bytes => STANDARD.encode(bytes(wire)?).into(),
        Kind::Time => time(bytes(wire)?, 0)?,
        Kind::MicroTime => time(bytes(wire)?, 6)?,
        Kind::Quantity => first_text(bytes(wire)?)?,
        Kind::IntOrString => int_or_string(bytes(wire)?)?,
        Kind::RawJson => raw_json(bytes(wire)?, depth)?,
        Kind::TextList => text_list(bytes(wire)?)?,
        Kind::Message(_) | Kind::Either(..) => return Err("a message where a plain value is expected"),
    })
}

/// Seconds (1) and nanoseconds (2) since 1970; an empty message is no time at all.
fn time(bytes: &[u8], digits: usize) -> Result<Value, &'static str> {
    let (mut seconds, mut nanoseconds) = (None, 0);
    let mut fields = Reader::new(bytes);
    while let Some((tag, value)) = fields.next()? {
        match tag {
            1 => seconds = value.integer(),
            2 => nanoseconds = value.integer().unwrap_or(0),
            _ => {}
        }
    }
    let Some(seconds) = seconds else {
        return Ok(Value::Null);
    };
    let nanoseconds = i32::try_from(nanoseconds).map_err(|_| "nanoseconds are out of range")?;
    let time = Timestamp::new(seconds, nanoseconds).map_err(|_| "a time is out of range")?;
    Ok(format!("{time:.digits$}").into())
}

fn first_text(bytes: &[u8]) -> Result<Value, &'static str> {
    let mut fields = Reader::new(bytes);
    while let Some((tag, value)) = fields.next()? {
        if tag == 1 {
            return Ok(text(value)?.into());
        }
    }
    Ok(Value::Null)
}

/// Which of the two it is (1: 0 for the number), the number (2), the text (3).
fn int_or_string(bytes: &[u8]) -> Result<Value, &'static str> {
    let (mut is_text, mut number, mut words) = (false, 0, String::new());
    let mut fields = Reader::new(bytes);
    while let Some((tag, value)) = fields.next()? {
        match tag {
            1 => is_text = value.integer() == Some(1),
            2 => number = value.integer().unwrap_or(0),
            3 => words = text(value)?,
            _ => {}
        }
    }
    Ok(if is_text { words.into() } else { number.into() })
}

/// A document inside the document, as JSON text (1), at this depth.
fn raw_json(bytes: &[u8], depth: usize) -> Result<Value, &'static str> {
    let mut fields = Reader::new(bytes);
    while let Some((tag, value)) = fields.next()? {
        if let (1, Wire::Bytes(raw)) = (tag, value) {
            return decode_below(raw, depth + 1).map(|(value, _)| value).map_err(|_| "raw JSON that is none");
        }
    }
    Ok(Value::Null)
}

fn text_list(bytes: &[u8]) -> Result<Value, &'static str> {
    let mut list = Vec::new();
    let mut fields = Reader::new(bytes);
    while let Some((tag, value)) = fields.next()? {
        if tag == 1 {
            list.push(text(value)?.into());
        }
    }
    Ok(Value::Array(list))
}

#[cfg(test)]
#[path = "protobuf_tests.rs"]
mod tests;
