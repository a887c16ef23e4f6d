//! Many tasks that do nothing: how many the executor gets done in a second.

use divan::Bencher;
use divan::counter::ItemsCount;
use procession::{Executor, as_completed};

use crate::tasks::{self, KINDS, Kind, Noop, WORKERS};

const TASKS: usize = 10_000;

fn tasks() -> usize {
    if crate::is_measured() { TASKS } else { TASKS / 100 }
}

#[divan::bench(args = KINDS, sample_count = 20, max_time = 5)]
fn submit_as_completed(bencher: Bencher, kind: Kind) {
    let (executor, count) = (kind.start(WORKERS), tasks());
    bencher.counter(ItemsCount::new(count)).bench_local(|| {
        let futures = (0..count).map(|_| executor.submit(Noop));
        as_completed(futures).filter(|future| future.is_done()).count()
    });
}

/// What a submission costs the thread that submits, while a backlog is as long as that.
#[divan::bench(args = [1_000, 100_000], sample_count = 5, max_time = 5)]
fn submit_behind(bencher: Bencher, backlog: usize) {
    let pool = tasks::processes(WORKERS);
    let (backlog, count) =
        if crate::is_measured() { (backlog, 10_000_usize) } else { (backlog / 100, 100) };
    bencher
        .counter(ItemsCount::new(count))
        .with_inputs(|| (0..backlog).map(|_| pool.submit(Noop)).collect::<Vec<_>>())
        .bench_local_values(|behind| {
            let futures: Vec<_> = (0..count).map(|_| pool.submit(Noop)).collect();
            // Dropped when the time is taken: only then the backlog is waited for.
            Backlog([behind, futures])
        });
}

struct Backlog([Vec<procession::Future<()>>; 2]);

impl Drop for Backlog {
    fn drop(&mut self) {
        for future in self.0.iter_mut().flat_map(|futures| futures.drain(..)) {
            future.result().expect("a task that works");
        }
    }
}

/// Many more workers than CPUs.
#[divan::bench(args = [2, 8, 64], sample_count = 10, max_time = 5)]
fn on_workers(bencher: Bencher, workers: usize) {
    let workers = if crate::is_measured() { workers } else { workers.min(8) };
    let (pool, count) = (tasks::processes(workers), tasks());
    bencher.counter(ItemsCount::new(count)).bench_local(|| {
        let futures = (0..count).map(|_| pool.submit(Noop));
        as_completed(futures).filter(|future| future.is_done()).count()
    });
}
