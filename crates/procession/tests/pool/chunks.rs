//! Short tasks of `map` that are sent in chunks: each has its own result, attempts and deadline.

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;
use std::{fs, process};

use libtest_mimic::Trial;
use procession::{Context, Executor, Failure, ProcessPool, Registry, Retries, Task, TaskError};
use serde::{Deserialize, Serialize};

use crate::harness::{Gate, ON_PURPOSE, eventually, is_alive};
use crate::tasks::{Length, assert_timed_out, await_workers, quiet, succeeds_with, warm_up};

pub(crate) fn trials() -> Vec<Trial> {
    trials![
        a_crash_in_a_chunk_costs_the_one_task_that_ran,
        a_crash_in_a_chunk_may_be_tried_again,
        a_deadline_in_a_chunk_finds_the_one_task_that_hangs,
        a_deadline_in_a_chunk_is_a_timeout_although_earlier_replies_come_late,
        errors_in_a_chunk_keep_their_order,
        failures_in_a_chunk_are_tried_again_one_by_one,
        tasks_behind_one_that_turns_out_long_go_to_another_worker,
        results_come_while_a_later_task_of_their_chunk_still_runs,
        a_worker_is_recycled_within_a_chunk_after_exactly_its_number_of_tasks,
        tasks_of_a_dropped_map_are_not_run,
        each_task_is_counted_once_however_it_ends,
        tasks_with_long_texts_are_sent_in_small_chunks,
        tasks_before_a_panic_of_their_iterator_are_run,
        an_iterator_that_has_ended_is_not_asked_again,
    ]
}

/// Appends its number to a file, then ends as `then` says.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Note {
    number: usize,
    /// The file, if any.
    log: Option<PathBuf>,
    then: Then,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Then {
    Succeed,
    Fail,
    FailAtFirst,
    Panic,
    Die,
    DieAtFirst,
    Hang,
    WaitAt(PathBuf),
}

impl Task for Note {
    const NAME: &'static str = "note";
    type Output = (usize, u32);

    fn run(self, context: &Context) -> Result<(usize, u32), Failure> {
        if let Some(log) = &self.log {
            let mut log = OpenOptions::new().append(true).create(true).open(log)?;
            log.write_all(format!("{}\n", self.number).as_bytes())?;
        }
        match &self.then {
            Then::FailAtFirst | Then::DieAtFirst if context.attempt() > 1 => {}
            Then::Succeed => {}
            Then::Fail | Then::FailAtFirst => Err(Failure::msg(ON_PURPOSE))?,
            Then::Panic => panic!("{ON_PURPOSE}"),
            Then::Die | Then::DieAtFirst => process::abort(),
            Then::Hang => loop {
                thread::park();
            },
            Then::WaitAt(gate) => crate::harness::wait_at(gate),
        }
        Ok((self.number, process::id()))
    }
}

/// A task of which one variant cannot be encoded, and one cannot be decoded.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Odd(Oddity);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Oddity {
    None,
    #[serde(skip_serializing)]
    Mute,
    #[serde(skip_deserializing)]
    Unreadable,
}

impl Task for Odd {
    const NAME: &'static str = "odd";
    type Output = String;

    fn run(self, _: &Context) -> Result<String, Failure> {
        Ok("line\nfeed \"quoted\"".to_owned())
    }
}

pub(crate) fn add_to(registry: Registry) -> Registry {
    registry.with::<Note>().with::<Odd>()
}

/// A pool that has learnt that tasks are short, so that it sends chunks.
pub(crate) fn warm(builder: procession::Builder) -> ProcessPool {
    let pool = builder.build().expect("a pool");
    await_workers(&pool);
    warm_up(&pool);
    pool
}

pub(crate) fn notes(
    then: impl Fn(usize) -> Then,
    log: Option<&Path>,
) -> impl Iterator<Item = Note> {
    (0..).map(move |number| Note { number, log: log.map(Path::to_owned), then: then(number) })
}

/// Number of runs of each task.
fn runs(log: &Path) -> HashMap<usize, usize> {
    let mut runs = HashMap::new();
    for line in fs::read_to_string(log).expect("a log").lines() {
        *runs.entry(line.parse().expect("a number")).or_default() += 1;
    }
    runs
}

pub(crate) const TASKS: usize = 5_000;

