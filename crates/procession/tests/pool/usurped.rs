//! Workers that put something else in the place of their journals. The coordinator opens a journal to write there what
//! its worker prints.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{fs, process};

use libtest_mimic::Trial;
use procession::{Context, Executor, Failure, ProcessPool, Registry, Shutdown, Task};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use crate::tasks::succeeds_with;

pub(crate) fn trials() -> Vec<Trial> {
    trials![
        a_link_in_place_of_a_journal_is_not_followed,
        a_pipe_in_place_of_a_journal_delays_nothing,
    ]
}

pub(crate) fn add_to(registry: Registry) -> Registry {
    registry.with::<Usurp>()
}

/// Puts a link to the file in the place of the journal of its worker, or a pipe, and prints a line.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Usurp {
    run: PathBuf,
    link_to: Option<PathBuf>,
}

impl Task for Usurp {
    const NAME: &'static str = "usurp";
    type Output = ();
    fn run(self, context: &Context) -> Result<(), Failure> {
        let journal = format!("worker-{}-{}.jsonl", context.worker(), process::id());
        let journal = self.run.join(journal);
        fs::remove_file(&journal)?;
        match self.link_to {
            Some(file) => symlink(file, &journal)?,
            None => {
                let made = process::Command::new("mkfifo").arg(&journal).status()?;
                assert!(made.success(), "mkfifo: {made}");
            }
        }
        println!("$(what the file is to have)");
        Ok(())
    }
}

fn usurp(link_to: Option<&Path>) {
    let logs = TempDir::new().expect("a directory");
    let pool = ProcessPool::builder().workers(1).journal(logs.path()).on_output(|_| {});
    let pool = pool.build().expect("a pool");
    let run = pool.journal_dir().expect("a journal").to_owned();
    let usurped = Usurp { run, link_to: link_to.map(Path::to_owned) };
    assert_eq!(pool.submit(usurped).result(), Ok(()));
    succeeds_with(&pool, 20);
    let began = Instant::now();
    pool.shutdown(Shutdown::Wait);
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

fn a_link_in_place_of_a_journal_is_not_followed() {
    let dir = TempDir::new().expect("a directory");
    let file = dir.path().join("profile");
    fs::write(&file, "as it was").expect("a file");
    usurp(Some(&file));
    assert_eq!(fs::read_to_string(&file).expect("text"), "as it was");
    usurp(Some(&dir.path().join("new")));
    assert!(!dir.path().join("new").exists());
}

fn a_pipe_in_place_of_a_journal_delays_nothing() {
    usurp(None);
}
