#![no_main]
//! See `procession::fuzzing::handshake`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| procession::fuzzing::handshake(data));
