//! What this node takes a pod for that it will not run at all: such a pod is failed at once, with the reason and in the words
//! that a kubelet uses. Pure.

use k8s_openapi::api::core::v1::{Pod, PodSpec};

use crate::pod;

/// Why a pod is ended against its will: what its status says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sentence {
    pub(crate) reason: &'static str,
    pub(crate) message: String,
    /// Whether it ran before, and is disrupted by it.
    pub(crate) disrupts: bool,
}

/// Kernel parameters that a pod may set because they reach no further than the pod
/// (https://kubernetes.io/docs/tasks/administer-cluster/sysctl-cluster/#safe-and-unsafe-sysctls).
const SAFE: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
];

/// Why the node refuses the pod, if it does. `app_armor`: whether the kernel has it.
pub(crate) fn refusal(pod: &Pod, app_armor: bool) -> Option<Sentence> {
    let refuse = |reason, message| Sentence { reason, message, disrupts: false };
    let sysctl = forbidden_sysctl(pod).map(|message| refuse("SysctlForbidden", message));
    sysctl.or_else(|| unenforceable(pod, app_armor).map(|message| refuse("AppArmor", message)))
}

/// Whether the kernel has `AppArmor`, and it is switched on.
pub(crate) fn has_app_armor() -> bool {
    std::fs::read_to_string("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.starts_with('Y'))
}

/// The kernel parameters of a pod, with dots.
pub(crate) fn sysctls(pod: &Pod) -> Vec<(String, String)> {
    let context = pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref());
    let all = context.and_then(|context| context.sysctls.as_deref()).unwrap_or_default();
    all.iter().map(|one| (dotted(&one.name), one.value.clone())).collect()
}

/// A name may be given with slashes, as the file has it; dots within a part are slashes then.
fn dotted(name: &str) -> String {
    match name.find(['.', '/']) {
        Some(at) if name[at..].starts_with('/') => name
            .chars()
            .map(|each| {
                if each == '/' {
                    '.'
                } else if each == '.' {
                    '/'
                } else {
                    each
                }
            })
            .collect(),
        _ => name.to_owned(),
    }
}

fn forbidden_sysctl(pod: &Pod) -> Option<String> {
    let host_ipc = pod.spec.as_ref().is_some_and(|spec| spec.host_ipc == Some(true));
    sysctls(pod).into_iter().find_map(|(name, _)| {
        let shared = match name.split('.').next() {
            Some("net") => pod::host_network(pod).then_some("network"),
            Some("kernel") => host_ipc.then_some("ipc"),
            _ => None,
        };
        match shared {
            Some(what) => Some(format!("forbidden sysctl: \"{name}\" not allowed with host {what} enabled")),
            None if SAFE.contains(&name.as_str()) => None,
            None => Some(format!("forbidden sysctl: \"{name}\" not allowlisted")),
        }
    })
}

/// A profile that is asked for is enforced, or the pod does not run.
fn unenforceable(pod: &Pod, app_armor: bool) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let asked = profiles(spec);
    let asked: Vec<&str> = asked.into_iter().filter(|kind| *kind != "Unconfined").collect();
    match asked.first() {
        None => None,
        Some(_) if !app_armor => Some("Cannot enforce AppArmor: AppArmor is not enabled on the host".to_owned()),
        Some(kind) => (*kind == "Localhost")
            .then(|| "Cannot enforce AppArmor: profiles of the node are not supported by this node".to_owned()),
    }
}

/// The kinds of `AppArmor` profiles that the pod and its containers ask for by name.
fn profiles(spec: &PodSpec) -> Vec<&str> {
    let of_pod = spec.security_context.as_ref().and_then(|context| context.app_armor_profile.as_ref());
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let own = containers.filter_map(|it| it.security_context.as_ref()?.app_armor_profile.as_ref());
    of_pod.into_iter().chain(own).map(|profile| profile.type_.as_str()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn refused(mut spec: Value) -> Option<(&'static str, String)> {
        spec["containers"] = json!([{"name": "c", "securityContext": spec["own"]}]);
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).expect("a pod");
        refusal(&pod, false).map(|sentence| (sentence.reason, sentence.message))
    }

    fn sysctl(name: &str) -> Value {
        json!({"sysctls": [{"name": name, "value": "1"}]})
    }

    #[test]
    fn parameters_that_reach_beyond_the_pod_are_forbidden() {
        assert_eq!(refused(json!({"securityContext": sysctl("net.ipv4.tcp_syncookies")})), None);
        assert_eq!(refused(json!({"securityContext": sysctl("net/ipv4/tcp_syncookies")})), None);
        let (reason, message) = refused(json!({"securityContext": sysctl("kernel.msgmax")})).expect("it is not safe");
        assert_eq!(
            (reason, message.as_str()),
            ("SysctlForbidden", "forbidden sysctl: \"kernel.msgmax\" not allowlisted")
        );
        let shared = json!({"hostNetwork": true, "securityContext": sysctl("net.ipv4.tcp_syncookies")});
        assert!(refused(shared).expect("it would be the host's").1.contains("host network"));
    }

    #[test]
    fn a_profile_that_cannot_be_enforced_is_said() {
        let asks = |kind: &str| json!({"appArmorProfile": {"type": kind}});
        assert_eq!(refused(json!({"own": asks("Unconfined")})), None);
        let (reason, message) = refused(json!({"own": asks("RuntimeDefault")})).expect("the kernel has none");
        assert_eq!(reason, "AppArmor");
        assert!(message.contains("not enabled on the host"), "{message}");
        assert!(refused(json!({"securityContext": asks("Localhost")})).is_some());
    }
}
