//! Network policies: which pods may speak to which, decided in the kernel.
//!
//! `read` turns an object into what it says, `model` keeps what follows from all of them together and what changed,
//! `watch` tells it what happens in the API, `guard` holds back new pods until their rules are there. The packet filter
//! takes what changed and nothing else; without a policy there is no table, no rule and no set.

mod guard;
mod model;
mod ranges;
mod read;
mod watch;

pub(crate) use guard::Guard;
pub(crate) use model::{Allowed, Direction, Journal, Model, Peers, Ports};
pub(crate) use watch::enforce;
