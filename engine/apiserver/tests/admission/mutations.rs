//! Mutating admission policies, with bindings and parameters.

use serde_json::{Value, json};

use crate::common::{CONFIG_MAPS, Cluster, DEPLOYMENTS, PODS, Reply, config_map, deployment, pod};
use crate::hook::Hook;

const POLICIES: &str = "/apis/admissionregistration.k8s.io/v1/mutatingadmissionpolicies";
const BINDINGS: &str = "/apis/admissionregistration.k8s.io/v1/mutatingadmissionpolicybindings";
const HOOKS: &str = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";

fn patch(expression: &str) -> Value {
    json!({"patchType": "JSONPatch", "jsonPatch": {"expression": expression}})
}

fn apply(expression: &str) -> Value {
    json!({"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}})
}

/// A policy for what the tests write, with a binding of the same name.
async fn bind(cluster: &Cluster, name: &str, mutations: &[Value], fields: &Value, binding: &Value) {
    let mut policy = json!({"metadata": {"name": name}, "spec": {
        "matchConstraints": {"resourceRules": [{"apiGroups": ["", "apps"], "apiVersions": ["v1"],
            "operations": ["CREATE", "UPDATE"], "resources": ["configmaps", "deployments", "deployments/scale", "pods"]}]},
        "reinvocationPolicy": "Never", "mutations": mutations}});
    for (key, value) in fields.as_object().unwrap() {
        policy["spec"][key] = value.clone();
    }
    cluster.post(POLICIES, &policy).await.ok();
    let mut object = json!({"metadata": {"name": name}, "spec": {"policyName": name}});
    for (key, value) in binding.as_object().unwrap() {
        object["spec"][key] = value.clone();
    }
    cluster.post(BINDINGS, &object).await.ok();
}

async fn cluster_with(mutations: &[Value], fields: &Value) -> Cluster {
    let cluster = Cluster::new().await;
    bind(&cluster, "p", mutations, fields, &json!({})).await;
    cluster
}

async fn create(cluster: &Cluster) -> Reply {
    cluster.post(CONFIG_MAPS, &config_map("a", &json!({"app": "web"}), "1")).await
}

#[tokio::test]
async fn a_patch_changes_what_is_created_and_updated() {
    let expression = "[JSONPatch{op: 'add', path: '/metadata/labels/' + jsonpatch.escapeKey('a/b'), value: 'k-' + object.data.k}, \
                      JSONPatch{op: 'remove', path: '/metadata/labels/app'}]";
    let only = json!({"matchConditions": [{"name": "labelled", "expression": "'app' in object.metadata.labels"}]});
    let cluster = cluster_with(&[patch(expression)], &only).await;
    let made = create(&cluster).await.ok();
    assert_eq!(made["metadata"]["labels"], json!({"a/b": "k-1"}));
    let change = json!({"metadata": {"labels": {"app": "again"}}, "data": {"k": "2"}});
    let made = cluster.patch(&format!("{CONFIG_MAPS}/a"), "merge", &change).await.ok();
    assert_eq!(made["metadata"]["labels"], json!({"a/b": "k-2"}));
}

#[tokio::test]
async fn a_configuration_is_merged_by_keys() {
    let sidecar = "Object{spec: Object.spec{initContainers: [Object.spec.initContainers{\
                   name: 'mesh', image: 'mesh:1', restartPolicy: 'Always'}]}}";
    let labels = "Object{metadata: Object.metadata{labels: {'mesh': 'yes'}}}";
    let cluster = cluster_with(&[apply(sidecar), apply(labels)], &json!({})).await;
    let mut own = pod("a", &json!({"app": "web"}));
    own["spec"]["initContainers"] = json!([{"name": "first", "image": "busybox"}]);
    let made = cluster.post(PODS, &own).await.ok();
    let containers = made["spec"]["initContainers"].as_array().unwrap();
    let brief: Vec<_> = containers.iter().map(|one| (&one["name"], &one["image"])).collect();
    assert_eq!(brief, [(&json!("first"), &json!("busybox")), (&json!("mesh"), &json!("mesh:1"))]);
    assert_eq!(containers[1]["terminationMessagePath"], "/dev/termination-log", "what it adds has its defaults");
    assert_eq!(made["metadata"]["labels"], json!({"app": "web", "mesh": "yes"}));
}

#[tokio::test]
async fn what_a_policy_sets_belongs_to_who_asked() {
    let cluster = cluster_with(&[apply("Object{data: {'set': 'yes'}}")], &json!({})).await;
    let applied = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "b"}, "data": {"x": "1"}});
    for _ in 0..2 {
        let made = cluster.patch(&format!("{CONFIG_MAPS}/b?fieldManager=me"), "apply", &applied).await.ok();
        assert_eq!(made["data"], json!({"x": "1", "set": "yes"}));
        let managers = made["metadata"]["managedFields"].as_array().unwrap();
        let of = |operation: &str| managers.iter().find(|one| one["operation"] == operation).unwrap();
        assert!(of("Apply")["fieldsV1"]["f:data"]["f:set"].is_null());
        assert_eq!(
            (&of("Update")["manager"], of("Update")["fieldsV1"]["f:data"]["f:set"].is_object()),
            (&json!("me"), true)
        );
    }
}

