//! Long payloads go through segments: memory that is used again. Nothing that was handed over changes, and
//! what is not used is given back.

#![allow(unsafe_code, reason = "a task forks")]

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use procession::{
    Blob, Context, Executor, Failure, ProcessPool, Registry, Retries, SharedValue, Task, TaskError,
    TaskOptions,
};
use rustix::process::Signal;
use serde::{Deserialize, Serialize};

use crate::harness::{eventually, signal};
use crate::program;
use crate::tasks::{await_workers, pool, quiet, succeeds_with};

pub(crate) fn trials() -> Vec<Trial> {
    trials![
        a_blob_that_a_worker_keeps_does_not_change,
        a_blob_that_a_forked_copy_reads_does_not_change,
        an_output_that_is_kept_does_not_change,
        payloads_that_follow_each_other_use_the_same_memory,
        segments_that_are_not_used_are_given_back,
        crashes_with_large_payloads_cost_nothing_else,
        a_storm_of_large_payloads_and_crashes_leaves_nothing_behind,
        texts_and_blobs_of_all_lengths_are_exact_in_any_order,
        several_runners_have_segments_at_a_time,
    ]
}

pub(crate) fn add_to(registry: Registry) -> Registry {
    registry.with::<Use>()
}

/// What is done with a blob, each byte of which is the same.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Use {
    blob: Blob,
    how: How,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum How {
    /// Each byte incremented.
    Next,
    /// The same, if each byte of the shared value is this one.
    NextBeside(SharedValue<Blob>, u8),
    /// Keep it in this process, and tell whether those that were kept are what they were.
    Keep,
    /// A copy of this process checks it when the first file exists, and then writes the second one.
    CheckInACopy {
        go: PathBuf,
        notes: PathBuf,
    },
    /// How many memory files this process has mapped or open, as a byte.
    Count,
    Die,
}

struct Kept(Vec<Blob>);

/// Whether each byte is the same.
fn is_whole(blob: &Blob) -> bool {
    **blob == *vec![blob[0]; blob.len()]
}

impl Task for Use {
    const NAME: &'static str = "use";
    type Output = Blob;

    fn run(self, context: &Context) -> Result<Blob, Failure> {
        let Self { blob, how } = self;
        Ok(match how {
            How::Next => match is_whole(&blob) {
                true => vec![blob[0].wrapping_add(1); blob.len()].into(),
                false => return Err(Failure::msg("torn")),
            },
            How::NextBeside(shared, byte) => match is_whole(&shared) && shared[0] == byte {
                true => Self { blob, how: How::Next }.run(context)?,
                false => return Err(Failure::msg("the shared value is torn")),
            },
            How::Keep => {
                let kept = context.local::<std::sync::Mutex<Kept>>(|| Kept(Vec::new()).into());
                let mut kept = kept.lock().map_err(|_| Failure::msg("poisoned"))?;
                kept.0.push(blob);
                let firsts = kept.0.iter().map(|blob| if is_whole(blob) { blob[0] } else { 0 });
                firsts.collect::<Vec<u8>>().into()
            }
            How::CheckInACopy { go, notes } => {
                check_in_a_copy(&blob, &go, &notes);
                Vec::new().into()
            }
            How::Count => vec![u8::try_from(memory_files()).unwrap_or(u8::MAX)].into(),
            How::Die => std::process::abort(),
        })
    }
}

fn check_in_a_copy(blob: &Blob, go: &std::path::Path, notes: &std::path::Path) {
    let first = blob[0];
    // SAFETY: the copy has one thread, uses its memory and files, and ends without running anything else.
    if unsafe { libc::fork() } == 0 {
        #[cfg(target_os = "linux")]
        // SAFETY: numbers alone.
        unsafe {
            libc::prctl(libc::PR_SET_PDEATHSIG, 0)
        };
        let began = Instant::now();
        while !go.exists() && began.elapsed() < Duration::from_secs(60) {
            std::thread::sleep(Duration::from_millis(5));
        }
        let is_the_same = is_whole(blob) && blob[0] == first;
        let _ = fs::write(notes.with_extension("part"), if is_the_same { "whole" } else { "torn" });
        let _ = fs::rename(notes.with_extension("part"), notes);
        // SAFETY: it takes a number and does not return.
        unsafe { libc::_exit(0) };
    }
}

/// How many memory files of payloads this process has open or mapped.
fn memory_files() -> usize {
    const NAME: &str = "memfd:procession-bytes";
    let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let open = fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let open = open.filter_map(|entry| fs::read_link(entry.path()).ok());
    let open = open.filter(|link| link.to_string_lossy().contains(NAME)).count();
    maps.lines().filter(|line| line.contains(NAME)).count() + open
}

