//! JSON to a document, with the paths of keys that occur twice; of those the last one counts, as everywhere.

use std::cell::{Cell, RefCell};
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::{MAX_BODY, MAX_DEPTH};
use crate::error::DecodeError;
use crate::path::Path;

/// How many bytes of paths are noted of keys that stand twice: below one long key they would multiply the body.
const NOTED_MAX: usize = 64 << 10;

/// Reads one JSON document. The second part names the keys that stand twice in the same object, such as
/// `spec.replicas`. Fails on bodies over [`MAX_BODY`] bytes and values nested deeper than [`MAX_DEPTH`].
pub fn decode_json(body: &[u8]) -> Result<(Value, Vec<String>), DecodeError> {
    if body.len() > MAX_BODY {
        return Err(DecodeError::TooLarge { size: body.len(), limit: MAX_BODY });
    }
    decode_below(body, 0)
}

/// Reads a JSON document that stands so many levels deep in another one.
pub(super) fn decode_below(body: &[u8], depth: usize) -> Result<(Value, Vec<String>), DecodeError> {
    let notes = Notes::default();
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let read = Document { path: Path::Root, depth, notes: &notes }.deserialize(&mut deserializer);
    if let Some(path) = notes.too_deep.take() {
        return Err(DecodeError::TooDeep { path, limit: MAX_DEPTH });
    }
    let value = read?;
    deserializer.end()?;
    Ok((value, notes.duplicates.into_inner()))
}

/// What is noticed on the way.
#[derive(Default)]
struct Notes {
    duplicates: RefCell<Vec<String>>,
    noted: Cell<usize>,
    too_deep: Cell<Option<String>>,
}

impl Notes {
    fn duplicate(&self, path: Path<'_>) {
        if self.noted.get() < NOTED_MAX {
            let path = path.to_string();
            self.noted.set(self.noted.get() + path.len());
            self.duplicates.borrow_mut().push(path);
        }
    }
}

#[derive(Clone, Copy)]
struct Document<'a> {
    path: Path<'a>,
    depth: usize,
    notes: &'a Notes,
}

impl<'a> Document<'a> {
    fn inner<'b>(&self, path: Path<'b>) -> Document<'b>
    where
        'a: 'b,
    {
        Document { path, depth: self.depth + 1, notes: self.notes }
    }

    fn descend<E: Error>(&self) -> Result<(), E> {
        if self.depth < MAX_DEPTH {
            return Ok(());
        }
        self.notes.too_deep.set(Some(self.path.to_string()));
        Err(E::custom("nested too deeply"))
    }
}

impl<'de> DeserializeSeed<'de> for Document<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Document<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        self.descend()?;
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(self.inner(self.path.index(list.len())))? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        self.descend()?;
        let mut object = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            let path = self.path.field(&key);
            let value = entries.next_value_seed(self.inner(path))?;
            if object.contains_key(&key) {
                self.notes.duplicate(path);
            }
            object.insert(key, value);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_key_that_stands_twice_is_named_and_the_last_one_counts() {
        let body = br#"{"spec":{"replicas":1,"replicas":2,"containers":[{"name":"a","name":"b"}]}}"#;
        let (value, duplicates) = decode_json(body).expect("it is JSON");
        assert_eq!(value, json!({ "spec": { "replicas": 2, "containers": [{ "name": "b" }] } }));
        assert_eq!(duplicates, ["spec.replicas", "spec.containers[0].name"]);
    }

    #[test]
    fn depth_and_size_are_bounded() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(decode_json(nested(MAX_DEPTH).as_bytes()).is_ok());
        assert!(matches!(decode_json(nested(MAX_DEPTH + 1).as_bytes()), Err(DecodeError::TooDeep { .. })));
        assert!(matches!(decode_json(nested(100_000).as_bytes()), Err(DecodeError::TooDeep { .. })));
        assert!(matches!(decode_json(&vec![b' '; MAX_BODY + 1]), Err(DecodeError::TooLarge { .. })));
    }

    #[test]
    fn duplicates_below_a_long_key_do_not_multiply_the_body() {
        let inner = vec![r#""a":1"#; 20_000].join(",");
        let body = format!("{{\"{}\":{{{inner}}}}}", "k".repeat(1 << 20));
        let (_, duplicates) = decode_json(body.as_bytes()).expect("it is JSON");
        assert!(duplicates.iter().map(String::len).sum::<usize>() < 2 << 20);
    }

    #[test]
    fn what_follows_the_document_is_refused() {
        assert!(matches!(decode_json(b"{} {}"), Err(DecodeError::Json(_))));
        assert!(matches!(decode_json(b""), Err(DecodeError::Json(_))));
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            "\\PC{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(6, 64, 8, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
                prop::collection::btree_map("\\PC{0,6}", inner, 0..8)
                    .prop_map(|entries| Value::Object(entries.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_was_written_is_read_back(value in any_json()) {
            let (read, duplicates) = decode_json(value.to_string().as_bytes()).expect("it was written as JSON");
            prop_assert_eq!(read, value);
            prop_assert!(duplicates.is_empty());
        }

        #[test]
        fn no_bytes_make_it_panic(body in prop::collection::vec(any::<u8>(), 0..256)) {
            drop(decode_json(&body));
        }
    }
}
