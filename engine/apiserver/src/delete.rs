//! DELETE: at once, gracefully, or held back by finalizers; one object or a whole selection.
//!
//! What a delete does to an object is worked out by [`plan`], which is pure; the rest commits it.

use std::sync::Arc;

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt};
use serde_json::Value;
use shipway_schema::{Resource, decode_protobuf};

use crate::admission::{self, Request};
use crate::cache::read;
use crate::call::Call;
use crate::clock;
use crate::commit::{Outcome, Place, Write};
use crate::decode;
use crate::error::ApiError;
use crate::evict;
use crate::list::{Paging, list};
use crate::meta;
use crate::object::{Object, canonical};
use crate::select::Selection;

const ATTEMPTS: usize = 16;
/// How many objects of a collection are deleted at once.
const AT_ONCE: usize = 16;
const FOREGROUND: &str = "foregroundDeletion";
const ORPHAN: &str = "orphan";

/// What becomes of the objects that the deleted one owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Propagation {
    /// They go afterwards.
    Background,
    /// They go first.
    Foreground,
    /// They stay.
    Orphan,
}

/// What a delete asked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct DeleteOptions {
    grace: Option<i64>,
    propagation: Option<Propagation>,
    uid: Option<String>,
    revision: Option<String>,
    dry_run: bool,
    /// Whether it follows from an eviction, which webhooks and policies have judged already.
    judged: bool,
}

/// What a delete led to.
pub(crate) struct Deleted {
    pub(crate) object: Arc<Object>,
    /// Whether it is gone for good; else its deletion has begun.
    pub(crate) gone: bool,
}

impl DeleteOptions {
    /// Reads the body, or the query where there is none.
    pub(crate) fn parse(call: &Call) -> Result<Self, ApiError> {
        let body = if call.body.is_empty() {
            Value::Null
        } else if call.content_type() == "application/vnd.kubernetes.protobuf" {
            let decoded = decode_protobuf(&call.server.registry(), &call.body);
            decoded.map_err(|error| ApiError::BadRequest(error.to_string()))?
        } else {
            decode::yaml(&call.body)?.value
        };
        if !matches!(body["kind"].as_str(), None | Some("" | "DeleteOptions")) {
            return Err(ApiError::BadRequest(format!("expected DeleteOptions, got {}", body["kind"])));
        }
        let mut options = Self::of(&body)?;
        options.dry_run |= call.is_dry_run()?;
        if let Some(text) = call.query.get("gracePeriodSeconds").filter(|_| options.grace.is_none()) {
            options.grace = Some(text.parse().map_err(|_| bad_grace(text))?);
        }
        if options.propagation.is_none() {
            options.propagation = call.query.get("propagationPolicy").map(propagation).transpose()?;
        }
        if options.grace.is_some_and(|grace| grace < 0) {
            // Upstream reads a negative grace as the shortest one.
            options.grace = Some(1);
        }
        Ok(options)
    }

    /// Reads `DeleteOptions`, as it stands in a body or in an eviction.
    pub(crate) fn of(body: &Value) -> Result<Self, ApiError> {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let policy = body["propagationPolicy"].as_str().map(propagation).transpose()?;
        let orphan = body["orphanDependents"].as_bool();
        let legacy = orphan.map(|orphan| if orphan { Propagation::Orphan } else { Propagation::Background });
        if policy.is_some() && legacy.is_some() {
            let text = "orphanDependents and deletionPropagation cannot be both set";
            return Err(ApiError::BadRequest(text.into()));
        }
        Ok(Self {
            grace: body["gracePeriodSeconds"].as_i64(),
            propagation: policy.or(legacy),
            uid: text(&body["preconditions"]["uid"]),
            revision: text(&body["preconditions"]["resourceVersion"]),
            dry_run: body["dryRun"].as_array().is_some_and(|all| all.iter().any(|one| one == "All")),
            judged: false,
        })
    }

    /// Whether nothing is to happen in the end.
    pub(crate) fn is_dry_run(&self) -> bool {
        self.dry_run
    }

    /// Reads the options of an eviction.
    pub(crate) fn of_eviction(call: &Call, eviction: &Value) -> Result<Self, ApiError> {
        let options = Self::of(&eviction["deleteOptions"])?;
        Ok(Self { judged: true, dry_run: options.dry_run || call.is_dry_run()?, ..options })
    }

    fn check(&self, place: &Place, old: &Value) -> Result<(), ApiError> {
        let differs = |what: &str, asked: &Option<String>, field: &str| {
            let own = meta::text(old, field);
            let asked = asked.as_deref().filter(|asked| *asked != own)?;
            let text = format!(
                "the {what} in the precondition ({asked}) does not match the {what} in record ({own}). The object might \
                 have been modified"
            );
            Some(ApiError::Conflict(place.about(), text))
        };
        let uid = differs("UID", &self.uid, "uid");
        uid.or_else(|| differs("ResourceVersion", &self.revision, "resourceVersion")).map_or(Ok(()), Err)
    }
}

