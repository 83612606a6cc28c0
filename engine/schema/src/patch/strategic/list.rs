//! Lists under a strategic merge patch: merged by key, merged as scalars, or replaced; and the order of their items.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

use super::{DELETE_FROM_LIST, Directive, PATCH, RETAIN_KEYS, SET_ELEMENT_ORDER, as_list, merge_object};
use crate::patch::bounds::describe;
use crate::patch::error::PatchError;
use crate::patch::path::Path;
use crate::tree::Schema;

/// The live list with the patch's items merged in, in the order given or else that of the patch.
pub(super) fn merge(
    schema: Option<&Schema>,
    live: &[Value],
    patch: &[Value],
    order: Option<&Value>,
    place: &Path<'_>,
) -> Result<Vec<Value>, PatchError> {
    let strategy = schema.map(Schema::patch_strategy).filter(|strategy| strategy.merge);
    let order = order.map(|order| as_list(order, place)).transpose()?;
    match (schema, strategy.map(|strategy| strategy.merge_key.as_deref())) {
        (Some(schema), Some(Some(key))) => ByKey { schema: schema.inner(), key, place }.merge(live, patch, order),
        (_, Some(None)) => merge_scalars(live, patch, order, place),
        _ => Ok(patch.iter().filter_map(plain).collect()),
    }
}

/// An item of the patch and its position there, for messages.
type NumberedItem<'p> = (usize, &'p Map<String, Value>);

/// A list of objects told apart by one key.
struct ByKey<'a> {
    schema: Option<Schema>,
    key: &'a str,
    place: &'a Path<'a>,
}

impl ByKey<'_> {
    fn merge(&self, live: &[Value], patch: &[Value], order: Option<&[Value]>) -> Result<Vec<Value>, PatchError> {
        let mut merged = live.to_vec();
        let changes = self.directives(&mut merged, patch)?;
        let server: Vec<String> = merged.iter().filter_map(|item| self.key_of(item)).collect();
        let mut positions: HashMap<String, usize> = HashMap::new();
        for (at, item) in merged.iter().enumerate() {
            if let Some(key) = self.key_of(item) {
                positions.entry(key).or_insert(at);
            }
        }
        let mut touched = Vec::with_capacity(changes.len());
        for (at, fields) in changes {
            let place = self.place.item(at);
            let key = self.needed_key(fields, &place)?;
            let position = *positions.entry(key.clone()).or_insert(merged.len());
            if position == merged.len() {
                merged.push(Value::Object(Map::new()));
            }
            if let Value::Object(target) = &mut merged[position] {
                merge_object(self.schema.as_ref(), target, fields, &place)?;
            }
            touched.push(key);
        }
        let wanted = match order {
            Some(order) => self.wanted_order(order, &touched)?,
            None => touched,
        };
        let keys = merged.iter().map(|item| self.key_of(item)).collect();
        Ok(arrange(merged, keys, &wanted, &server))
    }

    /// Does what `$patch` says in items of the patch; the items left are the ones to merge.
    fn directives<'p>(&self, merged: &mut Vec<Value>, patch: &'p [Value]) -> Result<Vec<NumberedItem<'p>>, PatchError> {
        let mut changes = Vec::with_capacity(patch.len());
        let mut gone = HashSet::new();
        let mut replace = false;
        for (at, item) in patch.iter().enumerate() {
            let place = self.place.item(at);
            let fields = item.as_object().ok_or_else(|| PatchError::WrongType {
                field: place.to_string(),
                expected: "an object",
                found: describe(item),
            })?;
            match Directive::of(fields, &place)? {
                Directive::Merge => changes.push((at, fields)),
                Directive::Replace => replace = true,
                Directive::Delete => drop(gone.insert(self.needed_key(fields, &place)?)),
            }
        }
        merged.retain(|item| !replace && self.key_of(item).is_none_or(|key| !gone.contains(&key)));
        Ok(changes)
    }

    fn key_of(&self, item: &Value) -> Option<String> {
        item.get(self.key).filter(|key| !key.is_null()).map(Value::to_string)
    }

    fn needed_key(&self, fields: &Map<String, Value>, place: &Path<'_>) -> Result<String, PatchError> {
        let missing = || PatchError::MissingKey { field: place.to_string(), key: self.key.to_owned() };
        fields.get(self.key).filter(|key| !key.is_null()).map(Value::to_string).ok_or_else(missing)
    }

    fn wanted_order(&self, order: &[Value], touched: &[String]) -> Result<Vec<String>, PatchError> {
        let key = |item: &Value| {
            let missing = || PatchError::MissingKey {
                field: format!("{} in $setElementOrder", self.place),
                key: self.key.to_owned(),
            };
            self.key_of(item).ok_or_else(missing)
        };
        let wanted = order.iter().map(key).collect::<Result<Vec<_>, _>>()?;
        check_order(&wanted, touched, self.place)?;
        Ok(wanted)
    }
}

