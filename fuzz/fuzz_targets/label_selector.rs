//! `label_selector` under libFuzzer.
#![no_main]

use libfuzzer_sys::fuzz_target;
use shipway_fuzz::targets;

fuzz_target!(|input: &[u8]| targets::run(targets::find("label_selector").expect("it is a target"), input));
