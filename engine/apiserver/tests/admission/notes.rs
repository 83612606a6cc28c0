//! What admission has written down in the audit log.

use serde_json::{Value, json};
use shipway_apiserver::AuditConfig;
use shipway_store::{Log, Options};

use crate::common::{CONFIG_MAPS, Cluster, config, config_map, pod};
use crate::hook::Hook;

const ADMISSION: &str = "/apis/admissionregistration.k8s.io/v1";

/// The annotations of the event of a create.
fn annotations(log: &std::path::Path, resource: &str, name: &str) -> Value {
    let text = std::fs::read_to_string(log).unwrap();
    let mut events = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let meant = |event: &Value| {
        event["stage"] == "ResponseComplete"
            && event["objectRef"]["resource"] == resource
            && event["requestObject"]["metadata"]["name"] == name
    };
    events.find(meant).unwrap()["annotations"].clone()
}

#[tokio::test]
async fn what_policies_webhooks_and_standards_note_reaches_the_audit_log() {
    let dir = tempfile::tempdir().unwrap();
    let (policy, log) = (dir.path().join("policy.yaml"), dir.path().join("audit.log"));
    std::fs::write(&policy, "{apiVersion: audit.k8s.io/v1, kind: Policy, rules: [{level: Request}]}").unwrap();
    let mut config = config();
    config.audit = Some(AuditConfig::new(policy, log.clone()));
    let store = Log::open(dir.path(), Options::default()).unwrap();
    let cluster = Cluster::with(store, dir, config).await;
    let hook = Hook::start().await;

    let rules =
        json!([{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}]);
    let spec = json!({
        "matchConstraints": {"resourceRules": rules},
        "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
        "validations": [{"expression": "true"}, {"expression": "object.data.k == '2'", "message": "not two"}],
        "auditAnnotations": [
            {"key": "value", "valueExpression": "'k is ' + object.data.k + ' by ' + params.metadata.name"},
            {"key": "nothing", "valueExpression": "null"},
        ],
    });
    for name in ["one", "two"] {
        let param = json!({"metadata": {"name": name, "labels": {"param": "yes"}}});
        cluster.post(CONFIG_MAPS, &param).await.ok();
    }
    let path = format!("{ADMISSION}/validatingadmissionpolicies");
    cluster.post(&path, &json!({"metadata": {"name": "p"}, "spec": spec})).await.ok();
    let binding = json!({"metadata": {"name": "b"}, "spec": {"policyName": "p", "validationActions": ["Audit"],
        "paramRef": {"selector": {"matchLabels": {"param": "yes"}}, "parameterNotFoundAction": "Deny"}}});
    cluster.post(&format!("{ADMISSION}/validatingadmissionpolicybindings"), &binding).await.ok();
    let webhooks = json!({"metadata": {"name": "w"}, "webhooks": [hook.webhook("/note/seen/yes", &json!({}))]});
    cluster.post(&format!("{ADMISSION}/validatingwebhookconfigurations"), &webhooks).await.ok();
    cluster.post(CONFIG_MAPS, &config_map("a", &json!({}), "1")).await.ok();

    let labels =
        json!({"pod-security.kubernetes.io/enforce": "baseline", "pod-security.kubernetes.io/audit": "restricted"});
    cluster.post("/api/v1/namespaces", &json!({"metadata": {"name": "safe", "labels": labels}})).await.ok();
    cluster.post("/api/v1/namespaces/safe/serviceaccounts", &json!({"metadata": {"name": "default"}})).await.ok();
    cluster.post("/api/v1/namespaces/safe/pods", &pod("loose", &json!({}))).await.ok();
    let mut worse = pod("worse", &json!({}));
    worse["spec"]["hostNetwork"] = true.into();
    assert_eq!(cluster.post("/api/v1/namespaces/safe/pods", &worse).await.code, 403);
    let dir = cluster.close().await;

    let noted = annotations(&log, "configmaps", "a");
    assert_eq!(noted["p/value"], "k is 1 by one, k is 1 by two");
    assert_eq!((&noted["p/nothing"], &noted["hook.example.com/seen"]), (&Value::Null, &json!("yes")));
    let failures = noted["validation.policy.admission.k8s.io/validation_failure"].as_str().unwrap();
    let failures: Value = serde_json::from_str(failures).unwrap();
    let failure = json!({"message": "not two", "policy": "p", "binding": "b", "expressionIndex": 1, "validationActions": ["Audit"]});
    assert_eq!(failures[0], failure);
    for name in ["loose", "worse"] {
        let noted = annotations(&log, "pods", name);
        assert_eq!(noted["pod-security.kubernetes.io/enforce-policy"], "baseline:latest");
        let found = noted["pod-security.kubernetes.io/audit-violations"].as_str().unwrap();
        assert!(found.starts_with("would violate PodSecurity \"restricted:latest\": "), "{found}");
    }
    drop(dir);
}
