//! The status of a validating policy: which generation has been looked at, and what its expressions read that no object
//! they are about can have. It follows each write of a policy.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Map, Value, json};
use shipway_schema::{Registry, Resource};

use super::super::expression::Checker;
use super::super::{GROUP, put};
use crate::ApiServer;
use crate::error::ApiError;
use crate::object::Object;

/// At most so many kinds are looked at.
const KINDS: usize = 10;
const ATTEMPTS: usize = 16;

/// Brings the status of a policy up to date.
pub(in super::super) async fn observe(server: &ApiServer, name: &str) -> Result<Option<Arc<Object>>, ApiError> {
    let table = server.cache().named(GROUP, "validatingadmissionpolicies");
    for _ in 0..ATTEMPTS {
        server.cache().catch_up().await?;
        let Some(live) = table.get(name) else { return Ok(None) };
        let mut policy = live.value();
        let mut status = policy["status"].as_object().cloned().unwrap_or_default();
        status.insert("observedGeneration".into(), policy["metadata"]["generation"].clone());
        status.insert("typeChecking".into(), checked(&server.registry(), &policy));
        if policy["status"] == Value::Object(status.clone()) {
            return Ok(Some(live));
        }
        policy["status"] = status.into();
        if let Some(object) = put(server, &table, &live, &policy).await? {
            return Ok(Some(object));
        }
    }
    Ok(None)
}

/// `status.typeChecking`
fn checked(registry: &Registry, policy: &Value) -> Value {
    let kinds = kinds(registry, policy);
    let mut warnings = Vec::new();
    for (at, validation) in policy["spec"]["validations"].as_array().into_iter().flatten().enumerate() {
        for field in ["expression", "messageExpression"] {
            let Some(text) = validation[field].as_str().filter(|text| !text.is_empty()) else { continue };
            let found: Vec<String> = kinds.iter().filter_map(|kind| warning(registry, policy, kind, text)).collect();
            if !found.is_empty() {
                warnings.push(json!({
                    "fieldRef": format!("spec.validations[{at}].{field}"),
                    "warning": found.join("\n"),
                }));
            }
        }
    }
    let mut checked = Map::new();
    if !warnings.is_empty() {
        checked.insert("expressionWarnings".into(), warnings.into());
    }
    checked.into()
}

/// What is wrong with an expression about one kind.
fn warning(registry: &Registry, policy: &Value, kind: &Resource, text: &str) -> Option<String> {
    let schema = |version: &str, kind: &str| registry.of_kind(version, kind).map(|kind| kind.schema().clone());
    let param = &policy["spec"]["paramKind"];
    let mut checker = Checker::default();
    for name in ["object", "oldObject"] {
        checker.name(name, Some(kind.schema().clone()));
    }
    checker.name("namespaceObject", schema("v1", "Namespace"));
    if let (Some(version), Some(kind)) = (param["apiVersion"].as_str(), param["kind"].as_str()) {
        checker.name("params", schema(version, kind));
    }
    for variable in policy["spec"]["variables"].as_array().into_iter().flatten() {
        let text = |field: &str| variable[field].as_str().unwrap_or_default();
        checker.variable(text("name"), text("expression"));
    }
    let found = checker.check(text);
    let head = format!("{}, Kind={}", group_version(kind), kind.kind);
    (!found.is_empty()).then(|| format!("{head}: {}", found.join("\n")))
}

fn group_version(kind: &Resource) -> String {
    format!("{}/{}", kind.group, kind.version)
}

/// The kinds that a policy names, without those that it means by `*` or below an object.
fn kinds(registry: &Registry, policy: &Value) -> Vec<Arc<Resource>> {
    let mut names = BTreeSet::new();
    for rule in policy["spec"]["matchConstraints"]["resourceRules"].as_array().into_iter().flatten() {
        let texts = |field: &str| rule[field].as_array().into_iter().flatten().filter_map(Value::as_str);
        if texts("apiGroups").chain(texts("apiVersions")).any(|text| text.contains('*')) {
            continue;
        }
        for group in texts("apiGroups") {
            for version in texts("apiVersions") {
                let plain = texts("resources").filter(|plural| !plural.contains(['*', '/']));
                names.extend(plain.map(|plural| (group, version, plural)));
            }
        }
    }
    let found = names.into_iter().filter_map(|(group, version, plural)| registry.find(group, version, plural));
    found.take(KINDS).collect()
}
