//! The baseline standard: no known way out of a container.

use serde_json::Value;

use super::{Pod, Violation, quoted, subject};

const CAPABILITIES: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];
/// Kernel settings that reach no further than the pod, and since which version of the standard they are allowed.
const SYSCTLS: [(&str, u32); 12] = [
    ("kernel.shm_rmid_forced", 0),
    ("net.ipv4.ip_local_port_range", 0),
    ("net.ipv4.ip_local_reserved_ports", 27),
    ("net.ipv4.ip_unprivileged_port_start", 0),
    ("net.ipv4.ping_group_range", 0),
    ("net.ipv4.tcp_fin_timeout", 29),
    ("net.ipv4.tcp_keepalive_intvl", 29),
    ("net.ipv4.tcp_keepalive_probes", 29),
    ("net.ipv4.tcp_keepalive_time", 29),
    ("net.ipv4.tcp_rmem", 32),
    ("net.ipv4.tcp_syncookies", 0),
    ("net.ipv4.tcp_wmem", 32),
];
const SELINUX: [(&str, u32); 5] =
    [("", 0), ("container_t", 0), ("container_init_t", 0), ("container_kvm_t", 0), ("container_engine_t", 31)];
const APPARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";

/// Finds what breaks the standard. `stricter` leaves out what the restricted standard says more strictly.
pub(super) fn check(pod: &Pod<'_>, stricter: bool, found: &mut Vec<Violation>) {
    app_armor(pod, found);
    if !stricter || pod.on_windows() {
        capabilities(pod, found);
    }
    host_namespaces(pod, found);
    if !stricter {
        host_path(pod, found);
    }
    host_ports(pod, found);
    host_probes(pod, found);
    privileged(pod, found);
    proc_mount(pod, found);
    se_linux(pod, found);
    if !stricter || pod.on_windows() {
        seccomp(pod, found);
    }
    sysctls(pod, found);
    host_process(pod, found);
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// Says who has values that are not allowed: `pod and container "a" must not set X to "v"`.
fn must_not(
    pod: &Pod<'_>,
    what: &'static str,
    rule: &str,
    bad: impl Fn(&Value) -> Vec<String>,
    found: &mut Vec<Violation>,
) {
    let own = bad(&pod.spec["securityContext"]);
    let names = pod.which(|container| !bad(&container["securityContext"]).is_empty());
    if own.is_empty() && names.is_empty() {
        return;
    }
    let whom = match (own.is_empty(), names.is_empty()) {
        (false, true) => "pod".to_owned(),
        (false, false) => format!("pod and {}", subject(&names)),
        _ => subject(&names),
    };
    let values = own.into_iter().chain(pod.containers().flat_map(|(_, container)| bad(&container["securityContext"])));
    found.push(Violation(what, format!("{whom} must not set {rule} {}", quoted(values)).trim_end().to_owned()));
}

fn app_armor(pod: &Pod<'_>, found: &mut Vec<Violation>) {
    let bad = |context: &Value| {
        let kind = &context["appArmorProfile"]["type"];
        if kind.is_null() || matches!(kind.as_str(), Some("RuntimeDefault" | "Localhost")) {
            vec![]
        } else {
            vec![text(kind)]
        }
    };
    must_not(pod, "forbidden AppArmor profile", "AppArmor profile type to", bad, found);
    let annotations = pod.metadata["annotations"].as_object().into_iter().flatten();
    let bad = annotations.filter(|(key, value)| {
        let value = value.as_str().unwrap_or_default();
        key.starts_with(APPARMOR)
            && !(value.is_empty() || value == "runtime/default" || value.starts_with("localhost/"))
    });
    let bad: Vec<String> = bad.map(|(key, value)| format!("{key}={}", text(value))).collect();
    if !bad.is_empty() {
        let plural = if bad.len() == 1 { "annotation" } else { "annotations" };
        found.push(Violation("forbidden AppArmor profile", format!("{plural} must not be set to {}", quoted(bad))));
    }
}

fn capabilities(pod: &Pod<'_>, found: &mut Vec<Violation>) {
    let bad = |container: &Value| -> Vec<String> {
        let added = container["securityContext"]["capabilities"]["add"].as_array().into_iter().flatten().map(text);
        added.filter(|name| !CAPABILITIES.contains(&name.as_str())).collect()
    };
    let names = pod.which(|container| !bad(container).is_empty());
    if !names.is_empty() {
        let values = pod.containers().flat_map(|(_, container)| bad(container));
        let detail =
            format!("{} must not include {} in securityContext.capabilities.add", subject(&names), quoted(values));
        found.push(Violation("non-default capabilities", detail));
    }
}

fn host_namespaces(pod: &Pod<'_>, found: &mut Vec<Violation>) {
    let fields = ["hostNetwork", "hostPID", "hostIPC"].into_iter().filter(|field| pod.spec[field] == true);
    let set: Vec<String> = fields.map(|field| format!("{field}=true")).collect();
    if !set.is_empty() {
        found.push(Violation("host namespaces", set.join(", ")));
    }
}

fn host_path(pod: &Pod<'_>, found: &mut Vec<Violation>) {
    let volumes = pod.spec["volumes"].as_array().into_iter().flatten();
    let names: Vec<String> =
        volumes.filter(|volume| !volume["hostPath"].is_null()).map(|volume| text(&volume["name"])).collect();
    if !names.is_empty() {
        let plural = if names.len() == 1 { "volume" } else { "volumes" };
        found.push(Violation("hostPath volumes", format!("{plural} {}", quoted(names))));
    }
}

fn host_ports(pod: &Pod<'_>, found: &mut Vec<Violation>) {
    let ports = |container: &Value| -> Vec<u64> {
        let ports = container["ports"].as_array().into_iter().flatten();
        ports.filter_map(|port| port["hostPort"].as_u64()).filter(|port| *port > 0).collect()
    };
    let names = pod.which(|container| !ports(container).is_empty());
    if names.is_empty() {
        return;
    }
    let mut numbers: Vec<u64> = pod.containers().flat_map(|(_, container)| ports(container)).collect();
    numbers.sort_unstable();
    numbers.dedup();
    let plural = if numbers.len() == 1 { "hostPort" } else { "hostPorts" };
    let numbers: Vec<String> = numbers.iter().map(ToString::to_string).collect();
    let uses = if names.len() == 1 { "uses" } else { "use" };
    found.push(Violation("hostPort", format!("{} {uses} {plural} {}", subject(&names), numbers.join(", "))));
}

/// Probes and hooks that reach other hosts than the pod.
fn host_probes(pod: &Pod<'_>, found: &mut Vec<Violation>) {
    if pod.version < 34 {
        return;
    }
    let reaches = |action: &Value| {
        ["httpGet", "tcpSocket"]
            .into_iter()
            .any(|kind| action[kind]["host"].as_str().is_some_and(|host| !host.is_empty()))
    };
    let hosts = |container: &Value| {
        ["livenessProbe", "readinessProbe", "startupProbe"].into_iter().any(|probe| reaches(&container[probe]))
            || ["postStart", "preStop"].into_iter().any(|hook| reaches(&container["lifecycle"][hook]))
    };
    let names = pod.which(hosts);
    if !names.is_empty() {
        let detail = format!("{} must not set the host of a probe or a lifecycle handler", subject(&names));
        found.push(Violation("probe or lifecycle host", detail));
    }
}

fn host_process(pod: &Pod<'_>, found: &mut Vec<Violation>) {
    let bad =
        |context: &Value| if context["windowsOptions"]["hostProcess"] == true { vec![String::new()] } else { vec![] };
    let own = !bad(&pod.spec["securityContext"]).is_empty();
    let names = pod.which(|container| !bad(&container["securityContext"]).is_empty());
    if own || !names.is_empty() {
        let whom = match (own, names.is_empty()) {
            (true, true) => "pod".to_owned(),
            (true, false) => format!("pod and {}", subject(&names)),
            _ => subject(&names),
        };
        found.push(Violation(
            "hostProcess",
            format!("{whom} must not set securityContext.windowsOptions.hostProcess=true"),
        ));
    }
}

fn privileged(pod: &Pod<'_>, found: &mut Vec<Violation>) {
    let names = pod.which(|container| container["securityContext"]["privileged"] == true);
    if !names.is_empty() {
        found
            .push(Violation("privileged", format!("{} must not set securityContext.privileged=true", subject(&names))));
    }
}

fn proc_mount(pod: &Pod<'_>, found: &mut Vec<Violation>) {
    let kind = |container: &Value| text(&container["securityContext"]["procMount"]);
    let names = pod.which(|container| !matches!(kind(container).as_str(), "" | "Default"));
    if !names.is_empty() {
        let values = pod
            .containers()
            .map(|(_, container)| kind(container))
            .filter(|kind| !matches!(kind.as_str(), "" | "Default"));
        let detail = format!("{} must not set securityContext.procMount to {}", subject(&names), quoted(values));
        found.push(Violation("procMount", detail));
    }
}

fn seccomp(pod: &Pod<'_>, found: &mut Vec<Violation>) {
    let bad = |context: &Value| {
        let kind = text(&context["seccompProfile"]["type"]);
        if matches!(kind.as_str(), "" | "RuntimeDefault" | "Localhost") { vec![] } else { vec![kind] }
    };
    must_not(pod, "seccompProfile", "securityContext.seccompProfile.type to", bad, found);
}

fn se_linux(pod: &Pod<'_>, found: &mut Vec<Violation>) {
    let allowed = |kind: &str| SELINUX.iter().any(|(name, since)| *name == kind && pod.version >= *since);
    let bad = |context: &Value| {
        let options = &context["seLinuxOptions"];
        let kind = text(&options["type"]);
        let kind = (!allowed(&kind)).then(|| format!("type={kind}"));
        let fixed = ["user", "role"].into_iter().map(|field| (field, text(&options[field])));
        let fixed = fixed.filter(|(_, value)| !value.is_empty()).map(|(field, value)| format!("{field}={value}"));
        kind.into_iter().chain(fixed).collect()
    };
    must_not(pod, "seLinuxOptions", "securityContext.seLinuxOptions to", bad, found);
}

fn sysctls(pod: &Pod<'_>, found: &mut Vec<Violation>) {
    let set =
        pod.spec["securityContext"]["sysctls"].as_array().into_iter().flatten().map(|sysctl| text(&sysctl["name"]));
    let allowed = |name: &str| SYSCTLS.iter().any(|(known, since)| *known == name && pod.version >= *since);
    let bad: Vec<String> = set.filter(|name| !allowed(name)).collect();
    if !bad.is_empty() {
        let mut bad = bad;
        bad.sort_unstable();
        found.push(Violation("forbidden sysctls", bad.join(", ")));
    }
}
