//! The standards, case by case: what each control names as allowed and as not allowed.

use super::*;
use serde_json::json;

const BASELINE: Standard = Standard { level: Level::Baseline, version: None };
const RESTRICTED: Standard = Standard { level: Level::Restricted, version: None };

/// A pod with one container, as a patch over what the standard at least asks for.
fn pod(safe: bool, pod: &Value, container: &Value) -> Value {
    let mut spec = json!({"containers": [{"name": "a", "image": "x"}]});
    if safe {
        spec["securityContext"] = json!({"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}});
        spec["containers"][0]["securityContext"] =
            json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}});
    }
    shipway_schema::patch::merge_patch(&mut spec, pod).unwrap();
    let mut inner = spec["containers"][0].clone();
    shipway_schema::patch::merge_patch(&mut inner, container).unwrap();
    spec["containers"][0] = inner;
    spec
}

fn found(standard: Standard, spec: &Value) -> Vec<String> {
    standard.violations(&Value::Null, spec)
}

#[test]
fn the_baseline_allows_what_it_names() {
    let table = [
        (json!({}), json!({})),
        (json!({"hostNetwork": false}), json!({})),
        (json!({}), json!({"securityContext": {"privileged": false}})),
        (json!({}), json!({"securityContext": {"capabilities": {"add": ["CHOWN", "NET_BIND_SERVICE", "KILL"]}}})),
        (json!({"volumes": [{"name": "v", "nfs": {}}]}), json!({})),
        (json!({}), json!({"ports": [{"containerPort": 80, "hostPort": 0}]})),
        (json!({"securityContext": {"appArmorProfile": {"type": "Localhost"}}}), json!({})),
        (json!({}), json!({"securityContext": {"seLinuxOptions": {"type": "container_engine_t", "level": "s0"}}})),
        (json!({}), json!({"securityContext": {"procMount": "Default"}})),
        (json!({"securityContext": {"seccompProfile": {"type": "Localhost"}}}), json!({})),
        (json!({"securityContext": {"sysctls": [{"name": "net.ipv4.tcp_rmem"}]}}), json!({})),
        (json!({}), json!({"securityContext": {"runAsUser": 0, "allowPrivilegeEscalation": true}})),
        (json!({}), json!({"livenessProbe": {"httpGet": {"port": 80}}})),
    ];
    for (pod_part, container) in table {
        let spec = pod(false, &pod_part, &container);
        assert_eq!(found(BASELINE, &spec), Vec::<String>::new(), "{spec}");
    }
}

