//! What is particular to a kind: its defaults, what a write may not touch, what it must satisfy, how it is deleted.
//!
//! A strategy is a set of pure functions over documents. It sees documents that are pruned, of the right types and
//! filled with the schema's defaults; it reads no clock and no other object.

pub(crate) mod checks;
mod cluster;
mod data;
mod endpoints;
pub(crate) mod metadata;
mod pod;
mod service;
mod workload;

use std::sync::Arc;

use serde_json::Value;

use crate::invalid::FieldError;
use crate::lookup;

/// The particulars of one kind; the defaults fit a kind without any.
pub trait Strategy: Send + Sync {
    /// Fills in what is not given, after the schema's own defaults. Doing it twice changes nothing.
    fn default(&self, _object: &mut Value) {}

    /// Removes what a creator may not decide, such as a status.
    fn prepare_create(&self, _object: &mut Value) {}

    /// Restores what an update of the object itself (not of a subresource) may not change.
    fn prepare_update(&self, _object: &mut Value, _old: &Value) {}

    /// What is wrong with an object about to be written; `old` is there when it replaces one.
    fn validate(&self, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
        let mut errors = Vec::new();
        metadata::validate(object, old, checks::dns_subdomain, &mut errors);
        errors
    }

    /// The seconds of grace a deletion grants when `asked` were asked for: `None` for kinds that are deleted at once,
    /// `Some(0)` for an object of a graceful kind that need not wait.
    fn graceful_deletion(&self, _object: &Value, _asked: Option<i64>) -> Option<i64> {
        None
    }
}

struct Plain;

impl Strategy for Plain {}

/// A kind without particulars.
pub(crate) fn plain() -> Arc<dyn Strategy> {
    Arc::new(Plain)
}

pub(crate) fn config_map() -> Arc<dyn Strategy> {
    Arc::new(data::ConfigMap)
}

pub(crate) fn custom_resource_definition() -> Arc<dyn Strategy> {
    Arc::new(crate::custom::Definition)
}

pub(crate) fn deployment() -> Arc<dyn Strategy> {
    Arc::new(workload::Deployment)
}

pub(crate) fn endpoint_slice() -> Arc<dyn Strategy> {
    Arc::new(endpoints::EndpointSlice)
}

pub(crate) fn endpoints() -> Arc<dyn Strategy> {
    Arc::new(endpoints::Endpoints)
}

pub(crate) fn event() -> Arc<dyn Strategy> {
    Arc::new(cluster::Event)
}

pub(crate) fn lease() -> Arc<dyn Strategy> {
    Arc::new(cluster::Lease)
}

pub(crate) fn namespace() -> Arc<dyn Strategy> {
    Arc::new(cluster::Namespace)
}

pub(crate) fn node() -> Arc<dyn Strategy> {
    Arc::new(cluster::Node)
}

pub(crate) fn pod() -> Arc<dyn Strategy> {
    Arc::new(pod::Pod)
}

pub(crate) fn replica_set() -> Arc<dyn Strategy> {
    Arc::new(workload::ReplicaSet)
}

pub(crate) fn secret() -> Arc<dyn Strategy> {
    Arc::new(data::Secret)
}

pub(crate) fn service() -> Arc<dyn Strategy> {
    Arc::new(service::Service)
}

/// Gives a top-level field of `object` the value it has in `old`, or removes it.
fn keep(object: &mut Value, old: &Value, name: &str) {
    match old.get(name) {
        Some(value) => lookup::set(object, name, value.clone()),
        None => {
            lookup::remove(object, name);
        }
    }
}

const IMMUTABLE: &str = "field is immutable";

#[cfg(test)]
pub(crate) mod testing {
    //! Running an object through the whole write path, for the tests of the kinds.

    use serde_json::Value;

    use crate::registry::shared;
    use crate::{apply_defaults, check_types, prune};

    /// Prunes, checks, defaults and validates; gives the object and what is wrong as `field: message`.
    pub(crate) fn admit(mut object: Value, old: Option<&Value>) -> (Value, Vec<String>) {
        let registry = shared();
        let kind = |name: &str| object[name].as_str().expect("the object names its kind").to_owned();
        let resource = registry.of_kind(&kind("apiVersion"), &kind("kind")).expect("served");
        assert_eq!(prune(resource.schema(), &mut object), Vec::<String>::new());
        assert_eq!(check_types(resource.schema(), &object), []);
        apply_defaults(resource.schema(), &mut object);
        resource.strategy().default(&mut object);
        match old {
            Some(old) => resource.strategy().prepare_update(&mut object, old),
            None => resource.strategy().prepare_create(&mut object),
        }
        let once = object.clone();
        apply_defaults(resource.schema(), &mut object);
        resource.strategy().default(&mut object);
        assert_eq!(once, object, "defaulting twice changes nothing more");
        let errors = resource.strategy().validate(&object, old).iter().map(ToString::to_string).collect();
        (object, errors)
    }

    /// An object that has to be valid.
    pub(crate) fn valid(object: Value) -> Value {
        let (object, errors) = admit(object, None);
        assert_eq!(errors, Vec::<String>::new());
        object
    }

    /// What is wrong with a new object.
    pub(crate) fn errors(object: Value) -> Vec<String> {
        admit(object, None).1
    }
}