fn a_crash_in_a_chunk_costs_the_one_task_that_ran() {
    let pool = warm(quiet().workers(2));
    let log = Gate::new();
    let log = log.path().join("log");
    let then = |n| if n % 1_000 == 500 { Then::Die } else { Then::Succeed };
    let results: Vec<_> = pool.map(notes(then, Some(&log)).take(TASKS)).collect();
    assert_eq!(results.len(), TASKS);
    for (n, result) in results.into_iter().enumerate() {
        match result {
            Ok((number, _)) => assert!(number == n && then(n) == Then::Succeed),
            Err(TaskError::WorkerDied(death)) => {
                assert_eq!(then(n), Then::Die);
                assert_eq!((death.task.as_str(), death.attempts), ("note", 1));
                assert!(!death.is_collateral);
            }
            Err(other) => panic!("task {n}: {other:?}"),
        }
    }
    assert_eq!(runs(&log), (0..TASKS).map(|n| (n, 1)).collect());
    let stats = pool.stats();
    assert_eq!((stats.failed, stats.pending, stats.running), (5, 0, 0));
    succeeds_with(&pool, 1_000);
}

fn a_crash_in_a_chunk_may_be_tried_again() {
    let pool = warm(quiet().workers(2).retries(Retries::times(1).on_crash(true)));
    let log = Gate::new();
    let log = log.path().join("log");
    let then = |n| if n % 1_000 == 500 { Then::DieAtFirst } else { Then::Succeed };
    let results = pool.map(notes(then, Some(&log)).take(TASKS));
    let numbers: Vec<_> = results.map(|result| result.expect("an output").0).collect();
    assert_eq!(numbers, (0..TASKS).collect::<Vec<_>>());
    let expected = |n| if then(n) == Then::DieAtFirst { 2 } else { 1 };
    assert_eq!(runs(&log), (0..TASKS).map(|n| (n, expected(n))).collect());
    assert_eq!(pool.stats().retried, 5);
}

fn a_deadline_in_a_chunk_finds_the_one_task_that_hangs() {
    let timeout = Duration::from_secs(1);
    let pool = warm(quiet().workers(2).timeout(timeout));
    let log = Gate::new();
    let log = log.path().join("log");
    let then = |n| if n == 777 { Then::Hang } else { Then::Succeed };
    let results: Vec<_> = pool.map(notes(then, Some(&log)).take(TASKS)).collect();
    for (n, result) in results.into_iter().enumerate() {
        match then(n) {
            Then::Hang => assert_timed_out(result, timeout),
            _ => assert_eq!(result.map(|(number, _)| number), Ok(n)),
        }
    }
    assert_eq!(runs(&log), (0..TASKS).map(|n| (n, 1)).collect());
}

fn a_deadline_in_a_chunk_is_a_timeout_although_earlier_replies_come_late() {
    let timeout = Duration::from_millis(500);
    // Without leave to run it again.
    let retries = Retries::times(1).on_crash(true).on_timeout(false);
    let pool = warm(quiet().workers(1).timeout(timeout).retries(retries));
    let (gate, log) = (Gate::new(), Gate::new());
    let log = log.path().join("log");
    let first = Note { number: 0, log: None, then: Then::WaitAt(gate.path()) };
    let first = pool.submit(first);
    // Nothing more is read until the deadline is over.
    let (pid, (calls, called)) = (pool.pids()[0], mpsc::channel());
    first.on_done(move |_| {
        let _ = calls.send(());
        eventually("the end of the worker", || !is_alive(pid));
    });
    gate.open();
    called.recv_timeout(Duration::from_secs(60)).expect("a callback");
    let then = |n| if n == 3 { Then::Hang } else { Then::Succeed };
    let results = pool.map(notes(then, Some(&log)).take(100));
    for (n, result) in results.enumerate() {
        match then(n) {
            Then::Hang => assert_timed_out(result, timeout),
            _ => assert_eq!(result.map(|(number, _)| number), Ok(n)),
        }
    }
    assert_eq!(runs(&log), (0..100).map(|n| (n, 1)).collect());
}

