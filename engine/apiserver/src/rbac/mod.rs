//! Role-based access: the four kinds of `rbac.authorization.k8s.io` as an index that answers in a few microseconds.
//!
//! The index follows the objects ([`crate::derived`]); nothing is allowed that no role bound to the caller allows. What
//! roles there are from the first moment on is `policy.txt`; that nobody hands out more than it has is `escalation`.

mod escalation;
mod index;
mod policy;
mod rule;

pub(crate) use escalation::check as check_escalation;
pub(crate) use index::{Granted, Index};
pub(crate) use policy::{bootstrap, node_rules};
pub(crate) use rule::Rule;

/// The group of the four kinds.
pub(crate) const GROUP: &str = "rbac.authorization.k8s.io";
/// The four kinds in the order of the index's tables.
pub(crate) const PLURALS: [&str; 4] = ["clusterroles", "roles", "clusterrolebindings", "rolebindings"];
