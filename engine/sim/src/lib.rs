//! A whole cluster on one thread and virtual time, from a seed: store, API server, controllers, scheduler and nodes that
//! only seem to run containers.
//!
//! [`Cluster::builder`] starts one and runs a test in it; hours pass in seconds, since whenever everybody waits, the clock
//! moves on to the next timer. Everything but the nodes' containers and the disk is the code that runs in production. A
//! simulation is deterministic in a process of its own: clock and randomness follow from the seed (see `interpose.rs`). It
//! is a tool of developers: no release contains it.

pub mod chaos;
mod cluster;
mod door;
mod interpose;
mod kinds;
mod log;
mod node;
mod objects;
mod parts;
mod run;
mod wait;
mod weather;

pub use cluster::{Builder, Cluster};
pub use node::NodeOptions;
pub use parts::Part;
pub use weather::Storm;
