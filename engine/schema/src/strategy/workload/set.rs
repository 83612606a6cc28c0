//! Stateful sets and daemon sets.

use std::borrow::Cow;

use serde_json::{Value, json};

use super::super::rules::{Declared, Fill, between, fixed, not_negative, one_of, required, with};
use super::super::{checks, claim};
use super::{COUNTS, fill_template, share, shared};
use crate::invalid::FieldError;
use crate::lookup;
use crate::path::Path;

/// `apps/v1` `StatefulSet`
pub(crate) static STATEFUL_SET: Declared = Declared {
    status: Some(|| json!({ "availableReplicas": 0, "replicas": 0 })),
    defaults: &[
        ("spec.podManagementPolicy", Fill::Text("OrderedReady")),
        ("spec.updateStrategy", Fill::Object),
        ("spec.updateStrategy.type", Fill::Text("RollingUpdate")),
        ("spec.replicas", Fill::Number(1)),
        ("spec.revisionHistoryLimit", Fill::Number(10)),
        ("spec.persistentVolumeClaimRetentionPolicy", Fill::Object),
        ("spec.persistentVolumeClaimRetentionPolicy.whenDeleted", Fill::Text("Retain")),
        ("spec.persistentVolumeClaimRetentionPolicy.whenScaled", Fill::Text("Retain")),
        ("spec.volumeClaimTemplates[].apiVersion", Fill::Text("v1")),
        ("spec.volumeClaimTemplates[].kind", Fill::Text("PersistentVolumeClaim")),
    ],
    fill: |object| {
        fill_template(object);
        let Some(spec) = object.get_mut("spec").filter(|spec| spec.is_object()) else { return };
        if lookup::text(spec, "updateStrategy.type") == "RollingUpdate" {
            lookup::fill(&mut spec["updateStrategy"], "rollingUpdate", json!({}));
            lookup::fill(&mut spec["updateStrategy"]["rollingUpdate"], "partition", 0);
            lookup::fill(&mut spec["updateStrategy"]["rollingUpdate"], "maxUnavailable", 1);
        }
        lookup::list_mut(spec, "volumeClaimTemplates").iter_mut().for_each(claim::fill);
    },
    rules: &[
        required("spec"),
        one_of("spec.podManagementPolicy", &["OrderedReady", "Parallel"]),
        one_of("spec.updateStrategy.type", &["OnDelete", "RollingUpdate"]),
        not_negative("spec.updateStrategy.rollingUpdate.partition"),
        with("spec.updateStrategy.rollingUpdate.maxUnavailable", some_of_all),
        with("spec.updateStrategy", only_rolling),
        not_negative("spec.ordinals.start"),
        one_of("spec.persistentVolumeClaimRetentionPolicy.whenDeleted", &["Delete", "Retain"]),
        one_of("spec.persistentVolumeClaimRetentionPolicy.whenScaled", &["Delete", "Retain"]),
        required("spec.volumeClaimTemplates[].metadata"),
        with("spec.volumeClaimTemplates[].metadata", claim_name),
    ],
    more: |object, old, errors| {
        let path = Path::Root.field("spec");
        shared(&with_claims(&object["spec"]), None, &path, errors);
        if let Some(old) = old {
            may_change(&object["spec"], &old["spec"], &path, errors);
        }
    },
    status_rules: COUNTS,
    ..Declared::SPECIFIED
};

