//! What a pod's subresources may do: add containers to look into it with, and give running ones more or less.

use std::collections::BTreeSet;

use serde_json::Value;

use super::super::checks;
use super::super::metadata::text_rule;
use super::{container, env, quality, resources};
use crate::invalid::FieldError;
use crate::lookup;
use crate::path::Path;

/// What makes no sense for a container that nobody waits for and nobody restarts.
const NOT_FOR_DEBUGGING: [&str; 6] =
    ["lifecycle", "livenessProbe", "ports", "readinessProbe", "resizePolicy", "startupProbe"];

/// Checks a write of `spec.ephemeralContainers`: they are added, never changed or taken away.
pub(super) fn ephemeral(object: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let spec = Path::Root.field("spec");
    let path = spec.field("ephemeralContainers");
    let after = lookup::list(object, "spec.ephemeralContainers");
    for before in lookup::list(old, "spec.ephemeralContainers") {
        let detail = match after.iter().find(|each| each.get("name") == before.get("name")) {
            None => "removed",
            Some(same) if same != before => "changed",
            Some(_) => continue,
        };
        let name = lookup::text(before, "name");
        errors
            .push(FieldError::forbidden(&path, &format!("existing ephemeral containers {name:?} may not be {detail}")));
    }
    let others = |list: &str| lookup::list(&object["spec"], list).iter().map(|each| lookup::text(each, "name"));
    let mut names: BTreeSet<&str> = others("containers").chain(others("initContainers")).collect();
    let running = names.clone();
    for (index, each) in after.iter().enumerate() {
        one(each, &mut names, &running, &path.index(index), &mut errors);
    }
    errors
}

fn one<'a>(
    each: &'a Value,
    names: &mut BTreeSet<&'a str>,
    running: &BTreeSet<&str>,
    path: &Path<'_>,
    errors: &mut Vec<FieldError>,
) {
    let name = lookup::text(each, "name");
    if name.is_empty() {
        errors.push(FieldError::required(&path.field("name"), ""));
    } else {
        text_rule(&path.field("name"), name, checks::dns_label, errors);
        if !names.insert(name) {
            errors.push(FieldError::duplicate(&path.field("name"), &name.into()));
        }
    }
    container::image(each, path, errors);
    env::validate(each, path, errors);
    let target = lookup::text(each, "targetContainerName");
    if !target.is_empty() && !running.contains(target) {
        errors.push(FieldError::not_found(&path.field("targetContainerName"), &target.into()));
    }
    let resources = each.get("resources").filter(|all| all.as_object().is_some_and(|all| !all.is_empty()));
    let given = NOT_FOR_DEBUGGING.iter().filter(|field| lookup::at(each, field).is_some());
    for field in given.chain(resources.map(|_| &"resources")) {
        errors.push(FieldError::forbidden(&path.field(field), "cannot be set for an Ephemeral Container"));
    }
}

/// Checks a write of the containers' resources.
pub(super) fn resize(object: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let spec = Path::Root.field("spec");
    for list in ["containers", "initContainers"] {
        let list_path = spec.field(list);
        for (index, each) in lookup::list(&object["spec"], list).iter().enumerate() {
            let path = list_path.index(index);
            resources::validate(&each["resources"], &path.field("resources"), &mut errors);
        }
    }
    let (before, after) = (quality::class(&old["spec"]), quality::class(&object["spec"]));
    if before != after {
        let detail = "Pod QOS Class may not change as a result of resizing";
        errors.push(FieldError::invalid(&spec, &after.into(), detail));
    }
    errors
}
