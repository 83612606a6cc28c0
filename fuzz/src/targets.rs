//! The targets by name: what each reads, and what it asserts of the result.

use std::sync::LazyLock;

use serde_json::Value;
use shipway_schema::Registry;

use super::{json, text};

/// How a target takes its input.
#[derive(Clone, Copy)]
pub enum Run {
    /// Any JSON.
    Json(fn(&Value)),
    /// Any bytes.
    Bytes(fn(&[u8])),
}

/// A function that reads what comes from outside.
#[derive(Clone, Copy)]
pub struct Target {
    /// The name on the command line, and of the libFuzzer binary.
    pub name: &'static str,
    /// The function.
    pub run: Run,
}

/// Every target.
pub const TARGETS: [Target; 12] = [
    Target { name: "decode_json", run: Run::Bytes(text::decode_json) },
    Target { name: "decode_protobuf", run: Run::Bytes(text::decode_protobuf) },
    Target { name: "label_selector", run: Run::Bytes(text::label_selector) },
    Target { name: "field_selector", run: Run::Bytes(text::field_selector) },
    Target { name: "quantity", run: Run::Bytes(text::quantity) },
    Target { name: "json_patch", run: Run::Json(json::json_patch) },
    Target { name: "merge_patch", run: Run::Json(json::merge_patch) },
    Target { name: "strategic", run: Run::Json(json::strategic) },
    Target { name: "apply", run: Run::Json(json::apply) },
    Target { name: "field_set", run: Run::Json(json::field_set) },
    Target { name: "custom_schema", run: Run::Json(json::custom_schema) },
    Target { name: "definition", run: Run::Json(json::definition) },
];

/// The target of a name.
pub fn find(name: &str) -> Option<Target> {
    TARGETS.into_iter().find(|target| target.name == name)
}

/// Hands bytes to a target; those that are no JSON are nothing to a target that takes JSON.
pub fn run(target: Target, input: &[u8]) {
    match target.run {
        Run::Bytes(run) => run(input),
        Run::Json(run) => {
            if let Ok(value) = serde_json::from_slice(input) {
                run(&value);
            }
        }
    }
}

/// The built-in kinds, read once.
pub fn registry() -> &'static Registry {
    static REGISTRY: LazyLock<Registry> = LazyLock::new(Registry::builtin);
    &REGISTRY
}

/// How many levels of objects and lists a value has.
pub fn depth(value: &Value) -> usize {
    match value {
        Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or(0),
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}
