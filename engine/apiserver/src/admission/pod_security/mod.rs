//! Pod security: the Pod Security Standards, as a namespace's labels ask for them.
//!
//! `enforce` refuses pods; `audit` and `warn` speak up, for workloads' pod templates as well. Labels may pin the version
//! of the standard. Source: kubernetes.io, "Pod Security Standards" and "Pod Security Admission".

mod baseline;
mod restricted;
#[cfg(test)]
mod tests;

use serde_json::Value;

use super::{Operation, Request};
use crate::error::ApiError;
use crate::meta;

const PREFIX: &str = "pod-security.kubernetes.io/";
/// The version of the standard that `latest` stands for: 1.x.
const LATEST: u32 = 36;
/// At most so many pods of a namespace are looked at when its level rises.
const LOOKED_AT: usize = 500;
/// At most so many pods are named in a warning.
const NAMED: usize = 10;

/// How strict a standard is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Privileged,
    Baseline,
    Restricted,
}

/// A standard in one of its versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Standard {
    level: Level,
    /// `None` is the latest.
    version: Option<u32>,
}

impl Standard {
    /// What a namespace asks for in one of the modes. A level that cannot be read is enforced as the strictest.
    fn of(namespace: &Value, mode: &str) -> Self {
        let label = |name: String| namespace["metadata"]["labels"][name].as_str();
        let level = match label(format!("{PREFIX}{mode}")) {
            None => Level::Privileged,
            Some(text) => level(text).unwrap_or(if mode == "enforce" { Level::Restricted } else { Level::Privileged }),
        };
        let version = label(format!("{PREFIX}{mode}-version")).and_then(|text| version(text).ok()).flatten();
        Self { level, version }
    }

    /// What of a pod the standard does not allow, in the words of the standard.
    fn violations(self, metadata: &Value, spec: &Value) -> Vec<String> {
        let pod = Pod { metadata, spec, version: self.version.unwrap_or(LATEST) };
        let mut found = Vec::new();
        if self.level >= Level::Baseline {
            baseline::check(&pod, self.level == Level::Restricted, &mut found);
        }
        if self.level == Level::Restricted {
            restricted::check(&pod, &mut found);
        }
        found.into_iter().map(|Violation(what, detail)| format!("{what} ({detail})")).collect()
    }
}

impl std::fmt::Display for Standard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let level = match self.level {
            Level::Privileged => "privileged",
            Level::Baseline => "baseline",
            Level::Restricted => "restricted",
        };
        match self.version {
            Some(version) => write!(f, "{level}:v1.{version}"),
            None => write!(f, "{level}:latest"),
        }
    }
}

fn level(text: &str) -> Option<Level> {
    match text {
        "privileged" => Some(Level::Privileged),
        "baseline" => Some(Level::Baseline),
        "restricted" => Some(Level::Restricted),
        _ => None,
    }
}

/// `latest` or `v1.x`.
fn version(text: &str) -> Result<Option<u32>, ()> {
    if text == "latest" {
        return Ok(None);
    }
    text.strip_prefix("v1.").and_then(|minor| minor.parse().ok()).map(Some).ok_or(())
}

/// What is not allowed, and what to do about it.
struct Violation(&'static str, String);

/// A pod under one version of the standards.
struct Pod<'a> {
    metadata: &'a Value,
    spec: &'a Value,
    version: u32,
}

impl Pod<'_> {
    /// All containers with their names, in the order in which they are written.
    fn containers(&self) -> impl Iterator<Item = (&str, &Value)> {
        let lists = ["initContainers", "containers", "ephemeralContainers"];
        let all = lists.into_iter().flat_map(|list| self.spec[list].as_array().into_iter().flatten());
        all.map(|container| (container["name"].as_str().unwrap_or_default(), container))
    }

    /// The names of the containers for which something holds.
    fn which(&self, holds: impl Fn(&Value) -> bool) -> Vec<&str> {
        self.containers().filter(|(_, container)| holds(container)).map(|(name, _)| name).collect()
    }

    fn on_windows(&self) -> bool {
        self.version >= 25 && self.spec["os"]["name"] == "windows"
    }
}

/// `container "a" must`, `containers "a", "b" must`
fn subject(names: &[&str]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("{name:?}")).collect();
    let plural = if names.len() == 1 { "" } else { "s" };
    format!("container{plural} {}", quoted.join(", "))
}

/// `"a", "b"`
fn quoted(values: impl IntoIterator<Item = String>) -> String {
    let mut values: Vec<String> = values.into_iter().map(|value| format!("{value:?}")).collect();
    values.sort_unstable();
    values.dedup();
    values.join(", ")
}

/// The same for a container that joins a pod later.
pub(super) fn check_ephemeral(request: &Request<'_>, object: &Value) -> Result<(), ApiError> {
    if request.subresource == "ephemeralcontainers" { check(request, object) } else { Ok(()) }
}

