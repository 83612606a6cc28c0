//! One write of one object as one transaction of the store: the object, the condition on its revision, and the addresses
//! and ports it takes or gives back.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;
use shipway_schema::Resource;
use shipway_store::{KeyValue, Revision, Store, Txn};

use crate::admission::Charge;
use crate::allocate::claims;
use crate::cache::{CLAIMS, Table};
use crate::error::{About, ApiError};
use crate::object::{Object, canonical};

/// Where an object lives.
#[derive(Clone)]
pub(crate) struct Place {
    /// The version of the kind that the request speaks.
    pub(crate) resource: Arc<Resource>,
    pub(crate) table: Arc<Table>,
    pub(crate) namespace: Option<String>,
    pub(crate) name: String,
}

impl Place {
    pub(crate) fn resource(&self) -> &Arc<Resource> {
        &self.resource
    }

    /// The key within the table.
    pub(crate) fn key(&self) -> String {
        match &self.namespace {
            Some(namespace) => format!("{namespace}/{}", self.name),
            None => self.name.clone(),
        }
    }

    pub(crate) fn store_key(&self) -> Bytes {
        format!("{}{}", self.table.prefix, self.key()).into()
    }

    /// How failures name the object.
    pub(crate) fn about(&self) -> About {
        let resource = self.resource();
        About { group: resource.group.to_string(), resource: resource.plural.to_string(), name: self.name.clone() }
    }

    /// How validation failures name the object: by its kind.
    pub(crate) fn about_kind(&self) -> About {
        About { resource: self.resource().kind.to_string(), ..self.about() }
    }
}

/// A write that depends on what was read before it.
pub(crate) struct Write<'a> {
    pub(crate) place: &'a Place,
    /// The revision the object must still have; 0 when it must not exist.
    pub(crate) expected: Revision,
    pub(crate) old: Option<&'a Value>,
    /// What to store; none deletes.
    pub(crate) new: Option<&'a Value>,
    /// Other keys that must not have changed either.
    pub(crate) guards: &'a [(Bytes, Revision)],
    /// What quotas of the namespace say once the write is done.
    pub(crate) charge: &'a Charge,
}

/// How a write ended.
pub(crate) enum Outcome {
    /// It is durable; this is what was stored, or, under the deletion's revision, what was deleted.
    Done(Arc<Object>),
    /// The object is not what it was; this is what it is.
    Raced(Option<KeyValue>),
    /// A guard changed.
    GuardMoved,
    /// Somebody else has these addresses or ports.
    Taken(Vec<String>),
}

impl Write<'_> {
    /// Commits, or says what stood against it.
    pub(crate) async fn commit(&self, store: &dyn Store) -> Result<Outcome, ApiError> {
        let key = self.place.store_key();
        let (before, after) = (self.old.map(claims).unwrap_or_default(), self.new.map(claims).unwrap_or_default());
        let taken: Vec<&String> = after.difference(&before).collect();
        let mut txn = Txn::new().when(key.clone(), self.expected);
        for (guard, revision) in self.guards {
            txn = txn.when(guard.clone(), *revision);
        }
        for claim in &taken {
            txn = txn.when(claim_key(claim), 0).put(claim_key(claim), key.clone());
        }
        for claim in before.difference(&after) {
            txn = txn.delete(claim_key(claim));
        }
        for (counted, revision) in &self.charge.guards {
            txn = txn.when(counted.clone(), *revision);
        }
        for (counted, value) in &self.charge.writes {
            txn = txn.put(counted.clone(), value.clone());
        }
        let new = self.new.map(|object| Bytes::from(canonical(object)));
        txn = match &new {
            Some(value) => txn.put(key, value.clone()),
            None => txn.delete(key),
        };
        let result = store.txn(txn).await?;
        if !result.succeeded {
            return Ok(self.obstacle(result.current, &taken));
        }
        let value = new.or_else(|| self.old.map(|object| canonical(object).into())).unwrap_or_default();
        let object = Object::stored(&self.place.key(), value, result.revision);
        object.map(|object| Outcome::Done(Arc::new(object))).map_err(ApiError::Internal)
    }

    fn obstacle(&self, current: Vec<Option<KeyValue>>, taken: &[&String]) -> Outcome {
        let revision = |kv: &Option<KeyValue>| kv.as_ref().map_or(0, |kv| kv.mod_revision);
        let mut current = current.into_iter();
        let object = current.next().flatten();
        if revision(&object) != self.expected {
            return Outcome::Raced(object);
        }
        let moved = |(_, expected): &(Bytes, Revision)| current.next().is_none_or(|kv| revision(&kv) != *expected);
        // Each has its place in what the store answers, so none is left out.
        if self.guards.iter().map(moved).fold(false, |any, moved| any | moved) {
            return Outcome::GuardMoved;
        }
        let lost = taken.iter().zip(&mut current).filter(|(_, kv)| kv.is_some());
        let lost: Vec<String> = lost.map(|(claim, _)| (*claim).clone()).collect();
        // What is left are the quotas, whose counts have moved where nothing else has.
        if lost.is_empty() { Outcome::GuardMoved } else { Outcome::Taken(lost) }
    }
}

fn claim_key(claim: &str) -> Bytes {
    format!("{CLAIMS}{claim}").into()
}

/// The claims of a set of objects' differences are few; a sorted set keeps transactions the same for the same input.
pub(crate) type Claims = BTreeSet<String>;