fn merge_scalars(
    live: &[Value],
    patch: &[Value],
    order: Option<&[Value]>,
    place: &Path<'_>,
) -> Result<Vec<Value>, PatchError> {
    for (at, item) in patch.iter().enumerate() {
        if item.is_object() || item.is_array() || item.is_null() {
            let (field, expected) = (place.item(at).to_string(), "a string, a number or a boolean");
            return Err(PatchError::WrongType { field, expected, found: describe(item) });
        }
    }
    let mut seen = HashSet::new();
    let merged: Vec<Value> = live.iter().chain(patch).filter(|item| seen.insert(item.to_string())).cloned().collect();
    let texts = |items: &[Value]| items.iter().map(Value::to_string).collect::<Vec<_>>();
    let wanted = order.map_or_else(|| texts(patch), texts);
    if order.is_some() {
        check_order(&wanted, &texts(patch), place)?;
    }
    let keys = merged.iter().map(|item| Some(item.to_string())).collect();
    Ok(arrange(merged, keys, &wanted, &texts(live)))
}

/// The touched items must stand in the wanted order, all of them; an empty order wants nothing.
fn check_order(wanted: &[String], touched: &[String], place: &Path<'_>) -> Result<(), PatchError> {
    let mut rest = wanted.iter();
    if wanted.is_empty() || touched.iter().all(|key| rest.any(|next| next == key)) {
        return Ok(());
    }
    Err(PatchError::OrderMismatch { field: place.to_string() })
}

/// Puts the wanted items in their order and the others, in their own order, in front of the first wanted item that
/// they preceded on the server.
fn arrange(items: Vec<Value>, keys: Vec<Option<String>>, wanted: &[String], server: &[String]) -> Vec<Value> {
    let ranks = |order: &[String]| {
        let mut ranks = HashMap::new();
        for (rank, key) in order.iter().enumerate() {
            ranks.entry(key.clone()).or_insert(rank);
        }
        ranks
    };
    let (wanted, server) = (ranks(wanted), ranks(server));
    let rank =
        |ranks: &HashMap<String, usize>, key: &Option<String>| key.as_ref().and_then(|key| ranks.get(key)).copied();
    let placed = items.into_iter().zip(keys).map(|(item, key)| (rank(&wanted, &key), rank(&server, &key), item));
    let (mut first, others): (Vec<_>, Vec<_>) = placed.partition(|(wanted, _, _)| wanted.is_some());
    first.sort_by_key(|(wanted, _, _)| *wanted);
    let mut arranged = Vec::with_capacity(first.len() + others.len());
    let mut others = others.into_iter().peekable();
    for (_, at, item) in first {
        while let Some((_, _, other)) =
            others.next_if(|(_, other, _)| other.zip(at).is_some_and(|(other, at)| other < at))
        {
            arranged.push(other);
        }
        arranged.push(item);
    }
    arranged.extend(others.map(|(_, _, item)| item));
    arranged
}

/// A new value without directives and nulls; `None` for what a directive alone would have deleted.
fn plain(value: &Value) -> Option<Value> {
    match value {
        Value::Object(fields) => {
            let deleted = fields.get(PATCH).is_some_and(|directive| directive == "delete" || fields.len() == 1);
            let kept = fields.iter().filter(|(name, inner)| !is_directive(name) && !inner.is_null());
            let kept = kept.filter_map(|(name, inner)| Some((name.clone(), plain(inner)?)));
            (!deleted).then(|| Value::Object(kept.collect()))
        }
        Value::Array(items) => Some(Value::Array(items.iter().filter_map(plain).collect())),
        scalar => Some(scalar.clone()),
    }
}

fn is_directive(name: &str) -> bool {
    name == PATCH || name == RETAIN_KEYS || name.starts_with(SET_ELEMENT_ORDER) || name.starts_with(DELETE_FROM_LIST)
}
