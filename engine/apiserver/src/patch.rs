//! PATCH: four ways to say what should be different, all ending in the same write.

use std::sync::Arc;

use serde_json::Value;
use shipway_schema::patch::{self, Manager, PatchError};

use crate::authorize;
use crate::call::Call;
use crate::clock;
use crate::commit::Place;
use crate::custom;
use crate::decode::{self, Decoded, check_applied, check_shape, identify};
use crate::error::{ApiError, ManagerConflict};
use crate::meta;
use crate::object::Object;
use crate::write::{Change, Part, create, manager, modify};

const CUSTOM_MEDIA: &str = "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml";
const MEDIA: &str = "application/json-patch+json, application/merge-patch+json, \
                     application/strategic-merge-patch+json, application/apply-patch+yaml";

/// A patch body with the rules it follows.
pub(crate) enum Patch {
    /// RFC 6902.
    Json(Value),
    /// RFC 7396.
    Merge(Value),
    /// Merge by the keys of the kind's schema.
    Strategic(Value),
    /// Server-side apply.
    Apply(Value),
}

impl Patch {
    /// Reads the body by its content type.
    pub(crate) fn parse(call: &Call) -> Result<(Self, Vec<String>), ApiError> {
        let wrap = match call.content_type() {
            "application/json-patch+json" => Self::Json,
            "application/merge-patch+json" => Self::Merge,
            "application/strategic-merge-patch+json" => Self::Strategic,
            "application/apply-patch+yaml" | "application/apply-patch+json" => Self::Apply,
            _ => return Err(ApiError::UnsupportedMediaType(MEDIA)),
        };
        let Decoded { value, duplicates } = if call.content_type() == "application/apply-patch+yaml" {
            decode::yaml(&call.body)?
        } else {
            decode::json(&call.body)?
        };
        Ok((wrap(value), duplicates))
    }

    /// The object as the patch wants it; not for apply, which needs to know who asks.
    pub(crate) fn apply_to(&self, schema: &shipway_schema::Schema, old: &Value) -> Result<Value, ApiError> {
        let mut new = old.clone();
        match self {
            Self::Json(patch) => patch::json_patch(&mut new, patch),
            Self::Merge(patch) => patch::merge_patch(&mut new, patch),
            Self::Strategic(patch) => patch::strategic(schema, &mut new, patch),
            Self::Apply(_) => return Err(ApiError::UnsupportedMediaType(MEDIA)),
        }
        .map_err(failed)?;
        Ok(new)
    }
}

/// Patches an object; an apply may create it.
pub(crate) async fn patch(call: &Call, place: &Place, part: Part) -> Result<(Arc<Object>, bool), ApiError> {
    let (patch, duplicates) = Patch::parse(call)?;
    if place.resource().is_custom() && matches!(patch, Patch::Strategic(_)) {
        return Err(ApiError::UnsupportedMediaType(CUSTOM_MEDIA));
    }
    let manager = manager(call, place, part.subresource())?;
    match patch {
        Patch::Apply(applied) => apply(call, place, part, applied, &duplicates, manager).await,
        patch => {
            let edit = |old: &Value| {
                let mut new = patch.apply_to(place.resource().schema(), old)?;
                identify(place.resource(), &mut new)?;
                check_shape(call, place.resource(), &mut new, &duplicates)?;
                Ok(new)
            };
            let change = Change { part, manager: Some(manager), edit: &edit };
            Ok((modify(call, place, change).await?, false))
        }
    }
}

