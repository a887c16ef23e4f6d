//! What the journal of a pool costs a task: the same tasks with and without a journal.

use std::fmt;
use std::time::{Duration, Instant};

use divan::Bencher;
use divan::counter::ItemsCount;
use procession::{Context, Executor, Failure, ProcessPool, Registry, Task, as_completed};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use crate::tasks::{self, Noop, WORKERS};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keeps {
    Nothing,
    Journal,
}

const BOTH: [Keeps; 2] = [Keeps::Nothing, Keeps::Journal];

impl fmt::Display for Keeps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Keeps::Journal { "journal" } else { "none" })
    }
}

impl Keeps {
    /// A pool, and the directory of its journal.
    fn start(self) -> (ProcessPool, TempDir) {
        let dir = TempDir::new().expect("a directory");
        let pool = ProcessPool::builder().workers(WORKERS);
        let pool = if self == Keeps::Journal { pool.journal(dir.path()) } else { pool };
        (tasks::warm(pool.build().expect("a pool")), dir)
    }
}

/// Works for this time, in microseconds, and gives itself a label if it is to.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Busy(u64, bool);

impl Task for Busy {
    const NAME: &'static str = "busy";
    type Output = ();

    fn run(self, context: &Context) -> Result<(), Failure> {
        let began = Instant::now();
        if self.1 {
            context.label("a label");
        }
        while began.elapsed() < Duration::from_micros(self.0) {
            std::hint::spin_loop();
        }
        Ok(())
    }
}

pub(crate) fn add_to(registry: Registry) -> Registry {
    registry.with::<Busy>()
}

fn count(measured: usize) -> usize {
    if crate::is_measured() { measured } else { 100 }
}

/// In chunks.
#[divan::bench(args = BOTH, sample_count = 20, max_time = 5)]
fn journal_of_map(bencher: Bencher, keeps: Keeps) {
    let ((pool, _dir), count) = (keeps.start(), count(100_000));
    bencher
        .counter(ItemsCount::new(count))
        .bench_local(|| pool.map((0..count).map(|_| Noop)).filter(Result::is_ok).count());
}

/// One by one.
#[divan::bench(args = BOTH, sample_count = 20, max_time = 5)]
fn journal_of_submit(bencher: Bencher, keeps: Keeps) {
    let ((pool, _dir), count) = (keeps.start(), count(10_000));
    bencher.counter(ItemsCount::new(count)).bench_local(|| {
        as_completed((0..count).map(|_| pool.submit(Noop))).filter(|it| it.is_done()).count()
    });
}

/// Each with a line of its own.
#[divan::bench(args = BOTH, sample_count = 10, max_time = 8)]
fn journal_of_milliseconds(bencher: Bencher, keeps: Keeps) {
    let ((pool, _dir), count) = (keeps.start(), count(1_000));
    bencher.counter(ItemsCount::new(count)).bench_local(|| {
        pool.map((0..count).map(|_| Busy(1_000, false))).filter(Result::is_ok).count()
    });
}

/// What the tasks of a benchmark do about labels. All of their pools keep a journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Labels {
    None,
    Each,
    /// So many came before that no more have lines of their own.
    AfterMany,
}

impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Each => "each",
            Self::AfterMany => "after_many",
        })
    }
}

/// Tasks with a label beside the same ones without: a new pool for each measurement, since only the first
/// 10,000 labels of a worker have lines of their own.
#[divan::bench(args = [Labels::None, Labels::Each, Labels::AfterMany], sample_count = 20, sample_size = 1, max_time = 20)]
fn journal_of_labels(bencher: Bencher, labels: Labels) {
    let (count, before) = (count(10_000), count(40_000));
    let run = |pool: &ProcessPool, count: usize| {
        let task = Busy(0, labels != Labels::None);
        pool.map((0..count).map(|_| task)).filter(Result::is_ok).count()
    };
    bencher
        .counter(ItemsCount::new(count))
        .with_inputs(|| {
            let (pool, dir) = Keeps::Journal.start();
            run(&pool, if labels == Labels::AfterMany { before } else { 0 });
            (pool, dir)
        })
        .bench_local_refs(|(pool, _)| run(pool, count));
}
