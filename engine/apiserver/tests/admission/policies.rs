//! Validating admission policies, with bindings and parameters.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::common::{CONFIG_MAPS, Cluster, DEPLOYMENTS, Reply, config_map, deployment};

const POLICIES: &str = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies";
const BINDINGS: &str = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings";

/// A policy for config maps and deployments.
fn policy(spec: &Value) -> Value {
    let mut object = json!({
        "metadata": {"name": "p"},
        "spec": {
            "matchConstraints": {"resourceRules": [{"apiGroups": ["", "apps"], "apiVersions": ["v1"],
                "operations": ["CREATE", "UPDATE", "DELETE"], "resources": ["configmaps", "deployments"]}]},
        },
    });
    for (key, value) in spec.as_object().unwrap() {
        object["spec"][key] = value.clone();
    }
    object
}

async fn bind(cluster: &Cluster, spec: &Value) {
    let mut object = json!({"metadata": {"name": "b"}, "spec": {"policyName": "p", "validationActions": ["Deny"]}});
    for (key, value) in spec.as_object().unwrap() {
        object["spec"][key] = value.clone();
    }
    cluster.post(BINDINGS, &object).await.ok();
}

async fn cluster_with(spec: &Value, binding: &Value) -> Cluster {
    let cluster = Cluster::new().await;
    cluster.post(POLICIES, &policy(spec)).await.ok();
    bind(&cluster, binding).await;
    cluster
}

async fn create(cluster: &Cluster, value: &str) -> Reply {
    cluster.post(CONFIG_MAPS, &config_map("a", &json!({}), value)).await
}

fn validations(expression: &str) -> Value {
    json!({"validations": [{"expression": expression}]})
}

#[tokio::test]
async fn a_policy_without_a_binding_judges_nobody() {
    let cluster = Cluster::new().await;
    cluster.post(POLICIES, &policy(&validations("false"))).await.ok();
    create(&cluster, "1").await.ok();
}

#[tokio::test]
async fn a_validation_that_does_not_hold_refuses() {
    let cluster = cluster_with(&validations("object.data.k == 'good'"), &json!({})).await;
    let reply = create(&cluster, "bad").await;
    let message = "configmaps \"a\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: failed \
                   expression: object.data.k == 'good'";
    assert_eq!(reply.failure(), (422, message.to_owned()));
    assert_eq!(reply.value()["reason"], "Invalid");
    let cause = message.split_once(": ").unwrap().1;
    assert_eq!(reply.value()["details"]["causes"], json!([{ "message": cause }]));
    create(&cluster, "good").await.ok();
    let update = cluster.patch(&format!("{CONFIG_MAPS}/a"), "merge", &json!({"data": {"k": "bad"}})).await;
    assert_eq!(update.code, 422);
    cluster.delete(&format!("{POLICIES}/p")).await.ok();
    cluster.delete(&format!("{CONFIG_MAPS}/a")).await.ok();
}

#[tokio::test]
async fn messages_and_reasons_are_the_policy_s_own() {
    let spec = json!({
        "variables": [{"name": "value", "expression": "object.data.k"}, {"name": "long", "expression": "size(variables.value) > 3"}],
        "validations": [
            {"expression": "!variables.long", "messageExpression": "'too long: ' + variables.value", "reason": "Forbidden"},
            {"expression": "variables.value != 'no'", "message": "not that"},
        ],
    });
    let cluster = cluster_with(&spec, &json!({})).await;
    let (code, message) = create(&cluster, "longer").await.failure();
    assert_eq!(code, 403);
    assert!(message.ends_with("denied request: too long: longer"), "{message}");
    let (code, message) = create(&cluster, "no").await.failure();
    assert_eq!(code, 422);
    assert!(message.ends_with("denied request: not that"), "{message}");
    create(&cluster, "yes").await.ok();
}

#[tokio::test]
async fn a_binding_may_warn_instead() {
    let cluster = cluster_with(&validations("false"), &json!({"validationActions": ["Warn", "Audit"]})).await;
    let reply = create(&cluster, "1").await;
    reply.ok();
    let warning =
        "299 - \"Validation failed for ValidatingAdmissionPolicy 'p' with binding 'b': failed expression: false\"";
    assert_eq!(reply.headers["warning"], warning);
}

