//! Creating and changing objects: one way for every kind and every verb that writes.
//!
//! A change is a function from the live object to the wished one. It is run again on the newest object whenever
//! another writer came first, until the store accepts the result or the request's own precondition fails.

use std::collections::HashSet;
use std::sync::Arc;

use serde_json::Value;
use shipway_schema::patch::{Manager, track_update};
use shipway_schema::{FieldError, apply_defaults, isolate};

use crate::ApiServer;
use crate::admission::{self, Request};
use crate::allocate;
use crate::cache::read;
use crate::call::Call;
use crate::clock;
use crate::commit::{Outcome, Place, Write};
use crate::convert;
use crate::custom;
use crate::decode::identify;
use crate::error::ApiError;
use crate::meta;
use crate::object::{Object, canonical};
use crate::rbac::check_escalation;

/// How often a change is run again after it lost a race.
const ATTEMPTS: usize = 16;

/// Which part of the object a request may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Everything but `status`.
    Main,
    /// `status` and annotations.
    Status,
    /// A namespace's `spec.finalizers`.
    Finalize,
    /// `status.conditions` of a certificate request.
    Approval,
    /// `spec.ephemeralContainers` of a pod.
    Ephemeral,
    /// Whatever the server itself decides when it binds a pod.
    Binding,
    /// The resources of a pod's containers.
    Resize,
}

/// A wished change of an object.
pub(crate) struct Change<'a> {
    pub(crate) part: Part,
    /// Who becomes the owner of what differs; none when the edit keeps these books itself.
    pub(crate) manager: Option<Manager>,
    pub(crate) edit: &'a (dyn Fn(&Value) -> Result<Value, ApiError> + Send + Sync),
}

/// Who writes, for `managedFields`.
pub(crate) fn manager(call: &Call, place: &Place, subresource: Option<&str>) -> Result<Manager, ApiError> {
    Ok(Manager {
        name: call.field_manager()?,
        api_version: place.resource().api_version(),
        subresource: subresource.map(str::to_owned),
    })
}

/// Creates an object whose shape has been checked. An empty name in `place` is taken from the object.
pub(crate) async fn create(
    call: &Call,
    mut place: Place,
    mut object: Value,
    manager: Option<Manager>,
) -> Result<Arc<Object>, ApiError> {
    let resource = place.resource().clone();
    meta::begin(&resource, place.namespace.as_deref(), &mut object)?;
    apply_defaults(resource.schema(), &mut object);
    resource.strategy().default(&mut object);
    resource.strategy().prepare_create(&mut object);
    meta::text(&object, "name").clone_into(&mut place.name);
    let request = Request::create(call, &place)?;
    let applied = applied_before(&request, manager.as_ref(), &object);
    if admission::mutate(&request, &mut object).await? {
        resource.strategy().prepare_create(&mut object);
    }
    let base = (meta::text(&object, "name").is_empty()).then(|| meta::text(&object, "generateName").to_owned());
    if base.as_deref() == Some("") {
        let error = FieldError {
            field: "metadata.name".into(),
            reason: shipway_schema::Reason::Required,
            message: "Required value: name or generateName is required".into(),
        };
        return Err(ApiError::Invalid(place.about_kind(), vec![error]));
    }
    track(call, &place, None, &mut object, manager.as_ref(), Part::Main, applied.as_ref())?;
    let mut avoid = HashSet::new();
    for _ in 0..ATTEMPTS {
        if let Some(base) = &base {
            meta::metadata(&mut object).insert("name".into(), meta::generate_name(base).into());
            resource.strategy().default(&mut object);
        }
        meta::text(&object, "name").clone_into(&mut place.name);
        check_escalation(call, &place, None, &object).await?;
        match insert(call, &place, &object, &mut avoid).await? {
            Inserted::Done(object) => return Ok(object),
            Inserted::Exists if base.is_none() => return Err(ApiError::AlreadyExists(place.about())),
            Inserted::Exists | Inserted::Again => {}
        }
    }
    Err(ApiError::Unavailable(format!("{} attempts to create {:?} lost against other writers", ATTEMPTS, place.name)))
}

/// The object of an apply as it is before others change it; none where the books are kept afterwards or nobody may.
fn applied_before(request: &Request<'_>, manager: Option<&Manager>, object: &Value) -> Option<Value> {
    (manager.is_none() && admission::may_mutate(request)).then(|| object.clone())
}

