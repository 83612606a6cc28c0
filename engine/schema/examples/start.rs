//! How long it takes to build the table of kinds and the OpenAPI v2 document, and how large they are:
//! `cargo run --release -p shipway-schema --example start`.

use std::time::Instant;

use shipway_schema::{Registry, Swagger};

fn main() {
    let mut times: Vec<u128> = Vec::new();
    for _ in 0..20 {
        let start = Instant::now();
        let registry = Registry::builtin();
        times.push(start.elapsed().as_micros());
        drop(registry);
    }
    times.sort_unstable();
    let registry = Registry::builtin();
    println!("kinds {}, Registry::builtin() p50 {} us, worst {} us", registry.all().count(), times[10], times[19]);
    for form in [Swagger::Json, Swagger::Protobuf] {
        let start = Instant::now();
        let document = registry.openapi_v2(form);
        println!("OpenAPI v2 as {form:?}: {} bytes in {} ms", document.len(), start.elapsed().as_millis());
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    println!("{}", status.lines().find(|line| line.starts_with("VmHWM")).unwrap_or_default());
}
