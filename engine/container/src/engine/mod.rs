//! The engine's side: asynchronous handles on pods whose supervisors do the work.

mod attach;
mod connection;
mod exec;
mod meter;
mod pod;
mod process;
mod reclaim;
mod runtime;
mod streams;

pub use attach::Attachment;
pub use meter::Meter;
pub use pod::Pod;
pub use process::{Command, Process};
pub use runtime::Runtime;
pub use streams::Streams;
