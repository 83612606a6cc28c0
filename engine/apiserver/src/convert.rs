//! Objects in the version that a request speaks.
//!
//! An object says itself which version it is stored in; what is in the wished one already leaves as the bytes that are
//! held. Others are renamed, converted by a function or by the definition's webhook, which gets them in batches and whose
//! answer is not trusted: it may change what is in the objects, not which objects they are. Custom objects that were
//! stored under an older schema are filled in and pruned on the way.

mod review;

use std::sync::Arc;

use serde_json::Value;
use shipway_schema::{Conversion, Resource};

use crate::error::ApiError;
use crate::object::Object;
use crate::webhook::Webhooks;

/// One object as the resource shows it.
pub(crate) async fn one(
    webhooks: &Webhooks,
    resource: &Arc<Resource>,
    object: Arc<Object>,
) -> Result<Arc<Object>, ApiError> {
    if is_at_home(resource, &object) {
        return Ok(object);
    }
    let shown = all(webhooks, resource, vec![object]).await?;
    shown.into_iter().next().ok_or_else(|| ApiError::Internal("a conversion lost its object".into()))
}

/// Objects as the resource shows them, in their order.
pub(crate) async fn all(
    webhooks: &Webhooks,
    resource: &Arc<Resource>,
    mut objects: Vec<Arc<Object>>,
) -> Result<Vec<Arc<Object>>, ApiError> {
    if objects.iter().all(|object| is_at_home(resource, object)) {
        return Ok(objects);
    }
    for object in &mut objects {
        *object = settled(resource, object)?;
    }
    let foreign: Vec<bool> = objects.iter().map(|object| !is_in(resource, object)).collect();
    if let Conversion::Webhook(config) = &resource.kept.conversion {
        review::replace(webhooks, config, resource, &mut objects).await?;
    }
    for (object, _) in objects.iter_mut().zip(foreign).filter(|(_, foreign)| *foreign) {
        *object = converted(resource, object)?;
    }
    Ok(objects)
}

/// Whether the bytes can be shown as they are.
fn is_at_home(resource: &Resource, object: &Object) -> bool {
    let complete = resource.fingerprint().is_none_or(|fingerprint| object.is_settled(fingerprint));
    complete && is_in(resource, object)
}

fn is_in(resource: &Resource, object: &Object) -> bool {
    let own = object.api_version();
    match own.rsplit_once('/') {
        Some((group, version)) => group == resource.group && version == resource.version,
        None => resource.group.is_empty() && own == resource.version,
    }
}

/// An object of another version, or one that a webhook has converted already, as the resource shows it.
fn converted(resource: &Resource, object: &Object) -> Result<Arc<Object>, ApiError> {
    let wanted = resource.api_version();
    if let Conversion::With(convert) = resource.kept.conversion {
        return object.with_content(&convert(object.value(), &wanted)).map(Arc::new).map_err(ApiError::Internal);
    }
    if !resource.is_custom() {
        return Ok(Arc::new(object.renamed(&wanted)));
    }
    let mut value = object.value();
    value["apiVersion"] = wanted.into();
    resource.trim(&mut value);
    object.with_content(&value).map(Arc::new).map_err(ApiError::Internal)
}

/// The object in its stored version, without what that does not know any more and with the defaults that it has since got.
fn settled(resource: &Resource, object: &Arc<Object>) -> Result<Arc<Object>, ApiError> {
    let Some(fingerprint) = resource.fingerprint().filter(|fingerprint| !object.is_settled(*fingerprint)) else {
        return Ok(object.clone());
    };
    let mut value = object.value();
    let settled = if resource.settle(&mut value) {
        Arc::new(object.with_content(&value).map_err(ApiError::Internal)?)
    } else {
        object.clone()
    };
    settled.set_settled(fingerprint);
    Ok(settled)
}

/// A value of the request's version in the version that objects are stored in, without what that does not know.
pub(crate) async fn stored(webhooks: &Webhooks, resource: &Resource, value: &Value) -> Result<Value, ApiError> {
    let kept = resource.kept_api_version();
    if value["apiVersion"] == *kept {
        return Ok(value.clone());
    }
    let mut stored = match &resource.kept.conversion {
        Conversion::Rename => {
            let mut value = value.clone();
            value["apiVersion"] = kept.into();
            value
        }
        Conversion::With(convert) => convert(value.clone(), &kept),
        Conversion::Webhook(config) => {
            let review = review::Review { webhooks, config, kind: &resource.kind, wanted: &kept };
            let converted = review.convert(vec![value.clone()]).await?;
            converted.into_iter().next().ok_or_else(|| ApiError::Internal("a conversion lost its object".into()))?
        }
    };
    resource.trim_kept(&mut stored);
    Ok(stored)
}
