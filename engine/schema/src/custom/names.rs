//! The conditions of definitions: whether their names are free, whether they are served, whether they are going.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use crate::lookup;
use crate::registry::Registry;

/// What holds a definition back until its objects are gone.
pub const FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";

/// Whether objects of the definition are served.
pub fn is_established(definition: &Value) -> bool {
    condition(definition, "Established").is_some_and(|condition| lookup::text(condition, "status") == "True")
}

fn condition<'a>(definition: &'a Value, kind: &str) -> Option<&'a Value> {
    lookup::list(definition, "status.conditions").iter().find(|each| lookup::text(each, "type") == kind)
}

/// Names that are taken, by group.
#[derive(Default)]
struct Taken {
    /// Plurals, singulars and short names: whatever people type.
    resources: HashMap<String, String>,
    kinds: HashMap<String, String>,
}

impl Taken {
    fn take(&mut self, owner: &str, names: &Value) {
        let typed = ["plural", "singular"].iter().map(|key| lookup::text(names, key));
        let short = lookup::list(names, "shortNames").iter().filter_map(Value::as_str);
        for name in typed.chain(short).filter(|name| !name.is_empty()) {
            self.resources.entry(name.to_owned()).or_insert_with(|| owner.to_owned());
        }
        for key in ["kind", "listKind"] {
            let name = lookup::text(names, key);
            if !name.is_empty() {
                self.kinds.entry(name.to_owned()).or_insert_with(|| owner.to_owned());
            }
        }
    }

    /// The names that `owner` may have, and the first conflict.
    fn grant(&self, owner: &str, wished: &Value) -> (Value, Option<(&'static str, String)>) {
        let free = |map: &HashMap<String, String>, name: &str| map.get(name).is_none_or(|other| other == owner);
        let mut granted = Map::new();
        let mut conflict = None;
        let mut refuse = |reason: &'static str, name: &str| {
            conflict.get_or_insert((reason, format!("{name:?} is already in use")));
        };
        for (key, reason, map) in [
            ("plural", "PluralConflict", &self.resources),
            ("singular", "SingularConflict", &self.resources),
            ("kind", "KindConflict", &self.kinds),
            ("listKind", "ListKindConflict", &self.kinds),
        ] {
            let name = lookup::text(wished, key);
            if free(map, name) {
                granted.insert(key.to_owned(), name.into());
            } else {
                refuse(reason, name);
            }
        }
        let short = lookup::list(wished, "shortNames");
        match short.iter().filter_map(Value::as_str).find(|name| !free(&self.resources, name)) {
            Some(name) => refuse("ShortNamesConflict", name),
            None if !short.is_empty() => drop(granted.insert("shortNames".to_owned(), short.to_vec().into())),
            None => {}
        }
        if let Some(categories) = lookup::at(wished, "categories") {
            granted.insert("categories".to_owned(), categories.clone());
        }
        for key in ["plural", "kind"] {
            granted.entry(key).or_insert_with(|| "".into());
        }
        (Value::Object(granted), conflict)
    }
}

/// The status that each definition should have, in the order given; `None` where it has it already. Who came first keeps
/// a name; built-in kinds came before all.
pub fn judge(registry: &Registry, definitions: &[&Value], now: &str) -> Vec<Option<Value>> {
    let mut taken: HashMap<&str, Taken> = HashMap::new();
    for resource in registry.all().filter(|resource| !resource.is_custom()) {
        let names = json!({ "plural": resource.plural, "singular": resource.singular, "shortNames": resource.short_names,
            "kind": resource.kind, "listKind": resource.list_kind() });
        taken.entry(&resource.group).or_default().take("", &names);
    }
    for definition in definitions {
        let group = taken.entry(lookup::text(definition, "spec.group")).or_default();
        group.take(lookup::text(definition, "metadata.name"), &definition["status"]["acceptedNames"]);
    }
    let mut order: Vec<usize> = (0..definitions.len()).collect();
    order.sort_by_key(|at| (lookup::text(definitions[*at], "metadata.creationTimestamp"), *at));
    let mut judged = vec![None; definitions.len()];
    for at in order {
        let definition = definitions[at];
        let (name, group) = (lookup::text(definition, "metadata.name"), lookup::text(definition, "spec.group"));
        let group = taken.entry(group).or_default();
        let (accepted, conflict) = group.grant(name, &definition["spec"]["names"]);
        group.take(name, &accepted);
        let status = status(definition, accepted, conflict.as_ref(), now);
        judged[at] = (definition.get("status") != Some(&status)).then_some(status);
    }
    judged
}

