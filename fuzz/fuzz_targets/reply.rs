#![no_main]
//! See `procession::fuzzing::reply`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| procession::fuzzing::reply(data));
