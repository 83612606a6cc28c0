//! What Kubernetes documents of the Common Expression Language and the expression library lacks: macros that its parser
//! does not know, rewritten into loops that its evaluator does know, and the functions that they need.
//!
//! Pure; whoever evaluates has to bound the work, as of any other loop.

mod functions;
mod lent;
mod macros;

pub use functions::{is_expanded, register};
pub use lent::{LENT, lend, lent};
pub use macros::expand;