#[tokio::test]
async fn variables_parameters_and_the_namespace_are_seen() {
    let expression =
        "Object{data: {'limit': params.data.max, 'twice': variables.twice, 'in': namespaceObject.metadata.name}}";
    let fields = json!({
        "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
        "variables": [{"name": "twice", "expression": "object.data.k + object.data.k"}],
    });
    let cluster = Cluster::new().await;
    cluster.post(CONFIG_MAPS, &json!({"metadata": {"name": "limits"}, "data": {"max": "5"}})).await.ok();
    let reference = json!({"paramRef": {"name": "limits", "parameterNotFoundAction": "Deny"}});
    bind(&cluster, "p", &[apply(expression)], &fields, &reference).await;
    let made = create(&cluster).await.ok();
    assert_eq!(made["data"], json!({"k": "1", "limit": "5", "twice": "11", "in": "default"}));
    cluster.delete(&format!("{CONFIG_MAPS}/limits")).await.ok();
    let (code, message) = cluster.post(CONFIG_MAPS, &config_map("b", &json!({}), "1")).await.failure();
    let why = "policy 'p' with binding 'p' denied request: failed to configure binding: no params found for policy \
               binding with `Deny` parameterNotFoundAction";
    assert_eq!((code, message.as_str()), (403, why));
}

#[tokio::test]
async fn mutations_follow_each_other_and_a_failed_test_leaves_all_as_it_was() {
    let mutations = [
        patch("[JSONPatch{op: 'add', path: '/data/x', value: '1'}]"),
        patch("[JSONPatch{op: 'test', path: '/data/x', value: 'other'}, JSONPatch{op: 'remove', path: '/data/k'}]"),
        patch("[JSONPatch{op: 'replace', path: '/data/x', value: object.data.x + '2'}]"),
    ];
    let cluster = cluster_with(&mutations, &json!({})).await;
    assert_eq!(create(&cluster).await.ok()["data"], json!({"k": "1", "x": "12"}));
}

#[tokio::test]
async fn what_fails_counts_as_the_policy_says() {
    let table = [
        (
            patch("[JSONPatch{op: 'remove', path: '/nowhere'}]"),
            "JSONPatch: operation 0 of the patch: there is nothing at",
        ),
        (patch("object.missing"), "no such key: missing"),
        (apply("Object{spec: Object.spec{x: 1}}"), "invalid ApplyConfiguration: .spec: field not declared in schema"),
    ];
    for (mutation, why) in table {
        let cluster = cluster_with(std::slice::from_ref(&mutation), &json!({})).await;
        let reply = create(&cluster).await;
        let (code, message) = reply.failure();
        assert_eq!((code, &reply.value()["reason"]), (403, &json!("Invalid")));
        assert!(
            message.starts_with("policy 'p' with binding 'p' denied request: ") && message.contains(why),
            "{message}"
        );
        assert_eq!(reply.value()["details"]["causes"][0]["message"], message);
        let cluster = cluster_with(&[mutation], &json!({"failurePolicy": "Ignore"})).await;
        assert_eq!(create(&cluster).await.ok()["data"], json!({"k": "1"}));
    }
    let atomic = apply("Object{spec: Object.spec{selector: Object.spec.selector{matchLabels: {'a': 'b'}}}}");
    let cluster = cluster_with(&[atomic], &json!({})).await;
    let (code, message) = cluster.post(DEPLOYMENTS, &deployment("web")).await.failure();
    assert_eq!(code, 403);
    assert!(message.ends_with("may not mutate atomic arrays, maps or structs: .spec.selector"), "{message}");
}

