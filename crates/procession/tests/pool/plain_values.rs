//! Blobs of plain values, and bytes of other owners.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use libtest_mimic::Trial;
use procession::{
    Blob, Context, Encoding, Executor, Failure, PodVec, Registry, Sequential, Task, ThreadPool,
};
use serde::{Deserialize, Serialize};

use crate::blobs::{SHORT_IN_BINARY, SHORT_IN_JSON};
use crate::harness::{Gate, ON_PURPOSE, eventually};
use crate::tasks::{LengthOfAll, Pass, await_workers, pool};

pub(crate) fn trials() -> Vec<Trial> {
    trials![
        plain_values_arrive_equal_in_each_executor_and_encoding,
        values_are_borrowed_from_memory_that_was_received,
        bytes_that_are_no_whole_values_are_an_error,
        the_owner_of_bytes_is_dropped_with_the_last_clone,
        the_owner_of_long_bytes_is_dropped_also_where_tasks_are_cancelled,
        an_owner_that_panics_when_it_is_dropped_costs_nothing,
        an_owner_that_gives_other_bytes_each_time_is_sent_as_it_was_once,
    ]
}

pub(crate) fn add_to(registry: Registry) -> Registry {
    registry.with::<Doubled>().with::<DoubledBinary>().with::<HowBorrowed>().with::<Wide>()
}

#[derive(Clone, Serialize, Deserialize)]
struct Doubled(PodVec<f64>);

impl Task for Doubled {
    const NAME: &'static str = "doubled";
    type Output = PodVec<f64>;

    fn run(mut self, _: &Context) -> Result<PodVec<f64>, Failure> {
        self.0.iter_mut().for_each(|number| *number *= 2.0);
        Ok(self.0)
    }
}

#[derive(Clone, Serialize, Deserialize)]
struct DoubledBinary(PodVec<f64>);

impl Task for DoubledBinary {
    const NAME: &'static str = "doubled in binary";
    const ENCODING: Encoding = Encoding::Binary;
    type Output = PodVec<f64>;

    fn run(self, context: &Context) -> Result<PodVec<f64>, Failure> {
        Doubled(self.0).run(context)
    }
}

fn plain_values_arrive_equal_in_each_executor_and_encoding() {
    let (sequential, threads, processes) = (Sequential::new(), ThreadPool::new(1), pool(1));
    for bytes in [0, 8, SHORT_IN_JSON, SHORT_IN_JSON + 8, SHORT_IN_BINARY, SHORT_IN_BINARY + 8] {
        // Among them numbers that JSON cannot hold.
        let special = [f64::NAN, -0.0, f64::INFINITY, f64::from_bits(0x7ff8_0000_dead_beef)];
        let numbers =
            (0_u32..).map(|n| special.get(n as usize).copied().unwrap_or(f64::from(n) / 7.0));
        let numbers: PodVec<f64> = numbers.take(bytes / 8).collect();
        let right: Vec<_> = numbers.iter().map(|number| (2.0 * number).to_bits()).collect();
        let bits = |result: Result<PodVec<f64>, _>| {
            result.expect("an output").into_iter().map(f64::to_bits).collect::<Vec<_>>()
        };
        let task = || Doubled(numbers.clone());
        assert_eq!(bits(sequential.submit(task()).result()), right, "{bytes} bytes");
        assert_eq!(bits(threads.submit(task()).result()), right, "{bytes} bytes");
        assert_eq!(bits(processes.submit(task()).result()), right, "{bytes} bytes");
        let binary = processes.submit(DoubledBinary(numbers.clone()));
        assert_eq!(bits(binary.result()), right, "{bytes} bytes");
    }
}

#[derive(Serialize, Deserialize)]
struct HowBorrowed(Blob);

impl Task for HowBorrowed {
    const NAME: &'static str = "whether its values are borrowed";
    type Output = bool;

    fn run(self, _: &Context) -> Result<bool, Failure> {
        Ok(matches!(self.0.values::<u64>()?, Cow::Borrowed(_)))
    }
}

fn values_are_borrowed_from_memory_that_was_received() {
    if !cfg!(all(target_os = "linux", not(feature = "portable"))) {
        crate::harness::skip("it is about sealed memory");
    }
    let pool = pool(1);
    await_workers(&pool);
    let blob = Blob::from_values(vec![7_u64; 10_000]);
    assert_eq!(pool.submit(HowBorrowed(blob)).result(), Ok(true));
}

/// Its bytes come as values of another size.
#[derive(Serialize, Deserialize)]
struct Wide(Blob);

impl Task for Wide {
    const NAME: &'static str = "wide values";
    type Output = u64;

    fn run(self, _: &Context) -> Result<u64, Failure> {
        Ok(self.0.values::<u64>()?.iter().sum())
    }
}

fn bytes_that_are_no_whole_values_are_an_error() {
    let pool = pool(1);
    let error = pool.submit(Wide(vec![1; 15].into())).result().expect_err("no whole values");
    let right = "a blob of 15 bytes does not consist of whole values of u64, of 8 bytes each";
    assert!(error.to_string().contains(right), "{error}");
    assert_eq!(pool.submit(Wide(Blob::from_values(vec![3_u64, 4]))).result(), Ok(7));
    // At an address that suits no number of 8 bytes, the values are copied.
    let bytes: Vec<u8> = (0..32).collect();
    let odd = Blob::from_owner(Odd(bytes.clone(), Arc::default()));
    let values = odd.values::<u64>().expect("16 bytes");
    assert_eq!(bytemuck::cast_slice::<u64, u8>(&values), &bytes[9..25]);
}

