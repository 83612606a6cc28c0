//! Pods as people write them, well and badly.

use serde_json::{Value, json};

use crate::registry::shared;
use crate::strategy::testing::{admit, errors, fields, valid};

fn pod(spec: &Value) -> Value {
    json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "p", "namespace": "n" }, "spec": spec })
}

fn with_container(mut container: Value) -> Value {
    container["name"] = json!("c");
    container["image"] = json!("busybox:1");
    pod(&json!({ "containers": [container] }))
}

#[test]
fn a_pod_that_says_little_means_much() {
    let made = valid(pod(&json!({ "containers": [{
        "name": "c", "image": "busybox", "ports": [{ "containerPort": 80 }],
        "livenessProbe": { "httpGet": { "port": 80 } },
        "env": [{ "name": "A", "valueFrom": { "fieldRef": { "fieldPath": "metadata.name" } } }],
        "resources": { "limits": { "cpu": "1", "memory": "1Gi" }, "requests": { "cpu": "500m" } },
    }], "volumes": [{ "name": "v" }, { "name": "s", "secret": { "secretName": "x" } }], "serviceAccount": "robot" })));
    assert_eq!(
        made["spec"],
        json!({
            "containers": [{
                "name": "c", "image": "busybox", "ports": [{ "containerPort": 80, "protocol": "TCP" }],
                "livenessProbe": {
                    "httpGet": { "port": 80, "path": "/", "scheme": "HTTP" },
                    "timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3,
                },
                "env": [{ "name": "A", "valueFrom": { "fieldRef": { "fieldPath": "metadata.name", "apiVersion": "v1" } } }],
                "resources": { "limits": { "cpu": "1", "memory": "1Gi" }, "requests": { "cpu": "500m", "memory": "1Gi" } },
                "imagePullPolicy": "Always", "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
            }],
            "volumes": [{ "name": "v", "emptyDir": {} }, { "name": "s", "secret": { "secretName": "x", "defaultMode": 420 } }],
            "serviceAccount": "robot", "serviceAccountName": "robot",
            "restartPolicy": "Always", "terminationGracePeriodSeconds": 30, "dnsPolicy": "ClusterFirst",
            "securityContext": {}, "schedulerName": "default-scheduler", "enableServiceLinks": true,
        })
    );
    assert_eq!(made["status"], json!({ "phase": "Pending", "qosClass": "Burstable" }));
}

#[test]
fn an_image_is_pulled_always_when_its_name_is_not_its_content() {
    let policy = |image: &str| {
        let made = valid(pod(&json!({ "containers": [{ "name": "c", "image": image }] })));
        made["spec"]["containers"][0]["imagePullPolicy"].as_str().expect("filled in").to_owned()
    };
    assert_eq!(policy("busybox"), "Always");
    assert_eq!(policy("busybox:latest"), "Always");
    assert_eq!(policy("host:5000/busybox"), "Always");
    assert_eq!(policy("host:5000/busybox:1"), "IfNotPresent");
    assert_eq!(policy("busybox@sha256:abc"), "IfNotPresent");
}

#[test]
fn the_quality_of_service_follows_from_requests_and_limits() {
    let class = |resources: Value| {
        let made = valid(with_container(json!({ "resources": resources })));
        made["status"]["qosClass"].as_str().expect("worked out").to_owned()
    };
    assert_eq!(class(json!({})), "BestEffort");
    assert_eq!(class(json!({ "limits": { "cpu": "1", "memory": "1Gi" } })), "Guaranteed");
    assert_eq!(class(json!({ "requests": { "cpu": "1" } })), "Burstable");
}