/// Keeps the books of who owns what. What others made of an applied object belongs to whoever applied it.
fn track(
    call: &Call,
    place: &Place,
    old: Option<&Value>,
    new: &mut Value,
    who: Option<&Manager>,
    part: Part,
    applied: Option<&Value>,
) -> Result<(), ApiError> {
    let (schema, now) = (place.resource().schema(), clock::text(clock::now()));
    match (who, applied) {
        (Some(who), _) => track_update(schema, old, new, who, &now),
        (None, Some(applied)) if applied != new => {
            let who = manager(call, place, part.subresource())?;
            track_update(schema, Some(applied), new, &who, &now);
        }
        (None, _) => {}
    }
    Ok(())
}

enum Inserted {
    Done(Arc<Object>),
    Exists,
    /// The namespace changed or an address was lost to another service.
    Again,
}

async fn insert(call: &Call, place: &Place, object: &Value, avoid: &mut HashSet<String>) -> Result<Inserted, ApiError> {
    let server = &call.server;
    server.cache().catch_up().await?;
    let namespace = admission::namespace_guard(server.cache(), server.namespaces(), place)?;
    let guards: Vec<_> = namespace.into_iter().chain(custom::guard(server, place)?).collect();
    let object = &allocated(call, place, object, None, avoid)?;
    validate(place, object, None)?;
    let request = Request::create(call, place)?;
    admission::validate(&request, Some(object)).await?;
    let charge = admission::charge(&request, Some(object)).await?;
    if call.is_dry_run()? {
        let exists = place.table.get(&place.key()).is_some();
        let draft = || Inserted::Done(Arc::new(Object::draft(&place.key(), object)));
        return Ok(if exists { Inserted::Exists } else { draft() });
    }
    let stored = convert::stored(server.webhooks(), place.resource(), object).await?;
    let write = Write { place, expected: 0, old: None, new: Some(&stored), guards: &guards, charge: &charge };
    Ok(match write.commit(&**server.cache().store()).await? {
        Outcome::Done(made) => {
            let made = written(server, &write, object, made).await?;
            drop(charge);
            Inserted::Done(admission::written(call, place, made).await?)
        }
        Outcome::Raced(_) => Inserted::Exists,
        Outcome::GuardMoved => Inserted::Again,
        Outcome::Taken(claims) => {
            lost(place, object, claims, avoid)?;
            Inserted::Again
        }
    })
}

/// What a write has made, as the request's version shows it: what the stored version has no place for is gone.
async fn written(
    server: &ApiServer,
    write: &Write<'_>,
    object: &Value,
    made: Arc<Object>,
) -> Result<Arc<Object>, ApiError> {
    match write.new {
        Some(stored) if stored["apiVersion"] == object["apiVersion"] => Ok(made),
        Some(_) => convert::one(server.webhooks(), write.place.resource(), made).await,
        // A change that ends the object shows what it came to.
        None => {
            let object = Object::stored(&write.place.key(), canonical(object), made.revision);
            object.map(Arc::new).map_err(ApiError::Internal)
        }
    }
}

/// The object with the addresses and ports that it leaves to the server.
fn allocated(
    call: &Call,
    place: &Place,
    object: &Value,
    old: Option<&Value>,
    avoid: &HashSet<String>,
) -> Result<Value, ApiError> {
    let mut object = object.clone();
    if admission::is(place.resource(), "", "Service") && object["spec"].is_object() {
        let cache = call.server.cache();
        let held = |claim: &str| avoid.contains(claim) || cache.is_claimed(claim);
        allocate::fill(call.server.ranges(), &mut object, old, held)
            .map_err(|error| ApiError::Invalid(place.about_kind(), vec![error]))?;
    }
    Ok(object)
}

/// Remembers lost claims; a claim lost twice was asked for by the client, which has to choose another one.
fn lost(place: &Place, object: &Value, claims: Vec<String>, avoid: &mut HashSet<String>) -> Result<(), ApiError> {
    for claim in claims {
        if !avoid.insert(claim.clone()) {
            return Err(ApiError::Invalid(place.about_kind(), vec![allocate::taken(object, &claim)]));
        }
    }
    Ok(())
}

/// Refuses an object that breaks a rule of its kind.
fn validate(place: &Place, object: &Value, old: Option<&Value>) -> Result<(), ApiError> {
    let mut errors = meta::check(object, old);
    errors.extend(place.resource().strategy().validate(object, old));
    if errors.is_empty() { Ok(()) } else { Err(ApiError::Invalid(place.about_kind(), errors)) }
}