#[test]
fn the_baseline_refuses_what_it_names() {
    let context = |context: Value| json!({"securityContext": context});
    let table = [
        (json!({"hostNetwork": true}), json!({}), "host namespaces (hostNetwork=true)"),
        (json!({"hostPID": true, "hostIPC": true}), json!({}), "host namespaces (hostPID=true, hostIPC=true)"),
        (
            json!({}),
            context(json!({"privileged": true})),
            "privileged (container \"a\" must not set securityContext.privileged=true)",
        ),
        (
            json!({}),
            context(json!({"capabilities": {"add": ["SYS_ADMIN", "NET_RAW"]}})),
            "non-default capabilities (container \"a\" must not include \"NET_RAW\", \"SYS_ADMIN\" in securityContext.capabilities.add)",
        ),
        (json!({"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}), json!({}), "hostPath volumes (volume \"v\")"),
        (
            json!({}),
            json!({"ports": [{"hostPort": 80}, {"hostPort": 81}]}),
            "hostPort (container \"a\" uses hostPorts 80, 81)",
        ),
        (
            context(json!({"appArmorProfile": {"type": "Unconfined"}})),
            json!({}),
            "forbidden AppArmor profile (pod must not set AppArmor profile type to \"Unconfined\")",
        ),
        (
            json!({}),
            context(json!({"seLinuxOptions": {"type": "spc_t"}})),
            "seLinuxOptions (container \"a\" must not set securityContext.seLinuxOptions to \"type=spc_t\")",
        ),
        (
            context(json!({"seLinuxOptions": {"user": "root"}})),
            json!({}),
            "seLinuxOptions (pod must not set securityContext.seLinuxOptions to \"user=root\")",
        ),
        (
            json!({}),
            context(json!({"procMount": "Unmasked"})),
            "procMount (container \"a\" must not set securityContext.procMount to \"Unmasked\")",
        ),
        (
            context(json!({"seccompProfile": {"type": "Unconfined"}})),
            json!({}),
            "seccompProfile (pod must not set securityContext.seccompProfile.type to \"Unconfined\")",
        ),
        (context(json!({"sysctls": [{"name": "kernel.msgmax"}]})), json!({}), "forbidden sysctls (kernel.msgmax)"),
        (
            context(json!({"windowsOptions": {"hostProcess": true}})),
            json!({}),
            "hostProcess (pod must not set securityContext.windowsOptions.hostProcess=true)",
        ),
        (
            json!({}),
            json!({"livenessProbe": {"httpGet": {"host": "10.0.0.1", "port": 80}}}),
            "probe or lifecycle host (container \"a\" must not set the host of a probe or a lifecycle handler)",
        ),
    ];
    for (pod_part, container, message) in table {
        let spec = pod(false, &pod_part, &container);
        assert_eq!(found(BASELINE, &spec), [message], "{spec}");
    }
}

#[test]
fn the_restricted_standard_allows_what_it_names() {
    let table = [
        (json!({}), json!({})),
        (json!({}), json!({"securityContext": {"capabilities": {"add": ["NET_BIND_SERVICE"]}}})),
        (json!({"securityContext": {"runAsUser": 1000}}), json!({})),
        (json!({"securityContext": {"runAsNonRoot": null}}), json!({"securityContext": {"runAsNonRoot": true}})),
        (
            json!({"securityContext": {"seccompProfile": null}}),
            json!({"securityContext": {"seccompProfile": {"type": "Localhost"}}}),
        ),
        (
            json!({"volumes": [{"name": "a", "emptyDir": {}}, {"name": "b", "image": {}}, {"name": "c", "csi": {}}]}),
            json!({}),
        ),
    ];
    for (pod_part, container) in table {
        let spec = pod(true, &pod_part, &container);
        assert_eq!(found(RESTRICTED, &spec), Vec::<String>::new(), "{spec}");
    }
}

#[test]
fn the_restricted_standard_refuses_what_it_names() {
    let context = |context: Value| json!({"securityContext": context});
    let table = [
        (
            json!({}),
            context(json!({"allowPrivilegeEscalation": null})),
            "allowPrivilegeEscalation != false (container \"a\" must set securityContext.allowPrivilegeEscalation=false)",
        ),
        (
            json!({}),
            context(json!({"capabilities": null})),
            "unrestricted capabilities (container \"a\" must set securityContext.capabilities.drop=[\"ALL\"])",
        ),
        (
            json!({}),
            context(json!({"capabilities": {"add": ["CHOWN"]}})),
            "unrestricted capabilities (container \"a\" must not include \"CHOWN\" in securityContext.capabilities.add)",
        ),
        (
            context(json!({"runAsNonRoot": null})),
            json!({}),
            "runAsNonRoot != true (pod or container \"a\" must set securityContext.runAsNonRoot=true)",
        ),
        (
            json!({}),
            context(json!({"runAsNonRoot": false})),
            "runAsNonRoot != true (container \"a\" must not set securityContext.runAsNonRoot=false)",
        ),
        (context(json!({"runAsUser": 0})), json!({}), "runAsUser=0 (pod must not set runAsUser=0)"),
        (json!({}), context(json!({"runAsUser": 0})), "runAsUser=0 (container \"a\" must not set runAsUser=0)"),
        (
            context(json!({"seccompProfile": null})),
            json!({}),
            "seccompProfile (pod or container \"a\" must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")",
        ),
        (
            json!({"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}),
            json!({}),
            "restricted volume types (volume \"v\" uses restricted volume type \"hostPath\")",
        ),
        (json!({"hostNetwork": true}), json!({}), "host namespaces (hostNetwork=true)"),
    ];
    for (pod_part, container, message) in table {
        let spec = pod(true, &pod_part, &container);
        assert_eq!(found(RESTRICTED, &spec), [message], "{spec}");
    }
}

#[test]
fn init_and_ephemeral_containers_are_containers() {
    for list in ["initContainers", "ephemeralContainers"] {
        let mut spec = pod(false, &json!({}), &json!({}));
        spec[list] = json!([{"name": "b", "securityContext": {"privileged": true}}]);
        assert_eq!(
            found(BASELINE, &spec),
            ["privileged (container \"b\" must not set securityContext.privileged=true)"]
        );
    }
}

#[test]
fn a_pinned_version_is_judged_as_it_was() {
    let pinned = |version| Standard { level: Level::Baseline, version: Some(version) };
    let spec = pod(false, &json!({"securityContext": {"sysctls": [{"name": "net.ipv4.tcp_rmem"}]}}), &json!({}));
    assert_eq!(found(pinned(31), &spec), ["forbidden sysctls (net.ipv4.tcp_rmem)"]);
    assert_eq!(found(pinned(32), &spec), Vec::<String>::new());
    let probe = pod(false, &json!({}), &json!({"livenessProbe": {"tcpSocket": {"host": "h"}}}));
    assert_eq!((found(pinned(33), &probe).len(), found(pinned(34), &probe).len()), (0, 1));
}

#[test]
fn labels_name_the_standard() {
    let namespace = |labels: Value| json!({"metadata": {"labels": labels}});
    let of = |labels: Value| Standard::of(&namespace(labels), "enforce").to_string();
    assert_eq!(of(json!({})), "privileged:latest");
    let labels = json!({"pod-security.kubernetes.io/enforce": "baseline", "pod-security.kubernetes.io/enforce-version": "v1.30"});
    assert_eq!(of(labels), "baseline:v1.30");
    assert_eq!(of(json!({"pod-security.kubernetes.io/enforce": "stern"})), "restricted:latest");
}
