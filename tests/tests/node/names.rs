//! Host names, resolvers, and the namespaces that a pod shares
//! (https://kubernetes.io/docs/concepts/services-networking/dns-pod-service/, .../tasks/configure-pod-container/share-process-namespace/,
//! .../tasks/administer-cluster/sysctl-cluster/).

use anyhow::{Result, ensure};
use serde_json::json;

use crate::world::{World, phase, sh, with};

pub(crate) async fn a_pod_has_its_own_host_name(world: &World) -> Result<()> {
    let said = world
        .says("own-name", sh("hostname; cat /etc/hostname; echo $HOSTNAME; grep -c own-name /etc/hosts"), json!({}))
        .await?;
    ensure!(said == "own-name\nown-name\nown-name\n1\n", "{said}");
    let said = world.says("another-name", sh("hostname"), json!({ "hostname": "chosen" })).await?;
    ensure!(said == "chosen\n", "{said}");
    Ok(())
}

pub(crate) async fn a_subdomain_makes_a_full_name(world: &World) -> Result<()> {
    let more = json!({ "hostname": "one", "subdomain": "many" });
    let said = world.says("full", sh("hostname; hostname -f"), more).await?;
    ensure!(said == "one\none.many.default.svc.cluster.local\n", "{said}");
    Ok(())
}

pub(crate) async fn the_full_name_may_be_the_host_name(world: &World) -> Result<()> {
    let more = json!({ "hostname": "one", "subdomain": "many", "setHostnameAsFQDN": true });
    let said = world.says("fqdn", sh("uname -n"), more).await?;
    ensure!(said == "one.many.default.svc.cluster.local\n", "{said}");
    Ok(())
}

pub(crate) async fn aliases_stand_in_the_hosts_file(world: &World) -> Result<()> {
    let more = json!({ "hostAliases": [{ "ip": "192.0.2.7", "hostnames": ["seven", "septem"] }] });
    let said = world.says("aliases", sh("grep 192.0.2.7 /etc/hosts"), more).await?;
    ensure!(said == "192.0.2.7\tseven\tseptem\n", "{said}");
    Ok(())
}

pub(crate) async fn the_resolver_is_told_by_the_pod(world: &World) -> Result<()> {
    let config = json!({ "nameservers": ["192.0.2.53"], "searches": ["example.org"], "options": [{ "name": "ndots", "value": "2" }] });
    let said =
        world.says("resolver", sh("cat /etc/resolv.conf"), json!({ "dnsPolicy": "None", "dnsConfig": config })).await?;
    ensure!(said == "search example.org\nnameserver 192.0.2.53\noptions ndots:2\n", "{said}");
    let said = world.says("cluster-first", sh("grep search /etc/resolv.conf"), json!({})).await?;
    ensure!(said.starts_with("search default.svc.cluster.local svc.cluster.local cluster.local"), "{said}");
    Ok(())
}

pub(crate) async fn a_pod_on_the_hosts_network_has_its_name(world: &World) -> Result<()> {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname")?;
    let said =
        world.says("host-net", sh("uname -n; readlink /proc/self/ns/net"), json!({ "hostNetwork": true })).await?;
    let own = std::fs::read_link("/proc/self/ns/net")?;
    ensure!(said == format!("{host}{}\n", own.display()), "{said}");
    Ok(())
}

pub(crate) async fn containers_may_share_their_processes(world: &World) -> Result<()> {
    let other = with(sh(""), json!({ "name": "other", "command": ["tail", "-f", "/dev/null"] }));
    let script = "while p=$(grep -l '^tail$' /proc/[0-9]*/comm 2>/dev/null); test -z \"$p\"; do sleep 0.05; done; \
                  p=${p#/proc/}; test ${p%/comm} != 1 && kill ${p%/comm} && echo seen";
    let spec = json!({ "shareProcessNamespace": true, "containers": [sh(script), other] });
    let ended = world.run("shared-processes", spec).await?;
    ensure!(ended.log == "seen\n", "{}{:?}", ended.log, ended.pod.status);
    Ok(())
}

pub(crate) async fn a_pod_may_see_the_processes_of_the_host(world: &World) -> Result<()> {
    let said = world
        .says(
            "host-pid",
            sh("readlink /proc/self/ns/pid; readlink /proc/self/ns/ipc"),
            json!({ "hostPID": true, "hostIPC": true }),
        )
        .await?;
    let own = |kind: &str| std::fs::read_link(format!("/proc/self/ns/{kind}")).map(|path| path.display().to_string());
    ensure!(said == format!("{}\n{}\n", own("pid")?, own("ipc")?), "{said}");
    Ok(())
}

pub(crate) async fn a_safe_kernel_parameter_is_set(world: &World) -> Result<()> {
    let sysctls = json!([{ "name": "net.ipv4.ip_unprivileged_port_start", "value": "81" }, { "name": "kernel.shm_rmid_forced", "value": "1" }]);
    let script = "cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/shm_rmid_forced";
    let said = world.says("sysctl", sh(script), json!({ "securityContext": { "sysctls": sysctls } })).await?;
    ensure!(said == "81\n1\n", "{said}");
    let host = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start")?;
    ensure!(host.trim() != "81", "the host's was changed");
    Ok(())
}

pub(crate) async fn an_unsafe_kernel_parameter_fails_the_pod(world: &World) -> Result<()> {
    let sysctls = json!([{ "name": "kernel.msgmax", "value": "65536" }]);
    let spec = json!({ "securityContext": { "sysctls": sysctls }, "containers": [sh("true")] });
    let ended = world.run("unsafe-sysctl", spec).await?;
    let told = world.event("unsafe-sysctl", "SysctlForbidden").await?;
    ensure!(told.contains("kernel.msgmax"), "{told}");
    let status = ended.pod.status.clone().unwrap_or_default();
    ensure!(phase(&ended.pod) == "Failed" && status.reason.as_deref() == Some("SysctlForbidden"), "{status:?}");
    Ok(())
}
