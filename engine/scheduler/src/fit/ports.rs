//! Ports of the host that another pod has, or will have that waits for others to leave the node.

use std::sync::Arc;

use crate::reason::{Filter, Reason, Refusal};
use crate::snapshot::NodeInfo;
use crate::wanted::Wanted;

pub(super) fn check(wanted: &Arc<Wanted>, node: &NodeInfo) -> Result<(), Refusal> {
    if wanted.ports.is_empty() {
        return Ok(());
    }
    let promised = super::resources::ahead(wanted, node).flat_map(|nominee| &nominee.ports);
    let mut taken = node.ports().iter().chain(promised);
    if taken.any(|taken| wanted.ports.iter().any(|port| port.clashes(taken))) {
        return Err(Refusal::one(Filter::Ports, Reason::PortTaken));
    }
    Ok(())
}
