//! What every way of saying "run this" ends in: an app's specification becomes a Deployment and a Service, the rollout
//! is followed, and the logs of all replicas come back as one stream.
//!
//! Speaks only the Kubernetes API, so it works the same on any cluster. It knows nothing of images' insides, terminals
//! or the engine.

mod app;
mod error;
mod expose;
mod listing;
mod logs;
mod remove;
mod rollout;

pub use app::{App, MANAGER, Port, Ports};
pub use error::DeployError;
pub use expose::{Exposed, expose};
pub use listing::{AppStatus, list, scale};
pub use logs::follow;
pub use remove::{Snapshot, remove, restore, snapshot};
pub use rollout::{Progress, roll_out};
