//! Admission: what is decided about a write beyond its own fields, by one ordered chain that every write passes.
//!
//! The order is Kubernetes': built-in plugins that change the object, policies and then webhooks that change it, (the kind's
//! own validation, which is the caller's,) built-in plugins that refuse, policies, webhooks that refuse, and last, at the
//! commit, quotas.
//! Plugins are rows of two tables. What nobody configured costs a look at a counter.

// Plugins are rows of a table, whether they can fail or not.
#![allow(clippy::unnecessary_wraps)]

mod certificates;
mod change;
mod classes;
mod connect;
mod expression;
mod index;
mod limits;
mod namespace;
mod node;
mod pod_security;
mod policy;
mod priority;
mod protection;
mod quota;
mod request;
mod resources;
mod review;
mod rules;
mod runtime_class;
mod service_account;
mod token_volume;
mod tolerations;
mod webhooks;

use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;
use shipway_schema::Resource;
use shipway_store::Txn;

pub(crate) use connect::{connect, parameters};
pub(crate) use namespace::{mark_terminating, namespace_guard};
pub(crate) use node::restrict;
pub(crate) use quota::{Charge, charge, recount_all};
pub(crate) use request::{Operation, Request};

use crate::ApiServer;
use crate::cache::{Cache, Table};
use crate::call::Call;
use crate::commit::Place;
use crate::error::ApiError;
use crate::object::{Object, canonical};

/// The group of what configures admission.
const GROUP: &str = "admissionregistration.k8s.io";

/// What the chain keeps between requests.
pub(crate) struct Chain {
    tables: Tables,
    turns: quota::Turns,
    index: index::Index,
    /// For how long pods that say nothing stay on a node that is lost.
    toleration_seconds: u32,
}

/// Where the objects are that decide about others.
struct Tables {
    accounts: Arc<Table>,
    ingress_classes: Arc<Table>,
    limit_ranges: Arc<Table>,
    pods: Arc<Table>,
    priority_classes: Arc<Table>,
    quotas: Arc<Table>,
    runtime_classes: Arc<Table>,
    storage_classes: Arc<Table>,
}

impl Chain {
    pub(crate) fn new(cache: &Cache, toleration_seconds: u32) -> Self {
        let table = |group: &str, plural: &str| cache.named(group, plural);
        let tables = Tables {
            accounts: table("core", "serviceaccounts"),
            ingress_classes: table("networking.k8s.io", "ingressclasses"),
            limit_ranges: table("core", "limitranges"),
            pods: table("core", "pods"),
            priority_classes: table("scheduling.k8s.io", "priorityclasses"),
            quotas: table("core", "resourcequotas"),
            runtime_classes: table("node.k8s.io", "runtimeclasses"),
            storage_classes: table("storage.k8s.io", "storageclasses"),
        };
        Self { tables, turns: quota::Turns::default(), index: index::Index::new(cache), toleration_seconds }
    }
}

/// A built-in plugin's interest in a kind.
struct Row<F> {
    group: &'static str,
    kind: &'static str,
    on: &'static [Operation],
    /// Below the object, too.
    below: bool,
    run: F,
}

impl<F> Row<F> {
    fn concerns(&self, request: &Request<'_>) -> bool {
        request.is(self.group, self.kind)
            && (self.below || request.subresource.is_empty())
            && self.on.contains(&request.operation)
    }
}

const fn row<F: Copy>(group: &'static str, kind: &'static str, on: &'static [Operation], run: F) -> Row<F> {
    Row { group, kind, on, below: false, run }
}

const fn below<F: Copy>(group: &'static str, kind: &'static str, on: &'static [Operation], run: F) -> Row<F> {
    Row { group, kind, on, below: true, run }
}

