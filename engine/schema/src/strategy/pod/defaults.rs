//! What a pod's specification means where it says nothing.

use serde_json::{Value, json};

use crate::lookup::{at_mut, fill, fill_zero, list_mut, make_object, set, text};

/// Permission bits of files made from volumes: 0644.
const FILE_MODE: i64 = 0o644;

/// Fills in a pod's or a template's `spec`.
pub(in crate::strategy) fn fill_spec(spec: &mut Value) {
    if !spec.is_object() {
        return;
    }
    service_account(spec);
    fill_zero(spec, "restartPolicy", "Always");
    fill(spec, "terminationGracePeriodSeconds", 30);
    fill_zero(spec, "dnsPolicy", "ClusterFirst");
    fill(spec, "securityContext", json!({}));
    fill_zero(spec, "schedulerName", "default-scheduler");
    fill(spec, "enableServiceLinks", true);
    let host_network = spec.get("hostNetwork").and_then(Value::as_bool).unwrap_or(false);
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        for container in list_mut(spec, list) {
            fill_container(container, host_network);
        }
    }
    for volume in list_mut(spec, "volumes") {
        fill_volume(volume);
    }
}

/// The account has an older name, which is kept in step.
fn service_account(spec: &mut Value) {
    let (new, old) = (text(spec, "serviceAccountName").to_owned(), text(spec, "serviceAccount").to_owned());
    let name = if new.is_empty() { old } else { new };
    if !name.is_empty() {
        set(spec, "serviceAccountName", name.clone());
        set(spec, "serviceAccount", name);
    }
}

fn fill_container(container: &mut Value, host_network: bool) {
    let policy = pull_policy(text(container, "image"));
    fill_zero(container, "imagePullPolicy", policy);
    fill_zero(container, "terminationMessagePath", "/dev/termination-log");
    fill_zero(container, "terminationMessagePolicy", "File");
    for port in list_mut(container, "ports") {
        fill_zero(port, "protocol", "TCP");
        if host_network && let Some(number) = port.get("containerPort").cloned() {
            fill_zero(port, "hostPort", number);
        }
    }
    for variable in list_mut(container, "env") {
        if let Some(source) = variable.get_mut("valueFrom") {
            fill_field_source(source);
        }
    }
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = container.get_mut(name).filter(|probe| probe.is_object()) {
            fill_probe(probe);
        }
    }
    for hook in ["lifecycle.postStart", "lifecycle.preStop"] {
        if let Some(handler) = at_mut(container, hook) {
            fill_handler(handler);
        }
    }
    requests_from_limits(container);
}

/// An image that may be another one tomorrow is pulled each time.
fn pull_policy(image: &str) -> &'static str {
    let (name, digest) = image.split_once('@').map_or((image, false), |(name, _)| (name, true));
    let last = name.rsplit('/').next().unwrap_or("");
    let tag = last.split_once(':').map(|(_, tag)| tag);
    match tag {
        Some("latest") => "Always",
        None if !digest => "Always",
        _ => "IfNotPresent",
    }
}

fn fill_probe(probe: &mut Value) {
    for (name, default) in
        [("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3)]
    {
        fill_zero(probe, name, default);
    }
    fill_handler(probe);
}

fn fill_handler(handler: &mut Value) {
    if let Some(http) = handler.get_mut("httpGet").filter(|http| http.is_object()) {
        fill_zero(http, "path", "/");
        fill_zero(http, "scheme", "HTTP");
    }
    if let Some(grpc) = handler.get_mut("grpc").filter(|grpc| grpc.is_object()) {
        fill(grpc, "service", "");
    }
}

/// Both a variable's source and a file of the downward API name fields like this.
fn fill_field_source(source: &mut Value) {
    if let Some(field) = source.get_mut("fieldRef").filter(|field| field.is_object()) {
        fill_zero(field, "apiVersion", "v1");
    }
    if let Some(resource) = source.get_mut("resourceFieldRef").filter(|resource| resource.is_object()) {
        fill_zero(resource, "divisor", "0");
    }
}

/// What is limited and not requested is requested up to the limit.
fn requests_from_limits(container: &mut Value) {
    let Some(resources) = container.get_mut("resources") else { return };
    let Some(limits) = resources.get("limits").and_then(Value::as_object).filter(|limits| !limits.is_empty()).cloned()
    else {
        return;
    };
    if let Some(requests) = make_object(resources, "requests") {
        for (name, limit) in limits {
            requests.entry(name).or_insert(limit);
        }
    }
}

fn fill_volume(volume: &mut Value) {
    let Some(object) = volume.as_object_mut() else { return };
    if !object.iter().any(|(name, source)| name != "name" && !source.is_null()) {
        object.insert("emptyDir".to_owned(), json!({}));
    }
    for name in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(source) = volume.get_mut(name).filter(|source| source.is_object()) {
            fill(source, "defaultMode", FILE_MODE);
            list_mut(source, "items").iter_mut().for_each(fill_field_source);
        }
    }
    if let Some(source) = volume.get_mut("hostPath").filter(|source| source.is_object()) {
        fill(source, "type", "");
    }
    for source in at_mut(volume, "projected").map(|source| list_mut(source, "sources")).unwrap_or_default() {
        if let Some(token) = source.get_mut("serviceAccountToken").filter(|token| token.is_object()) {
            fill(token, "expirationSeconds", 3600);
        }
        if let Some(files) = source.get_mut("downwardAPI") {
            list_mut(files, "items").iter_mut().for_each(fill_field_source);
        }
    }
}
