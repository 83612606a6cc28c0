//! The status of a validating policy: which generation has been looked at, and what its expressions read that no object
//! they are about can have. It follows each write of a policy.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Value, json};
use shipway_schema::{Registry, Resource};

use super::super::expression::{Checker, Parsed};
use super::super::{GROUP, put};
use super::aside;
use super::compile::MOST;
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
        status.insert("typeChecking".into(), aside(|| checked(&server.registry(), &policy)));
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
    let expressions = expressions(policy);
    // The warnings of each expression, one for each kind that has any.
    let mut found = vec![Vec::new(); expressions.len()];
    let variables = policy["spec"]["variables"].as_array().into_iter().flatten().take(MOST);
    let variables: Vec<(&str, Parsed)> =
        variables.filter_map(|one| Some((one["name"].as_str()?, Parsed::of(one["expression"].as_str()?)?))).collect();
    for kind in kinds(registry, policy) {
        let mut checker = checker(registry, policy, &kind);
        for (name, parsed) in &variables {
            checker.variable(name, parsed);
        }
        for ((_, parsed), found) in expressions.iter().zip(&mut found) {
            let problems = checker.check(parsed);
            if !problems.is_empty() {
                found.push(format!("{}, Kind={}: {}", group_version(&kind), kind.kind, problems.join("\n")));
            }
        }
    }
    let warned = expressions.iter().zip(found).filter(|(_, found)| !found.is_empty());
    let warnings: Vec<Value> =
        warned.map(|((field, _), found)| json!({"fieldRef": field, "warning": found.join("\n")})).collect();
    if warnings.is_empty() { json!({}) } else { json!({ "expressionWarnings": warnings }) }
}

/// What a policy says about objects, each with its field.
fn expressions(policy: &Value) -> Vec<(String, Parsed)> {
    let validations = policy["spec"]["validations"].as_array().into_iter().flatten().take(MOST);
    let each = validations.enumerate().flat_map(|(at, validation)| {
        ["expression", "messageExpression"].into_iter().filter_map(move |field| {
            let text = validation[field].as_str().filter(|text| !text.is_empty())?;
            Some((format!("spec.validations[{at}].{field}"), Parsed::of(text)?))
        })
    });
    each.collect()
}

/// What expressions can name in a request about a kind.
fn checker(registry: &Registry, policy: &Value, kind: &Resource) -> Checker {
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
    checker
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
