//! Devices that are claimed like storage: `resource.k8s.io`.

use serde_json::Value;

use super::checks;
use super::pod;
use super::rules::{
    Declared, Fill, Generations, at_most, check_at, distinct, fixed, not_negative, one_of, positive, required, text,
    with,
};
use crate::invalid::FieldError;
use crate::lookup;
use crate::path::Path;

/// `resource.k8s.io/v1` `DeviceClass`
pub(crate) static DEVICE_CLASS: Declared = Declared {
    generations: Generations::Of(&["spec"]),
    rules: &[
        at_most("spec.selectors", 32),
        required("spec.selectors[].cel.expression"),
        at_most("spec.config", 32),
        required("spec.config[].opaque.driver"),
        text("spec.config[].opaque.driver", checks::driver_name),
        required("spec.config[].opaque.parameters"),
        text("spec.extendedResourceName", checks::qualified_name),
    ],
    ..Declared::PLAIN
};

/// `resource.k8s.io/v1` `ResourceClaim`
pub(crate) static RESOURCE_CLAIM: Declared = Declared {
    generations: Generations::None,
    fill: |object| {
        if let Some(spec) = object.get_mut("spec") {
            fill_claim(spec);
        }
    },
    rules: &[required("spec"), with("spec", claim), fixed("spec")],
    status_rules: &[at_most("status.reservedFor", 256), distinct("status.reservedFor", &["uid"])],
    ..Declared::SPECIFIED
};

/// `resource.k8s.io/v1` `ResourceClaimTemplate`
pub(crate) static RESOURCE_CLAIM_TEMPLATE: Declared = Declared {
    fill: |object| {
        if let Some(spec) = lookup::at_mut(object, "spec.spec") {
            fill_claim(spec);
        }
    },
    rules: &[required("spec"), required("spec.spec"), with("spec.spec", claim), fixed("spec")],
    ..Declared::PLAIN
};

/// What a request for devices says once.
const ASKED: &[(&str, Fill)] = &[
    ("exactly.allocationMode", Fill::Text("ExactCount")),
    ("exactly.tolerations[].operator", Fill::Text("Equal")),
    ("firstAvailable[].allocationMode", Fill::Text("ExactCount")),
    ("firstAvailable[].tolerations[].operator", Fill::Text("Equal")),
];

fn fill_claim(spec: &mut Value) {
    let Some(devices) = spec.get_mut("devices") else { return };
    for request in lookup::list_mut(devices, "requests") {
        super::rules::fill(ASKED, request);
        if let Some(exactly) = request.get_mut("exactly").filter(|exactly| exactly.is_object()) {
            fill_count(exactly);
        }
        lookup::list_mut(request, "firstAvailable").iter_mut().for_each(fill_count);
    }
}

fn fill_count(request: &mut Value) {
    if lookup::text(request, "allocationMode") == "ExactCount" {
        lookup::fill_zero(request, "count", 1);
    }
}

fn claim(spec: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let rules = [
        at_most("devices.requests", 32),
        required("devices.requests[].name"),
        text("devices.requests[].name", checks::dns_label),
        with("devices.requests[]", request),
        distinct("devices.requests", &["name"]),
        at_most("devices.constraints", 32),
        with("devices.constraints[]", |constraint, path, errors| {
            if ["matchAttribute", "distinctAttribute"].iter().all(|field| lookup::text(constraint, field).is_empty()) {
                errors.push(FieldError::required(&path.field("matchAttribute"), ""));
            }
        }),
        at_most("devices.config", 32),
        required("devices.config[].opaque.driver"),
        required("devices.config[].opaque.parameters"),
    ];
    check_at(&rules, spec, None, path, errors);
    let devices = path.field("devices");
    let known = |name: &str| {
        let mut requests = lookup::list(spec, "devices.requests").iter();
        requests.any(|each| lookup::text(each, "name") == name.split('/').next().unwrap_or(""))
    };
    for list in ["constraints", "config"] {
        let list_path = devices.field(list);
        for (index, each) in lookup::list(&spec["devices"], list).iter().enumerate() {
            let path = list_path.index(index);
            let requests = path.field("requests");
            for (index, name) in lookup::list(each, "requests").iter().enumerate() {
                if !known(name.as_str().unwrap_or("")) {
                    let detail = "must be the name of a request in the claim";
                    errors.push(FieldError::invalid(&requests.index(index), name, detail));
                }
            }
        }
    }
}

fn request(request: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let alternatives = lookup::list(request, "firstAvailable");
    match (lookup::at(request, "exactly"), alternatives.is_empty()) {
        (Some(_), false) => {
            let detail = "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set";
            errors.push(FieldError::invalid(path, request, detail));
        }
        (None, true) => {
            errors.push(FieldError::required(path, "exactly one of `exactly` or `firstAvailable` is required"));
        }
        (Some(exactly), true) => one_request(exactly, &path.field("exactly"), errors),
        (None, false) => {
            let list = path.field("firstAvailable");
            for (index, each) in alternatives.iter().enumerate() {
                let path = list.index(index);
                check_at(&[required("name"), text("name", checks::dns_label)], each, None, &path, errors);
                one_request(each, &path, errors);
            }
        }
    }
    check_at(&[at_most("firstAvailable", 8), distinct("firstAvailable", &["name"])], request, None, path, errors);
}

