//! Large arguments and outputs: there and back in a worker process.

use divan::Bencher;
use divan::counter::BytesCount;
use procession::{Executor, Task};

use crate::tasks::{self, Bytes, Laden, Text};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

const SIZES: [usize; 5] = [KIB, 64 * KIB, MIB, 8 * MIB, 64 * MIB];

/// As JSON a byte is a number: nearly four times as much to carry. What is large goes as
/// something else.
const SIZES_OF_BYTES: [usize; 4] = [KIB, 64 * KIB, MIB, 8 * MIB];

#[divan::bench(args = SIZES, sample_count = 50, max_time = 2)]
fn string(bencher: Bencher, size: usize) {
    there_and_back(bencher, size, |size| Text("procession".chars().cycle().take(size).collect()));
}

#[divan::bench(args = SIZES_OF_BYTES, sample_count = 50, max_time = 2)]
fn vec_of_bytes(bencher: Bencher, size: usize) {
    there_and_back(bencher, size, |size| Bytes((0..=u8::MAX).cycle().take(size).collect()));
}

#[divan::bench(args = SIZES, sample_count = 50, max_time = 2)]
fn blob(bencher: Bencher, size: usize) {
    there_and_back(bencher, size, |size| Laden(vec![7; size].into()));
}

fn there_and_back<T: Task + Clone>(bencher: Bencher, size: usize, make: impl Fn(usize) -> T) {
    let size = if crate::is_measured() { size } else { size.min(64 * KIB) };
    let pool = tasks::processes(1);
    let task = make(size);
    bencher
        .counter(BytesCount::new(2 * size))
        .with_inputs(|| task.clone())
        .bench_local_values(|task| pool.submit(task).result().expect("a task that works"));
}
