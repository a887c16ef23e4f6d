#![no_main]
//! See `procession::fuzzing::claim`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| procession::fuzzing::claim(data));