#[test]
fn containers_are_required_named_and_unique() {
    assert_eq!(errors(pod(&json!({}))), ["spec.containers: Required value"]);
    let two = pod(
        &json!({ "containers": [{ "name": "a", "image": " x" }, { "name": "a" }, { "name": "A_", "image": "x" }] }),
    );
    let found = errors(two);
    assert_eq!(
        found[..3],
        [
            r#"spec.containers[0].image: Invalid value: " x": must not have leading or trailing whitespace"#,
            r#"spec.containers[1].name: Duplicate value: "a""#,
            "spec.containers[1].image: Required value",
        ]
    );
    assert!(found[3].starts_with(r#"spec.containers[2].name: Invalid value: "A_": a lowercase RFC 1123 label"#));
}

#[test]
fn ports_and_variables_are_checked() {
    let found = errors(with_container(json!({
        "ports": [
            { "containerPort": 0 }, { "containerPort": 80, "name": "a", "protocol": "XTP" }, { "containerPort": 81, "name": "a" },
        ],
        "env": [{ "value": "x" }, { "name": "A=B" }, { "name": "C", "value": "x", "valueFrom": { "fieldRef": { "fieldPath": "spec.x" } } },
                { "name": "D", "valueFrom": { "fieldRef": { "fieldPath": "spec.x" } } },
                { "name": "E", "valueFrom": { "fieldRef": { "fieldPath": "metadata.labels['app']" } } },
                { "name": "F", "valueFrom": { "secretKeyRef": { "name": "s" } } }],
        "envFrom": [{ "configMapRef": {} }],
    })));
    let fields: Vec<&str> = found.iter().map(|error| error.split(": ").next().expect("a field")).collect();
    assert_eq!(
        fields,
        [
            "spec.containers[0].ports[0].containerPort",
            "spec.containers[0].ports[1].protocol",
            "spec.containers[0].ports[2].name",
            "spec.containers[0].env[0].name",
            "spec.containers[0].env[1].name",
            "spec.containers[0].env[2].valueFrom",
            "spec.containers[0].env[3].valueFrom.fieldRef.fieldPath",
            "spec.containers[0].env[5].valueFrom.secretKeyRef.key",
            "spec.containers[0].envFrom[0].configMapRef.name",
        ]
    );
    assert_eq!(
        found[1],
        r#"spec.containers[0].ports[1].protocol: Unsupported value: "XTP": supported values: "TCP", "UDP", "SCTP""#
    );
}

#[test]
fn mounts_name_volumes_and_volumes_have_one_source() {
    let mut value = with_container(json!({ "volumeMounts": [
        { "name": "gone", "mountPath": "/a" }, { "name": "v", "mountPath": "/a" }, { "name": "v", "mountPath": "/b", "subPath": "../x" },
    ] }));
    value["spec"]["volumes"] =
        json!([{ "name": "v", "emptyDir": {}, "hostPath": { "path": "/" } }, { "name": "w", "configMap": {} }]);
    assert_eq!(
        errors(value),
        [
            "spec.volumes[0].hostPath: Forbidden: may not specify more than 1 volume type",
            "spec.volumes[1].configMap.name: Required value",
            r#"spec.containers[0].volumeMounts[0].name: Not found: "gone""#,
            r#"spec.containers[0].volumeMounts[1].mountPath: Invalid value: "/a": must be unique"#,
            r#"spec.containers[0].volumeMounts[2].subPath: Invalid value: "../x": must not contain '..'"#,
        ]
    );
}

#[test]
fn requests_stay_below_limits() {
    let found = errors(with_container(json!({ "resources": {
        "limits": { "cpu": "1", "gpu": "1" }, "requests": { "cpu": "1500m", "memory": "-1" },
    } })));
    assert_eq!(
        found,
        [
            r#"spec.containers[0].resources.limits[gpu]: Invalid value: "gpu": must be a standard resource for containers"#,
            r#"spec.containers[0].resources.requests[memory]: Invalid value: "-1": must be greater than or equal to 0"#,
            r#"spec.containers[0].resources.requests[gpu]: Invalid value: "gpu": must be a standard resource for containers"#,
            r#"spec.containers[0].resources.requests: Invalid value: "1500m": must be less than or equal to cpu limit of 1"#,
        ]
    );
}

#[test]
fn probes_have_one_handler_and_sane_numbers() {
    let found = errors(with_container(json!({
        "livenessProbe": { "exec": { "command": ["true"] }, "tcpSocket": { "port": 80 }, "successThreshold": 2 },
        "readinessProbe": { "periodSeconds": -1 },
        "startupProbe": { "httpGet": { "port": "no--port", "scheme": "FTP" } },
    })));
    assert_eq!(
        found,
        [
            "spec.containers[0].livenessProbe.tcpSocket: Forbidden: may not specify more than 1 handler type",
            "spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1",
            "spec.containers[0].readinessProbe: Required value: must specify a handler type",
            "spec.containers[0].readinessProbe.periodSeconds: Invalid value: -1: must be greater than or equal to 0",
            r#"spec.containers[0].startupProbe.httpGet.port: Invalid value: "no--port": must consist of lower case letters, digits and single hyphens, must contain at least one letter, and must not begin or end with a hyphen"#,
            r#"spec.containers[0].startupProbe.httpGet.scheme: Unsupported value: "FTP": supported values: "HTTP", "HTTPS""#,
        ]
    );
}

#[test]
fn a_pods_policies_have_known_values() {
    let found = errors(pod(&json!({
        "containers": [{ "name": "c", "image": "x" }], "restartPolicy": "Sometimes", "dnsPolicy": "None",
        "tolerations": [{ "operator": "Equal" }], "nodeSelector": { "a b": "c" },
        "topologySpreadConstraints": [{ "maxSkew": 0, "topologyKey": "", "whenUnsatisfiable": "Maybe" }],
    })));
    let fields: Vec<&str> = found.iter().map(|error| error.split(": ").next().expect("a field")).collect();
    assert_eq!(
        fields,
        [
            "spec.restartPolicy",
            "spec.nodeSelector",
            "spec.tolerations[0].operator",
            "spec.topologySpreadConstraints[0].maxSkew",
            "spec.topologySpreadConstraints[0].topologyKey",
            "spec.topologySpreadConstraints[0].whenUnsatisfiable",
            "spec.dnsConfig.nameservers",
        ]
    );
}

#[test]
fn a_pod_may_change_its_image_and_little_else() {
    let old = valid(with_container(json!({})));
    let mut new = old.clone();
    new["spec"]["containers"][0]["image"] = json!("busybox:2");
    new["spec"]["nodeName"] = json!("one");
    new["spec"]["tolerations"] = json!([{ "key": "k", "operator": "Exists" }]);
    let (bound, found) = admit(new, Some(&old));
    assert_eq!(found, Vec::<String>::new());
    let mut moved = bound.clone();
    moved["spec"]["nodeName"] = json!("two");
    let found = admit(moved, Some(&bound)).1;
    assert!(found[0].starts_with("spec: Forbidden: pod updates may not change fields other than"), "{found:?}");
    let mut renamed = bound.clone();
    renamed["spec"]["containers"][0]["env"] = json!([{ "name": "A" }]);
    assert_eq!(admit(renamed, Some(&bound)).1.len(), 1);
    let mut grown = bound.clone();
    grown["spec"]["containers"] = json!([bound["spec"]["containers"][0], { "name": "d", "image": "x" }]);
    assert_eq!(
        admit(grown, Some(&bound)).1,
        ["spec.containers: Forbidden: pod updates may not add or remove containers"]
    );
}

#[test]
fn a_pod_that_is_held_back_may_be_sent_to_fewer_nodes() {
    let spec = |gates: Value, more: Value| {
        let mut spec = json!({ "containers": [{ "name": "c", "image": "x:1" }], "schedulingGates": gates,
            "tolerations": [{ "key": "k", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5 }] });
        for (name, value) in more.as_object().into_iter().flatten() {
            spec[name] = value.clone();
        }
        pod(&spec)
    };
    let narrower = json!({ "nodeSelector": { "a": "b" }, "affinity": { "nodeAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": [{ "matchExpressions": [{ "key": "z", "operator": "Exists" }] }] },
    } } });
    let held = valid(spec(json!([{ "name": "a.b/c" }]), json!({})));
    assert_eq!(admit(spec(json!([]), narrower.clone()), Some(&held)).1, Vec::<String>::new());
    let free = valid(spec(json!([]), json!({})));
    assert_eq!(fields(&admit(spec(json!([]), narrower), Some(&free)).1), ["spec"]);
    let longer = json!({ "tolerations": [{ "key": "k", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 50 }] });
    assert_eq!(admit(spec(json!([]), longer), Some(&free)).1, Vec::<String>::new());
}

