//! `quantity` under libFuzzer.
#![no_main]

use libfuzzer_sys::fuzz_target;
use shipway_fuzz::targets;

fuzz_target!(|input: &[u8]| targets::run(targets::find("quantity").expect("it is a target"), input));
