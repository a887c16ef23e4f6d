#![no_main]
//! Lines of logs, as the commands that show runs read them.

use procession_journal::{EntryHeader, LogEntry, RunHistory};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut history = RunHistory::default();
    for line in text.lines() {
        let Ok(entry) = EntryHeader::of(line) else { continue };
        let _ = (entry.timestamp(), entry.level(), entry.code(), entry.status());
        let _ = (entry.about_worker(), entry.about_pid());
        if let Ok(entry) = serde_json::from_str::<LogEntry>(line) {
            history.add(entry);
        }
    }
    let _ = (history.summary(), history.not_done(), history.failed());
    history.close();
    let _ = history.summary();
});
