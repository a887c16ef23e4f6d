#![no_main]
//! See `procession::fuzzing::call`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| procession::fuzzing::call(data));
