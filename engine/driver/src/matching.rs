//! Whether labels, nodes and taints are what a selector, an affinity or a toleration asks for.
//!
//! Pure functions over the typed objects, for the scheduler and for whatever else places pods. What cannot be understood
//! (an unknown operator, a number that is none) matches nothing, as the API server would have refused it.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Affinity, Node, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PodSpec, Taint, Toleration,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

/// Labels as objects have them.
pub type Labels = BTreeMap<String, String>;

/// The only field of a node that `matchFields` may ask for.
const NAME_FIELD: &str = "metadata.name";

/// Whether a selector of labels chooses them. One that asks for nothing chooses everything.
pub fn selects(selector: &LabelSelector, labels: &Labels) -> bool {
    let equal = |(key, value): (&String, &String)| labels.get(key) == Some(value);
    let wanted = selector.match_labels.iter().flatten();
    wanted.into_iter().all(equal)
        && selector.match_expressions.iter().flatten().all(|it| {
            let value = labels.get(&it.key).map(String::as_str);
            is_in_set(&it.operator, value, it.values.as_deref().unwrap_or_default()) == Some(true)
        })
}

/// Whether a pod's `nodeSelector` and its required node affinity allow the node.
pub fn allows_node(spec: &PodSpec, node: &Node) -> bool {
    let labels = node.metadata.labels.as_ref();
    let has = |(key, value): (&String, &String)| labels.and_then(|labels| labels.get(key)) == Some(value);
    spec.node_selector.iter().flatten().all(has)
        && required_node_affinity(spec).is_none_or(|selector| selects_node(selector, node))
}

/// The node affinity that has to hold when a pod is placed.
pub fn required_node_affinity(spec: &PodSpec) -> Option<&NodeSelector> {
    node_affinity(spec)?.required_during_scheduling_ignored_during_execution.as_ref()
}

/// The node affinity of a pod.
pub fn node_affinity(spec: &PodSpec) -> Option<&NodeAffinity> {
    spec.affinity.as_ref().and_then(|Affinity { node_affinity, .. }| node_affinity.as_ref())
}

/// Whether one of the terms chooses the node; no term chooses none.
pub fn selects_node(selector: &NodeSelector, node: &Node) -> bool {
    selector.node_selector_terms.iter().any(|term| term_selects_node(term, node))
}

/// Whether all that a term asks for holds; a term that asks for nothing chooses nothing.
pub fn term_selects_node(term: &NodeSelectorTerm, node: &Node) -> bool {
    let (labels, name) = (node.metadata.labels.as_ref(), node.metadata.name.as_deref());
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    let label = |key: &str| labels.and_then(|labels| labels.get(key)).map(String::as_str);
    !(expressions.is_empty() && fields.is_empty())
        && expressions.iter().all(|it| requirement_holds(it, label(&it.key)))
        && fields.iter().all(|it| it.key == NAME_FIELD && names_hold(it, name))
}

/// The names of the only nodes that a required affinity can choose, where every term of it names its nodes.
pub fn named_nodes(selector: &NodeSelector) -> Option<Vec<&str>> {
    let names = selector.node_selector_terms.iter().map(|term| {
        let mut fields = term.match_fields.iter().flatten();
        fields.find(|it| it.key == NAME_FIELD && it.operator == "In")?.values.as_deref()
    });
    let names: Option<Vec<&[String]>> = names.collect();
    let names = names.filter(|names| !names.is_empty())?;
    Some(names.into_iter().flatten().map(String::as_str).collect())
}

fn requirement_holds(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    if let Some(holds) = is_in_set(&requirement.operator, value, values) {
        return holds;
    }
    let number = |text: &str| text.parse::<i64>().ok();
    let [bound] = values else { return false };
    let (Some(value), Some(bound)) = (value.and_then(number), number(bound)) else { return false };
    match requirement.operator.as_str() {
        "Gt" => value > bound,
        "Lt" => value < bound,
        _ => false,
    }
}

fn names_hold(requirement: &NodeSelectorRequirement, name: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    matches!(requirement.operator.as_str(), "In" | "NotIn")
        && is_in_set(&requirement.operator, name, values) == Some(true)
}

/// The operators that label selectors and node selectors share; nothing for any other.
fn is_in_set(operator: &str, value: Option<&str>, values: &[String]) -> Option<bool> {
    let listed = || value.is_some_and(|value| values.iter().any(|it| it == value));
    match operator {
        "In" => Some(listed()),
        "NotIn" => Some(!listed()),
        "Exists" => Some(value.is_some()),
        "DoesNotExist" => Some(value.is_none()),
        _ => None,
    }
}

/// The first taint with one of the effects that none of the tolerations tolerates.
pub fn untolerated<'a>(taints: &'a [Taint], tolerations: &[Toleration], effects: &[&str]) -> Option<&'a Taint> {
    let mut meant = taints.iter().filter(|taint| effects.contains(&taint.effect.as_str()));
    meant.find(|taint| !tolerations.iter().any(|toleration| tolerates(toleration, taint)))
}

/// Whether a toleration is for that taint: its key, its value and its effect.
pub fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let (effect, key) = (toleration.effect.as_deref().unwrap_or(""), toleration.key.as_deref().unwrap_or(""));
    if !(effect.is_empty() || effect == taint.effect) || !(key.is_empty() || key == taint.key) {
        return false;
    }
    let (value, of_taint) = (toleration.value.as_deref().unwrap_or(""), taint.value.as_deref().unwrap_or(""));
    match toleration.operator.as_deref().unwrap_or("") {
        "" | "Equal" => key == taint.key && value == of_taint,
        "Exists" => true,
        "Gt" => is_ordered(value, of_taint),
        "Lt" => is_ordered(of_taint, value),
        _ => false,
    }
}

/// Whether both are whole numbers as one writes them and the first is less.
fn is_ordered(less: &str, more: &str) -> bool {
    let number = |text: &str| text.parse::<i64>().ok().filter(|number| number.to_string() == text);
    matches!((number(less), number(more)), (Some(less), Some(more)) if less < more)
}

#[cfg(test)]
mod tests;
