//! Large arguments and outputs: there and back in a worker process.

use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};
use procession::{Blob, Executor, SharedValue, Task};

use crate::tasks::{
    self, Anew, AnewBinary, Bytes, Doubled, DoubledPodVec, DoubledVec, Laden, LadenBinary, Skimmed,
    SkimmedShared, Text, WORKERS,
};

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

/// What a task with a large plain payload costs: each number doubled, in a new buffer.
#[divan::bench(args = [MIB, 10 * MIB], sample_count = 20, max_time = 2)]
fn doubled_blob(bencher: Bencher, size: usize) {
    doubled(bencher, size, |numbers| Doubled(Blob::from_values(numbers)));
}

/// The same with `f32`s as a `PodVec`, which copies them once more on each side, and as a `Vec` in the
/// binary encoding.
#[divan::bench(args = [MIB, 10 * MIB], sample_count = 20, max_time = 2)]
fn doubled_pod_vec(bencher: Bencher, size: usize) {
    doubled(bencher, size, |numbers| DoubledPodVec(numbers.into()));
}

#[divan::bench(args = [MIB, 10 * MIB], sample_count = 20, max_time = 2)]
fn doubled_vec_binary(bencher: Bencher, size: usize) {
    doubled(bencher, size, DoubledVec);
}

fn doubled<T: Task>(bencher: Bencher, size: usize, make: impl Fn(Vec<f32>) -> T) {
    let size = if crate::is_measured() { size } else { 64 * KIB };
    let pool = tasks::processes(1);
    let numbers = vec![0.5_f32; size / 4];
    bencher
        .counter(BytesCount::new(2 * size))
        .with_inputs(|| numbers.clone())
        .bench_local_values(|numbers| pool.submit(make(numbers)).result().expect("an output"));
}

/// One input for 40 tasks: copied for each, as clones of one blob, as a shared value.
#[divan::bench(sample_count = 5)]
fn one_input_of_40_tasks_copied(bencher: Bencher) {
    one_input_of_40_tasks(bencher, |blob| move || Skimmed(blob.to_vec().into()));
}

#[divan::bench(sample_count = 5)]
fn one_input_of_40_tasks_as_clones(bencher: Bencher) {
    one_input_of_40_tasks(bencher, |blob| move || Skimmed(blob.clone()));
}

#[divan::bench(sample_count = 5)]
fn one_input_of_40_tasks_shared(bencher: Bencher) {
    one_input_of_40_tasks(bencher, |blob| {
        let value = SharedValue::new(blob);
        move || SkimmedShared(value.clone())
    });
}

fn one_input_of_40_tasks<T: Task<Output = u64>, F: FnMut() -> T>(
    bencher: Bencher,
    tasks_of: impl Fn(Blob) -> F,
) {
    let size = if crate::is_measured() { 100_000_000 } else { 100_000 };
    let (pool, input) = (tasks::processes(WORKERS), vec![1; size]);
    let run = |input: Vec<u8>| {
        let tasks = std::iter::repeat_with(tasks_of(input.into())).take(40);
        assert!(pool.map(tasks).all(|sum| sum == Ok(size.div_ceil(4096) as u64)));
    };
    // The first time, memory is allocated that is used again.
    run(input.clone());
    bencher.counter(BytesCount::new(size)).with_inputs(|| input.clone()).bench_local_values(run);
}

/// Around the lengths at which a blob is sent in another way.
const SIZES_IN_A_MAP: [usize; 11] =
    [64, 256, 257, KIB, 4 * KIB, 8 * KIB, 12 * KIB, 12 * KIB + 1, 32 * KIB, 32 * KIB + 1, 64 * KIB];

#[divan::bench(args = SIZES_IN_A_MAP, sample_count = 10, max_time = 1)]
fn map_of_blobs(bencher: Bencher, size: usize) {
    map_of(bencher, size, Laden);
}

#[divan::bench(args = SIZES_IN_A_MAP, sample_count = 10, max_time = 1)]
fn map_of_blobs_binary(bencher: Bencher, size: usize) {
    map_of(bencher, size, LadenBinary);
}

/// The same where each task has bytes of its own, and gives back others.
#[divan::bench(args = SIZES_IN_A_MAP, sample_count = 10, max_time = 1)]
fn map_of_own_blobs(bencher: Bencher, size: usize) {
    map_of(bencher, size, |blob| Anew(blob.to_vec().into()));
}

#[divan::bench(args = SIZES_IN_A_MAP, sample_count = 10, max_time = 1)]
fn map_of_own_blobs_binary(bencher: Bencher, size: usize) {
    map_of(bencher, size, |blob| AnewBinary(blob.to_vec().into()));
}

fn map_of<T: Task>(bencher: Bencher, size: usize, make: fn(Blob) -> T) {
    let pool = tasks::processes(WORKERS);
    let count = if crate::is_measured() { 4_000_usize } else { 40 };
    let blob = Blob::from(vec![7; size]);
    let tasks = || (0..count).map(|_| make(blob.clone()));
    bencher
        .counter(ItemsCount::new(count))
        .bench_local(|| assert_eq!(pool.map(tasks()).filter(Result::is_ok).count(), count));
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
