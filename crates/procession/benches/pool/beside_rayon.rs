//! Tasks that do nothing on the threads of rayon: `map`, `submit_as_completed` and a round trip as the other
//! files measure them on the three executors. rayon passes closures and keeps no future, so a channel brings
//! the results.

use std::hint::black_box;
use std::sync::mpsc;

use divan::Bencher;
use divan::counter::ItemsCount;
use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::placement::{PLACEMENTS, Placement};
use crate::tasks::WORKERS;

fn start(threads: usize) -> ThreadPool {
    ThreadPoolBuilder::new().num_threads(threads).build().expect("threads")
}

fn noop() {
    black_box(());
}

fn number(tasks: usize) -> usize {
    if crate::is_measured() { tasks } else { tasks / 100 }
}

/// From an iterator, one task after the other, as `map` takes them. The results are in no order.
#[divan::bench(sample_count = 10, max_time = 5)]
fn map_par_bridge(bencher: Bencher) {
    let (pool, count) = (start(WORKERS), number(100_000));
    bencher
        .counter(ItemsCount::new(count))
        .bench_local(|| pool.install(|| (0..count).par_bridge().map(|_| noop()).count()));
}

/// From a range, which rayon splits among its threads.
#[divan::bench(sample_count = 10, max_time = 5)]
fn map_range(bencher: Bencher) {
    let (pool, count) = (start(WORKERS), number(100_000));
    bencher.counter(ItemsCount::new(count)).bench_local(|| {
        pool.install(|| (0..count).into_par_iter().map(|_| noop()).collect::<Vec<_>>().len())
    });
}

#[divan::bench(sample_count = 20, max_time = 5)]
fn submit_as_completed(bencher: Bencher) {
    let (pool, count) = (start(WORKERS), number(10_000));
    bencher.counter(ItemsCount::new(count)).bench_local(|| {
        let (sender, receiver) = mpsc::channel();
        for _ in 0..count {
            let sender = sender.clone();
            pool.spawn(move || {
                noop();
                sender.send(()).expect("a receiver");
            });
        }
        drop(sender);
        receiver.iter().count()
    });
}

#[divan::bench(args = PLACEMENTS, sample_count = 20_000, sample_size = 1, max_time = 2)]
fn round_trip(bencher: Bencher, placement: Placement) {
    let _placed = placement.take();
    let pool = start(1);
    let (sender, receiver) = mpsc::channel();
    bencher.bench_local(|| {
        let sender = sender.clone();
        pool.spawn(move || {
            noop();
            sender.send(()).expect("a receiver");
        });
        receiver.recv()
    });
}
