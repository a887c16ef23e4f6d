//! Tests: files that are written, and disks that are full.

use super::*;
use crate::event::OutputStream;

fn output(text: String) -> LogEvent {
    LogEvent::Output { stream: OutputStream::Stdout, text }
}

fn entries(journal: &Journal) -> Vec<LogEntry> {
    let text = std::fs::read_to_string(journal.path()).unwrap();
    text.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
}

#[test]
fn files_are_named_after_their_process() {
    let dir = tempfile::tempdir().unwrap();
    let pid = std::process::id();
    let name = |journal: Journal| journal.path().file_name().unwrap().to_str().unwrap().to_owned();
    let coordinator = name(Journal::coordinator(dir.path()).unwrap());
    assert_eq!(coordinator, format!("coordinator-{pid}.jsonl"));
    let worker = name(Journal::worker(dir.path(), 1, std::process::id()).unwrap());
    assert_eq!(worker, format!("worker-1-{pid}.jsonl"));
}

#[test]
fn lines_name_their_writer_and_are_appended() {
    let dir = tempfile::tempdir().unwrap();
    for text in ["one", "two"] {
        let journal = Journal::worker(dir.path(), 3, std::process::id()).unwrap();
        journal.record(Level::Info, output(text.into()));
    }
    let journal = Journal::worker(dir.path(), 3, std::process::id()).unwrap();
    let entries = entries(&journal);
    assert_eq!(entries[1].event, output("two".into()));
    assert_eq!((entries.len(), entries[0].worker), (2, Some(3)));
    assert_eq!((&entries[0].process, entries[0].pid), (&ProcessKind::Worker, std::process::id()));
}

#[test]
fn lines_have_the_cpu_time_of_their_own_process_from_time_to_time() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::worker(dir.path(), 3, std::process::id()).unwrap();
    let began = now();
    for _ in 0..50 {
        journal.record(Level::Info, output("x".into()));
    }
    let passed = now().as_microsecond() - began.as_microsecond();
    let times = |journal: &Journal| -> Vec<_> {
        entries(journal).iter().filter_map(|entry| entry.own_cpu_s).collect()
    };
    let seen = times(&journal);
    assert!(seen[0] > 0.0 && seen.len() <= 1 + (passed / CPU_INTERVAL) as usize, "{seen:?}");
    lock(&journal.writer).cpu_at = None;
    journal.record_all(vec![(Level::Info, output("y".into())); 2]);
    let more = times(&journal);
    assert!(more.len() == seen.len() + 1 && more.is_sorted(), "{more:?}");
    // Written for another process.
    let other = Journal::worker(dir.path(), 4, 1).unwrap();
    other.record(Level::Info, output("x".into()));
    let of_host = Journal::of_host(dir.path(), 1, "host", std::process::id()).unwrap();
    of_host.record(Level::Info, output("x".into()));
    assert!(times(&other).is_empty() && times(&of_host).is_empty());
}

#[test]
fn threads_do_not_mix_their_lines_and_times_only_grow() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::coordinator(dir.path()).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let journal = &journal;
            scope.spawn(move || {
                for n in 0..200 {
                    let text = format!("{thread} {n} {}", "x".repeat(n * 20));
                    journal.record(Level::Debug, output(text));
                }
            });
        }
    });
    let entries = entries(&journal);
    assert_eq!((entries.len(), journal.lost()), (1600, 0));
    assert!(entries.is_sorted_by_key(|entry| entry.ts));
}

#[test]
fn several_lines_are_written_together_and_as_one_by_one() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::worker(dir.path(), 3, 7).unwrap();
    journal.record(Level::Info, output("one".into()));
    let lines = ["two", "three", "four"].map(|text| (Level::Warn, output(text.into())));
    journal.record_all(lines.to_vec());
    journal.record_all(Vec::new());
    let entries = entries(&journal);
    let texts = ["one", "two", "three", "four"].map(|text| output(text.into()));
    assert!(entries.iter().map(|entry| &entry.event).eq(&texts), "{entries:?}");
    assert!(entries.is_sorted_by_key(|entry| entry.ts));
    assert!(entries.iter().all(|entry| (entry.worker, entry.pid) == (Some(3), 7)));
    assert_eq!(entries[3].level, Level::Warn);
}