/// Bytes at an odd address, and a count of its drops.
struct Odd(Vec<u8>, Arc<AtomicUsize>);

impl AsRef<[u8]> for Odd {
    fn as_ref(&self) -> &[u8] {
        // A `Vec` begins at an even address.
        &self.0[9..25]
    }
}

impl Drop for Odd {
    fn drop(&mut self) {
        self.1.fetch_add(1, Ordering::Relaxed);
    }
}

fn the_owner_of_bytes_is_dropped_with_the_last_clone() {
    let pool = pool(1);
    let drops = Arc::new(AtomicUsize::default());
    let blob = Blob::from_owner(Odd(vec![1; 100_000], Arc::clone(&drops)));
    for _ in 0..3 {
        assert_eq!(pool.submit(Wide(blob.clone())).result(), Ok(2 * 0x0101_0101_0101_0101));
    }
    assert_eq!(blob.clone().into_vec(), [1; 16]);
    drop(pool);
    assert_eq!(drops.load(Ordering::Relaxed), 0);
    drop(blob);
    assert_eq!(drops.load(Ordering::Relaxed), 1);
}

/// Long bytes, and a count of its drops.
struct Long(Vec<u8>, Arc<AtomicUsize>);

impl AsRef<[u8]> for Long {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Long {
    fn drop(&mut self) {
        self.1.fetch_add(1, Ordering::Relaxed);
    }
}

fn the_owner_of_long_bytes_is_dropped_also_where_tasks_are_cancelled() {
    let pool = pool(1);
    let drops = Arc::new(AtomicUsize::default());
    let blob = Blob::from_owner(Long(vec![1; 100_000], Arc::clone(&drops)));
    let submit = |blob: &Blob| pool.submit(LengthOfAll(vec![blob.clone()]));
    for _ in 0..3 {
        assert_eq!(submit(&blob).result(), Ok(100_000));
    }
    // Behind a closed gate, so that they are cancelled before they begin.
    let gate = Gate::new();
    let first = pool.submit(Pass(gate.path()));
    gate.await_arrivals(1);
    let waiting: Vec<_> = (0..10).map(|_| submit(&blob)).collect();
    assert!(waiting.iter().all(|future| future.cancel()));
    drop(waiting);
    gate.open();
    assert!(first.result().is_ok());
    // One that is not cancelled, and has the last clone.
    let last = submit(&blob);
    assert_eq!(drops.load(Ordering::Relaxed), 0);
    drop(blob);
    assert_eq!(last.result(), Ok(100_000));
    eventually("the drop of the owner", || drops.load(Ordering::Relaxed) == 1);
    drop(pool);
    assert_eq!(drops.load(Ordering::Relaxed), 1);
}

/// Bytes, and a count of its drops, which panic.
struct Spiteful(Vec<u8>, Arc<AtomicUsize>);

impl AsRef<[u8]> for Spiteful {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Spiteful {
    fn drop(&mut self) {
        self.1.fetch_add(1, Ordering::Relaxed);
        panic!("{ON_PURPOSE}");
    }
}

fn an_owner_that_panics_when_it_is_dropped_costs_nothing() {
    let pool = pool(1);
    let drops = Arc::new(AtomicUsize::default());
    let submit = |len| {
        let blob = Blob::from_owner(Spiteful(vec![1; len], Arc::clone(&drops)));
        pool.submit(LengthOfAll(vec![blob]))
    };
    for len in [3, 100_000] {
        assert_eq!(submit(len).result(), Ok(len));
    }
    let gate = Gate::new();
    let first = pool.submit(Pass(gate.path()));
    gate.await_arrivals(1);
    let waiting = [3, 100_000].map(submit);
    assert!(waiting.iter().all(|future| future.cancel()));
    drop(waiting);
    gate.open();
    assert!(first.result().is_ok());
    assert_eq!(submit(100_000).result(), Ok(100_000), "the pool goes on");
    drop(pool);
    assert_eq!(drops.load(Ordering::Relaxed), 5);
}

/// Bytes of which there are more each time that they are asked for.
struct Growing(Vec<u8>, AtomicUsize);

impl AsRef<[u8]> for Growing {
    fn as_ref(&self) -> &[u8] {
        &self.0[..50_000 + self.1.fetch_add(1, Ordering::Relaxed)]
    }
}

fn an_owner_that_gives_other_bytes_each_time_is_sent_as_it_was_once() {
    let pool = pool(1);
    let blob = Blob::from_owner(Growing(vec![1; 60_000], AtomicUsize::default()));
    for _ in 0..3 {
        let len = pool.submit(LengthOfAll(vec![blob.clone()])).result();
        assert!(len.as_ref().is_ok_and(|len| *len > 50_000), "{len:?}");
    }
    // The last one has no clone, so its file is not kept.
    let len = pool.submit(LengthOfAll(vec![blob])).result();
    assert!(len.as_ref().is_ok_and(|len| *len > 50_000), "{len:?}");
}