fn errors_in_a_chunk_keep_their_order() {
    let pool = warm(quiet().workers(2));
    let then = |n| match n % 10 {
        3 => Then::Fail,
        7 => Then::Panic,
        _ => Then::Succeed,
    };
    for (n, result) in pool.map(notes(then, None).take(TASKS)).enumerate() {
        match then(n) {
            Then::Fail => assert!(matches!(result, Err(TaskError::Failed(_))), "task {n}"),
            Then::Panic => assert!(matches!(result, Err(TaskError::Panicked { .. })), "task {n}"),
            _ => assert_eq!(result.map(|(number, _)| number), Ok(n)),
        }
    }
    let oddity = |n| match n % 100 {
        20 => Oddity::Mute,
        60 => Oddity::Unreadable,
        _ => Oddity::None,
    };
    for (n, result) in pool.map((0..TASKS).map(|n| Odd(oddity(n)))).enumerate() {
        match oddity(n) {
            Oddity::Mute => assert!(matches!(result, Err(TaskError::Unencodable { .. }))),
            Oddity::Unreadable => assert!(matches!(result, Err(TaskError::Undecodable { .. }))),
            Oddity::None => assert_eq!(result, Ok("line\nfeed \"quoted\"".to_owned())),
        }
    }
}

fn failures_in_a_chunk_are_tried_again_one_by_one() {
    let pool = warm(quiet().workers(2).retries(Retries::times(1).on_failure(true)));
    let log = Gate::new();
    let log = log.path().join("log");
    let then = |n| if n % 500 == 123 { Then::FailAtFirst } else { Then::Succeed };
    let results = pool.map(notes(then, Some(&log)).take(TASKS));
    assert!(results.enumerate().all(|(n, result)| result.is_ok_and(|(number, _)| number == n)));
    let expected = |n| if then(n) == Then::FailAtFirst { 2 } else { 1 };
    assert_eq!(runs(&log), (0..TASKS).map(|n| (n, expected(n))).collect());
}

fn tasks_behind_one_that_turns_out_long_go_to_another_worker() {
    let pool = warm(quiet().workers(2));
    let gate = Gate::new();
    let path = gate.path();
    let then = |n| if n == 10 { Then::WaitAt(path.clone()) } else { Then::Succeed };
    let mut results = pool.map(notes(then, None).take(200));
    let before: Vec<_> = results.by_ref().take(10).collect();
    // All other tasks are done while it waits.
    eventually("the others", || pool.stats().done >= 199);
    gate.open();
    let after: Vec<_> = results.collect();
    let all = before.into_iter().chain(after).enumerate();
    for (n, result) in all {
        assert_eq!(result.map(|(number, _)| number), Ok(n));
    }
}

fn results_come_while_a_later_task_of_their_chunk_still_runs() {
    let pool = warm(quiet().workers(1));
    let gate = Gate::new();
    let path = gate.path();
    let then = |n| if n == 50 { Then::WaitAt(path.clone()) } else { Then::Succeed };
    let mut results = pool.map(notes(then, None).take(100));
    for n in 0..50 {
        assert_eq!(results.next().map(|result| result.map(|(number, _)| number)), Some(Ok(n)));
    }
    gate.open();
    assert_eq!(results.count(), 50);
}

fn a_worker_is_recycled_within_a_chunk_after_exactly_its_number_of_tasks() {
    let recycling = procession::Recycling::never().after_tasks(300);
    let pool = warm(quiet().workers(1).recycling(recycling));
    let mut done: HashMap<u32, usize> = HashMap::new();
    for result in pool.map(notes(|_| Then::Succeed, None).take(3_000)) {
        *done.entry(result.expect("an output").1).or_default() += 1;
    }
    assert_eq!(done.values().sum::<usize>(), 3_000);
    assert!(done.values().all(|tasks| *tasks <= 300), "{done:?}");
    assert!(done.values().filter(|tasks| **tasks == 300).count() >= 9, "{done:?}");
}

fn tasks_of_a_dropped_map_are_not_run() {
    let pool = warm(quiet().workers(1));
    let (gate, log) = (Gate::new(), Gate::new());
    let (path, log) = (gate.path(), log.path().join("log"));
    let then = |n| if n == 20 { Then::WaitAt(path.clone()) } else { Then::Succeed };
    let mut results = pool.map(notes(then, Some(&log)).take(TASKS));
    assert!(results.by_ref().take(10).all(|result| result.is_ok()));
    drop(results);
    gate.open();
    succeeds_with(&pool, 10);
    let runs = runs(&log);
    assert!(runs.len() <= 21 && runs.values().all(|times| *times == 1), "{runs:?}");
}

