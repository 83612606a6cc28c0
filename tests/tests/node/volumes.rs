//! Volumes of the kinds that need no driver (https://kubernetes.io/docs/concepts/storage/volumes/,
//! https://kubernetes.io/docs/concepts/storage/projected-volumes/), and the ways out of them that lead nowhere.

use std::os::unix::fs::symlink;

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::world::{World, condition, phase, sh, with};

/// A container that has a volume `v` at `/v`.
fn at_v(script: &str, more: Value) -> Value {
    let mount = with(json!({ "name": "v", "mountPath": "/v" }), more);
    with(sh(script), json!({ "volumeMounts": [mount] }))
}

fn v(source: Value) -> Value {
    json!({ "volumes": [with(json!({ "name": "v" }), source)] })
}

async fn config_map(world: &World, name: &str, data: Value) -> Result<()> {
    world.make::<ConfigMap>(json!({ "metadata": { "name": name }, "data": data })).await.map(drop)
}

pub(crate) async fn containers_share_an_empty_folder(world: &World) -> Result<()> {
    let reader = at_v("while ! test -s /v/f; do sleep 0.05; done; cat /v/f; ls -ld /v | cut -c1-10", json!({}));
    let writer = with(at_v("echo shared > /v/f.new; mv /v/f.new /v/f", json!({})), json!({ "name": "other" }));
    let spec = with(json!({ "containers": [reader, writer] }), v(json!({ "emptyDir": {} })));
    let ended = world.run("empty", spec).await?;
    ensure!(ended.log == "shared\ndrwxrwxrwx\n", "{}", ended.log);
    Ok(())
}

pub(crate) async fn an_empty_folder_in_memory_has_its_size(world: &World) -> Result<()> {
    let script = "grep ' /v ' /proc/mounts | cut -d' ' -f3; df -k /v | tail -1 | awk '{print $2}'; \
                  dd if=/dev/zero of=/v/f bs=1M count=3 2>&1 | grep -o 'No space left'";
    let memory = json!({ "emptyDir": { "medium": "Memory", "sizeLimit": "2Mi" } });
    let said = world.says("memory", at_v(script, json!({})), v(memory)).await?;
    ensure!(said == "tmpfs\n2048\nNo space left\n", "{said}");
    Ok(())
}

pub(crate) async fn a_sub_path_is_made_and_mounted(world: &World) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let container = at_v("echo below > /v/f", json!({ "subPath": "deep/er" }));
    world.says("sub-path", container, v(json!({ "hostPath": { "path": folder.path() } }))).await?;
    ensure!(std::fs::read_to_string(folder.path().join("deep/er/f"))? == "below\n");
    Ok(())
}

pub(crate) async fn a_sub_path_may_be_an_expression(world: &World) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let name = json!([{ "name": "POD", "valueFrom": { "fieldRef": { "fieldPath": "metadata.name" } } }]);
    let container = with(at_v("echo mine > /v/f", json!({ "subPathExpr": "of/$(POD)" })), json!({ "env": name }));
    world.says("expression", container, v(json!({ "hostPath": { "path": folder.path() } }))).await?;
    ensure!(std::fs::read_to_string(folder.path().join("of/expression/f"))? == "mine\n");
    Ok(())
}

pub(crate) async fn a_link_in_a_volume_does_not_lead_out_of_it(world: &World) -> Result<()> {
    let (folder, outside) = (tempfile::tempdir()?, tempfile::tempdir()?);
    std::fs::write(outside.path().join("secret"), "the host's")?;
    for (number, target) in
        [outside.path().display().to_string(), "../../../../../../../../tmp".to_owned()].iter().enumerate()
    {
        symlink(target, folder.path().join(format!("link{number}")))?;
        let sub = format!("link{number}/below");
        let name = format!("escape-{number}");
        let container = at_v("ls /v; touch /v/made", json!({ "subPath": sub }));
        let ended = async {
            world
                .create(
                    &name,
                    with(
                        json!({ "restartPolicy": "Never", "containers": [container] }),
                        v(json!({ "hostPath": { "path": folder.path() } })),
                    ),
                )
                .await?;
            let over = |pod: &_| {
                matches!(phase(pod), "Succeeded" | "Failed")
                    || !crate::world::waits(pod, "c").is_empty() && crate::world::waits(pod, "c") != "ContainerCreating"
            };
            world.until(&name, over).await
        };
        ended.await?;
        world.delete(&name).await?;
    }
    let left: Vec<_> = std::fs::read_dir(outside.path())?.flatten().map(|entry| entry.file_name()).collect();
    ensure!(left == ["secret"], "{left:?}");
    ensure!(!std::path::Path::new("/tmp/below").exists(), "the host's /tmp was written");
    Ok(())
}

