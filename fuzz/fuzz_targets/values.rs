#![no_main]
//! See `procession::fuzzing::values`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| procession::fuzzing::values(data));
