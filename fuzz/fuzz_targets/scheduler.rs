#![no_main]
//! See `procession::fuzzing::scheduler`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| procession::fuzzing::scheduler(data));