/// The specification as its pods will have it: with a volume for each claim template, which containers may mount.
fn with_claims(spec: &Value) -> Cow<'_, Value> {
    let own = lookup::list(spec, "template.spec.volumes");
    let is_new =
        |name: &str| checks::dns_label(name).is_ok() && own.iter().all(|volume| lookup::text(volume, "name") != name);
    let templates = lookup::list(spec, "volumeClaimTemplates").iter();
    let names = templates.map(|template| lookup::text(template, "metadata.name")).filter(|name| is_new(name));
    let volume = |name: &str| json!({ "name": name, "persistentVolumeClaim": { "claimName": name } });
    let volumes: Vec<Value> = own.iter().cloned().chain(names.map(volume)).collect();
    if volumes.len() == own.len() || lookup::at(spec, "template.spec").is_none_or(|pod| !pod.is_object()) {
        return Cow::Borrowed(spec);
    }
    let mut spec = spec.clone();
    spec["template"]["spec"]["volumes"] = Value::Array(volumes);
    Cow::Owned(spec)
}

/// More than nothing and not more than all.
fn some_of_all(value: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    part_of_all(value, path, errors);
    if none(value) {
        errors.push(FieldError::invalid(path, value, "cannot be 0"));
    }
}

/// A count, or a share of not more than all.
fn part_of_all(value: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    share(value, path, errors);
    if value.as_str().and_then(checks::percent).is_some_and(|percent| percent > 100) {
        errors.push(FieldError::invalid(path, value, "must not be greater than 100%"));
    }
}

/// Whether a number or share comes to nothing.
fn none(value: &Value) -> bool {
    *value == 0 || value.as_str().and_then(checks::percent) == Some(0)
}

fn only_rolling(strategy: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    if lookup::text(strategy, "type") == "OnDelete"
        && let Some(rolling) = lookup::at(strategy, "rollingUpdate")
    {
        let detail = "only allowed for updateStrategy 'RollingUpdate'";
        errors.push(FieldError::invalid(&path.field("rollingUpdate"), rolling, detail));
    }
}

/// What may change about a stateful set.
const CHANGEABLE: [&str; 7] = [
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
];

fn may_change(new: &Value, old: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let fields =
        |spec: &Value| spec.as_object().into_iter().flatten().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    let differs = |name: &String| new.get(name) != old.get(name) && !CHANGEABLE.contains(&name.as_str());
    if fields(new).iter().chain(&fields(old)).any(differs) {
        let detail = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', \
                      'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and \
                      'minReadySeconds' are forbidden";
        errors.push(FieldError::forbidden(path, detail));
    }
}

fn claim_name(metadata: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let name = lookup::text(metadata, "name");
    if name.is_empty() {
        errors.push(FieldError::required(&path.field("name"), ""));
    } else if let Err(problem) = checks::dns_subdomain(name) {
        errors.push(FieldError::invalid(&path.field("name"), &name.into(), &problem));
    }
}

/// `apps/v1` `DaemonSet`
pub(crate) static DAEMON_SET: Declared = Declared {
    status: Some(
        || json!({ "currentNumberScheduled": 0, "numberMisscheduled": 0, "desiredNumberScheduled": 0, "numberReady": 0 }),
    ),
    defaults: &[
        ("spec.updateStrategy", Fill::Object),
        ("spec.updateStrategy.type", Fill::Text("RollingUpdate")),
        ("spec.revisionHistoryLimit", Fill::Number(10)),
    ],
    fill: |object| {
        fill_template(object);
        if let Some(strategy) = lookup::at_mut(object, "spec.updateStrategy")
            && lookup::text(strategy, "type") == "RollingUpdate"
        {
            lookup::fill(strategy, "rollingUpdate", json!({}));
            lookup::fill(&mut strategy["rollingUpdate"], "maxUnavailable", 1);
            lookup::fill(&mut strategy["rollingUpdate"], "maxSurge", 0);
        }
    },
    rules: &[
        required("spec"),
        one_of("spec.updateStrategy.type", &["OnDelete", "RollingUpdate"]),
        with("spec.updateStrategy.rollingUpdate", rolling),
        fixed("spec.selector"),
    ],
    more: |object, _, errors| shared(&object["spec"], None, &Path::Root.field("spec"), errors),
    status_rules: &[
        not_negative("status.currentNumberScheduled"),
        not_negative("status.numberMisscheduled"),
        not_negative("status.desiredNumberScheduled"),
        not_negative("status.numberReady"),
        not_negative("status.updatedNumberScheduled"),
        not_negative("status.numberAvailable"),
        not_negative("status.numberUnavailable"),
        between("status.observedGeneration", 0, i64::MAX),
    ],
    ..Declared::SPECIFIED
};

