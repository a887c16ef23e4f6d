//! `map` over a lazy iterator.

use divan::Bencher;
use divan::counter::ItemsCount;
use procession::Executor;

use crate::tasks::{KINDS, Kind, Noop, WORKERS};

#[divan::bench(args = KINDS, sample_count = 10, max_time = 5)]
fn map(bencher: Bencher, kind: Kind) {
    let executor = kind.start(WORKERS);
    let count = if crate::is_measured() { 100_000_usize } else { 1000 };
    bencher
        .counter(ItemsCount::new(count))
        .bench_local(|| executor.map((0..count).map(|_| Noop)).filter(Result::is_ok).count());
}
