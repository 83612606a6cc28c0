//! The fairness of requests: who shares how much of the server. `flowcontrol.apiserver.k8s.io`.

use serde_json::{Value, json};

use super::rules::{Declared, Fill, between, check_at, not_negative, one_of, positive, required, with};
use crate::invalid::FieldError;
use crate::lookup;
use crate::path::Path;

/// `flowcontrol.apiserver.k8s.io/v1` `FlowSchema`
pub(crate) static FLOW_SCHEMA: Declared = Declared {
    defaults: &[("spec.matchingPrecedence", Fill::Number(1000))],
    rules: &[
        required("spec"),
        between("spec.matchingPrecedence", 1, 10_000),
        one_of("spec.distinguisherMethod.type", &["ByNamespace", "ByUser"]),
        required("spec.priorityLevelConfiguration"),
        required("spec.priorityLevelConfiguration.name"),
        required("spec.rules[].subjects"),
        one_of("spec.rules[].subjects[].kind", &["Group", "ServiceAccount", "User"]),
        with("spec.rules[].subjects[]", subject),
        with("spec.rules[]", rule),
    ],
    ..Declared::SPECIFIED
};

fn subject(subject: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let rules = match lookup::text(subject, "kind") {
        "Group" => vec![required("group"), required("group.name")],
        "ServiceAccount" => {
            vec![required("serviceAccount"), required("serviceAccount.name"), required("serviceAccount.namespace")]
        }
        "User" => vec![required("user"), required("user.name")],
        "" => vec![required("kind")],
        _ => Vec::new(),
    };
    check_at(&rules, subject, None, path, errors);
}

fn rule(rule: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let given = |field: &str| !lookup::list(rule, field).is_empty();
    if !given("resourceRules") && !given("nonResourceRules") {
        let detail = "at least one of resourceRules and nonResourceRules has to be non-empty";
        errors.push(FieldError::required(path, detail));
    }
    let rules = [
        required("resourceRules[].verbs"),
        required("resourceRules[].apiGroups"),
        required("resourceRules[].resources"),
        required("nonResourceRules[].verbs"),
        required("nonResourceRules[].nonResourceURLs"),
    ];
    check_at(&rules, rule, None, path, errors);
    let list = path.field("resourceRules");
    for (index, each) in lookup::list(rule, "resourceRules").iter().enumerate() {
        if !lookup::flag(each, "clusterScope") && lookup::list(each, "namespaces").is_empty() {
            let path = list.index(index);
            let detail = "resource rules that are not cluster scoped must supply at least one namespace";
            errors.push(FieldError::required(&path.field("namespaces"), detail));
        }
    }
}

/// `flowcontrol.apiserver.k8s.io/v1` `PriorityLevelConfiguration`
pub(crate) static PRIORITY_LEVEL: Declared = Declared {
    defaults: &[
        ("spec.exempt.nominalConcurrencyShares", Fill::Number(0)),
        ("spec.exempt.lendablePercent", Fill::Number(0)),
        ("spec.limited.nominalConcurrencyShares", Fill::Number(30)),
        ("spec.limited.lendablePercent", Fill::Number(0)),
    ],
    fill: |object| {
        let Some(spec) = object.get_mut("spec").filter(|spec| spec.is_object()) else { return };
        if lookup::text(spec, "type") == "Exempt" {
            lookup::fill(spec, "exempt", json!({ "nominalConcurrencyShares": 0, "lendablePercent": 0 }));
        }
        let Some(queues) = lookup::at_mut(spec, "limited.limitResponse.queuing").filter(|queues| queues.is_object())
        else {
            return;
        };
        for (field, number) in [("queues", 64), ("handSize", 8), ("queueLengthLimit", 50)] {
            lookup::fill_zero(queues, field, number);
        }
    },
    rules: &[
        required("spec"),
        required("spec.type"),
        one_of("spec.type", &["Exempt", "Limited"]),
        with("spec", level),
        not_negative("spec.exempt.nominalConcurrencyShares"),
        between("spec.exempt.lendablePercent", 0, 100),
        not_negative("spec.limited.nominalConcurrencyShares"),
        between("spec.limited.lendablePercent", 0, 100),
        not_negative("spec.limited.borrowingLimitPercent"),
        required("spec.limited.limitResponse.type"),
        one_of("spec.limited.limitResponse.type", &["Queue", "Reject"]),
        with("spec.limited.limitResponse", response),
        between("spec.limited.limitResponse.queuing.queues", 1, 10_000_000),
        positive("spec.limited.limitResponse.queuing.handSize"),
        positive("spec.limited.limitResponse.queuing.queueLengthLimit"),
    ],
    ..Declared::SPECIFIED
};

