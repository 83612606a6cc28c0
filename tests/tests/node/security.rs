//! What a container may do (https://kubernetes.io/docs/tasks/configure-pod-container/security-context/,
//! https://kubernetes.io/docs/tutorials/security/seccomp/), and what it must not.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::world::{World, phase, sh, waits, with};

fn secured(script: &str, context: Value) -> Value {
    with(sh(script), json!({ "securityContext": context }))
}

/// One field of the process's own account.
fn own(field: &str) -> String {
    format!("grep {field}: /proc/self/status | cut -f2")
}

pub(crate) async fn user_groups_and_supplementary_groups_are_those_asked_for(world: &World) -> Result<()> {
    let more = json!({ "securityContext": { "runAsUser": 1000, "runAsGroup": 3000, "supplementalGroups": [4000] } });
    let said = world.says("user", sh("id -u; id -g; id -G"), more.clone()).await?;
    ensure!(said == "1000\n3000\n3000 4000\n", "{said}");
    let said = world.says("own-user", secured("id -u; id -g", json!({ "runAsUser": 2000 })), more).await?;
    ensure!(said == "2000\n3000\n", "{said}");
    Ok(())
}

pub(crate) async fn root_is_refused_where_it_must_not_be(world: &World) -> Result<()> {
    world.create("no-root", json!({ "containers": [secured("true", json!({ "runAsNonRoot": true }))] })).await?;
    let pod = world.until("no-root", |pod| waits(pod, "c") == "CreateContainerConfigError").await?;
    let message = crate::world::status(&pod, "c").and_then(|status| status.state.clone()?.waiting?.message);
    ensure!(message.is_some_and(|it| it.contains("runAsNonRoot and image will run as root")), "{:?}", pod.status);
    world.delete("no-root").await?;
    let user = json!({ "runAsNonRoot": true, "runAsUser": 7 });
    world.says("some-user", secured("test $(id -u) = 7", user), json!({})).await.map(drop)
}

pub(crate) async fn a_read_only_root_cannot_be_written(world: &World) -> Result<()> {
    let container = with(
        secured(
            "touch /x 2>&1 | grep -o Read-only; touch /v/x && echo volume",
            json!({ "readOnlyRootFilesystem": true }),
        ),
        json!({ "volumeMounts": [{ "name": "v", "mountPath": "/v" }] }),
    );
    let said = world.says("read-only-root", container, json!({ "volumes": [{ "name": "v", "emptyDir": {} }] })).await?;
    ensure!(said == "Read-only\nvolume\n", "{said}");
    Ok(())
}

pub(crate) async fn capabilities_are_dropped_and_added(world: &World) -> Result<()> {
    let none = json!({ "capabilities": { "drop": ["ALL"] } });
    let said = world.says("no-capability", secured(&own("CapEff"), none), json!({})).await?;
    ensure!(said.trim() == "0000000000000000", "{said}");
    let one = json!({ "capabilities": { "drop": ["ALL"], "add": ["NET_ADMIN"] } });
    let said = world.says("one-capability", secured(&own("CapEff"), one), json!({})).await?;
    ensure!(u64::from_str_radix(said.trim(), 16)? == 1 << 12, "{said}");
    let chown = "chown 5 /tmp 2>&1 | grep -o 'not permitted'";
    let said =
        world.says("no-chown", secured(chown, json!({ "capabilities": { "drop": ["CHOWN"] } })), json!({})).await?;
    ensure!(said == "not permitted\n", "{said}");
    Ok(())
}

pub(crate) async fn no_new_privileges_are_gained_where_that_is_asked(world: &World) -> Result<()> {
    for (name, allowed, wanted) in [("escalates", true, "0\n"), ("stays", false, "1\n")] {
        let context = json!({ "allowPrivilegeEscalation": allowed });
        let said = world.says(name, secured(&own("NoNewPrivs"), context), json!({})).await?;
        ensure!(said == wanted, "{name}: {said}");
    }
    Ok(())
}

pub(crate) async fn system_calls_are_filtered_by_default(world: &World) -> Result<()> {
    let script = format!("{}; unshare -U true 2>&1 | grep -o 'not permitted'", own("Seccomp"));
    let said = world.says("filtered", sh(&script), json!({})).await?;
    ensure!(said == "2\nnot permitted\n", "{said}");
    let asked = json!({ "securityContext": { "seccompProfile": { "type": "RuntimeDefault" } } });
    let said = world.says("asked-filtered", sh(&own("Seccomp")), asked).await?;
    ensure!(said == "2\n", "{said}");
    Ok(())
}

pub(crate) async fn a_pod_may_ask_for_no_filter(world: &World) -> Result<()> {
    let unconfined = json!({ "securityContext": { "seccompProfile": { "type": "Unconfined" } } });
    let said = world.says("unfiltered", sh(&own("Seccomp")), unconfined).await?;
    ensure!(said == "0\n", "{said}");
    Ok(())
}

