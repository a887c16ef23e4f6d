#![no_main]
//! See `procession::fuzzing::ring`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| procession::fuzzing::ring(data));
