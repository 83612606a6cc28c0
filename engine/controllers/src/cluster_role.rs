//! ClusterRoles that gather the rules of others: all those that their selectors pick.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::ResourceExt;
use kube::api::{Api, PostParams};
use kube::runtime::reflector::Store;
use shipway_driver::{Queue, cached};
use tokio_util::sync::CancellationToken;

use crate::owned::is_stale;
use crate::world::World;

/// Keeps the rules of gathering roles true, until stopped.
pub(crate) async fn run(world: World, stop: CancellationToken) {
    let queue = Arc::new(Queue::new());
    let wake = queue.clone();
    let api: Api<ClusterRole> = Api::all(world.client.clone());
    // Every role may feed every other one, so there is one thing to do: look at all of them.
    let (store, watch) =
        cached(api.clone(), kube::runtime::watcher::Config::default(), stop.clone(), move |_| wake.add(()));
    let working = world.meter().drive(queue, 1, stop, move |()| gather(api.clone(), store.clone()));
    tokio::join!(watch, working);
}

async fn gather(api: Api<ClusterRole>, store: Store<ClusterRole>) -> Result<Option<Duration>, kube::Error> {
    let all = store.state();
    for role in &all {
        let Some(rules) = gathered(role, &all) else { continue };
        if role.rules.as_ref() == Some(&rules) || (role.rules.is_none() && rules.is_empty()) {
            continue;
        }
        let wanted = ClusterRole { rules: Some(rules), ..ClusterRole::clone(role) };
        match api.replace(&role.name_any(), &PostParams::default(), &wanted).await {
            Err(error) if !is_stale(&error) => return Err(error),
            _ => {}
        }
    }
    Ok(None)
}

/// The rules that a role has by gathering, each once and in the order of the roles' names; none when it gathers nothing.
fn gathered(role: &ClusterRole, all: &[Arc<ClusterRole>]) -> Option<Vec<PolicyRule>> {
    let selectors = role.aggregation_rule.as_ref()?.cluster_role_selectors.as_deref().unwrap_or_default();
    let mut sources: Vec<&Arc<ClusterRole>> = all.iter().collect();
    sources.retain(|it| it.name_any() != role.name_any() && selectors.iter().any(|selector| picks(selector, it)));
    sources.sort_by_key(|it| it.name_any());
    let mut rules: Vec<PolicyRule> = Vec::new();
    for rule in sources.iter().flat_map(|it| it.rules.iter().flatten()) {
        if !rules.contains(rule) {
            rules.push(rule.clone());
        }
    }
    Some(rules)
}

/// Whether a selector picks a role; one with an operator that is not known picks none.
fn picks(selector: &LabelSelector, role: &ClusterRole) -> bool {
    let labels = role.labels();
    let equal = selector.match_labels.iter().flatten().all(|(key, value)| labels.get(key) == Some(value));
    equal
        && selector.match_expressions.iter().flatten().all(|term| {
            let own = labels.get(&term.key);
            let listed = || own.is_some_and(|own| term.values.iter().flatten().any(|value| value == own));
            match term.operator.as_str() {
                "In" => listed(),
                "NotIn" => !listed(),
                "Exists" => own.is_some(),
                "DoesNotExist" => own.is_none(),
                _ => false,
            }
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn role(value: serde_json::Value) -> Arc<ClusterRole> {
        Arc::new(serde_json::from_value(value).unwrap())
    }

    #[test]
    fn a_role_gathers_each_rule_once_and_never_its_own() {
        let pods = json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]});
        let jobs = json!({"verbs": ["get"], "apiGroups": ["batch"], "resources": ["jobs"]});
        let gather = role(json!({"metadata": {"name": "all", "labels": {"to": "x"}}, "rules": [{"verbs": ["*"]}],
            "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"to": "x"}}]}}));
        let all = [
            gather.clone(),
            role(json!({"metadata": {"name": "b", "labels": {"to": "x"}}, "rules": [jobs, pods]})),
            role(json!({"metadata": {"name": "a", "labels": {"to": "x"}}, "rules": [pods]})),
            role(json!({"metadata": {"name": "c"}, "rules": [{"verbs": ["delete"]}]})),
        ];
        assert_eq!(json!(gathered(&gather, &all)), json!([pods, jobs]));
        assert_eq!(gathered(&all[1], &all), None);
    }

    #[test]
    fn expressions_pick_as_they_say() {
        let one = role(json!({"metadata": {"name": "a", "labels": {"tier": "web"}}}));
        let picks = |operator: &str, values: &[&str]| {
            let term = json!({"matchExpressions": [{"key": "tier", "operator": operator, "values": values}]});
            picks(&serde_json::from_value(term).unwrap(), &one)
        };
        assert!(picks("In", &["web"]) && picks("Exists", &[]) && picks("NotIn", &["db"]));
        assert!(!picks("In", &["db"]) && !picks("DoesNotExist", &[]) && !picks("Like", &["web"]));
    }
}