/// Runs a change on an object until it is accepted.
pub(crate) async fn modify(call: &Call, place: &Place, change: Change<'_>) -> Result<Arc<Object>, ApiError> {
    let cache = call.server.cache();
    cache.catch_up().await?;
    let missing = || ApiError::NotFound(place.about());
    let mut live = place.table.get(&place.key()).ok_or_else(missing)?;
    let mut avoid = HashSet::new();
    for _ in 0..ATTEMPTS {
        let shown = convert::one(call.server.webhooks(), place.resource(), live.clone()).await?;
        let old = shown.value();
        let below = change.manager.as_ref().map_or(change.part.subresource(), |manager| manager.subresource.as_deref());
        let request = Request::update(call, place, below, &old)?;
        let mut wished = settle(place, &change, &old, (change.edit)(&old)?)?;
        let applied = applied_before(&request, change.manager.as_ref(), &wished);
        if admission::mutate(&request, &mut wished).await? {
            wished = change.part.isolate(&old, wished, place.resource().subresource("status").is_some());
        }
        finish(place, &change, &old, &mut wished);
        track(call, place, Some(&old), &mut wished, change.manager.as_ref(), change.part, applied.as_ref())?;
        let new = allocated(call, place, &wished, Some(&old), &avoid)?;
        if change.part == Part::Main {
            validate(place, &new, Some(&old))?;
            check_escalation(call, place, Some(&old), &new).await?;
        } else if let Some(subresource) = change.part.subresource() {
            let errors = place.resource().strategy().validate_below(subresource, &new, &old);
            if !errors.is_empty() {
                return Err(ApiError::Invalid(place.about_kind(), errors));
            }
        }
        admission::validate(&request, Some(&new)).await?;
        // What is still stored in another version is written anew, whatever it says.
        if same(&old, &new) && live.api_version() == place.resource().kept_api_version() {
            return Ok(shown);
        }
        let gone = meta::may_go(&new);
        let left = (!gone).then_some(&new);
        let counted = admission::charge(&request, left).await?;
        if call.is_dry_run()? {
            let object = Object::stored(&place.key(), canonical(&new), live.revision);
            return object.map(Arc::new).map_err(ApiError::Internal);
        }
        let stored = convert::stored(call.server.webhooks(), place.resource(), &new).await?;
        let left = (!gone).then_some(&stored);
        let write = Write { place, expected: live.revision, old: Some(&old), new: left, guards: &[], charge: &counted };
        match write.commit(&**cache.store()).await? {
            Outcome::Done(made) => {
                let object = written(&call.server, &write, &new, made).await?;
                drop(counted);
                return if gone { Ok(object) } else { admission::written(call, place, object).await };
            }
            Outcome::Raced(Some(kv)) => live = Arc::new(read(&place.key(), &kv)?),
            Outcome::Raced(None) => return Err(missing()),
            Outcome::Taken(claims) => lost(place, &new, claims, &mut avoid)?,
            Outcome::GuardMoved => cache.catch_up().await?,
        }
    }
    Err(ApiError::modified(place.about()))
}

/// Turns what the client wished for into what may be stored.
fn settle(place: &Place, change: &Change<'_>, old: &Value, mut new: Value) -> Result<Value, ApiError> {
    let resource = place.resource();
    identify(resource, &mut new)?;
    meta::place(place.namespace.as_deref(), &mut new)?;
    let asked = meta::text(&new, "resourceVersion");
    if !asked.is_empty() && asked != meta::text(old, "resourceVersion") {
        return Err(ApiError::modified(place.about()));
    }
    meta::carry(&place.about(), old, &mut new)?;
    let mut new = change.part.isolate(old, new, resource.subresource("status").is_some());
    apply_defaults(resource.schema(), &mut new);
    resource.strategy().default(&mut new);
    if change.part == Part::Main {
        resource.strategy().prepare_update(&mut new, old);
    }
    Ok(new)
}

/// Sets what follows from the difference to the live object once nobody changes the new one any more.
fn finish(place: &Place, change: &Change<'_>, old: &Value, new: &mut Value) {
    let specifies = matches!(change.part, Part::Main | Part::Resize | Part::Ephemeral);
    if specifies && place.resource().strategy().generations().differ(new, old) {
        let generation = old["metadata"]["generation"].as_i64().unwrap_or(0) + 1;
        meta::metadata(new).insert("generation".into(), generation.into());
    }
    meta::metadata(new).insert("resourceVersion".into(), old["metadata"]["resourceVersion"].clone());
}