fn status(definition: &Value, accepted: Value, conflict: Option<&(&'static str, String)>, now: &str) -> Value {
    let mut status = definition.get("status").filter(|status| status.is_object()).cloned().unwrap_or_else(|| json!({}));
    let established = conflict.is_none() || is_established(definition);
    lookup::set(&mut status, "acceptedNames", accepted);
    let (word, reason, message) = match conflict {
        None => ("True", "NoConflicts", "no conflicts found"),
        Some((reason, message)) => ("False", *reason, message.as_str()),
    };
    set_condition(&mut status, "NamesAccepted", [word, reason, message], now);
    let established = if established {
        ["True", "InitialNamesAccepted", "the initial names have been accepted"]
    } else {
        ["False", "NotAccepted", "not all names are accepted"]
    };
    set_condition(&mut status, "Established", established, now);
    status
}

/// Sets a condition; its time moves only with its status.
fn set_condition(status: &mut Value, kind: &str, [word, reason, message]: [&str; 3], now: &str) {
    let Some(status) = status.as_object_mut() else { return };
    let conditions = status.entry("conditions").or_insert_with(|| json!([]));
    if !conditions.is_array() {
        *conditions = json!([]);
    }
    let Some(list) = conditions.as_array_mut() else { return };
    let at = list.iter().position(|each| lookup::text(each, "type") == kind);
    let since = at.map(|at| &list[at]).filter(|old| lookup::text(old, "status") == word);
    let since = since.map_or(now, |old| lookup::text(old, "lastTransitionTime")).to_owned();
    let condition =
        json!({ "type": kind, "status": word, "lastTransitionTime": since, "reason": reason, "message": message });
    match at {
        Some(at) => list[at] = condition,
        None => list.push(condition),
    }
}

/// Makes a definition whose deletion begins wait for its objects, and say so.
pub fn begin_removal(definition: &mut Value, now: &str) {
    if let Some(metadata) = lookup::make_object(definition, "metadata") {
        let finalizers = metadata.entry("finalizers").or_insert_with(|| json!([]));
        if let Some(finalizers) = finalizers.as_array_mut().filter(|own| !own.contains(&FINALIZER.into())) {
            finalizers.push(FINALIZER.into());
        }
    }
    lookup::make_object(definition, "status");
    if let Some(status) = definition.get_mut("status") {
        let words = [
            "True",
            "InstanceDeletionPending",
            "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon",
        ];
        set_condition(status, "Terminating", words, now);
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing;
    use super::*;
    use crate::registry::shared;

    const NOW: &str = "2024-01-01T00:00:00Z";

    fn named(name: &str, created: &str, names: Value) -> Value {
        let mut definition = testing::definition(&json!({ "type": "object" }));
        definition["metadata"] = json!({ "name": name, "creationTimestamp": created });
        definition["spec"]["names"] = names;
        definition
    }

    #[test]
    fn the_first_to_come_gets_the_names() {
        let names = |plural: &str| json!({ "plural": plural, "singular": "", "kind": "CronTab", "listKind": format!("{plural}List"), "shortNames": ["ct"] });
        let late = named("a.stable.example.com", "2024-01-01T00:00:02Z", names("as"));
        let mut early = named("b.stable.example.com", "2024-01-01T00:00:01Z", names("bs"));
        let judged = judge(shared(), &[&late, &early], NOW);
        let status = judged[1].as_ref().expect("a new status");
        assert_eq!(status["acceptedNames"]["kind"], "CronTab");
        early["status"] = status.clone();
        assert!(is_established(&early));
        let refused = judged[0].as_ref().expect("a new status");
        assert_eq!(refused["conditions"][0]["reason"], "KindConflict");
        assert_eq!(refused["conditions"][0]["message"], "\"CronTab\" is already in use");
        assert_eq!(refused["conditions"][1]["status"], "False");
        assert_eq!(judge(shared(), &[&early], "2025-01-01T00:00:00Z"), [None]);
    }

    #[test]
    fn names_of_built_in_kinds_of_the_group_are_taken() {
        let mut own = named("leases.coordination.k8s.io", NOW, json!({ "plural": "leases", "kind": "Lease" }));
        own["spec"]["group"] = "coordination.k8s.io".into();
        let judged = judge(shared(), &[&own], NOW);
        assert_eq!(judged[0].as_ref().expect("a status")["conditions"][0]["reason"], "PluralConflict");
    }

    #[test]
    fn removal_waits_for_the_objects() {
        let mut definition = named("a.b", NOW, json!({}));
        begin_removal(&mut definition, NOW);
        begin_removal(&mut definition, NOW);
        assert_eq!(definition["metadata"]["finalizers"], json!([FINALIZER]));
        assert_eq!(definition["status"]["conditions"].as_array().map(Vec::len), Some(1));
    }
}
