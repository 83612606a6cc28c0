//! Rows as people see them.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{IncludeObject, TableInput, table};
use crate::registry::shared;

fn now() -> Timestamp {
    "2024-01-01T01:00:00Z".parse().expect("a time")
}

fn row(api_version: &str, kind: &str, object: &Value) -> Vec<Value> {
    let registry = shared();
    let resource = registry.of_kind(api_version, kind).expect("served");
    let table = table(&resource, &[TableInput { object }], IncludeObject::None, true, now());
    assert_eq!(
        table["columnDefinitions"].as_array().map(Vec::len),
        table["rows"][0]["cells"].as_array().map(Vec::len),
        "a cell a column"
    );
    table["rows"][0]["cells"].as_array().expect("cells").clone()
}

/// Ready, status and restarts of a pod with two containers.
fn pod(status: &Value, deleted: bool) -> [String; 3] {
    let mut object = json!({
        "metadata": { "name": "p", "creationTimestamp": "2024-01-01T00:55:00Z" },
        "spec": { "containers": [{ "name": "a" }, { "name": "b" }], "initContainers": [{ "name": "i" }, { "name": "j" }] },
        "status": status,
    });
    if deleted {
        object["metadata"]["deletionTimestamp"] = json!("2024-01-01T00:59:00Z");
    }
    let cells = row("v1", "Pod", &object);
    [1, 2, 3].map(|index| cells[index].as_str().expect("text").to_owned())
}

fn running() -> Value {
    json!({ "name": "a", "ready": true, "state": { "running": {} }, "restartCount": 0 })
}

#[test]
fn a_pods_status_word_tells_its_story() {
    assert_eq!(pod(&json!({ "phase": "Pending" }), false), ["0/2", "Pending", "0"]);
    let both = json!({ "phase": "Running", "containerStatuses": [running(), running()] });
    assert_eq!(pod(&both, false), ["2/2", "Running", "0"]);
    assert_eq!(pod(&both, true), ["2/2", "Terminating", "0"]);
    let crashing = json!({ "phase": "Running", "containerStatuses": [running(), {
        "name": "b", "restartCount": 3, "state": { "waiting": { "reason": "CrashLoopBackOff" } },
        "lastState": { "terminated": { "finishedAt": "2024-01-01T00:58:00Z" } },
    }] });
    assert_eq!(pod(&crashing, false), ["1/2", "CrashLoopBackOff", "3 (2m ago)"]);
    let done = json!({ "phase": "Succeeded", "containerStatuses": [
        { "state": { "terminated": { "reason": "Completed", "exitCode": 0 } } },
        { "state": { "terminated": { "reason": "Completed", "exitCode": 0 } } },
    ] });
    assert_eq!(pod(&done, false), ["0/2", "Completed", "0"]);
    assert_eq!(pod(&done, true), ["0/2", "Completed", "0"]);
    let ended = |terminated: Value| json!({ "phase": "Failed", "containerStatuses": [{ "state": { "terminated": terminated } }] });
    assert_eq!(pod(&ended(json!({ "reason": "Error", "exitCode": 1 })), false)[1], "Error");
    assert_eq!(pod(&ended(json!({ "signal": 9 })), false)[1], "Signal:9");
    assert_eq!(pod(&ended(json!({ "exitCode": 7 })), false)[1], "ExitCode:7");
    assert_eq!(pod(&json!({ "phase": "Failed", "reason": "Evicted" }), false)[1], "Evicted");
    let half = json!({ "phase": "Running", "conditions": [{ "type": "Ready", "status": "False" }],
        "containerStatuses": [running(), { "state": { "terminated": { "reason": "Completed" } } }] });
    assert_eq!(pod(&half, false), ["1/2", "NotReady", "0"]);
}

