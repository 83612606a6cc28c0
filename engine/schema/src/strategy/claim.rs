//! Claims on volumes.

use serde_json::{Value, json};

use super::rules::{
    Declared, Generations, check_at, fixed_once_set, one_of, required, required_as, selector, text, with,
};
use super::{checks, pod};
use crate::invalid::FieldError;
use crate::lookup;
use crate::path::Path;
use crate::quantity::Quantity;

/// How a volume may be used, by how many.
pub(super) const ACCESS_MODES: &[&str] = &["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];

/// `v1` `PersistentVolumeClaim`
pub(crate) static CLAIM: Declared = Declared {
    status: Some(|| json!({ "phase": "Pending" })),
    generations: Generations::None,
    fill,
    rules: &[required("spec")],
    more: |object, old, errors| {
        let path = Path::Root.field("spec");
        claim_spec(&object["spec"], &path, errors);
        if let Some(old) = old {
            may_change(&object["spec"], old, &path, errors);
        }
    },
    status_rules: &[
        one_of("status.phase", &["Bound", "Lost", "Pending"]),
        one_of("status.accessModes[]", ACCESS_MODES),
        with("status.capacity{}", amount),
        with("status.allocatedResources{}", amount),
    ],
    ..Declared::SPECIFIED
};

/// Fills in a claim, which may be a template's.
pub(super) fn fill(claim: &mut Value) {
    if let Some(spec) = claim.get_mut("spec").filter(|spec| spec.is_object()) {
        fill_spec(spec);
    }
    if let Some(status) = lookup::make_object(claim, "status") {
        status.entry("phase").or_insert_with(|| "Pending".into());
    }
}

/// Fills in a claim's specification. What it is copied from is written twice; whoever gives one form means both.
pub(super) fn fill_spec(spec: &mut Value) {
    lookup::fill(spec, "volumeMode", "Filesystem");
    let (old, new) = (lookup::at(spec, "dataSource").cloned(), lookup::at(spec, "dataSourceRef").cloned());
    match (old, new) {
        (Some(source), None) => lookup::set(spec, "dataSourceRef", source),
        (None, Some(source)) if lookup::text(&source, "namespace").is_empty() => {
            lookup::set(spec, "dataSource", source);
        }
        _ => {}
    }
}

/// Checks a claim's specification.
pub(super) fn claim_spec(spec: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    if !spec.is_object() {
        return;
    }
    let rules = [
        required_as("accessModes", "at least 1 access mode is required"),
        one_of("accessModes[]", ACCESS_MODES),
        with("accessModes", alone),
        selector("selector"),
        one_of("volumeMode", &["Block", "Filesystem"]),
        text("storageClassName", checks::dns_subdomain),
        text("volumeAttributesClassName", checks::dns_subdomain),
        with("dataSource", source),
        with("dataSourceRef", source),
        with("resources.requests{}", amount),
    ];
    check_at(&rules, spec, None, path, errors);
    let resources = path.field("resources");
    let requests = resources.field("requests");
    let path = requests.key("storage");
    match spec.get("resources").and_then(|all| all.get("requests")?.get("storage")) {
        None => errors.push(FieldError::required(&path, "")),
        Some(size) if pod::nanos(size) == Some(0) => {
            errors.push(FieldError::invalid(&path, size, "must be greater than zero"));
        }
        Some(_) => {}
    }
}

/// A volume for one pod alone is for nobody else.
pub(super) fn alone(modes: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let modes = modes.as_array().map_or(&[][..], Vec::as_slice);
    if modes.len() > 1 && modes.iter().any(|mode| mode == "ReadWriteOncePod") {
        let detail = "may not use ReadWriteOncePod with other access modes";
        errors.push(FieldError::forbidden(path, detail));
    }
}

/// An amount below nought is none.
pub(super) fn amount(amount: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    if Quantity::from_value(amount).is_ok_and(|amount| amount.to_nanos() < 0) {
        errors.push(FieldError::invalid(path, amount, "must be greater than or equal to 0"));
    }
}

fn source(source: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    for field in ["name", "kind"] {
        if lookup::text(source, field).is_empty() {
            errors.push(FieldError::required(&path.field(field), ""));
        }
    }
    let (group, kind) = (lookup::text(source, "apiGroup"), lookup::text(source, "kind"));
    if group.is_empty() && kind != "PersistentVolumeClaim" {
        let detail = "must be 'PersistentVolumeClaim' when referencing the default apiGroup";
        errors.push(FieldError::invalid(path, &kind.into(), detail));
    }
}

/// A claim may be given its volume and its class, and grow once it has them.
fn may_change(spec: &Value, old: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let before = &old["spec"];
    check_at(&[fixed_once_set("volumeName"), fixed_once_set("storageClassName")], spec, Some(before), path, errors);
    let comparable = |spec: &Value| {
        let mut spec = spec.clone();
        for field in ["volumeName", "storageClassName", "volumeAttributesClassName"] {
            lookup::remove(&mut spec, field);
        }
        if let Some(requests) = lookup::at_mut(&mut spec, "resources.requests") {
            lookup::remove(requests, "storage");
        }
        spec
    };
    if comparable(spec) != comparable(before) {
        let detail = "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound \
                      claims";
        errors.push(FieldError::forbidden(path, detail));
    }
    let size = |spec: &Value| spec.get("resources").and_then(|all| pod::nanos(all.get("requests")?.get("storage")?));
    let (had, wants) = (size(before), size(spec));
    let resources = path.field("resources");
    let requests = resources.field("requests");
    let path = requests.field("storage");
    let capacity = old.get("status").and_then(|status| pod::nanos(status.get("capacity")?.get("storage")?));
    if had != wants && lookup::text(old, "status.phase") != "Bound" {
        errors.push(FieldError::forbidden(&path, "only a bound claim may ask for another size"));
    } else if wants < had && (capacity.is_none() || wants < capacity) {
        errors.push(FieldError::forbidden(&path, "field can not be less than status.capacity"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::strategy::testing::{admit, errors, fields, valid};

    fn claim(spec: &Value) -> Value {
        let mut object = json!({ "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": { "name": "c" }, "spec": {
            "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "1Gi" } },
        } });
        for (name, value) in spec.as_object().into_iter().flatten() {
            object["spec"][name] = value.clone();
        }
        object
    }

    #[test]
    fn a_claim_waits_for_a_volume_with_a_file_system() {
        let made = valid(claim(&json!({ "dataSource": { "kind": "PersistentVolumeClaim", "name": "o" } })));
        assert_eq!(
            (&made["spec"]["volumeMode"], &made["status"]),
            (&json!("Filesystem"), &json!({ "phase": "Pending" }))
        );
        assert_eq!(made["spec"]["dataSourceRef"]["name"], "o");
        let wrong = claim(&json!({
            "accessModes": ["ReadWriteOncePod", "Sometimes"], "volumeMode": "Disc", "resources": { "requests": { "storage": "0" } },
        }));
        assert_eq!(
            fields(&errors(wrong)),
            ["spec.accessModes[1]", "spec.accessModes", "spec.volumeMode", "spec.resources.requests[storage]"]
        );
        assert_eq!(
            fields(&errors(claim(&json!({ "accessModes": [], "resources": {} })))),
            ["spec.accessModes", "spec.resources.requests[storage]"]
        );
    }

    #[test]
    fn a_claim_is_bound_once_and_grows() {
        let old = valid(claim(&json!({})));
        let mut bound = old.clone();
        bound["spec"]["volumeName"] = json!("v");
        bound["spec"]["storageClassName"] = json!("s");
        assert_eq!(admit(bound.clone(), Some(&old)).1, Vec::<String>::new());
        bound["status"] = json!({ "phase": "Bound", "capacity": { "storage": "1Gi" } });
        let change = |field: &str, value: Value| {
            let mut new = bound.clone();
            *new.pointer_mut(field).expect("the field is there") = value;
            admit(new, Some(&bound)).1
        };
        assert_eq!(change("/spec/resources/requests/storage", json!("2Gi")), Vec::<String>::new());
        assert_eq!(
            fields(&change("/spec/resources/requests/storage", json!("1Mi"))),
            ["spec.resources.requests.storage"]
        );
        assert_eq!(fields(&change("/spec/volumeName", json!("w"))), ["spec.volumeName"]);
        assert_eq!(fields(&change("/spec/accessModes", json!(["ReadWriteMany"]))), ["spec"]);
        let mut early = old.clone();
        early["spec"]["resources"]["requests"]["storage"] = json!("2Gi");
        assert_eq!(fields(&admit(early, Some(&old)).1), ["spec.resources.requests.storage"]);
    }
}
