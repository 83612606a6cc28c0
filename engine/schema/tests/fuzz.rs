//! A short run of every fuzz target. The long ones are `cargo xtask fuzz`; see the folder `fuzz`.

use std::time::Duration;

#[allow(unreachable_pub, dead_code, reason = "a crate of its own, of which this test needs only a part")]
#[path = "../../../fuzz/src/lib.rs"]
mod fuzz;

use fuzz::driver::{self, Limits, Meter};
use fuzz::targets::TARGETS;

#[test]
fn no_mutated_input_breaks_a_target() {
    // Time is the business of long runs: here other tests run at the same time.
    let limits =
        Limits { inputs: 20_000, run: Duration::from_millis(500), time: Duration::from_secs(10), memory: usize::MAX };
    for target in TARGETS {
        let report = driver::run(target, 7, limits, Meter::NONE);
        // Rules take long to parse in a build for tests.
        let least = if target.name == "definition" { 10 } else { 100 };
        assert!(report.inputs > least, "{} ran only {} inputs", target.name, report.inputs);
        if let Some((input, problem)) = report.failure {
            panic!("{}: {problem}: {:?}", target.name, String::from_utf8_lossy(&input));
        }
    }
}
