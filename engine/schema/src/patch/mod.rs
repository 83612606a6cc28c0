//! Every way in which a write may describe a change: JSON patch, merge patch, strategic merge patch and server-side
//! apply with its book-keeping of who owns which field.
//!
//! All of it works on `serde_json::Value` and takes what it must know about fields from [`Schema`](crate::Schema).
//! Nothing here panics on a malformed document, and a refused patch leaves its target as it was. Defaulting,
//! validation and the check of resourceVersion are the caller's.

mod apply;
mod bounds;
mod compare;
mod error;
mod fieldset;
#[cfg(test)]
mod fixture;
mod json;
mod managed;
mod merge;
mod overlay;
mod path;
mod remove;
mod strategic;
mod track;
mod typed_merge;
mod walk;

pub use apply::{Manager, apply};
pub use bounds::{MAX_DEPTH, MAX_OPERATIONS};
pub use error::{Conflict, PatchError};
pub use json::json_patch;
pub use managed::equal_but_for_times;
pub use merge::merge_patch;
pub use overlay::overlay;
pub use strategic::strategic;
pub use track::track_update;