impl Part {
    /// The subresource's name in `managedFields`.
    pub(crate) fn subresource(self) -> Option<&'static str> {
        match self {
            Self::Main => None,
            Self::Status => Some("status"),
            Self::Finalize => Some("finalize"),
            Self::Approval => Some("approval"),
            Self::Ephemeral => Some("ephemeralcontainers"),
            Self::Binding => Some("binding"),
            Self::Resize => Some("resize"),
        }
    }

    /// Takes from the wished object what this part may change and the rest from the live one.
    fn isolate(self, old: &Value, mut new: Value, has_status: bool) -> Value {
        if self == Self::Binding {
            return new;
        }
        if self == Self::Main {
            if has_status && let Some(fields) = new.as_object_mut() {
                put(fields, "status", old.get("status"));
            }
            return new;
        }
        let part = self.subresource().expect("only the main part has no name");
        let mut next = isolate(part, &new, old).expect("it is a part of its object");
        let specifies = matches!(self, Self::Ephemeral | Self::Resize);
        let noted = if specifies { &["managedFields"][..] } else { &["annotations", "managedFields"] };
        for field in noted {
            put(meta::metadata(&mut next), field, new["metadata"].get(*field));
        }
        next
    }
}

fn put(fields: &mut serde_json::Map<String, Value>, key: &str, value: Option<&Value>) {
    match value {
        Some(value) => fields.insert(key.into(), value.clone()),
        None => fields.shift_remove(key),
    };
}

/// Whether nothing but the times in `managedFields` differs.
fn same(old: &Value, new: &Value) -> bool {
    let (Some(old), Some(new)) = (old.as_object(), new.as_object()) else { return false };
    let others = |object: &serde_json::Map<String, Value>| object.keys().filter(|key| *key != "metadata").count();
    others(old) == others(new)
        && old.iter().all(|(key, value)| key == "metadata" || new.get(key) == Some(value))
        && same_metadata(&old["metadata"], &new["metadata"])
}

fn same_metadata(old: &Value, new: &Value) -> bool {
    let keys = |metadata: &Value| -> HashSet<String> {
        metadata.as_object().into_iter().flatten().map(|(key, _)| key.clone()).collect()
    };
    keys(old) == keys(new)
        && keys(old).iter().all(|key| match key.as_str() {
            "managedFields" => same_managers(&old[key], &new[key]),
            _ => old[key] == new[key],
        })
}

fn same_managers(old: &Value, new: &Value) -> bool {
    let (Some(old), Some(new)) = (old.as_array(), new.as_array()) else { return old == new };
    let fields = ["manager", "operation", "apiVersion", "subresource", "fieldsV1"];
    old.len() == new.len()
        && old.iter().zip(new).all(|(old, new)| fields.iter().all(|field| old.get(field) == new.get(field)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_the_part_asked_for_changes() {
        let old = json!({"metadata": {"labels": {"a": "1"}}, "spec": {"x": 1}, "status": {"y": 1}});
        let new = json!({"metadata": {"labels": {"a": "2"}, "annotations": {"b": "3"}}, "spec": {"x": 2}, "status": {"y": 2}});
        let main = Part::Main.isolate(&old, new.clone(), true);
        assert_eq!(
            (&main["spec"]["x"], &main["status"]["y"], &main["metadata"]["labels"]["a"]),
            (&json!(2), &json!(1), &json!("2"))
        );
        let status = Part::Status.isolate(&old, new.clone(), true);
        assert_eq!((&status["spec"]["x"], &status["status"]["y"]), (&json!(1), &json!(2)));
        assert_eq!(status["metadata"], json!({"labels": {"a": "1"}, "annotations": {"b": "3"}}));
        let without = Part::Status.isolate(&old, json!({"metadata": {}}), true);
        assert_eq!(without.get("status"), None);
    }

    #[test]
    fn a_later_time_alone_is_no_change() {
        let object = |time: &str, manager: &str| json!({"metadata": {"managedFields": [{"manager": manager, "time": time}]}, "data": {"a": "1"}});
        assert!(same(&object("1", "m"), &object("2", "m")));
        assert!(!same(&object("1", "m"), &object("1", "n")));
        let mut other = object("1", "m");
        other["more"] = json!(1);
        assert!(!same(&object("1", "m"), &other) && !same(&other, &object("1", "m")));
    }
}
