#![no_main]
//! A line of a log, as the commands that show runs read it.

use procession_journal::{EntryHeader, LogEntry};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Ok(line) = std::str::from_utf8(data)
        && let Ok(entry) = EntryHeader::of(line)
    {
        let _ = (entry.timestamp(), entry.level(), entry.code(), entry.status());
        let _ = (entry.about_worker(), entry.about_pid());
        let _ = serde_json::from_str::<LogEntry>(line);
    }
});
