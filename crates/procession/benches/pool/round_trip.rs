//! One task at a time on one worker, compared with the shortest round trip between two processes. Both are
//! measured in the same [`Placement`], which changes the time more than anything else.

use divan::Bencher;
use procession::{Executor, ProcessPool, Sequential, ThreadPool};

use crate::echo::Echo;
use crate::placement::{PLACEMENTS, Placement, VARIABLE};
use crate::tasks::{self, Noop};

#[divan::bench(args = PLACEMENTS, sample_count = 20_000, sample_size = 1, max_time = 2)]
fn raw_socket_pair(bencher: Bencher, placement: Placement) {
    let placed = placement.take();
    let echo = Echo::start((VARIABLE, &placed.for_the_other())).expect("a peer");
    echo.round_trip().expect("a peer that answers");
    bencher.bench_local(|| echo.round_trip());
}

#[divan::bench(args = PLACEMENTS, sample_count = 20_000, sample_size = 1, max_time = 2)]
fn processes(bencher: Bencher, placement: Placement) {
    let placed = placement.take();
    let pool = ProcessPool::builder().workers(1).worker_env(VARIABLE, placed.for_the_other());
    let pool = tasks::warm(pool.build().expect("a pool"));
    bencher.bench_local(|| pool.submit(Noop).result());
}

#[divan::bench(args = PLACEMENTS, sample_count = 20_000, sample_size = 1, max_time = 2)]
fn threads(bencher: Bencher, placement: Placement) {
    let _placed = placement.take();
    let pool = ThreadPool::new(1);
    bencher.bench_local(|| pool.submit(Noop).result());
}

#[divan::bench(sample_count = 1000, max_time = 2)]
fn sequential(bencher: Bencher) {
    let executor = Sequential::new();
    bencher.bench_local(|| executor.submit(Noop).result());
}