#[test]
fn of_several_lines_those_within_the_limit_of_the_file_are_written() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::worker(dir.path(), 0, 1).unwrap();
    journal.record(Level::Info, output("0".into()));
    let length = std::fs::metadata(journal.path()).unwrap().len();
    // Room for two more lines.
    journal.writer.lock().unwrap().max_length = Some(3 * length + length / 2);
    let lines = (1..=5).map(|n| (Level::Info, output(n.to_string()))).collect();
    journal.record_all(lines);
    assert_eq!((entries(&journal).len(), journal.lost()), (3, 3));
}

#[test]
fn a_full_disk_loses_lines_and_nothing_else() {
    let file = OpenOptions::new().append(true).open("/dev/full").unwrap();
    let journal = Journal::with_file(file, "/dev/full".into(), ProcessKind::Coordinator, None, 1);
    journal.record(Level::Info, output("one".into()));
    journal.record(Level::Info, output("two".into()));
    assert_eq!(journal.lost(), 2);
    journal.record_all(vec![
        (Level::Info, output("three".into())),
        (Level::Info, output("four".into())),
    ]);
    assert_eq!(journal.lost(), 4);
}

#[test]
fn the_line_after_an_incomplete_one_is_whole() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::coordinator(dir.path()).unwrap();
    std::fs::write(journal.path(), r#"{"ts":"2026"#).unwrap();
    journal.writer.lock().unwrap().is_incomplete = true;
    journal.record(Level::Info, output("whole".into()));
    journal.record(Level::Info, output("whole".into()));
    let text = std::fs::read_to_string(journal.path()).unwrap();
    let whole = text.lines().filter(|line| serde_json::from_str::<LogEntry>(line).is_ok());
    assert_eq!((whole.count(), text.lines().count()), (2, 3));
}

#[test]
fn a_file_that_has_taken_the_descriptor_of_the_journal_gets_no_lines() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::worker(dir.path(), 0, 1).unwrap();
    let other = dir.path().join("other");
    // As after a `close` of the number and an `open` that got it.
    journal.writer.lock().unwrap().file = File::create(&other).unwrap();
    journal.record(Level::Info, output("one".into()));
    journal.record(Level::Info, output("two".into()));
    assert_eq!(entries(&journal).len(), 2);
    assert_eq!(std::fs::read_to_string(other).unwrap(), "");
    assert_eq!(journal.lost(), 0);
}

#[test]
fn a_journal_is_being_written_while_its_coordinator_is_alive() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::coordinator(dir.path()).unwrap();
    let path = journal.path().to_owned();
    assert!(is_being_written(&path));
    drop(journal);
    assert!(!is_being_written(&path), "though the process with the pid in its name is alive");
    assert!(!is_being_written(&dir.path().join("no")));
}

#[test]
fn a_missing_directory_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let error = Journal::coordinator(&dir.path().join("no")).unwrap_err().to_string();
    assert!(error.starts_with("cannot open the journal ") && error.contains("/no/"), "{error}");
}

#[test]
fn a_process_has_one_journal() {
    let dir = tempfile::tempdir().unwrap();
    // All tests run in one process: another test may have set a journal before.
    let _ = set(Journal::worker(dir.path(), 0, std::process::id()).unwrap());
    let first = current().expect("a journal was set").path();
    let second = Journal::worker(dir.path(), 1, std::process::id()).unwrap();
    assert_eq!(set(second).unwrap_err().worker, Some(1));
    assert_eq!(current().unwrap().path(), first);
}
