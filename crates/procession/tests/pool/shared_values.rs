//! Values that many tasks share.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use std::{fs, process, thread};

use libtest_mimic::Trial;
use procession::{
    Context, Encoding, Executor, Failure, Registry, SharedValue, Shutdown, Task, TaskError,
    TaskOptions, ThreadPool,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::harness;
use crate::tasks::{Bad, Ending, Pid, pool, quiet, succeeds_with, warm_up};

pub(crate) fn trials() -> Vec<Trial> {
    trials![
        a_shared_value_is_encoded_once_and_decoded_once_per_worker,
        on_threads_a_shared_value_is_the_same,
        a_shared_value_comes_back_equal_and_short_ones_travel_in_chunks,
        a_shared_value_that_cannot_be_encoded_is_a_typed_error,
        the_workers_drop_a_value_when_its_last_handle_and_task_are_gone,
        a_value_that_is_dropped_for_long_delays_no_task,
    ]
}

pub(crate) fn add_to(registry: Registry) -> Registry {
    registry
        .with::<Look>()
        .with::<LookBinary>()
        .with::<GiveBack>()
        .with::<Mute>()
        .with::<Tally>()
        .with::<Return>()
        .with::<UseSlow>()
}

static ENCODED: AtomicUsize = AtomicUsize::new(0);
static DECODED: AtomicUsize = AtomicUsize::new(0);

/// Counts how often it was encoded and decoded in this process.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Table(Vec<u64>);

impl Serialize for Table {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        ENCODED.fetch_add(1, Ordering::Relaxed);
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Table {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        DECODED.fetch_add(1, Ordering::Relaxed);
        Vec::deserialize(deserializer).map(Self)
    }
}

/// Gives an entry of a table, its process, and how often that has decoded a table.
#[derive(Serialize, Deserialize)]
struct Look(SharedValue<Table>, usize);

impl Task for Look {
    const NAME: &'static str = "look";
    type Output = (u64, u32, usize);

    fn run(self, _: &Context) -> Result<Self::Output, Failure> {
        // Long enough that the other worker gets some.
        thread::sleep(Duration::from_millis(2));
        Ok((self.0.0[self.1], process::id(), DECODED.load(Ordering::Relaxed)))
    }
}

#[derive(Serialize, Deserialize)]
struct LookBinary(SharedValue<Table>, usize);

impl Task for LookBinary {
    const NAME: &'static str = "look in binary";
    const ENCODING: Encoding = Encoding::Binary;
    type Output = (u64, u32, usize);

    fn run(self, context: &Context) -> Result<Self::Output, Failure> {
        Look(self.0, self.1).run(context)
    }
}

fn a_shared_value_is_encoded_once_and_decoded_once_per_worker() {
    // Two tasks at a time in each worker, which decode at the same time.
    let pool = quiet().workers(2).concurrency(4).build().expect("a pool");
    let table = SharedValue::new(Table((0..100_000).collect()));
    let before = ENCODED.load(Ordering::Relaxed);
    let mut counts = HashMap::new();
    // Rounds of tasks, until this number of workers has run some.
    let mut rounds_until = |workers: usize| {
        harness::eventually("tasks in each worker", || {
            let looks: Vec<_> = (0..40).map(|n| pool.submit(Look(table.clone(), n))).collect();
            let binary: Vec<_> =
                (0..40).map(|n| pool.submit(LookBinary(table.clone(), n))).collect();
            for (n, look) in looks.into_iter().enumerate().chain(binary.into_iter().enumerate()) {
                let (entry, pid, decoded) = look.result().expect("an output");
                assert_eq!(entry, n as u64);
                counts.insert(pid, decoded);
            }
            assert!(counts.values().all(|count| *count == 1), "{counts:?}");
            counts.len() == workers
        });
    };
    rounds_until(2);
    let died = pool.submit(Bad(Ending::Abort)).result();
    assert!(matches!(died, Err(TaskError::WorkerDied(_))), "{died:?}");
    rounds_until(3);
    assert_eq!(ENCODED.load(Ordering::Relaxed) - before, 1);
    succeeds_with(&pool, 10);
}

fn on_threads_a_shared_value_is_the_same() {
    let threads = ThreadPool::new(2);
    let table = SharedValue::from(vec![7; 10]);
    let address = |table: &SharedValue<Vec<u64>>| std::ptr::from_ref(&**table) as usize;
    let back = threads.submit(GiveBack(table.clone())).result().expect("an output");
    assert_eq!(address(&back), address(&table));
}

#[derive(Serialize, Deserialize)]
struct GiveBack(SharedValue<Vec<u64>>);

impl Task for GiveBack {
    const NAME: &'static str = "give the table back";
    type Output = SharedValue<Vec<u64>>;

    fn run(self, _: &Context) -> Result<Self::Output, Failure> {
        Ok(self.0)
    }
}

fn a_shared_value_comes_back_equal_and_short_ones_travel_in_chunks() {
    let pool = pool(2);
    warm_up(&pool);
    for len in [0, 3, 5_000, 100_000] {
        let table = SharedValue::new((0..len).collect::<Vec<u64>>());
        for back in pool.map((0..100).map(|_| GiveBack(table.clone()))) {
            assert_eq!(back, Ok(table.clone()), "{len} numbers");
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
enum Voice {
    Loud,
    #[serde(skip_serializing)]
    Mute,
}

#[derive(Serialize, Deserialize)]
struct Mute(SharedValue<Voice>);

impl Task for Mute {
    const NAME: &'static str = "mute";
    type Output = String;

    fn run(self, _: &Context) -> Result<String, Failure> {
        Ok(format!("{:?}", self.0))
    }
}

fn a_shared_value_that_cannot_be_encoded_is_a_typed_error() {
    let pool = pool(1);
    let mute = SharedValue::new(Voice::Mute);
    for _ in 0..2 {
        let refused = pool.submit(Mute(mute.clone())).result();
        let Err(TaskError::Unencodable { reason, .. }) = refused else { panic!("{refused:?}") };
        assert!(reason.contains("Voice::Mute"), "{reason}");
    }
    assert_eq!(pool.submit(Mute(Voice::Loud.into())).result(), Ok("Loud".to_owned()));
}

static LIVING: AtomicUsize = AtomicUsize::new(0);

/// Counts how many of its kind this process has.
#[derive(Debug, Serialize)]
struct Counted(Vec<u8>);

impl<'de> Deserialize<'de> for Counted {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = Vec::deserialize(deserializer)?;
        LIVING.fetch_add(1, Ordering::SeqCst);
        Ok(Self(bytes))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        LIVING.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Gives its process, and how many values that has, beside those of the task.
#[derive(Serialize, Deserialize)]
struct Tally(Vec<SharedValue<Counted>>);

impl Task for Tally {
    const NAME: &'static str = "tally";
    type Output = (u32, usize);

    fn run(self, _: &Context) -> Result<Self::Output, Failure> {
        // Long enough that the other worker gets some.
        thread::sleep(Duration::from_millis(2));
        assert!(self.0.iter().all(|value| value.0.len() == LENGTH));
        Ok((process::id(), LIVING.load(Ordering::SeqCst) - self.0.len()))
    }
}

/// Gives its value back.
#[derive(Serialize, Deserialize)]
struct Return(SharedValue<Counted>);

impl Task for Return {
    const NAME: &'static str = "return a counted value";
    type Output = SharedValue<Counted>;

    fn run(self, _: &Context) -> Result<Self::Output, Failure> {
        Ok(self.0)
    }
}

const LENGTH: usize = 50_000;

fn the_workers_drop_a_value_when_its_last_handle_and_task_are_gone() {
    let pool = pool(2);
    let value = || SharedValue::new(Counted(vec![7; LENGTH]));
    // Rounds of tasks, until each worker has run some and has this number of other values.
    let rounds_until = |others: usize, values: &dyn Fn() -> Vec<SharedValue<Counted>>| {
        let mut left = HashMap::new();
        harness::eventually(&format!("{others} values in each worker"), || {
            let tallies: Vec<_> = (0..20).map(|_| pool.submit(Tally(values()))).collect();
            left.extend(tallies.into_iter().map(|tally| tally.result().expect("an output")));
            left.len() == 2 && left.values().all(|number| *number == others)
        });
    };
    let (kept, first) = (value(), value());
    rounds_until(0, &|| vec![kept.clone(), first.clone()]);
    rounds_until(2, &Vec::new);
    drop(first);
    rounds_until(1, &Vec::new);
    rounds_until(0, &|| vec![kept.clone()]);
    // Handles that are gone before their tasks are: the task has the value, and nobody afterwards.
    let many: Vec<_> = (0..300).map(|_| pool.submit(Tally(vec![value()]))).collect();
    assert!(many.into_iter().all(|tally| tally.result().is_ok()));
    rounds_until(1, &Vec::new);
    // One that came back is another value for the workers, which they drop as well.
    let returned = pool.submit(Return(kept.clone())).result().expect("an output");
    rounds_until(0, &|| vec![kept.clone(), returned.clone()]);
    drop(kept);
    rounds_until(1, &Vec::new);
    drop(returned);
    rounds_until(0, &Vec::new);
}

/// Takes long to be dropped by a worker.
#[derive(Serialize, Deserialize)]
struct Slow {
    bytes: Vec<u8>,
    /// A file that is made when the drop is done.
    done: PathBuf,
    #[serde(skip)]
    is_of_the_test: bool,
}

impl Drop for Slow {
    fn drop(&mut self) {
        if !self.is_of_the_test {
            thread::sleep(Duration::from_millis(1500));
            fs::write(&self.done, "").expect("a file");
        }
    }
}

#[derive(Serialize, Deserialize)]
struct UseSlow(SharedValue<Slow>);

impl Task for UseSlow {
    const NAME: &'static str = "use a value that is dropped slowly";
    type Output = (u32, usize);

    fn run(self, _: &Context) -> Result<Self::Output, Failure> {
        Ok((process::id(), self.0.bytes.len()))
    }
}

fn a_value_that_is_dropped_for_long_delays_no_task() {
    let (pool, dir) = (pool(1), tempfile::tempdir().expect("a directory"));
    let (bytes, done) = (vec![7; LENGTH], dir.path().join("done"));
    let value = SharedValue::new(Slow { bytes, done: done.clone(), is_of_the_test: true });
    let (worker, len) = pool.submit(UseSlow(value.clone())).result().expect("an output");
    assert_eq!(len, LENGTH);
    drop(value);
    // A worker that does not begin a task in time is taken for a stopped one.
    let limit = || TaskOptions::new().timeout(Duration::from_millis(200));
    for _ in 0..20 {
        assert_eq!(pool.submit_with(limit(), Pid()).result(), Ok(worker));
    }
    pool.shutdown(Shutdown::Wait);
    assert!(done.exists(), "the worker has waited for the drop");
}