fn local(profile: &str) -> Value {
    json!({ "seccompProfile": { "type": "Localhost", "localhostProfile": profile } })
}

pub(crate) async fn a_profile_of_the_node_is_in_force(world: &World) -> Result<()> {
    let folder = world.instance.home().join("seccomp/profiles");
    std::fs::create_dir_all(&folder)?;
    let profile = json!({ "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"], "syscalls": [
        { "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO" },
    ] });
    std::fs::write(folder.join("no-mkdir.json"), profile.to_string())?;
    let script = "mkdir /x 2>&1 | grep -o 'not permitted'; touch /y && echo touched";
    let said = world.says("profile", secured(script, local("profiles/no-mkdir.json")), json!({})).await?;
    ensure!(said == "not permitted\ntouched\n", "{said}");
    Ok(())
}

pub(crate) async fn a_profile_that_is_missing_stops_the_container(world: &World) -> Result<()> {
    world.create("no-profile", json!({ "containers": [secured("true", local("none.json"))] })).await?;
    let pod = world.until("no-profile", |pod| waits(pod, "c") == "CreateContainerError").await?;
    ensure!(phase(&pod) == "Pending", "{:?}", pod.status);
    world.delete("no-profile").await
}

pub(crate) async fn a_privileged_container_has_everything(world: &World) -> Result<()> {
    let script = format!(
        "{}; {}; test -e /dev/kmsg && echo devices; test -w /proc/sys/kernel/hostname && echo writable",
        own("CapEff"),
        own("Seccomp")
    );
    let said = world.says("privileged", secured(&script, json!({ "privileged": true })), json!({})).await?;
    let mut lines = said.lines();
    let all = std::fs::read_to_string("/proc/self/status")?;
    let permitted = all.lines().find_map(|line| line.strip_prefix("CapEff:\t")).unwrap_or_default().to_owned();
    ensure!(lines.next() == Some(&permitted), "{said}, and this process has {permitted}");
    ensure!(lines.collect::<Vec<_>>() == ["0", "devices", "writable"], "{said}");
    Ok(())
}

pub(crate) async fn the_kernel_is_hidden_and_not_writable(world: &World) -> Result<()> {
    let script = "head -c1 /proc/kcore 2>/dev/null | wc -c; ls /sys/firmware | wc -l; \
                  for f in /proc/sys/kernel/hostname /proc/sysrq-trigger /sys/kernel/profiling; do \
                  (echo 1 > $f) 2>&1 | grep -o 'Read-only\\|denied\\|nonexistent'; done";
    let said = world.says("hidden", sh(script), json!({})).await?;
    let lines: Vec<&str> = said.lines().collect();
    ensure!(lines[..2] == ["0", "0"] && lines.len() == 5, "{said}");
    Ok(())
}

pub(crate) async fn an_app_armor_profile_without_app_armor_fails_the_pod(world: &World) -> Result<()> {
    if std::fs::read_to_string("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.starts_with('Y')) {
        return Ok(());
    }
    let context = json!({ "appArmorProfile": { "type": "RuntimeDefault" } });
    let ended = world.run("app-armor", json!({ "containers": [secured("true", context)] })).await?;
    let status = ended.pod.status.clone().unwrap_or_default();
    ensure!(phase(&ended.pod) == "Failed" && status.reason.as_deref() == Some("AppArmor"), "{status:?}");
    ensure!(
        status.message.as_deref().is_some_and(|it| it.contains("AppArmor is not enabled on the host")),
        "{status:?}"
    );
    Ok(())
}

pub(crate) async fn user_namespaces_are_refused_in_words(world: &World) -> Result<()> {
    world.create("user-namespace", json!({ "hostUsers": false, "containers": [sh("true")] })).await?;
    let message = world.event("user-namespace", "FailedCreatePodSandBox").await?;
    ensure!(message.contains("user namespaces (hostUsers: false) are not supported"), "{message}");
    world.delete("user-namespace").await
}

pub(crate) async fn devices_of_the_host_cannot_be_opened(world: &World) -> Result<()> {
    // 1:1 is /dev/mem, 7:0 the first loop device.
    let script = "for d in 'c 1 1' 'b 7 0'; do mknod /tmp/d $d 2>/dev/null; (head -c1 /tmp/d) 2>&1 | \
                  grep -o 'not permitted\\|denied\\|No such file'; rm -f /tmp/d; done; echo ok > /dev/null && echo usual";
    let said = world.says("devices", sh(script), json!({})).await?;
    ensure!(said.lines().count() == 3 && said.ends_with("usual\n"), "{said}");
    Ok(())
}
