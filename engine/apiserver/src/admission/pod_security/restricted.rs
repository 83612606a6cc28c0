//! The restricted standard: what hardening asks for beyond the baseline.

use serde_json::Value;

use super::{Pod, Violation, quoted, subject};

/// Where volumes may come from.
const VOLUMES: [&str; 9] = [
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
];

/// Finds what breaks the standard.
pub(super) fn check(pod: &Pod<'_>, found: &mut Vec<Violation>) {
    if !pod.on_windows() {
        escalation(pod, found);
        capabilities(pod, found);
    }
    volumes(pod, found);
    non_root(pod, found);
    user(pod, found);
    if !pod.on_windows() {
        seccomp(pod, found);
    }
}

fn escalation(pod: &Pod<'_>, found: &mut Vec<Violation>) {
    if pod.version < 8 {
        return;
    }
    let names = pod.which(|container| container["securityContext"]["allowPrivilegeEscalation"] != false);
    if !names.is_empty() {
        let detail = format!("{} must set securityContext.allowPrivilegeEscalation=false", subject(&names));
        found.push(Violation("allowPrivilegeEscalation != false", detail));
    }
}

fn capabilities(pod: &Pod<'_>, found: &mut Vec<Violation>) {
    if pod.version < 22 {
        return;
    }
    let list = |container: &Value, field: &str| -> Vec<String> {
        let names = container["securityContext"]["capabilities"][field].as_array().into_iter().flatten();
        names.filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let extra = |container: &Value| -> Vec<String> {
        list(container, "add").into_iter().filter(|name| name != "NET_BIND_SERVICE").collect()
    };
    let keeping = pod.which(|container| !list(container, "drop").iter().any(|name| name == "ALL"));
    let adding = pod.which(|container| !extra(container).is_empty());
    let mut details = Vec::new();
    if !keeping.is_empty() {
        details.push(format!("{} must set securityContext.capabilities.drop=[\"ALL\"]", subject(&keeping)));
    }
    if !adding.is_empty() {
        let values = pod.containers().flat_map(|(_, container)| extra(container));
        let whom = subject(&adding);
        details.push(format!("{whom} must not include {} in securityContext.capabilities.add", quoted(values)));
    }
    if !details.is_empty() {
        found.push(Violation("unrestricted capabilities", details.join("; ")));
    }
}

fn non_root(pod: &Pod<'_>, found: &mut Vec<Violation>) {
    let own = &pod.spec["securityContext"]["runAsNonRoot"];
    let set = |container: &Value| container["securityContext"]["runAsNonRoot"].clone();
    let explicit = pod.which(|container| set(container) == false);
    let mut details = Vec::new();
    if *own == false {
        details.push("pod must not set securityContext.runAsNonRoot=false".to_owned());
    }
    if !explicit.is_empty() {
        details.push(format!("{} must not set securityContext.runAsNonRoot=false", subject(&explicit)));
    }
    let silent = pod.which(|container| set(container).is_null());
    if details.is_empty() && *own != true && !silent.is_empty() {
        details.push(format!("pod or {} must set securityContext.runAsNonRoot=true", subject(&silent)));
    }
    if !details.is_empty() {
        found.push(Violation("runAsNonRoot != true", details.join(" and ")));
    }
}

fn user(pod: &Pod<'_>, found: &mut Vec<Violation>) {
    if pod.version < 23 {
        return;
    }
    let names = pod.which(|container| container["securityContext"]["runAsUser"] == 0);
    let own = pod.spec["securityContext"]["runAsUser"] == 0;
    let whom = match (own, names.is_empty()) {
        (false, true) => return,
        (true, true) => "pod".to_owned(),
        (true, false) => format!("pod and {}", subject(&names)),
        (false, false) => subject(&names),
    };
    found.push(Violation("runAsUser=0", format!("{whom} must not set runAsUser=0")));
}

fn seccomp(pod: &Pod<'_>, found: &mut Vec<Violation>) {
    if pod.version < 19 {
        return;
    }
    let kind = |context: &Value| context["seccompProfile"]["type"].as_str().unwrap_or_default().to_owned();
    let safe = |kind: &str| matches!(kind, "RuntimeDefault" | "Localhost");
    let own = kind(&pod.spec["securityContext"]);
    let bad = |kind: &str| !kind.is_empty() && !safe(kind);
    let wrong = pod.which(|container| bad(&kind(&container["securityContext"])));
    let mut details = Vec::new();
    if bad(&own) {
        details.push(format!("pod must not set securityContext.seccompProfile.type to {own:?}"));
    }
    if !wrong.is_empty() {
        let values =
            pod.containers().map(|(_, container)| kind(&container["securityContext"])).filter(|kind| bad(kind));
        details.push(format!(
            "{} must not set securityContext.seccompProfile.type to {}",
            subject(&wrong),
            quoted(values)
        ));
    }
    let silent = pod.which(|container| kind(&container["securityContext"]).is_empty());
    if details.is_empty() && !safe(&own) && !silent.is_empty() {
        let whom = subject(&silent);
        details.push(format!(
            "pod or {whom} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\""
        ));
    }
    if !details.is_empty() {
        found.push(Violation("seccompProfile", details.join(" and ")));
    }
}

fn volumes(pod: &Pod<'_>, found: &mut Vec<Violation>) {
    let source = |volume: &Value| {
        let sources =
            volume.as_object().into_iter().flatten().filter(|(key, value)| *key != "name" && !value.is_null());
        sources.map(|(key, _)| key.clone()).find(|key| !VOLUMES.contains(&key.as_str()))
    };
    let all = pod.spec["volumes"].as_array().into_iter().flatten();
    let bad: Vec<(String, String)> = all
        .filter_map(|volume| Some((volume["name"].as_str().unwrap_or_default().to_owned(), source(volume)?)))
        .collect();
    if bad.is_empty() {
        return;
    }
    let plural = if bad.len() == 1 { ("volume", "uses", "type") } else { ("volumes", "use", "types") };
    let names = bad.iter().map(|(name, _)| format!("{name:?}")).collect::<Vec<_>>().join(", ");
    let types = quoted(bad.into_iter().map(|(_, kind)| kind));
    let detail = format!("{} {names} {} restricted volume {} {types}", plural.0, plural.1, plural.2);
    found.push(Violation("restricted volume types", detail));
}