#[tokio::test]
async fn parameters_are_given_by_name_or_by_selector() {
    let mut spec = validations("int(object.spec.replicas) <= int(params.data.max)");
    spec["paramKind"] = json!({"apiVersion": "v1", "kind": "ConfigMap"});
    spec["matchConstraints"] = json!({"resourceRules": [{"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["*"], "resources": ["deployments"]}]});
    let by_name = json!({"paramRef": {"name": "limits", "parameterNotFoundAction": "Deny"}});
    let cluster = cluster_with(&spec, &by_name).await;
    let (code, message) = cluster.post(DEPLOYMENTS, &deployment("web")).await.failure();
    assert_eq!(code, 422);
    assert!(message.contains("no params found for policy binding with `Deny` parameterNotFoundAction"), "{message}");
    let param =
        |name: &str, max: &str| json!({"metadata": {"name": name, "labels": {"kind": "limit"}}, "data": {"max": max}});
    cluster.post(CONFIG_MAPS, &param("limits", "1")).await.ok();
    assert_eq!(cluster.post(DEPLOYMENTS, &deployment("web")).await.code, 422);
    cluster.patch(&format!("{CONFIG_MAPS}/limits"), "merge", &json!({"data": {"max": "2"}})).await.ok();
    cluster.post(DEPLOYMENTS, &deployment("web")).await.ok();
    let selector = json!({"selector": {"matchLabels": {"kind": "limit"}}, "parameterNotFoundAction": "Allow"});
    let change = json!({"spec": {"paramRef": {"name": null, "selector": selector["selector"], "parameterNotFoundAction": "Allow"}}});
    cluster.patch(&format!("{BINDINGS}/b"), "merge", &change).await.ok();
    cluster.post(CONFIG_MAPS, &param("stricter", "0")).await.ok();
    assert_eq!(cluster.post(DEPLOYMENTS, &deployment("web2")).await.code, 422, "every parameter picked has its say");
    cluster.delete(&format!("{CONFIG_MAPS}/limits")).await.ok();
    cluster.delete(&format!("{CONFIG_MAPS}/stricter")).await.ok();
    cluster.post(DEPLOYMENTS, &deployment("web2")).await.ok();
}

#[tokio::test]
async fn conditions_and_resources_choose_who_is_judged() {
    let mut spec = validations("false");
    spec["matchConditions"] = json!([{"name": "not-me", "expression": "request.userInfo.username != 'admin'"}]);
    create(&cluster_with(&spec, &json!({})).await, "1").await.ok();
    let elsewhere = json!({"matchResources": {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}}});
    create(&cluster_with(&validations("false"), &elsewhere).await, "1").await.ok();
    let here =
        json!({"matchResources": {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "default"}}}});
    assert_eq!(create(&cluster_with(&validations("false"), &here).await, "1").await.code, 422);
    let namespace = validations("namespaceObject.metadata.name == 'default' && request.operation == 'CREATE'");
    create(&cluster_with(&namespace, &json!({})).await, "1").await.ok();
}

#[tokio::test]
async fn what_fails_counts_as_the_policy_says() {
    let cluster = cluster_with(&validations("object.missing == 1"), &json!({})).await;
    let (code, message) = create(&cluster, "1").await.failure();
    assert_eq!(code, 422);
    assert!(message.ends_with("expression 'object.missing == 1' resulted in error: no such key: missing"), "{message}");
    let mut spec = validations("object.missing == 1");
    spec["failurePolicy"] = "Ignore".into();
    create(&cluster_with(&spec, &json!({})).await, "1").await.ok();
}

#[tokio::test]
async fn an_expression_that_cannot_be_compiled_is_refused() {
    let cluster = Cluster::new().await;
    let (code, message) = cluster.post(POLICIES, &policy(&validations("object."))).await.failure();
    assert_eq!(code, 422);
    assert!(
        message.contains("spec.validations[0].expression: Invalid value: \"object.\": compilation failed"),
        "{message}"
    );
}

#[tokio::test]
async fn a_hostile_policy_costs_a_bounded_time() {
    let keys: serde_json::Map<String, Value> = (0..500).map(|at| (format!("k{at}"), "x".into())).collect();
    let loops = "object.data.all(a, object.data.all(b, object.data.all(c, a + b + c != '')))";
    let cluster = cluster_with(&validations(loops), &json!({})).await;
    let start = Instant::now();
    let reply = cluster.post(CONFIG_MAPS, &json!({"metadata": {"name": "big"}, "data": keys})).await;
    let (code, message) = reply.failure();
    assert_eq!(code, 422);
    assert!(message.contains("cost limit exceeded"), "{message}");
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
}

#[tokio::test]
async fn expressions_ask_what_somebody_may_do() {
    let may = |check: &str| format!("authorizer.{check}.allowed()");
    let table = [
        (may("group('').resource('configmaps').namespace('default').check('create')"), true),
        (may("group('').resource('pods').subresource('exec').namespace('x').name('y').check('create')"), true),
        (may("path('/metrics').check('get')"), true),
        (may("requestResource.check('update')"), true),
        (may("serviceAccount('default', 'bot').group('').resource('configmaps').namespace('default').check('get')"), false),
        (may("serviceAccount('default', 'bot').path('/version').check('get')"), true),
        ("authorizer.requestResource.check('get').reason() != '' && !authorizer.requestResource.check('get').errored()".into(), true),
    ];
    for (expression, holds) in table {
        let cluster = cluster_with(&validations(&expression), &json!({})).await;
        let reply = create(&cluster, "1").await;
        assert_eq!(reply.code.as_u16(), if holds { 201 } else { 422 }, "{expression} {:?}", reply.bytes);
    }
    let cluster = cluster_with(&validations("authorizer.allowed()"), &json!({})).await;
    let (_, message) = create(&cluster, "1").await.failure();
    assert!(message.contains("no such overload"), "{message}");
}

#[tokio::test]
async fn every_fault_is_told_and_the_first_refusal_decides() {
    let cluster = cluster_with(&validations("false"), &json!({})).await;
    let other = json!({"metadata": {"name": "q"}, "spec": {
        "matchConstraints": policy(&json!({}))["spec"]["matchConstraints"],
        "validations": [{"expression": "object.data.k == '2'", "message": "not two"}]}});
    cluster.post(POLICIES, &other).await.ok();
    let warn = json!({"metadata": {"name": "w"}, "spec": {"policyName": "q", "validationActions": ["Warn"]}});
    cluster.post(BINDINGS, &warn).await.ok();
    let reply = create(&cluster, "1").await;
    assert!(reply.failure().1.contains("ValidatingAdmissionPolicy 'p' with binding 'b'"));
    assert!(reply.headers["warning"].to_str().unwrap().contains("'q' with binding 'w': not two"));
}

#[tokio::test]
async fn a_binding_that_cannot_find_its_parameters_refuses_whatever_its_actions() {
    let mut spec = validations("true");
    spec["paramKind"] = json!({"apiVersion": "v1", "kind": "ConfigMap"});
    let binding =
        json!({"validationActions": ["Audit"], "paramRef": {"name": "none", "parameterNotFoundAction": "Deny"}});
    let (code, message) = create(&cluster_with(&spec, &binding).await, "1").await.failure();
    assert_eq!(code, 422);
    assert!(
        message.contains("with binding 'b' denied request: failed to configure binding: no params found"),
        "{message}"
    );
    spec["paramKind"] = json!({"apiVersion": "example.com/v1", "kind": "Nothing"});
    let (_, message) = create(&cluster_with(&spec, &binding).await, "1").await.failure();
    assert!(
        message.contains(
            "ValidatingAdmissionPolicy 'p' denied request: failed to configure policy: failed to find resource"
        ),
        "{message}"
    );
    spec["failurePolicy"] = "Ignore".into();
    create(&cluster_with(&spec, &binding).await, "1").await.ok();
}

#[tokio::test]
async fn the_status_says_what_has_been_looked_at_and_what_cannot_be() {
    let cluster = Cluster::new().await;
    let mut spec = validations("object.replicas > 1");
    let named = json!({"expression": "object.metadata.name != ''", "messageExpression": "params.nothing"});
    spec["validations"].as_array_mut().unwrap().push(named);
    spec["paramKind"] = json!({"apiVersion": "v1", "kind": "ConfigMap"});
    let made = cluster.post(POLICIES, &policy(&spec)).await.ok();
    let one = |kind: &str, field: &str, text: &str| {
        let dots = ".".repeat(6);
        format!("{kind}: ERROR: <input>:1:7: undefined field '{field}'\n | {text}\n | {dots}^")
    };
    let both = |field: &str, text: &str| {
        [one("/v1, Kind=ConfigMap", field, text), one("apps/v1, Kind=Deployment", field, text)].join("\n")
    };
    let warnings = json!([
        {"fieldRef": "spec.validations[0].expression", "warning": both("replicas", "object.replicas > 1")},
        {"fieldRef": "spec.validations[1].messageExpression", "warning": both("nothing", "params.nothing")},
    ]);
    assert_eq!(made["status"], json!({"observedGeneration": 1, "typeChecking": {"expressionWarnings": warnings}}));
    let path = format!("{POLICIES}/p");
    let better = json!({"spec": {"validations": [{"expression": "object.metadata.name != ''"}]}});
    let changed = cluster.patch(&path, "merge", &better).await.ok();
    assert_eq!(changed["status"], json!({"observedGeneration": 2, "typeChecking": {}}));
    assert_eq!(cluster.get(&path).await.ok()["status"], changed["status"]);
    let labelled = cluster.patch(&path, "merge", &json!({"metadata": {"labels": {"a": "b"}}})).await.ok();
    assert_eq!(labelled["status"], changed["status"]);
}