#[test]
fn initial_containers_speak_first() {
    let initial =
        |statuses: Value| pod(&json!({ "phase": "Pending", "initContainerStatuses": statuses }), false)[1].clone();
    assert_eq!(initial(json!([{ "name": "i", "state": { "running": {} } }])), "Init:0/2");
    let done = json!({ "name": "i", "state": { "terminated": { "exitCode": 0 } } });
    assert_eq!(initial(json!([done, { "name": "j", "state": { "running": {} } }])), "Init:1/2");
    assert_eq!(
        initial(json!([done, { "name": "j", "state": { "waiting": { "reason": "ImagePullBackOff" } } }])),
        "Init:ImagePullBackOff"
    );
    assert_eq!(
        initial(json!([{ "name": "i", "state": { "terminated": { "exitCode": 1, "reason": "Error" } } }])),
        "Init:Error"
    );
    assert_eq!(initial(json!([{ "name": "i", "state": { "terminated": { "exitCode": 3 } } }])), "Init:ExitCode:3");
}

#[test]
fn a_pods_wide_columns_name_address_and_node() {
    let object = json!({
        "metadata": { "name": "p" }, "spec": { "nodeName": "one", "readinessGates": [{ "conditionType": "x" }] },
        "status": { "podIPs": [{ "ip": "10.0.0.1" }], "conditions": [{ "type": "x", "status": "True" }] },
    });
    assert_eq!(
        row("v1", "Pod", &object)[4..],
        [json!("<unknown>"), json!("10.0.0.1"), json!("one"), json!("<none>"), json!("1/1")]
    );
}

#[test]
fn workloads_show_how_many_are_ready() {
    let object = json!({
        "metadata": { "name": "d", "creationTimestamp": "2024-01-01T00:00:00Z" },
        "spec": { "replicas": 3, "selector": { "matchLabels": { "b": "2", "a": "1" }, "matchExpressions": [{ "key": "c", "operator": "In", "values": ["x", "y"] }] },
                  "template": { "spec": { "containers": [{ "name": "a", "image": "x" }, { "name": "b", "image": "y" }] } } },
        "status": { "readyReplicas": 2, "updatedReplicas": 3, "availableReplicas": 2, "replicas": 4 },
    });
    let cells = row("apps/v1", "Deployment", &object);
    assert_eq!(Value::from(cells), json!(["d", "2/3", 3, 2, "60m", "a,b", "x,y", "a=1,b=2,c in (x,y)"]));
    let cells = row("apps/v1", "ReplicaSet", &object);
    assert_eq!(Value::from(cells), json!(["d", 3, 4, 2, "60m", "a,b", "x,y", "a=1,b=2,c in (x,y)"]));
}

#[test]
fn services_show_how_they_are_reached() {
    let service = |spec: Value, status: Value| {
        row("v1", "Service", &json!({ "metadata": { "name": "s" }, "spec": spec, "status": status }))
    };
    let cells = service(
        json!({ "type": "ClusterIP", "clusterIP": "10.0.0.1", "ports": [{ "port": 80, "protocol": "TCP" }] }),
        json!({}),
    );
    assert_eq!(Value::from(cells), json!(["s", "ClusterIP", "10.0.0.1", "<none>", "80/TCP", "<unknown>", "<none>"]));
    let balanced = json!({ "type": "LoadBalancer", "ports": [{ "port": 80, "nodePort": 30001, "protocol": "TCP" }, { "port": 53, "protocol": "UDP" }], "selector": { "app": "a" } });
    let cells = service(balanced.clone(), json!({}));
    assert_eq!(cells[3..5], [json!("<pending>"), json!("80:30001/TCP,53/UDP")]);
    let cells =
        service(balanced, json!({ "loadBalancer": { "ingress": [{ "ip": "127.0.0.1" }, { "hostname": "h" }] } }));
    assert_eq!(cells[3], "127.0.0.1,h");
    assert_eq!(cells[6], "app=a");
    assert_eq!(service(json!({ "type": "ExternalName", "externalName": "example.com" }), json!({}))[3], "example.com");
}