fn bad_grace(text: &str) -> ApiError {
    ApiError::BadRequest(format!("gracePeriodSeconds: {text:?} is not a number"))
}

fn propagation(text: &str) -> Result<Propagation, ApiError> {
    match text {
        "Background" => Ok(Propagation::Background),
        "Foreground" => Ok(Propagation::Foreground),
        "Orphan" => Ok(Propagation::Orphan),
        other => Err(ApiError::BadRequest(format!(
            "propagationPolicy: Unsupported value: {other:?}: supported values: \"Foreground\", \"Background\", \"Orphan\""
        ))),
    }
}

/// What a delete does to an object.
enum Plan {
    /// It is removed.
    Remove,
    /// Its deletion begins, or is hastened.
    Mark(Value),
    /// Its deletion is on its way already.
    Wait,
}

fn plan(resource: &Resource, old: &Value, options: &DeleteOptions) -> Plan {
    let mut new = old.clone();
    set_finalizers(&mut new, options.propagation.or_else(|| by_default(resource, old)));
    let grace = resource.strategy().graceful_deletion(old, options.grace).filter(|grace| *grace > 0);
    let running = old["metadata"]["deletionGracePeriodSeconds"].as_i64();
    let begun = meta::is_terminating(old);
    match grace {
        Some(grace) if !begun || running.is_some_and(|running| grace < running) => begin(resource, &mut new, grace),
        Some(_) => {}
        None => {
            if !begun || running.unwrap_or(0) > 0 {
                begin(resource, &mut new, 0);
            }
            if meta::may_go(&new) {
                return Plan::Remove;
            }
        }
    }
    if new == *old { Plan::Wait } else { Plan::Mark(new) }
}

fn begin(resource: &Resource, object: &mut Value, grace: i64) {
    let counted = !meta::is_terminating(object) && grace > 0;
    let metadata = meta::metadata(object);
    metadata.insert("deletionTimestamp".into(), clock::in_seconds(grace).into());
    metadata.insert("deletionGracePeriodSeconds".into(), grace.into());
    if let Some(generation) = metadata.get("generation").and_then(Value::as_i64).filter(|_| counted) {
        metadata.insert("generation".into(), (generation + 1).into());
    }
    admission::mark_terminating(resource, object);
}

/// What becomes of dependents when nobody says so, now or before.
fn by_default(resource: &Resource, old: &Value) -> Option<Propagation> {
    let is_said = meta::finalizers(old).into_iter().any(|name| matches!(name, FOREGROUND | ORPHAN));
    resource.strategy().orphans().filter(|_| !is_said).map(|_| Propagation::Orphan)
}

/// The finalizers that a propagation policy stands for; without one they stay as they are.
fn set_finalizers(object: &mut Value, policy: Option<Propagation>) {
    let Some(policy) = policy else { return };
    let others = meta::finalizers(object).into_iter().filter(|name| !matches!(*name, FOREGROUND | ORPHAN));
    let ours = match policy {
        Propagation::Background => None,
        Propagation::Foreground => Some(FOREGROUND),
        Propagation::Orphan => Some(ORPHAN),
    };
    let finalizers: Vec<Value> = others.chain(ours).map(Value::from).collect();
    let metadata = meta::metadata(object);
    if finalizers.is_empty() {
        metadata.shift_remove("finalizers");
    } else {
        metadata.insert("finalizers".into(), finalizers.into());
    }
}

/// Deletes one object.
pub(crate) async fn delete(call: &Call, place: &Place, options: &DeleteOptions) -> Result<Deleted, ApiError> {
    let cache = call.server.cache();
    cache.catch_up().await?;
    let missing = || ApiError::NotFound(place.about());
    let mut live = place.table.get(&place.key()).ok_or_else(missing)?;
    if let Some(warning) = place.resource().strategy().orphans().filter(|_| options.propagation.is_none()) {
        call.warn(warning.to_owned());
    }
    for _ in 0..ATTEMPTS {
        let old = live.value();
        let request = Request::delete(call, place, &old, options.dry_run);
        options.check(place, &old)?;
        if options.judged {
            admission::restrict(&request)?;
        } else {
            admission::admit_delete(&request).await?;
        }
        let marked = match plan(place.resource(), &old, options) {
            Plan::Wait => return Ok(Deleted { object: live, gone: false }),
            Plan::Mark(mut marked) => {
                if options.judged {
                    evict::tell(&mut marked);
                }
                Some(marked)
            }
            Plan::Remove => None,
        };
        let gone = marked.is_none();
        if options.dry_run {
            let shown = Object::stored(&place.key(), canonical(marked.as_ref().unwrap_or(&old)), live.revision);
            return Ok(Deleted { object: Arc::new(shown.map_err(ApiError::Internal)?), gone });
        }
        let charge = admission::charge(&request, marked.as_ref()).await?;
        let (new, expected) = (marked.as_ref(), live.revision);
        let write = Write { place, expected, old: Some(&old), new, guards: &[], charge: &charge };
        match write.commit(&**cache.store()).await? {
            Outcome::Done(object) => return Ok(Deleted { object, gone }),
            Outcome::Raced(Some(kv)) => live = Arc::new(read(&place.key(), &kv)?),
            Outcome::Raced(None) => return Err(missing()),
            Outcome::GuardMoved | Outcome::Taken(_) => cache.catch_up().await?,
        }
    }
    Err(ApiError::modified(place.about()))
}

