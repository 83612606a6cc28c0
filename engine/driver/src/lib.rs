//! What every client-side loop of the engine shares: a deduplicating work queue, a cached watch that misses no
//! deletion, a recorder of events, what selectors choose, and a lease for those of whom one is to work.
//!
//! Controllers, scheduler, node and service proxy are small functions over these three. Nothing here polls, and nothing
//! here knows what any of them does.

mod cache;
mod lease;
pub mod matching;
mod meter;
mod queue;
mod recorder;
mod shared;
mod slim;
mod watched;

pub use cache::{Change, Progress, Trim, cached, revision};
pub use lease::{Election, Terms};
pub use meter::{Meter, Meters};
pub use queue::{Queue, drive};
pub use recorder::{EventKind, Recorder};
pub use shared::Shared;
pub use slim::slim;
