//! What stateful sets and daemon sets promise, drawn from their documentation field by field.
#![allow(clippy::unwrap_used)]

#[path = "sets/daemon_nodes.rs"]
mod daemon_nodes;
#[path = "sets/daemon_updates.rs"]
mod daemon_updates;
#[path = "sets/fixture.rs"]
mod fixture;
#[path = "sets/revisions.rs"]
mod revisions;
#[path = "sets/stateful_claims.rs"]
mod stateful_claims;
#[path = "sets/stateful_order.rs"]
mod stateful_order;
#[path = "sets/stateful_owning.rs"]
mod stateful_owning;
#[path = "sets/stateful_updates.rs"]
mod stateful_updates;