pub(crate) async fn a_link_to_the_hosts_root_in_a_volume_shows_the_pods_own(world: &World) -> Result<()> {
    let folder = tempfile::tempdir()?;
    symlink("/", folder.path().join("root"))?;
    let inside = folder.path().display().to_string();
    let script = format!("test -e /v/root/bin/busybox && ! test -e /v/root{inside} && echo the own root");
    let said =
        world.says("root-link", at_v(&script, json!({})), v(json!({ "hostPath": { "path": folder.path() } }))).await?;
    ensure!(said == "the own root\n", "{said}");
    Ok(())
}

pub(crate) async fn a_path_upwards_is_refused(world: &World) -> Result<()> {
    for mount in [json!({ "subPath": "../up" }), json!({ "subPath": "/etc" })] {
        let spec = with(json!({ "containers": [at_v("true", mount)] }), v(json!({ "emptyDir": {} })));
        let error = world.create("upwards", spec).await.err();
        ensure!(error.is_some_and(|error| format!("{error:#}").contains("subPath")), "it was taken");
    }
    let spec =
        with(json!({ "containers": [at_v("true", json!({}))] }), v(json!({ "hostPath": { "path": "/tmp/../etc" } })));
    ensure!(world.create("upwards", spec).await.is_err(), "it was taken");
    Ok(())
}

pub(crate) async fn a_missing_folder_of_the_host_is_told(world: &World) -> Result<()> {
    let missing = json!({ "hostPath": { "path": "/no/such/folder", "type": "Directory" } });
    world.create("no-folder", with(json!({ "containers": [at_v("true", json!({}))] }), v(missing))).await?;
    let message = world.event("no-folder", "FailedMount").await?;
    ensure!(message.contains("hostPath type check failed: /no/such/folder is not a directory"), "{message}");
    world.delete("no-folder").await
}

pub(crate) async fn a_file_of_the_host_is_made_and_of_its_type(world: &World) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("made");
    let source = json!({ "hostPath": { "path": file, "type": "FileOrCreate" } });
    world.says("host-file", at_v("echo written > /v", json!({})), v(source)).await?;
    ensure!(std::fs::read_to_string(&file)? == "written\n");
    Ok(())
}

pub(crate) async fn a_socket_that_is_none_is_refused(world: &World) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let source = json!({ "hostPath": { "path": folder.path(), "type": "Socket" } });
    world.create("no-socket", with(json!({ "containers": [at_v("true", json!({}))] }), v(source))).await?;
    let message = world.event("no-socket", "FailedMount").await?;
    ensure!(message.contains("is not a socket file"), "{message}");
    world.delete("no-socket").await
}

pub(crate) async fn a_changed_config_map_reaches_its_volume(world: &World) -> Result<()> {
    config_map(world, "changing", json!({ "word": "before" })).await?;
    let script = "cat /v/word; echo; while ! grep -q after /v/word; do sleep 0.05; done; cat /v/word";
    let spec = with(
        json!({ "restartPolicy": "Never", "containers": [at_v(script, json!({}))] }),
        v(json!({ "configMap": { "name": "changing" } })),
    );
    world.create("follows", spec).await?;
    world.until("follows", |pod| condition(pod, "Ready") == "True").await?;
    let maps: Api<ConfigMap> = Api::default_namespaced(world.client());
    let after = Patch::Merge(json!({ "data": { "word": "after" } }));
    maps.patch("changing", &PatchParams::default(), &after).await?;
    world.until("follows", |pod| phase(pod) == "Succeeded").await?;
    let said = world.log("follows", "c").await?;
    ensure!(said.trim_end() == "before\nafter", "{said}");
    world.delete("follows").await
}

