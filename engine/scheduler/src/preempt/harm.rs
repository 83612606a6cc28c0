//! What it costs to have pods leave a node: broken promises first, then how important they are, how many, how old.

use std::cmp::{Ordering, Reverse};
use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::jiff::Timestamp;
use shipway_driver::matching::{self, Labels};

use crate::wanted::Wanted;

/// Less is better; compared field by field.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Harm {
    broken_budgets: usize,
    highest_priority: i32,
    priorities: i64,
    victims: usize,
    /// The longest that one of the most important has run counts last: better one that began lately.
    began: Reverse<Option<Timestamp>>,
}

impl Harm {
    pub(super) fn of(broken_budgets: usize, victims: &[Arc<Wanted>]) -> Self {
        let highest = victims.iter().map(|pod| pod.priority()).max().unwrap_or(i32::MIN);
        let most_important = victims.iter().filter(|pod| pod.priority() == highest);
        Self {
            broken_budgets,
            highest_priority: highest,
            // Moved above nought, so that more victims are more harm also where priorities are below it.
            priorities: victims.iter().map(|pod| i64::from(pod.priority()) - i64::from(i32::MIN)).sum(),
            victims: victims.len(),
            began: Reverse(most_important.filter_map(|pod| began(pod)).min()),
        }
    }
}

fn began(pod: &Wanted) -> Option<Timestamp> {
    pod.pod.status.as_ref()?.start_time.as_ref().map(|time| time.0)
}

/// By priority, then by who runs longer.
pub(super) fn more_important_first(one: &Arc<Wanted>, other: &Arc<Wanted>) -> Ordering {
    let since = |pod: &Wanted| began(pod).unwrap_or(Timestamp::MAX);
    let by_age = || since(one).cmp(&since(other)).then_with(|| one.key().cmp(&other.key()));
    other.priority().cmp(&one.priority()).then_with(by_age)
}

/// How many more pods may go, by the budget's place in the list.
type Allowances = BTreeMap<usize, i32>;

/// The disruption budgets of a cluster.
pub(super) struct Budgets<'a>(&'a [PodDisruptionBudget]);

impl<'a> Budgets<'a> {
    pub(super) fn new(budgets: &'a [PodDisruptionBudget]) -> Self {
        Self(budgets)
    }

    /// For each of the pods, were all to go in this order, whether its going would break a budget.
    pub(super) fn spent_by(&self, pods: &[Arc<Wanted>]) -> Vec<bool> {
        let mut left = Allowances::new();
        pods.iter().map(|pod| self.spend(pod, &mut left)).collect()
    }

    fn spend(&self, pod: &Wanted, left: &mut Allowances) -> bool {
        let mut breaks = false;
        for (place, budget) in self.0.iter().enumerate().filter(|(_, budget)| is_meant(budget, pod)) {
            let allowed = budget.status.as_ref().and_then(|status| status.disruptions_allowed).unwrap_or(0);
            let left = left.entry(place).or_insert(allowed);
            *left = left.saturating_sub(1);
            breaks |= *left < 0;
        }
        breaks
    }
}

/// Whether the pod counts for a budget. One that is on its way out by an eviction was counted already.
fn is_meant(budget: &PodDisruptionBudget, pod: &Wanted) -> bool {
    let none = Labels::new();
    let labels = pod.pod.metadata.labels.as_ref().unwrap_or(&none);
    let selector = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    let evicted = budget.status.as_ref().and_then(|status| status.disrupted_pods.as_ref());
    budget.metadata.namespace.as_deref() == Some(pod.namespace())
        && !labels.is_empty()
        && selector.is_some_and(|selector| matching::selects(selector, labels))
        && !evicted.is_some_and(|evicted| evicted.contains_key(pod.pod.metadata.name.as_deref().unwrap_or_default()))
}