/// Deletes what a selection holds; objects that others delete meanwhile are left out of the answer.
pub(crate) async fn delete_collection(
    call: &Call,
    place: &Place,
    selection: &Selection,
    options: &DeleteOptions,
) -> Result<Vec<Arc<Object>>, ApiError> {
    let page = list(call.server.cache(), place, selection, &Paging::everything()).await?;
    let places = page.objects.iter().map(|object| {
        let namespace = object.namespace().map(str::to_owned);
        Place { namespace, name: object.name().to_owned(), ..place.clone() }
    });
    delete_all(call, places.collect(), options).await
}

/// Boxed where the types are known, so that callers need not work out that it can be sent.
fn delete_all<'a>(
    call: &'a Call,
    places: Vec<Place>,
    options: &'a DeleteOptions,
) -> BoxFuture<'a, Result<Vec<Arc<Object>>, ApiError>> {
    let each = places.into_iter().map(move |place| async move {
        match delete(call, &place, options).await {
            Ok(deleted) => Ok(Some(deleted.object)),
            Err(ApiError::NotFound(_)) => Ok(None),
            Err(error) => Err(error),
        }
    });
    let deleted = futures::stream::iter(each).buffered(AT_ONCE).try_filter_map(|object| std::future::ready(Ok(object)));
    deleted.try_collect().boxed()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use shipway_schema::Registry;

    fn planned(kind: &str, old: &Value, options: &Value) -> Option<Value> {
        let resource = Registry::builtin().of_kind("v1", kind).unwrap();
        match plan(&resource, old, &DeleteOptions::of(options).unwrap()) {
            Plan::Remove => None,
            Plan::Mark(new) => Some(new),
            Plan::Wait => Some(Value::Null),
        }
    }

    #[test]
    fn nothing_in_the_way_means_gone_at_once() {
        assert_eq!(planned("ConfigMap", &json!({"metadata": {"name": "a"}}), &json!({})), None);
        let unbound = json!({"kind": "Pod", "metadata": {"name": "a"}, "spec": {"terminationGracePeriodSeconds": 30}});
        assert_eq!(planned("Pod", &unbound, &json!({})), None);
    }

    #[test]
    fn a_running_pod_gets_its_grace_and_can_be_hastened() {
        let pod = json!({"kind": "Pod", "metadata": {"name": "a", "generation": 1},
            "spec": {"nodeName": "n", "terminationGracePeriodSeconds": 30}});
        let marked = planned("Pod", &pod, &json!({})).unwrap();
        assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 30);
        assert_eq!(marked["metadata"]["generation"], 2);
        assert_eq!(planned("Pod", &marked, &json!({})), Some(Value::Null));
        let hastened = planned("Pod", &marked, &json!({"gracePeriodSeconds": 1})).unwrap();
        assert_eq!(hastened["metadata"]["deletionGracePeriodSeconds"], 1);
        assert_eq!(hastened["metadata"]["generation"], 2);
        assert_eq!(planned("Pod", &marked, &json!({"gracePeriodSeconds": 0})), None);
    }

    #[test]
    fn finalizers_and_policies_hold_an_object_back() {
        let held = json!({"metadata": {"name": "a", "finalizers": ["a/b"]}});
        let marked = planned("ConfigMap", &held, &json!({})).unwrap();
        assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 0);
        let free = json!({"metadata": {"name": "a"}});
        for (policy, finalizer) in [("Foreground", FOREGROUND), ("Orphan", ORPHAN)] {
            let marked = planned("ConfigMap", &free, &json!({"propagationPolicy": policy})).unwrap();
            assert_eq!(marked["metadata"]["finalizers"], json!([finalizer]));
            assert_eq!(planned("ConfigMap", &marked, &json!({"propagationPolicy": "Background"})), None);
        }
    }

    #[test]
    fn a_namespace_waits_for_its_own_finalizers() {
        let namespace = json!({"kind": "Namespace", "metadata": {"name": "a"}, "spec": {"finalizers": ["kubernetes"]},
            "status": {"phase": "Active"}});
        let marked = planned("Namespace", &namespace, &json!({})).unwrap();
        assert_eq!(marked["status"]["phase"], "Terminating");
        let mut empty = namespace;
        empty["spec"]["finalizers"] = json!([]);
        assert_eq!(planned("Namespace", &empty, &json!({})), None);
    }
}
