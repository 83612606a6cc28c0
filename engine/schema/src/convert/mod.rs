//! Kinds that are served in two versions: how an object of one becomes an object of the other, and back.
//!
//! A conversion takes an object in any version of its kind and gives it in the one that is named. Nothing gets lost on
//! the way there and back.

mod autoscaler;
mod event;

pub(crate) use autoscaler::{METRICS, autoscaler};
pub(crate) use event::event;
