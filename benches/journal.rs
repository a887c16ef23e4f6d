//! The cost of logs: of a line alone, and of a download of all flags from the embedded server with and
//! without the logs of the workers.

use std::env;
use std::fmt;
use std::path::{Path, PathBuf};

use divan::Bencher;
use divan::counter::ItemsCount;
use procession::{Executor, ProcessPool, Registry, worker};
use procession_cli::files::client::FetchSettings;
use procession_cli::files::task::Download;
use procession_cli::flag_server::{FlagServer, ServerKind};
use procession_cli::flags::codes::AVAILABLE;
use procession_cli::flags::items;
use procession_journal as journal;
use procession_journal::{Journal, Level, LogEvent, TaskEnd};

const WORKERS: usize = 2;

/// The variable with the directory of a worker's journal, if it keeps one.
const VARIABLE: &str = "PROCESSION_BENCH_JOURNAL";

fn main() {
    if let Some(asked) = worker::asked() {
        if let Some(dir) = env::var_os(VARIABLE) {
            let journal = Journal::worker(Path::new(&dir), asked.worker(), std::process::id());
            let _ = journal::set(journal.expect("a journal"));
        }
        let ended = asked.serve(Registry::new().with::<Download>());
        std::process::exit(ended.is_err().into());
    }
    // `cargo test` passes this option to every test program; divan refuses it.
    match env::args().any(|arg| arg.starts_with("--test-threads")) {
        true => divan::Divan::default().test_benches(),
        false => divan::main(),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Logs {
    Off,
    On,
}

impl fmt::Display for Logs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Self::On { "logs" } else { "no_logs" })
    }
}

#[divan::bench(args = [Logs::Off, Logs::On], sample_count = 30, max_time = 4)]
fn download(bencher: Bencher, logs: Logs) {
    let dir = tempfile::tempdir().expect("a directory");
    let server = FlagServer::builder(ServerKind::Local).start().expect("a server");
    let fetch = FetchSettings { connections: 15, ..FetchSettings::default() };
    let mut pool = ProcessPool::builder().workers(WORKERS).concurrency(2 * fetch.connections);
    if logs == Logs::On {
        pool = pool.worker_env(VARIABLE, dir.path());
    }
    let pool = pool.build().expect("a pool");
    let item = |code: &&str| items::item(&server.base_url(), code.parse().expect("a code"));
    let flags: Vec<_> = AVAILABLE.iter().map(item).collect();
    let dest: PathBuf = dir.path().into();
    bencher.counter(ItemsCount::new(flags.len())).bench_local(|| {
        let downloads =
            flags.iter().map(|flag| Download::new(flag.clone(), fetch.clone(), dest.clone()));
        let outcomes = pool.map(downloads).filter(|outcome| {
            outcome.as_ref().is_ok_and(|outcome| outcome.bytes.is_some_and(|bytes| bytes > 0))
        });
        assert_eq!(outcomes.count(), AVAILABLE.len());
    });
    let journals = dir.path().read_dir().expect("a directory").flatten();
    let journals = journals.filter(|file| file.file_name().to_string_lossy().starts_with("worker"));
    assert_eq!(journals.count(), if logs == Logs::On { WORKERS } else { 0 });
}

#[divan::bench(sample_count = 100, max_time = 1)]
fn line(bencher: Bencher) {
    let dir = tempfile::tempdir().expect("a directory");
    let journal = Journal::coordinator(dir.path()).expect("a journal");
    let event = || {
        LogEvent::Task(TaskEnd {
            code: "BR".to_owned(),
            status: "ok".to_owned(),
            http: Some(200),
            bytes: Some(590),
            elapsed_ms: 1.9,
            attempt: 1,
            ..TaskEnd::default()
        })
    };
    bencher
        .counter(ItemsCount::new(1_usize))
        .with_inputs(event)
        .bench_local_values(|event| journal.record(Level::Info, event));
}