fn filled(byte: u8, len: usize) -> Blob {
    vec![byte; len].into()
}

fn with(byte: u8, len: usize, how: How) -> Use {
    Use { blob: filled(byte, len), how }
}

const MIB: usize = 1 << 20;

fn a_blob_that_a_worker_keeps_does_not_change() {
    let pool = pool(1);
    // More than there are slots.
    for n in 1..=20 {
        let kept = pool.submit(with(n, 100_000, How::Keep)).result().expect("an output");
        assert_eq!(kept, (1..=n).collect::<Vec<u8>>().into());
        for _ in 0..3 {
            let next = pool.submit(with(77, 100_000, How::Next)).result().expect("an output");
            assert!(next == filled(78, 100_000));
        }
    }
}

fn a_blob_that_a_forked_copy_reads_does_not_change() {
    let pool = pool(1);
    let dir = tempfile::tempdir().expect("a directory");
    let [go, notes] = ["go", "notes"].map(|name| dir.path().join(name));
    let how = How::CheckInACopy { go: go.clone(), notes: notes.clone() };
    pool.submit(with(1, MIB, how)).result().expect("an output");
    for n in 0..20 {
        let next = pool.submit(with(n, MIB, How::Next)).result().expect("an output");
        assert!(next == filled(n + 1, MIB));
    }
    fs::write(go, "").expect("a file");
    eventually("the notes of the copy", || notes.exists());
    assert_eq!(fs::read_to_string(notes).expect("notes"), "whole");
}

fn an_output_that_is_kept_does_not_change() {
    let pool = pool(2);
    let outputs: Vec<_> = (0..40)
        .map(|n| pool.submit(with(n, 200_000, How::Next)).result().expect("an output"))
        .collect();
    for (n, output) in (1..).zip(&outputs) {
        assert!(*output == filled(n, 200_000), "output {n}");
    }
    // They can be sent on, several times.
    for (n, output) in (1..).zip(outputs) {
        let next = Use { blob: output.clone(), how: How::Next };
        assert!(pool.submit(next).result().expect("an output") == filled(n + 1, 200_000));
        let next = Use { blob: output, how: How::Next };
        assert!(pool.submit(next).result().expect("an output") == filled(n + 1, 200_000));
    }
}

fn payloads_that_follow_each_other_use_the_same_memory() {
    let pool = pool(1);
    let before = |count: Blob| usize::from(count[0]);
    for n in 0..100 {
        let next = pool.submit(with(n, 300_000, How::Next)).result().expect("an output");
        assert!(next == filled(n + 1, 300_000));
    }
    let count = pool.submit(with(0, 1, How::Count)).result().expect("an output");
    // One for each direction; one more where a slot was not free in time.
    assert!(before(count) <= 4, "mappings and descriptors in the worker");
}

fn segments_that_are_not_used_are_given_back() {
    let pool = pool(1);
    for n in 0..20 {
        pool.submit(with(n, 300_000, How::Next)).result().expect("an output");
    }
    eventually("a worker without memory files", || {
        std::thread::sleep(Duration::from_millis(200));
        let count = pool.submit(with(0, 1, How::Count)).result().expect("an output");
        count[0] == 0
    });
    let next = pool.submit(with(1, 300_000, How::Next)).result().expect("an output");
    assert!(next == filled(2, 300_000));
}

fn crashes_with_large_payloads_cost_nothing_else() {
    let pool = quiet().workers(2).build().expect("a pool");
    await_workers(&pool);
    storm(&pool, 5);
    succeeds_with(&pool, 20);
}

/// Rounds of a hundred tasks, two of which crash; half of them have a shared value. Each output is checked: none is
/// torn, none is that of another task.
fn storm(pool: &ProcessPool, rounds: usize) {
    const LEN: usize = 200_000;
    for round in 0..rounds {
        let byte = |n: usize| ((round + n) % 200) as u8;
        let shared = SharedValue::new(filled(byte(0), LEN));
        let tasks = (0..100).map(|n| match n % 50 {
            49 => with(byte(n), LEN + n, How::Die),
            _ if n % 2 == 0 => with(byte(n), LEN + n, How::Next),
            _ => with(byte(n), LEN + n, How::NextBeside(shared.clone(), byte(0))),
        });
        let options = |task: &Use| match task.how {
            How::Die => TaskOptions::new().retries(Retries::none()),
            _ => TaskOptions::new(),
        };
        let futures: Vec<_> = tasks.map(|task| pool.submit_with(options(&task), task)).collect();
        for (n, future) in futures.into_iter().enumerate() {
            match future.result() {
                Ok(next) => {
                    let is_right = n % 50 != 49 && next == filled(byte(n) + 1, LEN + n);
                    assert!(is_right, "task {n} of round {round}: {}", described(&next));
                }
                Err(TaskError::WorkerDied(_)) if n % 50 == 49 => {}
                Err(error) => panic!("task {n} of round {round}: {error}"),
            }
        }
    }
}

