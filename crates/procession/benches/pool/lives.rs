//! Starts of workers: the time until a new pool has its first result, and until it has the next one after the
//! death of a worker.

use std::thread;
use std::time::Duration;

use divan::Bencher;
use procession::{Executor, ProcessPool};

use crate::tasks::{self, Die, Noop, Prepare, WORKERS};

/// From nothing to the first result. That the pool ends is not counted.
#[divan::bench(sample_count = 100, sample_size = 1, max_time = 3)]
fn start_up() -> ProcessPool {
    let pool = ProcessPool::builder().workers(WORKERS).build().expect("a pool");
    pool.submit(Noop).result().expect("a task that works");
    pool
}

/// The same in a program that uses this much memory (in MiB), of which the workers need nothing.
#[divan::bench(args = [1, 256], sample_count = 50, sample_size = 1, max_time = 3)]
fn start_up_beside(bencher: Bencher, mib: usize) {
    let memory = vec![1_u8; mib << 20];
    bencher.bench_local(start_up);
    divan::black_box(memory);
}

/// The end of a pool whose workers are idle.
#[divan::bench(sample_count = 100, sample_size = 1, max_time = 3)]
fn shut_down(bencher: Bencher) {
    bencher
        .with_inputs(|| tasks::processes(WORKERS))
        .bench_local_values(|pool| pool.shutdown(procession::Shutdown::Wait));
}

/// From the death of the only worker, as the caller learns of it, to the next result.
#[divan::bench(sample_count = 100, sample_size = 1, max_time = 3)]
fn respawn(bencher: Bencher) {
    let pool = tasks::processes(1);
    bencher
        .with_inputs(|| {
            let dies = pool.submit(Die);
            let next = pool.submit(Noop);
            dies.result().expect_err("a death");
            next
        })
        .bench_local_values(|next| next.result().expect("a task that works"));
}

/// The same with an initializer of 300 ms, and this many spares, which are ready at the death.
#[divan::bench(args = [0, 1], sample_count = 20, sample_size = 1, max_time = 10)]
fn respawn_with_slow_initializer(bencher: Bencher, spares: usize) {
    let initializer = Prepare(Duration::from_millis(300));
    let pool = ProcessPool::builder().workers(1).spares(spares).initializer(initializer);
    let pool = pool.build().expect("a pool");
    bencher
        .with_inputs(|| {
            while pool.stats().spares < spares {
                thread::sleep(Duration::from_millis(5));
            }
            let dies = pool.submit(Die);
            let next = pool.submit(Noop);
            dies.result().expect_err("a death");
            next
        })
        .bench_local_values(|next| next.result().expect("a task that works"));
}
