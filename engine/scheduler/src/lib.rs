//! Chooses a node for every pod that has none.
//!
//! The choice itself ([`choose`]) and who would have to leave for a pod ([`preempt`]) are pure functions of the pod and a
//! [`Snapshot`] of the cluster, which events keep up to date; around them stands a client of the API that watches, binds,
//! and says in the pod's condition and in an event why a pod cannot be placed. A pod that fits nowhere is looked at again
//! when something changed that could make it fit.

mod act;
mod caches;
mod choose;
mod fit;
mod line;
mod preempt;
mod reason;
mod resources;
mod run;
mod score;
mod snapshot;
mod state;
#[cfg(test)]
mod tests;
mod volumes;
mod wake;
mod wanted;

pub use choose::{Choice, choose};
pub use preempt::{Preemption, is_out_of_question, preempt};
pub use reason::{Filter, Filters, Reason, Refusal, Unfit};
pub use resources::Resources;
pub use run::run;
pub use snapshot::{Namespaces, NodeInfo, Snapshot};
pub use volumes::{Step, Volumes};
pub use wanted::{Key, Wanted};

/// The lease in `kube-system` that says whose scheduler works, where more than one process could run it: see
/// [`shipway_driver::Election`].
pub const LEASE: &str = "kube-scheduler";
