//! The scheduler alone: how many events it decides on in a second.

use divan::Bencher;
use divan::counter::ItemsCount;
use procession::{bench_driver, simulation};

/// How many workers, and how many tasks wait at the beginning.
const CROWDS: [(usize, u64); 3] = [(2, 1_000), (2, 100_000), (64, 100_000)];

#[divan::bench(args = CROWDS, sample_count = 20, max_time = 2)]
fn events(bencher: Bencher, (workers, tasks): (usize, u64)) {
    let tasks = if crate::is_measured() { tasks } else { tasks / 100 };
    let events = bench_driver::run(workers, tasks);
    bencher.counter(ItemsCount::new(events)).bench_local(|| bench_driver::run(workers, tasks));
}

/// The same in the simulated world of accidents, the checking of its laws included.
#[divan::bench(sample_count = 100, max_time = 2)]
fn simulated_events(bencher: Bencher) {
    let mut seeds = 0..;
    let mut next = || seeds.next().expect("endless");
    let count = |seed: &u64| {
        let summary = simulation::run(*seed).expect("a schedule that keeps the laws");
        ItemsCount::new(summary.steps)
    };
    bencher
        .with_inputs(&mut next)
        .input_counter(count)
        .bench_local_values(|seed| simulation::run(seed).is_ok());
}