#[test]
fn subresources_of_a_pod_add_and_resize() {
    let resource = shared().of_kind("v1", "Pod").expect("served");
    let old = valid(with_container(json!({ "resources": { "requests": { "cpu": "1" } } })));
    let write = |subresource: &str, field: &str, value: Value, live: &Value| {
        let mut wished = live.clone();
        wished["spec"][field] = value;
        let mut next = resource.isolate(subresource, &wished, live).expect("a part of a pod");
        resource.strategy().default(&mut next);
        let found = resource.strategy().validate_below(subresource, &next, live);
        (next, found.into_iter().map(|error| error.field).collect::<Vec<_>>())
    };
    let debug = json!([{ "name": "d", "image": "busybox", "targetContainerName": "c" }]);
    let (with_debug, found) = write("ephemeralcontainers", "ephemeralContainers", debug, &old);
    assert_eq!(found, Vec::<String>::new());
    let wrong =
        json!([{ "name": "c", "image": "x", "ports": [{ "containerPort": 80 }], "targetContainerName": "gone" }]);
    let found = write("ephemeralcontainers", "ephemeralContainers", wrong, &with_debug).1;
    let at = |field: &str| format!("spec.ephemeralContainers[0].{field}");
    assert_eq!(found, ["spec.ephemeralContainers".to_owned(), at("name"), at("ports"), at("targetContainerName")]);
    let container = |cpu: Value| json!([{ "name": "c", "image": "other", "resources": { "requests": cpu } }]);
    let (resized, found) = write("resize", "containers", container(json!({ "cpu": "2" })), &old);
    assert_eq!(found, Vec::<String>::new());
    assert_eq!(resized["spec"]["containers"][0]["image"], "busybox:1");
    assert_eq!(resized["spec"]["containers"][0]["resources"]["requests"]["cpu"], "2");
    assert_eq!(write("resize", "containers", container(json!({})), &old).1, ["spec"]);
}

