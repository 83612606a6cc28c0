//! Volumes that the node can reach, or that could be had or made there; and claims that are for one pod alone.

use super::Question;
use crate::reason::{Filter, Reason, Refusal};
use crate::snapshot::NodeInfo;

pub(super) fn check(question: &Question<'_>, node: &NodeInfo) -> Result<(), Refusal> {
    if question.wanted.claims.is_empty() {
        return Ok(());
    }
    if question.is_claim_taken {
        return Err(Refusal::one(Filter::Volumes, Reason::VolumeTaken));
    }
    let Some(node) = node.node() else { return Ok(()) };
    question.volumes.plan(node).map(|_| ()).map_err(|reason| Refusal::one(Filter::Volumes, reason))
}