#[test]
fn endpoints_show_the_first_three() {
    let slice = json!({ "metadata": { "name": "e" }, "addressType": "IPv4", "ports": [{ "port": 80 }, {}],
        "endpoints": [{ "addresses": ["10.0.0.1"] }, { "addresses": ["10.0.0.2"] }, { "addresses": ["10.0.0.3"] }, { "addresses": ["10.0.0.4"] }] });
    let cells = row("discovery.k8s.io/v1", "EndpointSlice", &slice);
    assert_eq!(cells[1..4], [json!("IPv4"), json!("80,*"), json!("10.0.0.1,10.0.0.2,10.0.0.3 + 1 more...")]);
    let endpoints = json!({ "metadata": { "name": "e" }, "subsets": [{ "addresses": [{ "ip": "10.0.0.1" }, { "ip": "fd00::1" }], "ports": [{ "port": 80 }] }] });
    assert_eq!(row("v1", "Endpoints", &endpoints)[1], "10.0.0.1:80,[fd00::1]:80");
    assert_eq!(row("v1", "Endpoints", &json!({}))[1], "<none>");
}

#[test]
fn nodes_show_their_state_and_roles() {
    let node = json!({
        "metadata": { "name": "n", "labels": { "node-role.kubernetes.io/worker": "", "node-role.kubernetes.io/control-plane": "" } },
        "spec": { "unschedulable": true },
        "status": { "conditions": [{ "type": "Ready", "status": "True" }], "addresses": [{ "type": "InternalIP", "address": "10.0.0.1" }],
                    "nodeInfo": { "kubeletVersion": "v1.36.0", "osImage": "Debian" } },
    });
    let cells = row("v1", "Node", &node);
    assert_eq!(
        Value::from(cells),
        json!([
            "n",
            "Ready,SchedulingDisabled",
            "control-plane,worker",
            "<unknown>",
            "v1.36.0",
            "10.0.0.1",
            "<none>",
            "Debian",
            "<unknown>",
            "<unknown>"
        ])
    );
    assert_eq!(row("v1", "Node", &json!({}))[1], "Unknown");
}

#[test]
fn events_show_when_what_and_why() {
    let event = json!({
        "metadata": { "name": "p.1" }, "involvedObject": { "kind": "Pod", "name": "p", "fieldPath": "spec.containers{a}" },
        "type": "Warning", "reason": "BackOff", "message": " again\n", "count": 4,
        "firstTimestamp": "2024-01-01T00:50:00Z", "lastTimestamp": "2024-01-01T00:59:30Z", "source": { "component": "node", "host": "one" },
    });
    assert_eq!(
        Value::from(row("v1", "Event", &event)),
        json!(["30s", "Warning", "BackOff", "pod/p", "spec.containers{a}", "node, one", "again", "10m", 4, "p.1"])
    );
    let new = json!({ "eventTime": "2024-01-01T00:59:00.000000Z", "reportingComponent": "c", "series": { "count": 9, "lastObservedTime": "2024-01-01T00:59:55.000000Z" } });
    let cells = row("v1", "Event", &new);
    assert_eq!([&cells[0], &cells[7], &cells[8]], [&json!("5s"), &json!("60s"), &json!(9)]);
}

#[test]
fn data_is_counted() {
    let secret = json!({ "metadata": { "name": "s" }, "type": "Opaque", "data": { "a": "", "b": "" } });
    assert_eq!(row("v1", "Secret", &secret)[1..3], [json!("Opaque"), json!(2)]);
    assert_eq!(row("v1", "ConfigMap", &json!({ "data": { "a": "" }, "binaryData": { "b": "" } }))[1], 2);
    let lease = json!({ "metadata": { "name": "l" }, "spec": { "holderIdentity": "me" } });
    assert_eq!(row("coordination.k8s.io/v1", "Lease", &lease)[1], "me");
}