fn level(spec: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let given = |field: &str| lookup::at(spec, field).is_some();
    match lookup::text(spec, "type") {
        "Limited" if !given("limited") => {
            errors.push(FieldError::required(&path.field("limited"), "must not be empty when type is Limited"));
        }
        "Limited" if given("exempt") => {
            errors.push(FieldError::forbidden(&path.field("exempt"), "must be nil if the type is Limited"));
        }
        "Exempt" if given("limited") => {
            errors.push(FieldError::forbidden(&path.field("limited"), "must be nil if the type is not Limited"));
        }
        _ => {}
    }
}

fn response(response: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let queuing = lookup::at(response, "queuing");
    match (lookup::text(response, "type"), queuing) {
        ("Queue", None) => {
            let detail = "must not be empty if limited.limitResponse.type is Queue";
            errors.push(FieldError::required(&path.field("queuing"), detail));
        }
        ("Reject", Some(_)) => {
            let detail = "must be nil if limited.limitResponse.type is not Queue";
            errors.push(FieldError::forbidden(&path.field("queuing"), detail));
        }
        _ => {}
    }
    let number = |field: &str| lookup::integer(response, &format!("queuing.{field}"));
    if let (Some(hand), Some(queues)) = (number("handSize"), number("queues"))
        && hand > queues
    {
        let detail = format!("should not be greater than queues ({queues})");
        let queuing = path.field("queuing");
        errors.push(FieldError::invalid(&queuing.field("handSize"), &hand.into(), &detail));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::strategy::testing::{errors, fields, valid};

    fn made(kind: &str, spec: &Value) -> Value {
        json!({ "apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": kind, "metadata": { "name": "f" }, "spec": spec })
    }

    #[test]
    fn a_schema_leads_to_a_level() {
        let schema = valid(made("FlowSchema", &json!({ "priorityLevelConfiguration": { "name": "p" } })));
        assert_eq!(schema["spec"]["matchingPrecedence"], 1000);
        let wrong = made(
            "FlowSchema",
            &json!({ "matchingPrecedence": 10_001, "priorityLevelConfiguration": { "name": "" }, "rules": [
            { "subjects": [{ "kind": "User" }, { "kind": "Robot" }], "resourceRules": [{ "verbs": ["*"], "apiGroups": ["*"], "resources": ["*"] }] },
            { "subjects": [{ "kind": "Group", "group": { "name": "g" } }] },
        ] }),
        );
        assert_eq!(
            fields(&errors(wrong)),
            [
                "spec.matchingPrecedence",
                "spec.priorityLevelConfiguration.name",
                "spec.rules[0].subjects[1].kind",
                "spec.rules[0].subjects[0].user",
                "spec.rules[0].resourceRules[0].namespaces",
                "spec.rules[1]",
            ]
        );
    }

    #[test]
    fn a_level_is_limited_or_exempt() {
        let level = valid(made(
            "PriorityLevelConfiguration",
            &json!({ "type": "Limited", "limited": { "limitResponse": { "type": "Queue", "queuing": {} } } }),
        ));
        assert_eq!(level["spec"]["limited"]["nominalConcurrencyShares"], 30);
        assert_eq!(
            level["spec"]["limited"]["limitResponse"]["queuing"],
            json!({ "queues": 64, "handSize": 8, "queueLengthLimit": 50 })
        );
        valid(made("PriorityLevelConfiguration", &json!({ "type": "Exempt" })));
        let wrong = json!({ "type": "Limited", "limited": { "lendablePercent": 101, "limitResponse": { "type": "Reject", "queuing": { "queues": 1 } } } });
        assert_eq!(
            fields(&errors(made("PriorityLevelConfiguration", &wrong))),
            [
                "spec.limited.lendablePercent",
                "spec.limited.limitResponse.queuing",
                "spec.limited.limitResponse.queuing.handSize"
            ]
        );
        assert_eq!(
            fields(&errors(made("PriorityLevelConfiguration", &json!({ "type": "Limited" })))),
            ["spec.limited"]
        );
    }
}
