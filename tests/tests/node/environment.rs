//! What a program finds in its environment (https://kubernetes.io/docs/concepts/workloads/pods/downward-api/,
//! https://kubernetes.io/docs/tasks/inject-data-application/).

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::{ConfigMap, Service};
use serde_json::{Value, json};

use crate::world::{World, phase, sh, waits, with};

fn field(name: &str, path: &str) -> Value {
    json!({ "name": name, "valueFrom": { "fieldRef": { "fieldPath": path } } })
}

pub(crate) async fn a_pod_is_told_of_itself(world: &World) -> Result<()> {
    let env = json!([
        field("A", "metadata.name"),
        field("B", "metadata.namespace"),
        field("C", "spec.serviceAccountName"),
        field("D", "status.podIP"),
        field("E", "status.hostIP"),
        field("F", "metadata.labels['none']"),
        field("G", "metadata.uid"),
    ]);
    let script =
        "echo $A $B $C; test -n \"$D\" && test -n \"$E\" && test ${#G} = 36 && echo \"addresses[$F]\"; hostname -i";
    let said = world.says("itself", with(sh(script), json!({ "env": env })), json!({})).await?;
    ensure!(said.starts_with("itself default default\naddresses[]\n"), "{said}");
    Ok(())
}

pub(crate) async fn a_container_is_told_of_its_resources(world: &World) -> Result<()> {
    let of = |name: &str, resource: &str, divisor: &str| json!({ "name": name, "valueFrom": { "resourceFieldRef": { "resource": resource, "divisor": divisor } } });
    let env = json!([of("A", "limits.cpu", "1m"), of("B", "requests.memory", "1Mi"), of("C", "limits.memory", "1Mi")]);
    let resources =
        json!({ "requests": { "cpu": "50m", "memory": "20Mi" }, "limits": { "cpu": "250m", "memory": "64Mi" } });
    let container = with(sh("echo $A $B $C"), json!({ "env": env, "resources": resources }));
    let said = world.says("told-resources", container, json!({})).await?;
    ensure!(said == "250 20 64\n", "{said}");
    Ok(())
}

pub(crate) async fn all_keys_come_with_a_prefix(world: &World) -> Result<()> {
    world.make::<ConfigMap>(json!({ "metadata": { "name": "prefixed" }, "data": { "one": "1", "two": "2" } })).await?;
    let more = json!({
        "envFrom": [{ "prefix": "P_", "configMapRef": { "name": "prefixed" } }],
        "env": [{ "name": "P_two", "value": "own" }, { "name": "BOTH", "value": "$(P_one)-$(P_two)-$$(P_one)" }],
    });
    let said = world.says("prefix", with(sh("echo $P_one $P_two $BOTH"), more), json!({})).await?;
    ensure!(said == "1 own 1-own-$(P_one)\n", "{said}");
    Ok(())
}

pub(crate) async fn variables_may_be_read_from_a_file(world: &World) -> Result<()> {
    let from = json!({ "fileKeyRef": { "volumeName": "v", "path": "made.env", "key": "WORD" } });
    let none = json!({ "fileKeyRef": { "volumeName": "v", "path": "made.env", "key": "NONE", "optional": true } });
    let env = json!([{ "name": "SAID", "valueFrom": from }, { "name": "UNSAID", "valueFrom": none }]);
    let mount = json!({ "volumeMounts": [{ "name": "v", "mountPath": "/v" }] });
    let first =
        with(with(sh("printf \"# made\\nWORD='from a file'\\n\" > /v/made.env"), mount), json!({ "name": "first" }));
    let more = json!({ "initContainers": [first], "volumes": [{ "name": "v", "emptyDir": {} }] });
    let said = world.says("env-file", with(sh("echo \"$SAID[$UNSAID]\""), json!({ "env": env })), more).await?;
    ensure!(said == "from a file[]\n", "{said}");
    Ok(())
}

pub(crate) async fn a_missing_key_is_named_until_it_is_there(world: &World) -> Result<()> {
    let from = json!({ "configMapKeyRef": { "name": "late", "key": "word" } });
    let container = with(sh("echo $WORD"), json!({ "env": [{ "name": "WORD", "valueFrom": from }] }));
    world.create("waits", json!({ "restartPolicy": "Never", "containers": [container] })).await?;
    let pod = world.until("waits", |pod| waits(pod, "c") == "CreateContainerConfigError").await?;
    let state = crate::world::status(&pod, "c").and_then(|status| status.state.clone()?.waiting?.message);
    ensure!(state.as_deref() == Some("configmap \"late\" not found"), "{state:?}");
    world.make::<ConfigMap>(json!({ "metadata": { "name": "late" }, "data": { "word": "at last" } })).await?;
    world.until("waits", |pod| phase(pod) == "Succeeded").await?;
    ensure!(world.log("waits", "c").await? == "at last\n");
    world.delete("waits").await
}

pub(crate) async fn a_service_is_told_unless_declined(world: &World) -> Result<()> {
    let ports = json!([{ "port": 80 }]);
    world.make::<Service>(json!({ "metadata": { "name": "the-shop" }, "spec": { "ports": ports } })).await?;
    let script = "echo $THE_SHOP_SERVICE_PORT/$KUBERNETES_SERVICE_PORT";
    let mut said = String::new();
    for attempt in 0..20 {
        // The node hears of the service a moment after its create was answered.
        said = world.says(&format!("links-{attempt}"), sh(script), json!({})).await?;
        if said.starts_with("80/") {
            break;
        }
    }
    ensure!(said == "80/443\n", "{said}");
    let said = world.says("no-links", sh(script), json!({ "enableServiceLinks": false })).await?;
    ensure!(said == "/443\n", "{said}");
    Ok(())
}

pub(crate) async fn the_working_folder_and_arguments_are_those_asked_for(world: &World) -> Result<()> {
    let more = json!({
        "command": ["/bin/sh", "-c", "pwd; echo $0 $1"], "args": ["$(WHO)", "$(NOT)"], "workingDir": "/not/there/yet",
        "env": [{ "name": "WHO", "value": "me" }],
    });
    let said = world.says("folder", with(sh(""), more), json!({})).await?;
    ensure!(said == "/not/there/yet\nme $(NOT)\n", "{said}");
    Ok(())
}