#[test]
fn a_row_shows_as_much_of_its_object_as_is_asked_for() {
    let registry = shared();
    let resource = registry.of_kind("v1", "ConfigMap").expect("served");
    let object = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "a" }, "data": { "k": "v" } });
    let shown = |include, columns| table(&resource, &[TableInput { object: &object }], include, columns, now());
    let metadata =
        json!({ "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": { "name": "a" } });
    assert_eq!(shown(IncludeObject::Metadata, true)["rows"][0]["object"], metadata);
    assert_eq!(shown(IncludeObject::Object, true)["rows"][0]["object"], object);
    assert!(shown(IncludeObject::None, true)["rows"][0].get("object").is_none());
    assert_eq!(shown(IncludeObject::None, false)["columnDefinitions"], json!([]));
    assert_eq!(shown(IncludeObject::None, true)["columnDefinitions"][0]["format"], "name");
}

#[test]
fn every_kind_prints_an_object_that_says_nothing() {
    let registry = shared();
    for resource in registry.all() {
        for object in [json!({}), json!({ "metadata": [], "spec": 1, "status": "x" })] {
            let table = table(resource, &[TableInput { object: &object }], IncludeObject::None, true, now());
            let columns = table["columnDefinitions"].as_array().expect("columns");
            assert_eq!(table["rows"][0]["cells"].as_array().map(Vec::len), Some(columns.len()), "{resource:?}");
        }
    }
}

fn cells(api_version: &str, kind: &str, object: &Value) -> Value {
    row(api_version, kind, object).into()
}

#[test]
fn jobs_show_how_far_they_are() {
    let template = json!({ "spec": { "containers": [{ "name": "c", "image": "x" }] } });
    let job = json!({
        "metadata": { "name": "j", "creationTimestamp": "2024-01-01T00:50:00Z" },
        "spec": { "completions": 3, "parallelism": 1, "template": template, "selector": { "matchLabels": { "a": "b" } } },
        "status": { "succeeded": 3, "startTime": "2024-01-01T00:50:00Z", "completionTime": "2024-01-01T00:50:30Z",
                    "conditions": [{ "type": "Complete", "status": "True" }] },
    });
    assert_eq!(cells("batch/v1", "Job", &job), json!(["j", "Complete", "3/3", "30s", "10m", "c", "x", "a=b"]));
    let running = json!({ "spec": { "parallelism": 2 }, "status": { "startTime": "2024-01-01T00:59:00Z" } });
    let shown = row("batch/v1", "Job", &running);
    assert_eq!(shown[1..4], [json!("Running"), json!("0/1 of 2"), json!("60s")]);
    let cron = json!({
        "metadata": { "name": "c" }, "spec": { "schedule": "* * * * *", "suspend": true, "jobTemplate": { "spec": { "template": template } } },
        "status": { "active": [{}], "lastScheduleTime": "2024-01-01T00:59:00Z" },
    });
    let shown = row("batch/v1", "CronJob", &cron);
    assert_eq!(shown[1..6], [json!("* * * * *"), json!("<none>"), json!("True"), json!(1), json!("60s")]);
    assert_eq!(shown[7], "c");
}

#[test]
fn scalers_show_what_is_and_what_should_be() {
    let scaler = json!({
        "metadata": { "name": "h" },
        "spec": { "minReplicas": 1, "maxReplicas": 5, "scaleTargetRef": { "kind": "Deployment", "name": "d" }, "metrics": [
            { "type": "Resource", "resource": { "name": "cpu", "target": { "type": "Utilization", "averageUtilization": 80 } } },
            { "type": "Pods", "pods": { "target": { "type": "AverageValue", "averageValue": "10" } } }, {},
        ] },
        "status": { "currentReplicas": 2, "currentMetrics": [{ "type": "Resource", "resource": { "name": "cpu", "current": { "averageUtilization": 40 } } }] },
    });
    assert_eq!(
        row("autoscaling/v2", "HorizontalPodAutoscaler", &scaler)[1..6],
        [json!("Deployment/d"), json!("cpu: 40%/80%, <unknown>/10 + 1 more..."), json!("1"), json!(5), json!(2)]
    );
    let first = json!({ "apiVersion": "autoscaling/v1", "spec": { "targetCPUUtilizationPercentage": 70 }, "status": { "currentCPUUtilizationPercentage": 7 } });
    assert_eq!(row("autoscaling/v1", "HorizontalPodAutoscaler", &first)[2], "cpu: 7%/70%");
}

