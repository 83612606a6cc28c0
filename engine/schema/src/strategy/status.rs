//! What a status must satisfy, whatever its kind.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::invalid::FieldError;
use crate::lookup;
use crate::path::Path;

const STATES: [&str; 3] = ["True", "False", "Unknown"];

/// Checks `status.conditions`: each has a type of its own and is true, false or unknown.
pub(crate) fn conditions(object: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let status = Path::Root.field("status");
    let list = status.field("conditions");
    let mut seen = BTreeSet::new();
    for (index, condition) in lookup::list(object, "status.conditions").iter().enumerate() {
        let path = list.index(index);
        let kind = lookup::text(condition, "type");
        if kind.is_empty() {
            errors.push(FieldError::required(&path.field("type"), ""));
        } else if !seen.insert(kind) {
            errors.push(FieldError::duplicate(&path.field("type"), &kind.into()));
        }
        let state = lookup::text(condition, "status");
        if state.is_empty() {
            errors.push(FieldError::required(&path.field("status"), ""));
        } else if !STATES.contains(&state) {
            errors.push(FieldError::not_supported(&path.field("status"), &state.into(), &STATES));
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn conditions_are_told_apart_and_known() {
        let object = json!({ "status": { "conditions": [
            { "type": "Ready", "status": "True" }, { "type": "Ready", "status": "Maybe" }, { "status": "False" },
        ] } });
        let found: Vec<String> = conditions(&object).iter().map(ToString::to_string).collect();
        assert_eq!(
            found,
            [
                r#"status.conditions[1].type: Duplicate value: "Ready""#,
                r#"status.conditions[1].status: Unsupported value: "Maybe": supported values: "True", "False", "Unknown""#,
                "status.conditions[2].type: Required value",
            ]
        );
        assert_eq!(conditions(&json!({ "status": { "conditions": 1 } })), []);
    }
}
