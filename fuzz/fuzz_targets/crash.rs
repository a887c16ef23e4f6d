#![no_main]
//! See `procession::fuzzing::crash_record`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| procession::fuzzing::crash_record(data));