#[test]
fn storage_shows_who_has_what() {
    let volume = json!({
        "metadata": { "name": "v" }, "status": { "phase": "Bound" },
        "spec": { "capacity": { "storage": "1Gi" }, "accessModes": ["ReadWriteMany", "ReadWriteOnce"], "persistentVolumeReclaimPolicy": "Retain",
                  "claimRef": { "namespace": "n", "name": "c" }, "storageClassName": "s", "volumeMode": "Filesystem" },
    });
    assert_eq!(
        cells("v1", "PersistentVolume", &volume),
        json!(["v", "1Gi", "RWO,RWX", "Retain", "Bound", "n/c", "s", "<unset>", "", "<unknown>", "Filesystem"])
    );
    let claim = json!({ "metadata": { "name": "c", "deletionTimestamp": "2024-01-01T00:00:00Z" }, "spec": { "volumeName": "v" },
        "status": { "capacity": { "storage": "1Gi" }, "accessModes": ["ReadOnlyMany"] } });
    assert_eq!(
        row("v1", "PersistentVolumeClaim", &claim)[1..5],
        [json!("Terminating"), json!("v"), json!("1Gi"), json!("ROX")]
    );
    let class = json!({ "metadata": { "name": "s", "annotations": { "storageclass.kubernetes.io/is-default-class": "true" } }, "provisioner": "p" });
    assert_eq!(row("storage.k8s.io/v1", "StorageClass", &class)[0], "s (default)");
}

#[test]
fn what_leads_to_services_shows_where() {
    let ingress = json!({
        "metadata": { "name": "i" }, "spec": { "ingressClassName": "nginx", "tls": [{}], "rules": [{ "host": "a" }, { "host": "b" }, { "host": "c" }, { "host": "d" }] },
        "status": { "loadBalancer": { "ingress": [{ "ip": "127.0.0.1" }] } },
    });
    assert_eq!(
        cells("networking.k8s.io/v1", "Ingress", &ingress),
        json!(["i", "nginx", "a,b,c + 1 more...", "127.0.0.1", "80, 443", "<unknown>"])
    );
    let address = json!({ "spec": { "parentRef": { "resource": "services", "namespace": "n", "name": "s" } } });
    assert_eq!(row("networking.k8s.io/v1", "IPAddress", &address)[1], "services/n/s");
    let binding = json!({ "metadata": { "name": "b" }, "roleRef": { "kind": "Role", "name": "r" }, "subjects": [
        { "kind": "User", "name": "u" }, { "kind": "ServiceAccount", "namespace": "n", "name": "s" }] });
    assert_eq!(
        cells("rbac.authorization.k8s.io/v1", "RoleBinding", &binding),
        json!(["b", "Role/r", "<unknown>", "u", "", "n/s"])
    );
    let quota =
        json!({ "status": { "hard": { "pods": "3", "limits.cpu": "2" }, "used": { "pods": "1" } }, "spec": {} });
    assert_eq!(row("v1", "ResourceQuota", &quota)[1..3], [json!("pods: 1/3"), json!("limits.cpu: 0/2")]);
}

#[test]
fn an_event_shows_alike_in_both_versions() {
    let old = json!({
        "apiVersion": "v1", "metadata": { "name": "p.1" }, "involvedObject": { "kind": "Pod", "name": "p" }, "type": "Warning", "reason": "BackOff",
        "message": "again", "count": 4, "lastTimestamp": "2024-01-01T00:59:30Z", "source": { "component": "node" },
    });
    let new = crate::convert::event(old.clone(), "events.k8s.io/v1");
    assert_eq!(row("events.k8s.io/v1", "Event", &new), row("v1", "Event", &old));
}