async fn apply(
    call: &Call,
    place: &Place,
    part: Part,
    mut applied: Value,
    duplicates: &[String],
    manager: Manager,
) -> Result<(Arc<Object>, bool), ApiError> {
    let resource = place.resource();
    prepare_applied(call, place, &mut applied, duplicates)?;
    keep_part(place, part, &mut applied);
    let force = call.query.flag("force");
    let revision = meta::text(&applied, "resourceVersion").to_owned();
    meta::metadata(&mut applied).shift_remove("resourceVersion");
    let merge = |live: Option<&Value>| {
        if let Some(live) = live.filter(|_| !revision.is_empty())
            && meta::text(live, "resourceVersion") != revision
        {
            return Err(ApiError::modified(place.about()));
        }
        let now = clock::text(clock::now());
        patch::apply(resource.schema(), live, &applied, &manager, force, &now).map_err(failed)
    };
    for _ in 0..4 {
        let edit = |old: &Value| merge(Some(old));
        match modify(call, place, Change { part, manager: None, edit: &edit }).await {
            Err(ApiError::NotFound(_)) if part == Part::Main && revision.is_empty() => {}
            Err(ApiError::NotFound(_)) if part == Part::Main => return Err(ApiError::modified(place.about())),
            other => return Ok((other?, false)),
        }
        if !meta::text(&applied, "uid").is_empty() {
            return Err(ApiError::Conflict(place.about(), "uid mismatch: the object does not exist".into()));
        }
        custom::check_create(&call.server, place)?;
        // The right to patch is not the right to make.
        let attributes = authorize::Attributes {
            verb: "create",
            group: &resource.group,
            resource: &resource.plural,
            subresource: "",
            namespace: place.namespace.as_deref().unwrap_or_default(),
            name: &place.name,
            ..authorize::Attributes::default()
        };
        authorize::check(&call.server, &call.identity, &attributes).await?;
        match create(call, place.clone(), merge(None)?, None).await {
            Err(ApiError::AlreadyExists(_)) => {}
            other => return Ok((other?, true)),
        }
    }
    Err(ApiError::modified(place.about()))
}

/// Checks an applied configuration before it meets the live object.
fn prepare_applied(call: &Call, place: &Place, applied: &mut Value, duplicates: &[String]) -> Result<(), ApiError> {
    if call.query.get("fieldManager").is_none() {
        let text =
            "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch";
        return Err(ApiError::BadRequest(text.into()));
    }
    identify(place.resource(), applied)?;
    meta::place(place.namespace.as_deref(), applied)?;
    match meta::text(applied, "name") {
        "" => {
            meta::metadata(applied).insert("name".into(), place.name.as_str().into());
        }
        name if name == place.name => {}
        name => {
            let text = format!("the name of the object ({name}) does not match the name on the URL ({})", place.name);
            return Err(ApiError::BadRequest(text));
        }
    }
    if applied["metadata"]["managedFields"].as_array().is_some_and(|managed| !managed.is_empty()) {
        return Err(ApiError::BadRequest("metadata.managedFields must be nil".into()));
    }
    meta::metadata(applied).shift_remove("managedFields");
    check_applied(call, place.resource(), applied, duplicates)
}

/// Drops what cannot be written through this door, so that nobody owns it who did not write it.
fn keep_part(place: &Place, part: Part, applied: &mut Value) {
    let Some(fields) = applied.as_object_mut() else { return };
    match part {
        Part::Main if place.resource().subresource("status").is_some() => {
            fields.shift_remove("status");
        }
        Part::Status => {
            fields.retain(|key, _| matches!(key.as_str(), "apiVersion" | "kind" | "metadata" | "status"));
            for field in ["labels", "ownerReferences", "finalizers"] {
                meta::metadata(applied).shift_remove(field);
            }
        }
        _ => {}
    }
}

/// What a patch that cannot be applied means to the client.
pub(crate) fn failed(error: PatchError) -> ApiError {
    match error {
        PatchError::Conflicts(conflicts) => ApiError::ManagerConflicts(
            conflicts.into_iter().map(|one| ManagerConflict { manager: one.to_string(), field: one.field }).collect(),
        ),
        PatchError::TooManyOperations { .. } | PatchError::TooMuchWork { .. } => {
            ApiError::PatchTooLarge(error.to_string())
        }
        PatchError::TestFailed { .. }
        | PatchError::NoSuchPath { .. }
        | PatchError::MoveIntoItself { .. }
        | PatchError::TooLarge { .. } => ApiError::Unprocessable(error.to_string()),
        other => ApiError::BadRequest(other.to_string()),
    }
}