/// The length of a blob, its first byte, and how many others differ.
fn described(blob: &Blob) -> String {
    let first = blob.first();
    let others = blob.iter().filter(|byte| Some(*byte) != first);
    format!("{} bytes of {first:?}, {} others", blob.len(), others.count())
}

const VARIABLE: &str = "PROCESSION_TEST_SEGMENTS";

/// How many tasks the storm has, in hundreds. `PROCESSION_TEST_SEGMENTS=storm PROCESSION_TEST_STORM=1000 cargo test
/// --release -p procession --test pool` is a storm of a hundred thousand, and nothing else; then workers are killed
/// from outside as well.
const ROUNDS: &str = "PROCESSION_TEST_STORM";

/// In a program of its own: other tests use segments at the same time.
pub(crate) fn play_if_asked() {
    if std::env::var_os(VARIABLE).is_none() {
        return;
    }
    let asked = std::env::var(ROUNDS).ok();
    let is_long = asked.is_some();
    let rounds = asked.map_or(20, |rounds| rounds.parse().expect("a number"));
    // A task may be in several workers that are killed.
    let retries = Retries::times(20).on_crash(true);
    let pool = quiet().workers(2).retries(retries).build().expect("a pool");
    await_workers(&pool);
    // With two workers each time: the last tasks may have ended one.
    let usage = |rounds| {
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            if is_long {
                scope.spawn(|| kill_workers_until(&pool, &is_over));
            }
            storm(&pool, rounds);
            is_over.store(true, Ordering::SeqCst);
        });
        await_workers(&pool);
        succeeds_with(&pool, 20);
        Usage::now()
    };
    let (before, middle, after) = (usage(3), usage(rounds / 2), usage(rounds - rounds / 2));
    eprintln!("{before:?}\n{middle:?}\n{after:?}\n{:?}", pool.stats());
    assert!(after.memory_files <= 72, "2 workers with 16 slots for each direction");
    // A worker that has just started has about ten; 40 have died.
    assert!(after.descriptors <= before.descriptors + 20);
    assert!(after.mappings <= before.mappings + 80);
    assert!(after.resident <= before.resident + (60 << 20));
    eventually("no memory files", || memory_files() == 0);
    println!("it works");
    std::process::exit(0);
}

/// Kills one worker after the other from outside, and no faster than they start.
fn kill_workers_until(pool: &ProcessPool, is_over: &AtomicBool) {
    for n in 0.. {
        thread::sleep(Duration::from_millis(50));
        if is_over.load(Ordering::SeqCst) {
            return;
        }
        let pids = pool.pids();
        if pids.len() == 2 && n % 4 == 0 {
            signal(pids[n / 4 % 2], Signal::KILL);
        }
    }
}

#[derive(Debug)]
struct Usage {
    memory_files: usize,
    descriptors: usize,
    mappings: usize,
    /// In bytes.
    resident: usize,
}

impl Usage {
    fn now() -> Self {
        let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
        let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
        let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok());
        Self {
            memory_files: memory_files(),
            descriptors: fs::read_dir("/proc/self/fd").map_or(0, Iterator::count),
            mappings: maps.lines().count(),
            resident: pages.unwrap_or(0) * 4096,
        }
    }
}

fn a_storm_of_large_payloads_and_crashes_leaves_nothing_behind() {
    program::assert_works(program::command("nothing else").env(VARIABLE, "storm"));
}

fn texts_and_blobs_of_all_lengths_are_exact_in_any_order() {
    let pool = pool(2);
    let lens = [20_000, 3 * MIB, 65_536, 65_537, 40_000, 9 * MIB, 131_072, 17 * MIB, 1];
    for _ in 0..3 {
        let futures: Vec<_> = (0_u8..)
            .zip(lens)
            .map(|(n, len)| (n, len, pool.submit(with(n, len, How::Next))))
            .collect();
        for (n, len, future) in futures {
            assert!(future.result().expect("an output") == filled(n + 1, len), "{len} bytes");
        }
    }
}

fn several_runners_have_segments_at_a_time() {
    let pool = quiet().workers(1).concurrency(8).build().expect("a pool");
    for round in 0..10_u8 {
        let futures: Vec<_> =
            (0..40_u8).map(|n| pool.submit(with(n + round, 150_000, How::Next))).collect();
        for (n, future) in (0..40_u8).zip(futures) {
            assert!(future.result().expect("an output") == filled(n + round + 1, 150_000));
        }
    }
}