fn one_request(request: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let rules = [
        required("deviceClassName"),
        text("deviceClassName", checks::dns_subdomain),
        one_of("allocationMode", &["All", "ExactCount"]),
        at_most("selectors", 32),
        required("selectors[].cel.expression"),
        with("tolerations", pod::tolerations),
    ];
    check_at(&rules, request, None, path, errors);
    let count = lookup::integer(request, "count").unwrap_or(0);
    match lookup::text(request, "allocationMode") {
        "ExactCount" if count <= 0 => {
            errors.push(FieldError::invalid(&path.field("count"), &count.into(), "must be greater than zero"));
        }
        "All" if count != 0 => {
            let detail = "must not be specified when allocationMode is 'All'";
            errors.push(FieldError::invalid(&path.field("count"), &count.into(), detail));
        }
        _ => {}
    }
}

/// `resource.k8s.io/v1` `ResourceSlice`
pub(crate) static RESOURCE_SLICE: Declared = Declared {
    generations: Generations::Of(&["spec"]),
    rules: &[
        required("spec"),
        required("spec.driver"),
        text("spec.driver", checks::driver_name),
        required("spec.pool"),
        required("spec.pool.name"),
        positive("spec.pool.resourceSliceCount"),
        not_negative("spec.pool.generation"),
        text("spec.nodeName", checks::dns_subdomain),
        with("spec.nodeSelector", pod::node_selector),
        with("spec", where_it_is),
        at_most("spec.devices", 128),
        required("spec.devices[].name"),
        text("spec.devices[].name", checks::dns_label),
        distinct("spec.devices", &["name"]),
        at_most("spec.sharedCounters", 8),
        distinct("spec.sharedCounters", &["name"]),
        fixed("spec.driver"),
        fixed("spec.pool.name"),
        fixed("spec.nodeName"),
    ],
    ..Declared::PLAIN
};

/// A slice says where its devices are, in one of several ways; one of counters alone says it, too.
fn where_it_is(spec: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let given = [
        !lookup::text(spec, "nodeName").is_empty(),
        lookup::at(spec, "nodeSelector").is_some(),
        lookup::flag(spec, "allNodes"),
        lookup::flag(spec, "perDeviceNodeSelection"),
    ];
    let detail = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
    match given.iter().filter(|given| **given).count() {
        0 => errors.push(FieldError::required(path, detail)),
        1 => {}
        _ => errors.push(FieldError::invalid(path, &"".into(), detail)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::strategy::testing::{admit, errors, fields, valid};

    fn made(kind: &str, spec: &Value) -> Value {
        json!({ "apiVersion": "resource.k8s.io/v1", "kind": kind, "metadata": { "name": "d" }, "spec": spec })
    }

    #[test]
    fn a_claim_asks_for_one_device_and_stays() {
        let spec = json!({ "devices": { "requests": [{ "name": "gpu", "exactly": { "deviceClassName": "gpu.example.com" } }] } });
        let old = valid(made("ResourceClaim", &spec));
        let exactly = &old["spec"]["devices"]["requests"][0]["exactly"];
        assert_eq!((&exactly["allocationMode"], &exactly["count"]), (&json!("ExactCount"), &json!(1)));
        let mut new = old.clone();
        new["spec"]["devices"]["requests"][0]["exactly"]["count"] = json!(2);
        assert_eq!(fields(&admit(new, Some(&old)).1), ["spec"]);
        valid(made("ResourceClaimTemplate", &json!({ "spec": spec })));
        let wrong = json!({ "devices": { "requests": [{ "name": "A" }, { "name": "b", "exactly": { "allocationMode": "All", "count": 1 } }],
            "constraints": [{ "requests": ["c"] }] } });
        assert_eq!(
            fields(&errors(made("ResourceClaim", &wrong))),
            [
                "spec.devices.requests[0].name",
                "spec.devices.requests[0]",
                "spec.devices.requests[1].exactly.deviceClassName",
                "spec.devices.requests[1].exactly.count",
                "spec.devices.constraints[0].matchAttribute",
                "spec.devices.constraints[0].requests[0]",
            ]
        );
    }

    #[test]
    fn a_slice_says_where_its_devices_are() {
        let pool = json!({ "name": "p", "generation": 1, "resourceSliceCount": 1 });
        let old = valid(made(
            "ResourceSlice",
            &json!({ "driver": "d.example.com", "pool": pool, "nodeName": "n", "devices": [{ "name": "a" }] }),
        ));
        let mut new = old.clone();
        new["spec"]["nodeName"] = json!("m");
        assert_eq!(fields(&admit(new, Some(&old)).1), ["spec.nodeName"]);
        let wrong = json!({ "driver": "d", "pool": pool, "devices": [{ "name": "a" }, { "name": "a" }] });
        assert_eq!(fields(&errors(made("ResourceSlice", &wrong))), ["spec", "spec.devices[1].name"]);
        let class = made("DeviceClass", &json!({ "selectors": [{ "cel": { "expression": "" } }] }));
        assert_eq!(fields(&errors(class)), ["spec.selectors[0].cel.expression"]);
        valid(made("DeviceClass", &json!({})));
    }
}