pub(crate) async fn keys_are_chosen_and_have_modes(world: &World) -> Result<()> {
    config_map(world, "keys", json!({ "a": "1", "b": "2" })).await?;
    let items = json!([{ "key": "a", "path": "deep/a", "mode": 0o400 }]);
    let source = json!({ "configMap": { "name": "keys", "items": items, "defaultMode": 0o640 } });
    let said = world.says("keys", at_v("ls /v; stat -L -c %a /v/deep/a; cat /v/deep/a", json!({})), v(source)).await?;
    ensure!(said == "deep\n400\n1", "{said}");
    Ok(())
}

pub(crate) async fn a_secret_lies_in_memory(world: &World) -> Result<()> {
    world.make::<Secret>(json!({ "metadata": { "name": "word" }, "stringData": { "word": "sesame" } })).await?;
    let script = "cat /v/word; echo; grep ' /v ' /proc/mounts | cut -d' ' -f3; stat -L -c %a /v/word; touch /v/x 2>&1 | grep -o 'Read-only'";
    let source = json!({ "secret": { "secretName": "word", "defaultMode": 0o400 } });
    let said = world.says("secret", at_v(script, json!({})), v(source)).await?;
    ensure!(said == "sesame\ntmpfs\n400\nRead-only\n", "{said}");
    Ok(())
}

pub(crate) async fn one_volume_shows_objects_of_all_kinds(world: &World) -> Result<()> {
    config_map(world, "one", json!({ "map": "m" })).await?;
    world.make::<Secret>(json!({ "metadata": { "name": "one" }, "stringData": { "secret": "s" } })).await?;
    let sources = json!([
        { "configMap": { "name": "one" } },
        { "secret": { "name": "one", "items": [{ "key": "secret", "path": "in/secret" }] } },
        { "downwardAPI": { "items": [{ "path": "name", "fieldRef": { "fieldPath": "metadata.name" } }] } },
        { "serviceAccountToken": { "path": "token", "audience": "somebody", "expirationSeconds": 600 } },
    ]);
    let script = "cat /v/map /v/in/secret /v/name; echo; tr -cd . < /v/token | wc -c";
    let said =
        world.says("projected", at_v(script, json!({})), v(json!({ "projected": { "sources": sources } }))).await?;
    ensure!(said == "msprojected\n2\n", "{said}");
    Ok(())
}

pub(crate) async fn labels_are_shown_as_they_change(world: &World) -> Result<()> {
    let items = json!([{ "path": "labels", "fieldRef": { "fieldPath": "metadata.labels" } }]);
    let script = "while ! grep -q 'tier=\"back\"' /v/labels; do sleep 0.05; done; cat /v/labels";
    let spec = with(
        json!({ "restartPolicy": "Never", "containers": [at_v(script, json!({}))] }),
        v(json!({ "downwardAPI": { "items": items } })),
    );
    world.create("labels", spec).await?;
    world.until("labels", |pod| condition(pod, "Ready") == "True").await?;
    world.patch("labels", json!({ "metadata": { "labels": { "tier": "back" } } })).await?;
    world.until("labels", |pod| phase(pod) == "Succeeded").await?;
    world.delete("labels").await
}

pub(crate) async fn what_is_optional_may_be_missing(world: &World) -> Result<()> {
    let source = json!({ "configMap": { "name": "never-made", "optional": true } });
    let said = world.says("optional", at_v("ls /v | wc -l", json!({})), v(source)).await?;
    ensure!(said == "0\n", "{said}");
    Ok(())
}

pub(crate) async fn what_is_mounted_to_be_read_cannot_be_written(world: &World) -> Result<()> {
    let container = at_v(
        "touch /v/x 2>&1 | grep -o 'Read-only'; mount -o remount,rw /v 2>&1 | grep -o 'ermitted\\|denied'",
        json!({ "readOnly": true }),
    );
    let said = world.says("read-only", container, v(json!({ "emptyDir": {} }))).await?;
    ensure!(said.starts_with("Read-only\n") && said.lines().count() == 2, "{said}");
    Ok(())
}

pub(crate) async fn an_image_can_be_mounted_and_not_written(world: &World) -> Result<()> {
    let source = json!({ "image": { "reference": "busybox:1.36", "pullPolicy": "IfNotPresent" } });
    let script = "test -e /v/bin/sh && echo there; touch /v/x 2>&1 | grep -o 'Read-only'; /v/bin/busybox true 2>&1 | grep -o 'denied'";
    let said = world.says("image-volume", at_v(script, json!({})), v(source)).await?;
    ensure!(said == "there\nRead-only\ndenied\n", "{said}");
    Ok(())
}

