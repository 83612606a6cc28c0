//! What a container's processes may do: capabilities, privilege, seccomp.

use std::path::{Component, Path};

use k8s_openapi::api::core::v1::{Container, Pod, SeccompProfile};
use shipway_container::Seccomp;

/// What container runtimes grant by custom.
const USUAL: [&str; 14] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// All that Linux knows (include/uapi/linux/capability.h).
const ALL: [&str; 41] = [
    "AUDIT_CONTROL",
    "AUDIT_READ",
    "AUDIT_WRITE",
    "BLOCK_SUSPEND",
    "BPF",
    "CHECKPOINT_RESTORE",
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "IPC_LOCK",
    "IPC_OWNER",
    "KILL",
    "LEASE",
    "LINUX_IMMUTABLE",
    "MAC_ADMIN",
    "MAC_OVERRIDE",
    "MKNOD",
    "NET_ADMIN",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_RAW",
    "PERFMON",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYSLOG",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_CHROOT",
    "SYS_MODULE",
    "SYS_NICE",
    "SYS_PACCT",
    "SYS_PTRACE",
    "SYS_RAWIO",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "WAKE_ALARM",
];

pub(crate) fn privileged(container: &Container) -> bool {
    container.security_context.as_ref().is_some_and(|context| context.privileged == Some(true))
}

pub(crate) fn no_new_privileges(container: &Container) -> bool {
    !privileged(container)
        && container.security_context.as_ref().is_some_and(|context| context.allow_privilege_escalation == Some(false))
}

pub(crate) fn read_only_root(container: &Container) -> bool {
    container.security_context.as_ref().is_some_and(|context| context.read_only_root_filesystem == Some(true))
}

/// The final set, as `CAP_...`, sorted: the usual ones, less what is dropped, plus what is added.
pub(crate) fn capabilities(container: &Container) -> Result<Vec<String>, String> {
    if privileged(container) {
        return Ok(full(&ALL));
    }
    let wanted = container.security_context.as_ref().and_then(|context| context.capabilities.as_ref());
    let names = |list: Option<&Vec<String>>| -> Result<Vec<&'static str>, String> {
        let mut all = Vec::new();
        for name in list.into_iter().flatten() {
            all.extend(resolve(name)?);
        }
        Ok(all)
    };
    let dropped = names(wanted.and_then(|wanted| wanted.drop.as_ref()))?;
    let added = names(wanted.and_then(|wanted| wanted.add.as_ref()))?;
    let all_dropped = dropped.len() >= ALL.len();
    let mut set: Vec<&str> = USUAL.into_iter().filter(|name| !dropped.contains(name)).collect();
    // What is added and dropped by name is dropped; `drop: [ALL]` leaves what is added.
    set.extend(added.into_iter().filter(|name| all_dropped || !dropped.contains(name)));
    set.sort_unstable();
    set.dedup();
    Ok(full(&set))
}

fn resolve(name: &str) -> Result<Vec<&'static str>, String> {
    let upper = name.to_uppercase();
    let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
    if bare == "ALL" {
        return Ok(ALL.to_vec());
    }
    let known = ALL.into_iter().find(|known| *known == bare);
    known.map(|known| vec![known]).ok_or_else(|| format!("unknown capability \"{name}\""))
}

fn full(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| format!("CAP_{name}")).collect()
}

/// The seccomp profile, the container's own before the pod's; none asked for is the default one, as on a kubelet that is
/// told so by `seccompDefault`. `profiles` is the folder of the node's own.
pub(crate) fn seccomp(pod: &Pod, container: &Container, profiles: &Path) -> Result<Seccomp, String> {
    if privileged(container) {
        return Ok(Seccomp::Unconfined);
    }
    let own = container.security_context.as_ref().and_then(|context| context.seccomp_profile.as_ref());
    let of_pod = pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref()?.seccomp_profile.as_ref());
    own.or(of_pod).map_or(Ok(Seccomp::RuntimeDefault), |wanted| profile(wanted, profiles))
}

fn profile(profile: &SeccompProfile, profiles: &Path) -> Result<Seccomp, String> {
    match profile.type_.as_str() {
        "Unconfined" => Ok(Seccomp::Unconfined),
        "RuntimeDefault" => Ok(Seccomp::RuntimeDefault),
        "Localhost" => {
            let name = Path::new(profile.localhost_profile.as_deref().unwrap_or_default());
            let plain = name.components().all(|part| matches!(part, Component::Normal(_)));
            if name.as_os_str().is_empty() || !plain {
                return Err(format!("seccomp profile \"{}\" must be a path below the node's folder", name.display()));
            }
            Ok(Seccomp::Localhost(profiles.join(name)))
        }
        other => Err(format!("seccomp profile type {other} is not supported by this node")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn set(capabilities: Value) -> Vec<String> {
        let container = json!({"name": "c", "securityContext": {"capabilities": capabilities}});
        super::capabilities(&serde_json::from_value(container).expect("a container")).expect("a set")
    }

    #[test]
    fn the_usual_set_is_changed_by_name() {
        assert_eq!(set(json!({})).len(), USUAL.len());
        let changed = set(json!({"add": ["NET_ADMIN", "cap_sys_time"], "drop": ["NET_RAW"]}));
        assert!(changed.contains(&"CAP_NET_ADMIN".to_owned()) && changed.contains(&"CAP_SYS_TIME".to_owned()));
        assert!(!changed.contains(&"CAP_NET_RAW".to_owned()));
        assert_eq!(set(json!({"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]})), ["CAP_NET_BIND_SERVICE"]);
        assert_eq!(set(json!({"add": ["ALL"], "drop": ["SYS_ADMIN"]})).len(), ALL.len() - 1);
    }

    #[test]
    fn calls_are_filtered_unless_a_pod_says_otherwise() {
        let of = |pod: Value, own: Value| {
            let pod = json!({"spec": {"containers": [], "securityContext": {"seccompProfile": pod}}});
            let container = json!({"name": "c", "securityContext": own});
            let parse = |value: Value| serde_json::from_value(value).expect("a container");
            seccomp(&serde_json::from_value(pod).expect("a pod"), &parse(container), Path::new("/home/seccomp"))
        };
        let local = |name: &str| json!({"type": "Localhost", "localhostProfile": name});
        assert_eq!(of(Value::Null, json!({})), Ok(Seccomp::RuntimeDefault));
        assert_eq!(of(json!({"type": "Unconfined"}), json!({})), Ok(Seccomp::Unconfined));
        assert_eq!(of(Value::Null, json!({"privileged": true})), Ok(Seccomp::Unconfined));
        assert_eq!(of(local("a/b.json"), json!({})), Ok(Seccomp::Localhost("/home/seccomp/a/b.json".into())));
        for escaping in ["../x", "/etc/x", ""] {
            assert!(of(local(escaping), json!({})).is_err(), "{escaping}");
        }
    }

    #[test]
    fn an_unknown_capability_is_refused() {
        let container = json!({"name": "c", "securityContext": {"capabilities": {"add": ["FLY"]}}});
        let container: Container = serde_json::from_value(container).expect("a container");
        assert_eq!(capabilities(&container), Err("unknown capability \"FLY\"".to_owned()));
    }
}
