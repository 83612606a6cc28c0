//! Seeds changed a little, or beyond recognition: trees of JSON by their nodes, bytes by their bytes.

use fastrand::Rng;
use serde_json::{Map, Value, json};

use super::corpus::{KEYS, TEXTS, TOKENS};

/// The longest that mutated bytes grow.
const BYTES_MAX: usize = 4096;

/// Changes one to four places of a tree; `other` lends parts of itself.
pub fn tree(rng: &mut Rng, value: &mut Value, other: &Value) {
    for _ in 0..=rng.u32(0..4) {
        let place = random_place(rng, value);
        change(rng, place, other);
    }
}

fn random_place<'a>(rng: &mut Rng, value: &'a mut Value) -> &'a mut Value {
    let size = match value {
        Value::Object(fields) => fields.len(),
        Value::Array(items) => items.len(),
        _ => 0,
    };
    if size == 0 || rng.u32(0..5) == 0 {
        return value;
    }
    let at = rng.usize(0..size);
    let inner = match value {
        Value::Object(fields) => fields.values_mut().nth(at),
        Value::Array(items) => items.get_mut(at),
        _ => None,
    };
    random_place(rng, inner.expect("the place was chosen among those there are"))
}

fn change(rng: &mut Rng, place: &mut Value, other: &Value) {
    match rng.u32(0..16) {
        0..=3 => *place = scalar(rng),
        4 => *place = part_of(rng, other).clone(),
        5 => *place = arbitrary(rng, 3),
        6 => *place = json!([place.take()]),
        7 => *place = Value::Object(Map::from_iter([(key(rng), place.take())])),
        8 if rng.u32(0..8) == 0 => *place = nested(rng, place.take()),
        _ => change_inside(rng, place, other),
    }
}

fn change_inside(rng: &mut Rng, place: &mut Value, other: &Value) {
    match place {
        Value::Object(fields) => change_fields(rng, fields, other),
        Value::Array(items) => change_items(rng, items, other),
        Value::String(text) => {
            let mut bytes = std::mem::take(text).into_bytes();
            self::bytes(rng, &mut bytes, b"");
            *text = String::from_utf8_lossy(&bytes).into_owned();
        }
        scalar => *scalar = self::scalar(rng),
    }
}

fn change_fields(rng: &mut Rng, fields: &mut Map<String, Value>, other: &Value) {
    let chosen = (!fields.is_empty()).then(|| rng.usize(0..fields.len()));
    let name = chosen.and_then(|at| fields.keys().nth(at).cloned());
    match (rng.u32(0..4), name) {
        (0, Some(name)) => drop(fields.shift_remove(&name)),
        (1, Some(name)) => {
            let value = fields.shift_remove(&name).unwrap_or_default();
            fields.insert(key(rng), value);
        }
        (2, _) => drop(fields.insert(key(rng), part_of(rng, other).clone())),
        _ => drop(fields.insert(key(rng), arbitrary(rng, 2))),
    }
}

fn change_items(rng: &mut Rng, items: &mut Vec<Value>, other: &Value) {
    let at = rng.usize(0..=items.len());
    match rng.u32(0..5) {
        0 if at < items.len() => drop(items.remove(at)),
        1 if at < items.len() => items.insert(at, items[at].clone()),
        2 => rng.shuffle(items),
        3 => items.insert(at, part_of(rng, other).clone()),
        _ => items.insert(at, arbitrary(rng, 2)),
    }
}

fn part_of<'a>(rng: &mut Rng, value: &'a Value) -> &'a Value {
    let children: Vec<&Value> = match value {
        Value::Object(fields) => fields.values().collect(),
        Value::Array(items) => items.iter().collect(),
        _ => Vec::new(),
    };
    match rng.choice(children) {
        Some(inner) if rng.u32(0..4) > 0 => part_of(rng, inner),
        _ => value,
    }
}

/// Any JSON of so many levels at most.
pub fn arbitrary(rng: &mut Rng, levels: u32) -> Value {
    match rng.u32(0..4) {
        0 if levels > 0 => (0..rng.u32(0..4)).map(|_| (key(rng), arbitrary(rng, levels - 1))).collect(),
        1 if levels > 0 => (0..rng.u32(0..4)).map(|_| arbitrary(rng, levels - 1)).collect(),
        _ => scalar(rng),
    }
}

/// The value at the bottom of up to 130 levels.
fn nested(rng: &mut Rng, value: Value) -> Value {
    let name = key(rng);
    let lists = rng.bool();
    let wrap = |inner| if lists { json!([inner]) } else { Value::Object(Map::from_iter([(name.clone(), inner)])) };
    (0..rng.u32(0..130)).fold(value, |inner, _| wrap(inner))
}