fn each_task_is_counted_once_however_it_ends() {
    let pool = warm(quiet().workers(2));
    let before = pool.stats();
    let mut taken = 0;
    for round in 0..200 {
        let tasks = notes(|_| Then::Succeed, None).inspect(|_| taken += 1);
        // Dropped before the end, while outputs arrive.
        assert!(pool.map(tasks).take(round * 7).all(|result| result.is_ok()));
    }
    eventually("the end of all", || {
        let stats = pool.stats();
        stats.pending + stats.running == 0
    });
    succeeds_with(&pool, 1_000);
    let after = pool.stats();
    assert_eq!(after.failed, 0);
    let done = after.done + after.cancelled - before.done - before.cancelled;
    assert_eq!(done, taken + 1_000, "{after:?}");
}

/// Number of tasks that are taken out of their iterator before the first result, with one worker: four
/// chunks, which without a limit of their text have at least 100 tasks each.
fn taken_for_the_first(len: usize) -> usize {
    let pool = warm(quiet().workers(1));
    let (mut taken, text) = (0, "x".repeat(len));
    let tasks = std::iter::repeat_with(|| Length(text.clone())).take(1_000);
    let mut results = pool.map(tasks.inspect(|_| taken += 1));
    assert_eq!(results.next(), Some(Ok(len)));
    drop(results);
    taken
}

fn tasks_with_long_texts_are_sent_in_small_chunks() {
    let pool = warm(quiet().workers(2));
    // No task is lost at the end of a chunk.
    let len = |n| [1, 1_000, 100_000, 30_000][n / 7 % 4] + n;
    let lens = pool.map((0..1_000).map(|n| Length("x".repeat(len(n)))));
    assert!(lens.enumerate().all(|(n, result)| result == Ok(len(n))));
    // On a busy machine the pool may take tasks for long ones at times, and send up to 66 singly.
    let taken = taken_for_the_first(1_000);
    assert!((5..=4 * 33 + 66).contains(&taken), "{taken}");
    let taken = taken_for_the_first(100_000);
    assert!((4..=4 + 66).contains(&taken), "{taken}");
}

/// Checks a map whose iterator panics once, with a caller that continues.
fn survives_a_panic(pool: &ProcessPool, tasks: usize) {
    let before = pool.stats().done;
    let note = |number| {
        let panics = number == tasks / 2;
        assert!(!panics, "{ON_PURPOSE}");
        Note { number, log: None, then: Then::Succeed }
    };
    let mut results = pool.map((0..tasks).map(note));
    let panic = catch_unwind(AssertUnwindSafe(|| results.by_ref().collect::<Vec<_>>()));
    assert!(panic.is_err_and(|panic| panic.downcast_ref() == Some(&ON_PURPOSE.to_owned())));
    // The tasks before the panic are run although no result is asked for.
    let done = || pool.stats().done - before;
    eventually("the tasks before the panic", || done() >= tasks as u64 / 2);
    let numbers: Vec<_> = results.map(|result| result.expect("an output").0).collect();
    // The results that were yielded before the panic are lost with the `collect`.
    let all: Vec<_> = (0..tasks).filter(|n| *n != tasks / 2).collect();
    assert!(all.ends_with(&numbers) && numbers.len() >= tasks / 2 - 1, "{numbers:?}");
}

fn tasks_before_a_panic_of_their_iterator_are_run() {
    // One by one, as always with several tasks per worker; then in one chunk; then in the middle of several.
    let pool = quiet().workers(1).concurrency(2).build().expect("a pool");
    survives_a_panic(&pool, 50);
    let pool = warm(quiet().workers(1));
    survives_a_panic(&pool, 50);
    survives_a_panic(&pool, TASKS);
}

fn an_iterator_that_has_ended_is_not_asked_again() {
    for pool in [crate::tasks::pool(1), warm(quiet().workers(1))] {
        let mut asked = 0;
        let echoes = std::iter::from_fn(|| {
            asked += 1;
            // After its end it would start again.
            (asked % 11 > 0).then(|| Length("x".repeat(asked)))
        });
        let lens: Vec<_> = pool.map(echoes).collect();
        assert_eq!((lens, asked), ((1..=10).map(Ok).collect(), 11));
    }
}
