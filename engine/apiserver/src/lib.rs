//! The API server: HTTP in, store out. One generic handler serves every kind that the registry has a row for.
//!
//! [`ApiServer`] is a `tower` service: in process it is handed to `kube::Client::new` with an [`Identity`]; on the
//! network it is served over TLS with client certificates. What it acknowledges is durable; what it shows is never older
//! than what it acknowledged; a watch has no gap. It denies what no rule allows. It knows nothing of how pods are run.

mod accept;
mod access;
mod admission;
mod aggregate;
mod allocate;
mod audit;
mod authorize;
mod background;
mod body;
mod bootstrap;
mod cache;
mod call;
mod clock;
mod commit;
mod component;
mod connect;
mod convert;
mod custom;
mod decode;
mod delete;
mod derived;
mod discovery;
mod error;
mod evict;
mod expiry;
mod handle;
mod health;
mod identity;
mod limit;
mod list;
mod meta;
mod metrics;
mod nodes;
mod object;
mod patch;
mod path;
pub mod pki;
mod pod;
mod profile;
mod proxy;
mod query;
mod rbac;
mod read;
mod remote;
mod reply;
mod reviews;
mod ring;
mod scale;
mod select;
mod server;
mod service;
mod trace;
mod usage;
mod view;
mod watch;
mod webhook;
mod write;
mod yaml;

pub use audit::AuditConfig;
pub use body::{Body, BoxError};
pub use error::{About, ApiError, ManagerConflict};
pub use identity::Identity;
pub use limit::Limits;
pub use service::{ApiServer, Config, InProcess, NodeService};
