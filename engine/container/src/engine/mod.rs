//! The engine's side: asynchronous handles on pods whose supervisors do the work.

mod connection;
mod exec;
mod pod;
mod reclaim;
mod runtime;

pub use pod::Pod;
pub use runtime::Runtime;