type Mutate = fn(&Request<'_>, &mut Value) -> Result<(), ApiError>;
type Validate = fn(&Request<'_>, &Value) -> Result<(), ApiError>;

const CREATE: &[Operation] = &[Operation::Create];
const UPDATE: &[Operation] = &[Operation::Update];
const WRITE: &[Operation] = &[Operation::Create, Operation::Update];

/// Plugins that change objects, in the order in which they run.
const MUTATORS: &[Row<Mutate>] = &[
    row("", "Pod", CREATE, limits::default),
    row("", "Pod", CREATE, service_account::default),
    row("", "Pod", WRITE, priority::resolve),
    row("", "Pod", CREATE, tolerations::default),
    row("", "Pod", CREATE, runtime_class::apply),
    row("", "PersistentVolumeClaim", CREATE, classes::default_storage),
    row("", "PersistentVolumeClaim", CREATE, protection::hold_claim),
    row("", "PersistentVolume", CREATE, protection::hold_volume),
    row("networking.k8s.io", "Ingress", CREATE, classes::default_ingress),
    row("certificates.k8s.io", "CertificateSigningRequest", CREATE, certificates::set_requestor),
    below("", "ResourceQuota", WRITE, quota::keep_status),
];

/// Plugins that refuse objects, in the order in which they run.
const VALIDATORS: &[Row<Validate>] = &[
    row("", "Pod", UPDATE, node::check_changed),
    below("", "Node", WRITE, node::check_own),
    below("", "PersistentVolume", UPDATE, node::check_volume),
    row("", "Pod", CREATE, limits::check),
    below("", "Pod", UPDATE, limits::check_resize),
    row("", "PersistentVolumeClaim", WRITE, limits::check),
    row("", "Namespace", WRITE, pod_security::check_namespace),
    row("", "Pod", WRITE, pod_security::check),
    below("", "Pod", UPDATE, pod_security::check_ephemeral),
    row("", "PodTemplate", WRITE, pod_security::check),
    row("", "ReplicationController", WRITE, pod_security::check),
    row("apps", "DaemonSet", WRITE, pod_security::check),
    row("apps", "Deployment", WRITE, pod_security::check),
    row("apps", "ReplicaSet", WRITE, pod_security::check),
    row("apps", "StatefulSet", WRITE, pod_security::check),
    row("batch", "CronJob", WRITE, pod_security::check),
    row("batch", "Job", WRITE, pod_security::check),
    row("scheduling.k8s.io", "PriorityClass", WRITE, priority::check),
    row("", "PersistentVolumeClaim", UPDATE, protection::check_resize),
    below("certificates.k8s.io", "CertificateSigningRequest", UPDATE, certificates::check_signer),
    row("certificates.k8s.io", "CertificateSigningRequest", CREATE, certificates::check_subject),
    row(GROUP, "MutatingAdmissionPolicy", WRITE, policy::check),
    row(GROUP, "ValidatingAdmissionPolicy", WRITE, policy::check),
    row(GROUP, "MutatingWebhookConfiguration", WRITE, webhooks::check),
    row(GROUP, "ValidatingWebhookConfiguration", WRITE, webhooks::check),
];

/// Whether anybody may change the object.
pub(crate) fn may_mutate(request: &Request<'_>) -> bool {
    let server = &request.call.server;
    let hooks = server.admission().index.current(server);
    MUTATORS.iter().any(|row| row.concerns(request))
        || !hooks.mutating.is_empty()
        || !hooks.mutating_policies.is_empty()
}

/// Lets plugins, policies and webhooks change an object, or refuse it. Says whether policies or webhooks did, whose changes
/// reach as far as a client's.
pub(crate) async fn mutate(request: &Request<'_>, object: &mut Value) -> Result<bool, ApiError> {
    request.call.server.cache().catch_up().await?;
    node::restrict(request)?;
    if request.is_follow_up() {
        return Ok(false);
    }
    if request.operation == Operation::Create && may_mutate(request) {
        // Nobody is bothered with what cannot be; the commit makes sure of it again.
        let server = &request.call.server;
        namespace_guard(server.cache(), server.namespaces(), request.place)?;
    }
    if request.is("", "Pod") && request.operation == Operation::Create && request.subresource.is_empty() {
        service_account::await_default(request, object).await;
    }
    run_mutators(request, object)?;
    extend(request, Some(object)).await
}

/// Lets policies and webhooks change an object. When any did, plugins run once more, and so do those who asked for it. Says
/// whether any did.
async fn extend(request: &Request<'_>, mut object: Option<&mut Value>) -> Result<bool, ApiError> {
    let invoked = match object.as_deref_mut() {
        Some(object) => policy::mutate(request, object, None)?,
        None => policy::Invoked::default(),
    };
    let mut called = webhooks::mutate(request, object.as_deref_mut()).await?;
    if !invoked.any && called.changes == 0 {
        return Ok(false);
    }
    if let Some(object) = object.as_deref_mut() {
        let before = object.clone();
        run_mutators(request, object)?;
        policy::mutate(request, object, Some(&invoked))?;
        called.changes += usize::from(*object != before);
    }
    webhooks::again(request, object, called).await?;
    Ok(true)
}

/// Runs the built-in plugins that change objects; webhooks that changed the object have them run again.
fn run_mutators(request: &Request<'_>, object: &mut Value) -> Result<(), ApiError> {
    MUTATORS.iter().filter(|row| row.concerns(request)).try_for_each(|row| (row.run)(request, object))
}

/// Lets plugins, policies and webhooks refuse what the object has become.
pub(crate) async fn validate(request: &Request<'_>, object: Option<&Value>) -> Result<(), ApiError> {
    if request.is_follow_up() {
        return Ok(());
    }
    if let Some(object) = object {
        VALIDATORS.iter().filter(|row| row.concerns(request)).try_for_each(|row| (row.run)(request, object))?;
    }
    policy::validate(request, object)?;
    webhooks::validate(request, object).await
}

/// Lets everybody refuse a deletion.
pub(crate) async fn admit_delete(request: &Request<'_>) -> Result<(), ApiError> {
    node::restrict(request)?;
    namespace::check_delete(request)?;
    extend(request, None).await?;
    validate(request, None).await
}

/// Lets webhooks and policies judge what is posted below an object and is none itself: a binding, an eviction, the options
/// of a stream.
pub(crate) async fn admit_below(
    call: &Call,
    place: &Place,
    operation: Operation,
    subresource: &str,
    object: &mut Value,
) -> Result<(), ApiError> {
    // What stands in the query of a stream is not for this server.
    let dry_run = operation != Operation::Connect && call.is_dry_run()?;
    let request = Request { call, place, operation, subresource, old: None, dry_run };
    call.server.cache().catch_up().await?;
    extend(&request, Some(object)).await?;
    validate(&request, Some(object)).await
}

/// What follows a write: a quota that was written gets its count, a policy its status.
pub(crate) async fn written(call: &Call, place: &Place, object: Arc<Object>) -> Result<Arc<Object>, ApiError> {
    let followed = match place.namespace.as_deref() {
        Some(namespace) if is(place.resource(), "", "ResourceQuota") => {
            quota::recount(&call.server, namespace, &place.name).await?
        }
        None if is(place.resource(), GROUP, "ValidatingAdmissionPolicy") => {
            policy::observe(&call.server, &place.name).await?
        }
        _ => None,
    };
    Ok(followed.unwrap_or(object))
}

/// Puts a status of the server's own making; none when somebody else wrote the object meanwhile.
pub(crate) async fn put(
    server: &ApiServer,
    table: &Table,
    live: &Object,
    new: &Value,
) -> Result<Option<Arc<Object>>, ApiError> {
    let (key, value) = (format!("{}{}", table.prefix, live.key), Bytes::from(canonical(new)));
    let txn = Txn::new().when(key.clone(), live.revision).put(key, value.clone());
    let result = server.cache().store().txn(txn).await?;
    if !result.succeeded {
        return Ok(None);
    }
    let object = Object::stored(&live.key, value, result.revision).map_err(ApiError::Internal)?;
    Ok(Some(Arc::new(object)))
}

pub(crate) fn is(resource: &Resource, group: &str, kind: &str) -> bool {
    resource.group == group && resource.kind == kind
}
