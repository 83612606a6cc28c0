//! Classes that pods name: of priority, and of the runtime under their containers.

use serde_json::Value;

use super::claim::amount;
use super::rules::{Declared, Fill, Generations, fixed, fixed_as, one_of, required, text, with};
use super::{checks, pod};
use crate::invalid::FieldError;
use crate::lookup;
use crate::path::Path;

/// The highest priority that people may give.
const HIGHEST: i64 = 1_000_000_000;

/// The classes above it, which every cluster has.
const SYSTEM: [(&str, i64); 2] = [("system-node-critical", 2_000_001_000), ("system-cluster-critical", 2_000_000_000)];

/// `scheduling.k8s.io/v1` `PriorityClass`
pub(crate) static PRIORITY_CLASS: Declared = Declared {
    generations: Generations::Of(&[]),
    defaults: &[("preemptionPolicy", Fill::Text("PreemptLowerPriority")), ("value", Fill::Number(0))],
    rules: &[
        one_of("preemptionPolicy", &["Never", "PreemptLowerPriority"]),
        fixed_as("value", "may not be changed in an update."),
        fixed("preemptionPolicy"),
    ],
    more: |object, _, errors| {
        let (name, value) = (lookup::text(object, "metadata.name"), lookup::integer(object, "value").unwrap_or(0));
        let metadata = Path::Root.field("metadata");
        if name.starts_with("system-") && !SYSTEM.contains(&(name, value)) {
            let detail = "priority class names with 'system-' prefix are reserved for system use only";
            errors.push(FieldError::forbidden(&metadata.field("name"), detail));
        } else if value > HIGHEST && !name.starts_with("system-") {
            let detail = format!("maximum allowed value of a user defined priority is {HIGHEST}");
            errors.push(FieldError::forbidden(&Path::Root.field("value"), &detail));
        }
    },
    ..Declared::PLAIN
};

/// `node.k8s.io/v1` `RuntimeClass`
pub(crate) static RUNTIME_CLASS: Declared = Declared {
    rules: &[
        required("handler"),
        text("handler", checks::dns_label),
        fixed("handler"),
        with("overhead.podFixed{}", amount),
        with("scheduling.nodeSelector", node_labels),
        with("scheduling.tolerations", pod::tolerations),
    ],
    ..Declared::PLAIN
};

fn node_labels(labels: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    super::metadata::label_map(Some(labels), path, errors);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::strategy::testing::{admit, errors, fields, valid};

    #[test]
    fn a_priority_stays_and_is_bounded() {
        let class = |name: &str, value: i64| json!({ "apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": { "name": name }, "value": value });
        let old = valid(class("high", 5));
        assert_eq!(old["preemptionPolicy"], "PreemptLowerPriority");
        let mut new = old.clone();
        new["preemptionPolicy"] = json!("Never");
        new["value"] = json!(6);
        assert_eq!(fields(&admit(new, Some(&old)).1), ["value", "preemptionPolicy"]);
        valid(class("system-node-critical", 2_000_001_000));
        assert_eq!(fields(&errors(class("system-mine", 1))), ["metadata.name"]);
        assert_eq!(fields(&errors(class("mine", 1_000_000_001))), ["value"]);
    }

    #[test]
    fn a_runtimes_handler_stays() {
        let class = |handler: &str| json!({ "apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": { "name": "r" }, "handler": handler });
        let old = valid(class("runc"));
        assert_eq!(fields(&admit(class("kata"), Some(&old)).1), ["handler"]);
        let mut wrong = class("");
        wrong["overhead"] = json!({ "podFixed": { "cpu": "-1" } });
        wrong["scheduling"] = json!({ "tolerations": [{ "operator": "Maybe" }] });
        assert_eq!(
            fields(&errors(wrong)),
            [
                "handler",
                "overhead.podFixed[cpu]",
                "scheduling.tolerations[0].operator",
                "scheduling.tolerations[0].operator"
            ]
        );
    }
}
