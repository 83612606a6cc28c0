//! The walkers over the type tree: what a document holds that its schema does not know, what is of the wrong type, and
//! what is to be filled in. Merging walks the same tree elsewhere.

mod check;
mod defaults;
mod prune;

pub use check::check_types;
pub use defaults::apply_defaults;
pub use prune::{prune, prune_unknown};
