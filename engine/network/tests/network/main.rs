//! The crate through its public door, in a real kernel: every test makes network namespaces of its own and needs root.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on must fail")]

mod api;
mod in_kernel;
mod lab;
mod policies;
mod proxying;
mod sleeping;