#[tokio::test]
async fn what_is_left_has_to_be_the_same_object() {
    let table = [
        ("[JSONPatch{op: 'replace', path: '/metadata/name', value: 'b'}]", "metadata.name may not be changed"),
        ("[JSONPatch{op: 'add', path: '/data', value: 7}]", "data"),
        ("[JSONPatch{op: 'add', path: '/nonsense', value: 7}]", "unknown field \"nonsense\""),
    ];
    for (expression, part) in table {
        let cluster = cluster_with(&[patch(expression)], &json!({})).await;
        let (code, message) = create(&cluster).await.failure();
        assert!(code == 500 && message.contains(part), "{message}");
    }
}

#[tokio::test]
async fn policies_come_before_webhooks_and_again_where_asked() {
    let count = "[JSONPatch{op: 'add', path: '/data/seen', value: string(size(object.metadata.labels))}]";
    for (again, seen) in [("Never", "1"), ("IfNeeded", "2")] {
        let (cluster, hook) = (Cluster::new().await, Hook::start().await);
        bind(&cluster, "p", &[patch(count)], &json!({"reinvocationPolicy": again}), &json!({})).await;
        let webhook = hook.webhook("/label/late/yes", &json!({}));
        cluster.post(HOOKS, &json!({"metadata": {"name": "w"}, "webhooks": [webhook]})).await.ok();
        let made = create(&cluster).await.ok();
        assert_eq!(made["data"]["seen"], seen, "{again}");
        let asked = hook.asked("/label/late/yes");
        assert_eq!((asked.len(), &asked[0]["object"]["data"]["seen"]), (1, &json!("1")));
    }
}

#[tokio::test]
async fn policies_run_by_name_and_do_not_bring_in_others() {
    let cluster = Cluster::new().await;
    let add = |value: &str| {
        patch(&format!(
            "[JSONPatch{{op: 'add', path: '/data/order', value: (has(object.data.order) ? object.data.order : '') + '{value}'}}]"
        ))
    };
    bind(&cluster, "b", &[add("b")], &json!({}), &json!({})).await;
    bind(
        &cluster,
        "a",
        &[add("a"), apply("Object{metadata: Object.metadata{labels: {'tier': 'x'}}}")],
        &json!({}),
        &json!({}),
    )
    .await;
    let selected = json!({"matchResources": {"objectSelector": {"matchLabels": {"tier": "x"}}}});
    bind(&cluster, "c", &[add("c")], &json!({}), &selected).await;
    assert_eq!(create(&cluster).await.ok()["data"]["order"], "ab");
}

#[tokio::test]
async fn a_scale_is_changed_as_a_scale() {
    let cap = "object.kind == 'Scale' && object.spec.replicas > 3 ? [JSONPatch{op: 'replace', path: '/spec/replicas', value: 3}] : []";
    let cluster = cluster_with(&[patch(cap)], &json!({})).await;
    cluster.post(DEPLOYMENTS, &deployment("web")).await.ok();
    let path = format!("{DEPLOYMENTS}/web/scale");
    let scaled = cluster.patch(&path, "merge", &json!({"spec": {"replicas": 9}})).await.ok();
    assert_eq!(scaled["spec"]["replicas"], 3);
}

#[tokio::test]
async fn a_dry_run_shows_what_policies_make_and_expressions_are_checked() {
    let cluster = cluster_with(&[apply("Object{data: {'set': 'yes'}}")], &json!({})).await;
    let shown = cluster.post(&format!("{CONFIG_MAPS}?dryRun=All"), &config_map("a", &json!({}), "1")).await.ok();
    assert_eq!(shown["data"]["set"], "yes");
    assert_eq!(cluster.get(&format!("{CONFIG_MAPS}/a")).await.code, 404);
    let broken = json!({"metadata": {"name": "q"}, "spec": {
        "matchConstraints": {"resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["*"], "resources": ["pods"]}]},
        "reinvocationPolicy": "Never",
        "mutations": [patch("[Patch{op: 'add'}]"), apply("Object{spec: Object.status{}}")]}});
    let (code, message) = cluster.post(POLICIES, &broken).await.failure();
    assert_eq!(code, 422);
    for part in [
        "spec.mutations[0].jsonPatch.expression: Invalid value: \"[Patch{op: 'add'}]\": compilation failed: undeclared reference to 'Patch'",
        "spec.mutations[1].applyConfiguration.expression",
        "unexpected type name \"Object.status\", expected \"Object.spec\"",
    ] {
        assert!(message.contains(part), "{message}");
    }
}
