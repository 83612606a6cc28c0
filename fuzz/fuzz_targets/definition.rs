//! `definition` under libFuzzer.
#![no_main]

use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};
use shipway_fuzz::{mutate, targets};

fuzz_target!(|input: &[u8]| targets::run(targets::find("definition").expect("it is a target"), input));

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    mutate::tree_in_place(data, size, seed).unwrap_or_else(|| fuzzer_mutate(data, size, max_size))
});
