//! Admission: what is decided about a write beyond its own fields, by one ordered chain that every write passes.
//!
//! The order is Kubernetes': built-in plugins that change the object, webhooks that change it, (the kind's own validation,
//! which is the caller's,) built-in plugins that refuse, policies, webhooks that refuse, and last, at the commit, quotas.
//! Plugins are rows of two tables. What nobody configured costs a look at a counter.

// Plugins are rows of a table, whether they can fail or not.
#![allow(clippy::unnecessary_wraps)]

mod certificates;
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

use serde_json::Value;
use shipway_schema::Resource;

pub(crate) use connect::connect;
pub(crate) use namespace::{mark_terminating, namespace_guard};
pub(crate) use quota::{Charge, charge, recount_all};
pub(crate) use request::{Operation, Request};

use crate::cache::{Cache, Table};
use crate::call::Call;
use crate::commit::Place;
use crate::error::ApiError;
use crate::object::Object;

/// What the chain keeps between requests.
pub(crate) struct Chain {
    tables: Tables,
    turns: quota::Turns,
    index: index::Index,
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
    pub(crate) fn new(cache: &Cache) -> Self {
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
        Self { tables, turns: quota::Turns::default(), index: index::Index::new(cache) }
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
    row("networking.k8s.io", "Ingress", CREATE, classes::default_ingress),
    row("certificates.k8s.io", "CertificateSigningRequest", CREATE, certificates::set_requestor),
    below("", "ResourceQuota", WRITE, quota::keep_status),
];

/// Plugins that refuse objects, in the order in which they run.
const VALIDATORS: &[Row<Validate>] = &[
    row("", "Pod", UPDATE, node::check_changed),
    row("", "Pod", CREATE, limits::check),
    row("", "PersistentVolumeClaim", WRITE, limits::check),
    row("", "Namespace", WRITE, pod_security::check_namespace),
    row("", "Pod", WRITE, pod_security::check),
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
    row("admissionregistration.k8s.io", "ValidatingAdmissionPolicy", WRITE, policy::check),
    row("admissionregistration.k8s.io", "MutatingWebhookConfiguration", WRITE, webhooks::check),
    row("admissionregistration.k8s.io", "ValidatingWebhookConfiguration", WRITE, webhooks::check),
];

/// Whether anybody may change the object.
pub(crate) fn may_mutate(request: &Request<'_>) -> bool {
    let server = &request.call.server;
    MUTATORS.iter().any(|row| row.concerns(request)) || !server.admission().index.current(server).mutating.is_empty()
}

/// Lets plugins and webhooks change an object, or refuse it. Says whether webhooks changed it, whose changes reach as far as
/// a client's.
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
    webhooks::mutate(request, Some(object)).await
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
    webhooks::mutate(request, None).await?;
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
    let request = Request { call, place, operation, subresource, old: None, dry_run: call.is_dry_run()? };
    call.server.cache().catch_up().await?;
    webhooks::mutate(&request, Some(object)).await?;
    validate(&request, Some(object)).await
}

/// What follows a write: a quota that was written gets its count.
pub(crate) async fn written(call: &Call, place: &Place, object: Arc<Object>) -> Result<Arc<Object>, ApiError> {
    let Some(namespace) = place.namespace.as_deref().filter(|_| is(place.resource(), "", "ResourceQuota")) else {
        return Ok(object);
    };
    let counted = quota::recount(&call.server, namespace, &place.name).await?;
    Ok(counted.unwrap_or(object))
}

pub(crate) fn is(resource: &Resource, group: &str, kind: &str) -> bool {
    resource.group == group && resource.kind == kind
}