pub(crate) async fn the_group_of_the_volumes_owns_them(world: &World) -> Result<()> {
    let context = json!({ "securityContext": { "runAsUser": 1000, "fsGroup": 2000 } });
    let said = world
        .says(
            "fs-group",
            at_v("stat -c %g /v; touch /v/f; stat -c %g /v/f; id -G", json!({})),
            with(v(json!({ "emptyDir": {} })), context),
        )
        .await?;
    ensure!(said == "2000\n2000\n0 2000\n", "{said}");
    Ok(())
}

pub(crate) async fn an_empty_folder_beyond_its_limit_evicts_the_pod(world: &World) -> Result<()> {
    let container = at_v("dd if=/dev/zero of=/v/f bs=1M count=4 2>/dev/null; sleep 1000", json!({}));
    let spec = with(json!({ "containers": [container] }), v(json!({ "emptyDir": { "sizeLimit": "1Mi" } })));
    world.create("beyond", spec).await?;
    let pod = world.until("beyond", |pod| phase(pod) == "Failed").await?;
    let status = pod.status.clone().unwrap_or_default();
    ensure!(status.reason.as_deref() == Some("Evicted"), "{status:?}");
    ensure!(
        status.message.as_deref() == Some("Usage of EmptyDir volume \"v\" exceeds the limit \"1Mi\". "),
        "{status:?}"
    );
    ensure!(condition(&pod, "DisruptionTarget") == "True", "{status:?}");
    world.delete("beyond").await
}

pub(crate) async fn a_mount_that_would_reach_the_host_is_refused_in_words(world: &World) -> Result<()> {
    let privileged = json!({ "securityContext": { "privileged": true } });
    let container = with(at_v("true", json!({ "mountPropagation": "Bidirectional" })), privileged);
    world.create("reaches", with(json!({ "containers": [container] }), v(json!({ "emptyDir": {} })))).await?;
    let pod = world.until("reaches", |pod| crate::world::waits(pod, "c") == "CreateContainerConfigError").await?;
    ensure!(format!("{:?}", pod.status).contains("Bidirectional"), "{:?}", pod.status);
    world.delete("reaches").await
}

/// A folder that tells its copies in other namespaces of mounts; taken away again when dropped.
struct Shared(tempfile::TempDir);

impl Shared {
    fn new() -> Result<Self> {
        let shared = Self(tempfile::tempdir()?);
        mount(&["--bind", shared.path(), shared.path()])?;
        mount(&["--make-private", shared.path()])?;
        mount(&["--make-shared", shared.path()])?;
        Ok(shared)
    }

    fn path(&self) -> &str {
        self.0.path().to_str().unwrap_or_default()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let undone = std::process::Command::new("umount").args(["--recursive", "--lazy", self.path()]).status();
        if !undone.is_ok_and(|status| status.success()) {
            eprintln!("{} stays mounted", self.path());
        }
    }
}

fn mount(arguments: &[&str]) -> Result<()> {
    let done = std::process::Command::new("mount").args(arguments).status()?;
    ensure!(done.success(), "mount {arguments:?}: {done}");
    Ok(())
}

pub(crate) async fn what_the_host_mounts_later_may_appear(world: &World) -> Result<()> {
    let folder = Shared::new()?;
    let inside = format!("{}/late", folder.path());
    std::fs::create_dir(&inside)?;
    let script = "while ! test -e /v/late/there; do sleep 0.05; done; echo seen";
    let container = at_v(script, json!({ "mountPropagation": "HostToContainer" }));
    let source = v(json!({ "hostPath": { "path": folder.path() } }));
    world.create("sees-host", with(json!({ "restartPolicy": "Never", "containers": [container] }), source)).await?;
    world.until("sees-host", |pod| condition(pod, "Ready") == "True").await?;
    mount(&["-t", "tmpfs", "late", &inside])?;
    std::fs::write(format!("{inside}/there"), "x")?;
    let seen = world.until("sees-host", |pod| phase(pod) == "Succeeded");
    tokio::time::timeout(std::time::Duration::from_secs(20), seen).await??;
    world.delete("sees-host").await
}
