//! Storage grows only where its class allows it.

use serde_json::Value;
use shipway_schema::quantity::Quantity;

use super::Request;
use crate::error::ApiError;

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