fn scalar(rng: &mut Rng) -> Value {
    match rng.u32(0..8) {
        0 => Value::Null,
        1 => rng.bool().into(),
        2 => rng.i64(-2..90).into(),
        3 => rng.choice([json!(i64::MIN), json!(u64::MAX), json!(1.5), json!(-0.0), json!(1e300)]).unwrap_or_default(),
        _ => pick(rng, TEXTS).into(),
    }
}

fn key(rng: &mut Rng) -> String {
    if rng.u32(0..16) == 0 { pick(rng, TEXTS) } else { pick(rng, KEYS) }.to_owned()
}

fn pick<'a>(rng: &mut Rng, from: &[&'a str]) -> &'a str {
    from[rng.usize(0..from.len())]
}

/// Changes JSON in place as a tree, within the room there is; `None` for what is no JSON or would not fit. For libFuzzer.
pub fn tree_in_place(data: &mut [u8], size: usize, seed: u32) -> Option<usize> {
    let mut rng = Rng::with_seed(seed.into());
    let mut value: Value = serde_json::from_slice(data.get(..size)?).ok()?;
    let other = value.clone();
    tree(&mut rng, &mut value, &other);
    let written = value.to_string();
    data.get_mut(..written.len())?.copy_from_slice(written.as_bytes());
    Some(written.len())
}

/// Changes one to four places of some bytes; `other` lends parts of itself.
pub fn bytes(rng: &mut Rng, value: &mut Vec<u8>, other: &[u8]) {
    for _ in 0..=rng.u32(0..4) {
        let at = rng.usize(0..=value.len());
        let end = value.len().min(at + rng.usize(0..16));
        match rng.u32(0..9) {
            0 if at < value.len() => value[at] ^= 1 << rng.u32(0..8),
            1 if at < value.len() => value[at] = rng.u8(..),
            2 => drop(value.splice(at..at, [rng.u8(..)])),
            3 => drop(value.drain(at..end)),
            4 => {
                let again = value[at..end].to_vec();
                value.splice(at..at, again);
            }
            5 | 6 => drop(value.splice(at..at, pick(rng, TOKENS).bytes())),
            7 if !other.is_empty() => {
                let from = rng.usize(0..other.len());
                let to = other.len().min(from + rng.usize(0..64));
                value.splice(at..at, other[from..to].iter().copied());
            }
            8 if rng.u32(0..8) == 0 => value.truncate(at),
            _ => {}
        }
    }
    value.truncate(BYTES_MAX);
}

/// A protobuf message of random fields, some of them messages themselves.
pub fn message(rng: &mut Rng, levels: u32) -> Vec<u8> {
    let mut message = Vec::new();
    for _ in 0..rng.u32(0..6) {
        let tag = rng.u64(1..20);
        match rng.u32(0..8) {
            0 => write_varint(&mut message, &[tag << 3, rng.u64(..) >> rng.u32(0..64)]),
            1 => {
                write_varint(&mut message, &[tag << 3 | 1]);
                message.extend(rng.u64(..).to_le_bytes());
            }
            2 => write_bytes(&mut message, tag, pick(rng, TEXTS).as_bytes()),
            _ if levels == 0 => write_bytes(&mut message, tag, pick(rng, KEYS).as_bytes()),
            _ => {
                let inner = self::message(rng, levels - 1);
                write_bytes(&mut message, tag, &inner);
            }
        }
    }
    message
}

/// A message in the envelope that names its kind.
pub fn envelope(api_version: &str, kind: &str, message: &[u8]) -> Vec<u8> {
    let mut head = Vec::new();
    write_bytes(&mut head, 1, api_version.as_bytes());
    write_bytes(&mut head, 2, kind.as_bytes());
    let mut body = b"k8s\0".to_vec();
    write_bytes(&mut body, 1, &head);
    write_bytes(&mut body, 2, message);
    body
}

fn write_varint(into: &mut Vec<u8>, numbers: &[u64]) {
    for number in numbers {
        let mut number = *number;
        while number >= 0x80 {
            into.push(number.to_le_bytes()[0] | 0x80);
            number >>= 7;
        }
        into.push(number.to_le_bytes()[0]);
    }
}

/// One field of text, bytes or a message.
pub fn write_bytes(into: &mut Vec<u8>, tag: u64, bytes: &[u8]) {
    write_varint(into, &[tag << 3 | 2, bytes.len() as u64]);
    into.extend_from_slice(bytes);
}
