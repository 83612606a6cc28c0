//! Storage that is in use stays, and grows only where its class allows it.

use serde_json::{Value, json};
use shipway_schema::quantity::Quantity;

use super::Request;
use crate::error::ApiError;

/// Holds back the end of a claim while a pod uses it.
pub(super) fn protect_claim(_: &Request<'_>, claim: &mut Value) -> Result<(), ApiError> {
    add(claim, "kubernetes.io/pvc-protection");
    Ok(())
}

/// Holds back the end of a volume while a claim is bound to it.
pub(super) fn protect_volume(_: &Request<'_>, volume: &mut Value) -> Result<(), ApiError> {
    add(volume, "kubernetes.io/pv-protection");
    Ok(())
}

fn add(object: &mut Value, finalizer: &str) {
    let finalizers = &mut object["metadata"]["finalizers"];
    match finalizers.as_array_mut() {
        Some(own) if own.iter().any(|own| own == finalizer) => {}
        Some(own) => own.push(finalizer.into()),
        None => *finalizers = json!([finalizer]),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finalizer_is_added_once() {
        let mut claim = json!({"metadata": {"name": "a"}});
        add(&mut claim, "x/y");
        add(&mut claim, "x/y");
        add(&mut claim, "x/z");
        assert_eq!(claim["metadata"]["finalizers"], json!(["x/y", "x/z"]));
    }
}
