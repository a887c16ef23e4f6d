#![no_main]
//! See `procession::fuzzing::traced`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| procession::fuzzing::traced(data));
