//! A few short lives with faults; `cargo xtask sim` lives through many long ones.

use std::time::Duration;

use shipway_sim::chaos::Life;

fn live(seed: u64) {
    let outcome = Life { seed, nodes: 3, time: Duration::from_mins(6) }.run(false);
    assert!(outcome.violations.is_empty(), "seed {seed}: {:#?}\n{}", outcome.violations, outcome.trace.join("\n"));
    assert!(outcome.changes > 3 && outcome.faults > 3 && outcome.revision > 300, "{outcome:?}");
}

#[test]
fn the_first_seed_is_lived_through() {
    live(1);
}

#[test]
fn the_second_seed_is_lived_through() {
    live(2);
}

#[test]
fn the_third_seed_is_lived_through() {
    live(3);
}
