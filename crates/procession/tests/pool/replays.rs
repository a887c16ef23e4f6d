//! Kept tasks that are not run again, or have no output.

use std::fs;
use std::path::{Path, PathBuf};

use libtest_mimic::Trial;
use procession::{Blob, Executor, Exit, KeptTask, ReplayError};
use rustix::process::Signal;

use crate::kept::{CRASHES, Paint, command, directory, exit_of, kept, replay, text};
use crate::tasks::{self, Bad, Ending, quiet, succeeds_with};

pub(crate) fn trials() -> Vec<Trial> {
    trials![
        a_task_of_another_build_is_refused_unless_that_is_forced,
        a_file_that_cannot_be_replayed_is_refused_with_the_reason,
        a_replayed_task_that_fails_or_panics_says_so,
        a_process_that_was_started_as_a_worker_serves_and_replays_nothing,
    ]
}

/// A file with a part of its first line replaced.
fn changed(file: &Path, from: &str, to: &str) -> PathBuf {
    let bytes = fs::read(file).expect("a file");
    let end = bytes.iter().position(|byte| *byte == b'\n').expect("a first line");
    let line = text(&bytes[..end]);
    assert!(line.contains(from), "{line}");
    let changed = file.with_extension("changed");
    let line = line.replacen(from, to, 1).into_bytes();
    fs::write(&changed, [&line[..], &bytes[end..]].concat()).expect("written");
    changed
}

fn a_task_of_another_build_is_refused_unless_that_is_forced() {
    let dir = directory();
    let pool = quiet().workers(1).keep_crashes(dir.path()).build().expect("a pool");
    let error = pool.submit(Bad(Ending::Abort)).result().expect_err("an error");
    let file = changed(&kept(&error), "\"build\":\"", "\"build\":\"other-");

    let task = KeptTask::read(&file).expect("a kept task");
    let refused = task.replay(&tasks::registry()).expect_err("a refusal");
    let ReplayError::OtherBuild { kept, this } = &refused else { panic!("{refused:?}") };
    assert_eq!(*kept, format!("other-{this}"));

    let output = replay(&file);
    assert_eq!(exit_of(&output), Exit::Code(2), "{output:?}");
    assert!(text(&output.stderr).contains("PROCESSION_REPLAY_FORCE=1"), "{output:?}");
    let forced = command(&file).env("PROCESSION_REPLAY_FORCE", "1").output().expect("it runs");
    assert_eq!(exit_of(&forced), Exit::Signal(Signal::ABORT.as_raw()), "{forced:?}");
}

fn a_file_that_cannot_be_replayed_is_refused_with_the_reason() {
    let dir = directory();
    let pool = quiet().workers(1).keep_crashes(dir.path()).build().expect("a pool");
    let error = pool.submit(Bad(Ending::Abort)).result().expect_err("an error");
    let file = kept(&error);
    let note = dir.path().join("note.txt");
    fs::write(&note, "buy bread\n").expect("written");
    let encoding = changed(&file, "\"encoding\":\"json\"", "\"encoding\":\"binary\"");
    let encoding = {
        let to = dir.path().join("encoding");
        fs::rename(encoding, &to).expect("moved");
        to
    };
    let unknown = changed(&file, "\"task\":\"Bad\"", "\"task\":\"Worse\"");
    let refusals = [
        (dir.path().join("missing"), "cannot read "),
        (note, " is no kept task: its first line cannot be read"),
        (encoding, "was kept in the encoding Binary, and this program has it in Json"),
        (unknown, "knows no task named \"Worse\""),
    ];
    for (file, reason) in refusals {
        let output = replay(&file);
        assert_eq!(exit_of(&output), Exit::Code(2), "{output:?}");
        assert!(text(&output.stderr).contains(reason), "{reason}: {output:?}");
        assert_eq!(text(&output.stdout), "");
    }
}

fn a_replayed_task_that_fails_or_panics_says_so() {
    let dir = directory();
    let builder = quiet().workers(1).worker_env(CRASHES, "1").keep_crashes(dir.path());
    let pool = builder.build().expect("a pool");
    let paint = Paint { image: Blob::default(), scale: 1.0 };
    let error = pool.submit(paint).result().expect_err("an error");
    // This pool has no initializer.
    let output = replay(&kept(&error));
    assert_eq!(exit_of(&output), Exit::Code(1), "{output:?}");
    assert!(text(&output.stderr).ends_with("procession: nothing is loaded\n"), "{output:?}");
    let error = pool.submit(Bad(Ending::Abort)).result().expect_err("an error");
    let bytes = fs::read(kept(&error)).expect("a file");
    let panics = dir.path().join("panics");
    let bytes = text(&bytes).replace("\"Abort\"", "\"Panic\"");
    fs::write(&panics, bytes).expect("written");
    let output = replay(&panics);
    assert_eq!(exit_of(&output), Exit::Code(1), "{output:?}");
    assert!(text(&output.stderr).contains("procession: task panicked at "), "{output:?}");
}

fn a_process_that_was_started_as_a_worker_serves_and_replays_nothing() {
    let builder = quiet().workers(2).worker_env("PROCESSION_REPLAY", "missing");
    succeeds_with(&builder.build().expect("a pool"), 100);
}
