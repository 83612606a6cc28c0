//! Budgets for disruptions: `policy`.

use serde_json::{Value, json};

use super::checks;
use super::rules::{Declared, not_negative, one_of, selector, with};
use crate::invalid::FieldError;
use crate::lookup;
use crate::path::Path;

/// `policy/v1` `PodDisruptionBudget`
pub(crate) static DISRUPTION_BUDGET: Declared = Declared {
    status: Some(|| json!({ "currentHealthy": 0, "desiredHealthy": 0, "disruptionsAllowed": 0, "expectedPods": 0 })),
    rules: &[
        with("spec", |spec, path, errors| {
            if ["maxUnavailable", "minAvailable"].iter().all(|field| lookup::at(spec, field).is_some()) {
                let detail = "minAvailable and maxUnavailable cannot be both set";
                errors.push(FieldError::invalid(path, spec, detail));
            }
        }),
        with("spec.minAvailable", part),
        with("spec.maxUnavailable", part),
        one_of("spec.unhealthyPodEvictionPolicy", &["AlwaysAllow", "IfHealthyBudget"]),
        selector("spec.selector"),
    ],
    status_rules: &[
        not_negative("status.currentHealthy"),
        not_negative("status.desiredHealthy"),
        not_negative("status.disruptionsAllowed"),
        not_negative("status.expectedPods"),
    ],
    ..Declared::SPECIFIED
};

/// A count, or no more than all.
fn part(value: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    if let Err(problem) = checks::share(value) {
        errors.push(FieldError::invalid(path, value, &problem));
    } else if value.as_str().and_then(checks::percent).is_some_and(|percent| percent > 100) {
        errors.push(FieldError::invalid(path, value, "must not be greater than 100%"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::strategy::testing::{errors, fields, valid};

    #[test]
    fn a_budget_says_one_of_two_numbers() {
        let budget = |spec: Value| json!({ "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": { "name": "b" }, "spec": spec });
        valid(budget(json!({ "minAvailable": "50%", "selector": {} })));
        let wrong = budget(json!({
            "minAvailable": "150%", "maxUnavailable": -1, "unhealthyPodEvictionPolicy": "Maybe",
            "selector": { "matchLabels": { "a b": "c" } },
        }));
        assert_eq!(
            fields(&errors(wrong)),
            [
                "spec",
                "spec.minAvailable",
                "spec.maxUnavailable",
                "spec.unhealthyPodEvictionPolicy",
                "spec.selector.matchLabels"
            ]
        );
    }
}
