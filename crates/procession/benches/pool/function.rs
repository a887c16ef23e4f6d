//! A task that is a function, compared with the same task written by hand.

use divan::Bencher;
use divan::counter::ItemsCount;
use procession::{Context, Executor, Failure, ProcessPool, Task};
use serde::{Deserialize, Serialize};

use crate::tasks::{self, WORKERS};

#[procession::task]
fn sum(one: u64, other: u64) -> u64 {
    one + other
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Sum {
    one: u64,
    other: u64,
}

impl Task for Sum {
    const NAME: &'static str = "pool::function::same";
    type Output = u64;

    fn run(self, _: &Context) -> Result<u64, Failure> {
        Ok(self.one + self.other)
    }
}

#[divan::bench(sample_count = 20, max_time = 5)]
fn of_a_function(bencher: Bencher) {
    mapped(bencher, |n| sum(n, 1));
}

#[divan::bench(sample_count = 20, max_time = 5)]
fn by_hand(bencher: Bencher) {
    mapped(bencher, |n| Sum { one: n, other: 1 });
}

fn mapped<T: Task>(bencher: Bencher, task: impl Fn(u64) -> T) {
    let pool = ProcessPool::builder().workers(WORKERS).build().expect("a pool");
    let pool = tasks::warm(pool);
    let count = if crate::is_measured() { 100_000 } else { 1000 };
    bencher
        .counter(ItemsCount::new(count))
        .bench_local(|| pool.map((0..count).map(&task)).filter(Result::is_ok).count());
}
