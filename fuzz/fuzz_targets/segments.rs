#![no_main]
//! See `procession::fuzzing::segments`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| procession::fuzzing::segments(data));