/// A node runs one pod of the set, or two for a while: just one of the two numbers says how many at a time.
fn rolling(rolling: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let (unavailable, surge) = (&rolling["maxUnavailable"], &rolling["maxSurge"]);
    part_of_all(unavailable, &path.field("maxUnavailable"), errors);
    part_of_all(surge, &path.field("maxSurge"), errors);
    let says_nothing = |value: &Value| value.is_null() || none(value);
    match (says_nothing(unavailable), says_nothing(surge)) {
        (true, true) => {
            let detail = "cannot be 0 when maxSurge is 0";
            errors.push(FieldError::required(&path.field("maxUnavailable"), detail));
        }
        (false, false) => {
            let detail = "may not be set when maxUnavailable is non-zero";
            errors.push(FieldError::invalid(&path.field("maxSurge"), surge, detail));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::strategy::testing::{admit, errors, fields, valid};

    fn set(kind: &str, spec: &Value) -> Value {
        let mut object = json!({ "apiVersion": "apps/v1", "kind": kind, "metadata": { "name": "s" }, "spec": {
            "selector": { "matchLabels": { "a": "b" } },
            "template": { "metadata": { "labels": { "a": "b" } }, "spec": { "containers": [{ "name": "c", "image": "x:1" }] } },
        } });
        for (name, value) in spec.as_object().into_iter().flatten() {
            object["spec"][name] = value.clone();
        }
        object
    }

    #[test]
    fn a_stateful_set_changes_little() {
        let claim = json!({ "metadata": { "name": "data" }, "spec": { "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "1Gi" } } } });
        let old = valid(set("StatefulSet", &json!({ "volumeClaimTemplates": [claim] })));
        let spec = &old["spec"];
        let rolling = json!({ "partition": 0, "maxUnavailable": 1 });
        assert_eq!(spec["updateStrategy"], json!({ "type": "RollingUpdate", "rollingUpdate": rolling }));
        assert_eq!(
            spec["persistentVolumeClaimRetentionPolicy"],
            json!({ "whenDeleted": "Retain", "whenScaled": "Retain" })
        );
        assert_eq!((&spec["replicas"], &spec["podManagementPolicy"]), (&json!(1), &json!("OrderedReady")));
        assert_eq!(spec["volumeClaimTemplates"][0]["spec"]["volumeMode"], "Filesystem");
        assert_eq!(old["status"], json!({ "availableReplicas": 0, "replicas": 0 }));
        let mut new = old.clone();
        new["spec"]["replicas"] = json!(3);
        new["spec"]["minReadySeconds"] = json!(1);
        assert_eq!(admit(new.clone(), Some(&old)).1, Vec::<String>::new());
        new["spec"]["serviceName"] = json!("other");
        let found = admit(new, Some(&old)).1;
        assert!(
            found[0].starts_with("spec: Forbidden: updates to statefulset spec for fields other than 'replicas'"),
            "{found:?}"
        );
        let wrong = set(
            "StatefulSet",
            &json!({ "podManagementPolicy": "Chaos", "ordinals": { "start": -1 }, "volumeClaimTemplates": [{}] }),
        );
        assert_eq!(
            fields(&errors(wrong)),
            ["spec.podManagementPolicy", "spec.ordinals.start", "spec.volumeClaimTemplates[0].metadata"]
        );
    }

    #[test]
    fn containers_mount_the_claims_of_their_pods() {
        let claim = json!({ "metadata": { "name": "data" }, "spec": { "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "1Gi" } } } });
        let mounting = |volume: &str| {
            let mut set = set("StatefulSet", &json!({ "volumeClaimTemplates": [claim] }));
            let mount = json!([{ "name": volume, "mountPath": "/data" }]);
            set["spec"]["template"]["spec"]["containers"][0]["volumeMounts"] = mount;
            set
        };
        assert_eq!(errors(mounting("data")), Vec::<String>::new());
        let kept = valid(mounting("data"));
        assert_eq!(kept["spec"]["template"]["spec"].get("volumes"), None, "nothing is written");
        assert_eq!(fields(&errors(mounting("other"))), ["spec.template.spec.containers[0].volumeMounts[0].name"]);
    }

    #[test]
    fn a_stateful_set_updates_some_and_not_more_than_all() {
        let found = |strategy: Value| errors(set("StatefulSet", &json!({ "updateStrategy": strategy })));
        let rolling =
            |most: &Value| found(json!({ "type": "RollingUpdate", "rollingUpdate": { "maxUnavailable": most } }));
        let path = "spec.updateStrategy.rollingUpdate.maxUnavailable";
        for wrong in [json!(0), json!("0%"), json!("00%"), json!(-1), json!("101%"), json!("x")] {
            assert_eq!(fields(&rolling(&wrong)), [path], "{wrong}");
        }
        assert_eq!((rolling(&json!(5)), rolling(&json!("100%"))), (Vec::new(), Vec::new()));
        let on_delete = json!({ "type": "OnDelete", "rollingUpdate": { "partition": 1 } });
        assert_eq!(fields(&found(on_delete)), ["spec.updateStrategy.rollingUpdate"]);
        assert_eq!(found(json!({ "type": "OnDelete" })), Vec::<String>::new());
    }

    #[test]
    fn a_daemon_set_replaces_one_pod_a_node() {
        let old = valid(set("DaemonSet", &json!({})));
        let strategy = json!({ "type": "RollingUpdate", "rollingUpdate": { "maxUnavailable": 1, "maxSurge": 0 } });
        assert_eq!(old["spec"]["updateStrategy"], strategy);
        let rolling = |unavailable: Value, surge: Value| {
            let strategy = json!({ "type": "RollingUpdate", "rollingUpdate": { "maxUnavailable": unavailable, "maxSurge": surge } });
            errors(set("DaemonSet", &json!({ "updateStrategy": strategy })))
        };
        assert_eq!(fields(&rolling(json!(1), json!(1))), ["spec.updateStrategy.rollingUpdate.maxSurge"]);
        assert_eq!(fields(&rolling(json!(0), json!(0))), ["spec.updateStrategy.rollingUpdate.maxUnavailable"]);
        assert_eq!(fields(&rolling(json!(0), json!("200%"))), ["spec.updateStrategy.rollingUpdate.maxSurge"]);
        let mut new = old.clone();
        new["spec"]["selector"]["matchLabels"] = json!({ "a": "b", "c": "d" });
        new["spec"]["template"]["metadata"]["labels"] = json!({ "a": "b", "c": "d" });
        assert_eq!(fields(&admit(new, Some(&old)).1), ["spec.selector"]);
    }

    #[test]
    fn counts_of_a_status_fit_each_other() {
        let resource = crate::registry::shared().of_kind("apps/v1", "StatefulSet").expect("served");
        let check = |status: Value| {
            let found = resource.strategy().validate_below("status", &json!({ "status": status }), &json!({}));
            found.into_iter().map(|error| error.field).collect::<Vec<_>>()
        };
        assert_eq!(check(json!({ "replicas": 2, "readyReplicas": 2, "availableReplicas": 1 })), Vec::<String>::new());
        assert_eq!(check(json!({ "replicas": 1, "collisionCount": -1 })), ["status.collisionCount"]);
        assert_eq!(check(json!({ "replicas": 1, "readyReplicas": 2 })), ["status.readyReplicas"]);
    }
}
