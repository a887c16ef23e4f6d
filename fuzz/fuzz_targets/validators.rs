#![no_main]
//! The file of ETags and times beside the flags.

use std::path::Path;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let dir = std::env::temp_dir().join(format!("procession-fuzz-{}", std::process::id()));
    let _ = std::fs::create_dir(&dir);
    let _ = std::fs::write(dir.join(".validators.jsonl"), data);
    let _ = procession_cli::files::validators::KnownFiles::read(Path::new(&dir));
});