#[test]
fn grace_is_granted_only_to_pods_that_run() {
    let registry = shared();
    let resource = registry.of_kind("v1", "Pod").expect("served");
    let grace = |spec: Value, phase: &str, asked| {
        resource.strategy().graceful_deletion(&json!({ "spec": spec, "status": { "phase": phase } }), asked)
    };
    let running = json!({ "nodeName": "one", "terminationGracePeriodSeconds": 30 });
    assert_eq!(grace(running.clone(), "Running", None), Some(30));
    assert_eq!(grace(running.clone(), "Running", Some(5)), Some(5));
    assert_eq!(grace(running.clone(), "Running", Some(0)), Some(0));
    assert_eq!(grace(running.clone(), "Running", Some(-1)), Some(1));
    assert_eq!(grace(running, "Succeeded", None), Some(0));
    assert_eq!(grace(json!({ "terminationGracePeriodSeconds": 30 }), "Pending", None), Some(0));
    let service = registry.of_kind("v1", "Service").expect("served");
    assert_eq!(service.strategy().graceful_deletion(&json!({}), None), None);
}

#[test]
fn nothing_makes_validation_panic() {
    let registry = shared();
    for resource in registry.all() {
        for mut value in
            [json!({}), json!({ "spec": 1, "metadata": [] }), json!({ "spec": { "template": 1, "containers": {} } })]
        {
            resource.strategy().default(&mut value);
            resource.strategy().prepare_create(&mut value);
            drop(resource.strategy().validate(&value, Some(&json!({}))));
        }
    }
}
