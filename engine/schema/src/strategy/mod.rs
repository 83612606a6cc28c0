//! What is particular to a kind: its defaults, what a write may not touch, what it must satisfy, how it is deleted.
//!
//! A strategy is a set of pure functions over documents. It sees documents that are pruned, of the right types and
//! filled with the schema's defaults; it reads no clock and no other object.

mod admission;
mod autoscaling;
mod batch;
pub(crate) mod below;
pub(crate) mod checks;
mod claim;
mod cluster;
mod data;
mod device;
mod disruption;
mod endpoints;
mod extension;
mod flow;
mod ingress;
pub(crate) mod metadata;
mod network;
mod pod;
mod quota;
mod roles;
mod rules;
mod scheduling;
mod service;
mod signing;
pub(crate) mod status;
mod storage;
mod volume;
mod workload;

pub use pod::validate_ephemeral_containers;

use std::sync::Arc;

use serde_json::Value;

use crate::invalid::FieldError;
use crate::lookup;
use rules::Declared;

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

    /// What is wrong with an object of which a subresource (`status`, `approval`, `resize`, ...) is about to be written.
    fn validate_below(&self, _subresource: &str, object: &Value, _old: &Value) -> Vec<FieldError> {
        status::conditions(object)
    }

    /// Which changes are a new generation.
    fn generations(&self) -> Generations {
        Generations::None
    }

    /// The seconds of grace a deletion grants when `asked` were asked for: `None` for kinds that are deleted at once,
    /// `Some(0)` for an object of a graceful kind that need not wait.
    fn graceful_deletion(&self, _object: &Value, _asked: Option<i64>) -> Option<i64> {
        None
    }

    /// A kind whose dependents outlive it unless a deletion says otherwise: the warning that goes with that.
    fn orphans(&self) -> Option<&'static str> {
        None
    }
}

/// A kind without particulars.
pub(crate) static PLAIN: Declared = Declared::PLAIN;

pub(crate) use admission::{
    MUTATING_POLICY, MUTATING_POLICY_BINDING, MUTATING_WEBHOOKS, VALIDATING_POLICY, VALIDATING_POLICY_BINDING,
    VALIDATING_WEBHOOKS,
};
pub(crate) use autoscaling::{AUTOSCALER, AUTOSCALER_V1};
pub(crate) use batch::{CRON_JOB, JOB};
pub(crate) use claim::CLAIM;
pub(crate) use cluster::{Event, Lease, NEW_EVENT, Namespace, Node};
pub(crate) use data::{ConfigMap, Secret};
pub(crate) use device::{DEVICE_CLASS, RESOURCE_CLAIM, RESOURCE_CLAIM_TEMPLATE, RESOURCE_SLICE};
pub(crate) use disruption::DISRUPTION_BUDGET;
pub(crate) use endpoints::{EndpointSlice, Endpoints};
pub(crate) use extension::{API_SERVICE, client};
pub(crate) use flow::{FLOW_SCHEMA, PRIORITY_LEVEL};
pub(crate) use ingress::{INGRESS, INGRESS_CLASS};
pub(crate) use network::{IP_ADDRESS, NETWORK_POLICY, SERVICE_CIDR};
pub(crate) use pod::Pod;
pub(crate) use quota::{LIMIT_RANGE, QUOTA};
pub(crate) use roles::{CLUSTER_ROLE, CLUSTER_ROLE_BINDING, ROLE, ROLE_BINDING};
pub use rules::Generations;
pub(crate) use scheduling::{PRIORITY_CLASS, RUNTIME_CLASS};
pub(crate) use service::Service;
pub(crate) use signing::SIGNING_REQUEST;
pub(crate) use storage::{
    CSI_DRIVER, CSI_NODE, CSI_STORAGE_CAPACITY, STORAGE_CLASS, VOLUME_ATTACHMENT, VOLUME_ATTRIBUTES_CLASS,
};
pub(crate) use volume::VOLUME;
pub(crate) use workload::{
    CONTROLLER_REVISION, DAEMON_SET, DEPLOYMENT, POD_TEMPLATE, REPLICA_SET, REPLICATION_CONTROLLER, STATEFUL_SET,
};

/// A strategy that is compiled in.
struct Builtin(&'static dyn Strategy);

/// What a row names, as a resource holds it.
pub(crate) fn of(builtin: &'static dyn Strategy) -> Arc<dyn Strategy> {
    Arc::new(Builtin(builtin))
}

impl Strategy for Builtin {
    fn default(&self, object: &mut Value) {
        self.0.default(object);
    }

    fn prepare_create(&self, object: &mut Value) {
        self.0.prepare_create(object);
    }

    fn prepare_update(&self, object: &mut Value, old: &Value) {
        self.0.prepare_update(object, old);
    }

    fn validate(&self, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
        self.0.validate(object, old)
    }

    fn validate_below(&self, subresource: &str, object: &Value, old: &Value) -> Vec<FieldError> {
        self.0.validate_below(subresource, object, old)
    }

    fn generations(&self) -> Generations {
        self.0.generations()
    }

    fn orphans(&self) -> Option<&'static str> {
        self.0.orphans()
    }

    fn graceful_deletion(&self, object: &Value, asked: Option<i64>) -> Option<i64> {
        self.0.graceful_deletion(object, asked)
    }
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

    /// The fields that errors are about.
    pub(crate) fn fields(errors: &[String]) -> Vec<&str> {
        errors.iter().map(|error| error.split(": ").next().expect("split yields a part")).collect()
    }

    /// What is wrong with a new object.
    pub(crate) fn errors(object: Value) -> Vec<String> {
        admit(object, None).1
    }
}