/// Refuses pods that break what their namespace enforces, and speaks up for what it warns of.
pub(super) fn check(request: &Request<'_>, object: &Value) -> Result<(), ApiError> {
    let Some(namespace) = request.namespace().and_then(|name| request.call.server.namespaces().get(name)) else {
        return Ok(());
    };
    if !namespace.has_label_under(PREFIX) {
        return Ok(());
    }
    let Some((metadata, spec)) = template(request, object) else { return Ok(()) };
    let unchanged = |old: &Value| {
        template(request, old)
            .is_some_and(|(before, old)| before["annotations"] == metadata["annotations"] && old == spec)
    };
    if request.operation == Operation::Update && request.old.is_some_and(unchanged) {
        return Ok(());
    }
    let namespace = namespace.value();
    let found = |mode: &str| {
        let standard = Standard::of(&namespace, mode);
        let found = standard.violations(metadata, spec);
        (standard, (!found.is_empty()).then(|| found.join(", ")))
    };
    let note = |what: &str, text: String| request.call.notes.annotate(format!("{PREFIX}{what}"), text);
    let would = |standard: Standard, found: &str| format!("would violate PodSecurity \"{standard}\": {found}");
    if let (standard, Some(found)) = found("audit") {
        note("audit-violations", would(standard, &found));
    }
    if request.is("", "Pod") {
        let (standard, found) = found("enforce");
        note("enforce-policy", standard.to_string());
        if let Some(found) = found {
            return Err(request.forbidden(format!("violates PodSecurity \"{standard}\": {found}")));
        }
    }
    if let (standard, Some(found)) = found("warn") {
        request.call.warn(would(standard, &found));
    }
    Ok(())
}

/// Where a kind keeps what its pods will be: metadata and spec.
fn template<'a>(request: &Request<'_>, object: &'a Value) -> Option<(&'a Value, &'a Value)> {
    let resource = request.place.resource();
    let holder = match (&*resource.group, &*resource.kind) {
        ("", "Pod") => object,
        ("", "PodTemplate") => &object["template"],
        ("batch", "CronJob") => &object["spec"]["jobTemplate"]["spec"]["template"],
        ("", "ReplicationController")
        | ("apps", "DaemonSet" | "Deployment" | "ReplicaSet" | "StatefulSet")
        | ("batch", "Job") => &object["spec"]["template"],
        _ => return None,
    };
    holder["spec"].is_object().then(|| (&holder["metadata"], &holder["spec"]))
}

/// Refuses labels of a namespace that make no sense, and says which pods a rising level finds at fault.
pub(super) fn check_namespace(request: &Request<'_>, namespace: &Value) -> Result<(), ApiError> {
    let labels = namespace["metadata"]["labels"].as_object().into_iter().flatten();
    let mut errors = Vec::new();
    for (key, value) in labels.filter(|(key, _)| key.starts_with(PREFIX)) {
        let text = value.as_str().unwrap_or_default();
        let rule = match &key[PREFIX.len()..] {
            "enforce" | "audit" | "warn" if level(text).is_none() => "must be one of privileged, baseline, restricted",
            "enforce-version" | "audit-version" | "warn-version" if version(text).is_err() => {
                "must be \"latest\" or \"v1.x\""
            }
            _ => continue,
        };
        errors.push(shipway_schema::FieldError {
            field: format!("metadata.labels[{key}]"),
            reason: shipway_schema::Reason::Invalid,
            message: format!("Invalid value: {text:?}: {rule}"),
        });
    }
    if !errors.is_empty() {
        return Err(ApiError::Invalid(request.place.about_kind(), errors));
    }
    let standard = Standard::of(namespace, "enforce");
    if request.old.is_some_and(|old| Standard::of(old, "enforce") != standard) && standard.level != Level::Privileged {
        warn_of_pods(request, standard);
    }
    Ok(())
}

fn warn_of_pods(request: &Request<'_>, standard: Standard) {
    let server = &request.call.server;
    let pods = server.cache().snapshot(&server.admission().tables.pods, Some(&request.place.name), None).objects;
    let faulty: Vec<String> = pods
        .iter()
        .take(LOOKED_AT)
        .map(|pod| pod.value())
        .filter_map(|pod| {
            let found = standard.violations(&pod["metadata"], &pod["spec"]);
            (!found.is_empty()).then(|| format!("{}: {}", meta::text(&pod, "name"), found.join(", ")))
        })
        .take(NAMED)
        .collect();
    if !faulty.is_empty() {
        let name = &request.place.name;
        request.call.warn(format!(
            "existing pods in namespace {name:?} violate the new PodSecurity enforce level \"{standard}\""
        ));
        for line in faulty {
            request.call.warn(line);
        }
    }
}
