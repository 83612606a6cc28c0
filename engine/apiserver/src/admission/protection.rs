//! Storage does not go while it is in use, and grows only where its class allows it.

use serde_json::{Value, json};
use shipway_schema::quantity::Quantity;

use super::Request;
use crate::error::ApiError;
use crate::meta;

/// Holds a claim for as long as a pod has it; who binds claims takes it away.
pub(super) fn hold_claim(_: &Request<'_>, claim: &mut Value) -> Result<(), ApiError> {
    hold(claim, "kubernetes.io/pvc-protection");
    Ok(())
}

/// Holds a volume for as long as a claim has it.
pub(super) fn hold_volume(_: &Request<'_>, volume: &mut Value) -> Result<(), ApiError> {
    hold(volume, "kubernetes.io/pv-protection");
    Ok(())
}

fn hold(object: &mut Value, finalizer: &str) {
    if meta::finalizers(object).contains(&finalizer) {
        return;
    }
    match object["metadata"]["finalizers"].as_array_mut() {
        Some(finalizers) => finalizers.push(finalizer.into()),
        None => object["metadata"]["finalizers"] = json!([finalizer]),
    }
}

/// Refuses a larger claim unless it is bound and its class lets volumes grow.
pub(super) fn check_resize(request: &Request<'_>, claim: &Value) -> Result<(), ApiError> {
    let Some(old) = request.old else { return Ok(()) };
    if size(claim) <= size(old) {
        return Ok(());
    }
    if old["status"]["phase"] != "Bound" {
        return Err(request.forbidden("Only bound persistent volume claims can be expanded"));
    }
    let class = old["spec"]["storageClassName"].as_str().unwrap_or_default();
    let class = request.call.server.admission().tables.storage_classes.get(class);
    if class.is_some_and(|class| class.value()["allowVolumeExpansion"] == true) {
        return Ok(());
    }
    Err(request.forbidden(
        "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize",
    ))
}

fn size(claim: &Value) -> i128 {
    Quantity::from_value(&claim["spec"]["resources"]["requests"]["storage"]).map_or(0, |size| size.to_nanos())
}
