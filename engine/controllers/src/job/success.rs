//! Whether an indexed job has done enough, by its success policy.

use k8s_openapi::api::batch::v1::{SuccessPolicy, SuccessPolicyRule};

use super::indexes::Indexes;

/// The first rule that is met, in words.
pub(super) fn met(policy: Option<&SuccessPolicy>, succeeded: &Indexes, completions: u32) -> Option<String> {
    let at = policy?.rules.iter().position(|rule| is_met(rule, succeeded, completions))?;
    Some(format!("Matched rules at index {at}"))
}

fn is_met(rule: &SuccessPolicyRule, succeeded: &Indexes, completions: u32) -> bool {
    let wanted = rule.succeeded_indexes.as_ref().map(|text| Indexes::parse(text, completions));
    let asked = rule.succeeded_count.and_then(|count| usize::try_from(count).ok());
    let done = wanted.as_ref().map_or_else(|| succeeded.total(), |wanted| wanted.common(succeeded));
    let needed = asked.or_else(|| wanted.as_ref().map(Indexes::total));
    done > 0 && needed.is_some_and(|needed| done >= needed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn indexes_and_counts_decide_alone_or_together() {
        let table = [
            (json!([{"succeededIndexes": "0,2-3"}]), "0,2", None),
            (json!([{"succeededIndexes": "0,2-3"}]), "0,2-4", Some(0)),
            (json!([{"succeededCount": 2}]), "4", None),
            (json!([{"succeededCount": 2}]), "1,4", Some(0)),
            (json!([{"succeededIndexes": "0-4", "succeededCount": 2}]), "1,7,8", None),
            (json!([{"succeededIndexes": "0-4", "succeededCount": 2}]), "1,3,8", Some(0)),
            (json!([{"succeededIndexes": "9"}, {"succeededCount": 1}]), "3", Some(1)),
            (json!([{"succeededCount": 1}]), "", None),
        ];
        for (rules, succeeded, expected) in table {
            let policy: SuccessPolicy = serde_json::from_value(json!({"rules": rules})).unwrap();
            let expected = expected.map(|at| format!("Matched rules at index {at}"));
            assert_eq!(met(Some(&policy), &Indexes::parse(succeeded, 10), 10), expected, "{rules} with {succeeded}");
        }
        assert_eq!(met(None, &Indexes::parse("0-9", 10), 10), None);
    }
}
