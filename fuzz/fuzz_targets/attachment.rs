#![no_main]
//! See `procession::fuzzing::attachment`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| procession::fuzzing::attachment(data));
