//! What hostile input is thrown at, and how it is made.
//!
//! A target takes any bytes and must neither panic nor take long; each also asserts what must hold of what was read.
//! The same targets run guided by coverage under libFuzzer and, from seeds alone, under [`driver`].

pub mod corpus;
pub mod driver;
pub mod json;
pub mod mutate;
pub mod targets;
pub mod text;
