//! `map_with` and `map_unordered` of a process pool, with tasks in chunks and one by one.

use std::time::Duration;

use libtest_mimic::Trial;
use procession::{Executor, Retries, TaskError, TaskOptions};

use crate::chunks::{TASKS, Then, notes, warm};
use crate::harness::{Gate, eventually};
use crate::tasks::{assert_timed_out, quiet};

pub(crate) fn trials() -> Vec<Trial> {
    trials![
        tasks_of_a_map_have_the_options_of_the_map,
        an_unordered_map_of_chunks_yields_each_result_once_also_after_crashes,
        an_unordered_map_yields_results_of_a_chunk_behind_a_task_that_still_runs,
    ]
}

fn tasks_of_a_map_have_the_options_of_the_map() {
    let timeout = Duration::from_millis(700);
    let options = TaskOptions::new().timeout(timeout).retries(Retries::times(1).on_timeout(false));
    let then = |n| match n {
        30 => Then::Hang,
        n if n % 100 == 50 => Then::DieAtFirst,
        _ => Then::Succeed,
    };
    // In chunks, then one by one.
    let single = quiet().workers(2).max_pending(100).build().expect("a pool");
    for pool in [warm(quiet().workers(2)), single] {
        for (n, result) in pool.map_with(options, notes(then, None).take(300)).enumerate() {
            match then(n) {
                Then::Hang => assert_timed_out(result, timeout),
                _ => assert_eq!(result.map(|(number, _)| number), Ok(n)),
            }
        }
        let results = pool.map_unordered_with(options, notes(then, None).take(300));
        let mut hung = results.filter(|(n, _)| then(*n) == Then::Hang);
        assert_timed_out(hung.next().expect("a result").1, timeout);
        assert_eq!(hung.count(), 0);
        assert_eq!(pool.stats().retried, 6);
    }
}

fn an_unordered_map_of_chunks_yields_each_result_once_also_after_crashes() {
    let pool = warm(quiet().workers(2).retries(Retries::times(1).on_crash(true)));
    let then = |n| match n % 1_000 {
        500 => Then::DieAtFirst,
        700 => Then::Die,
        900 => Then::Fail,
        _ => Then::Succeed,
    };
    let mut seen = vec![0; TASKS];
    for (n, result) in pool.map_unordered(notes(then, None).take(TASKS)) {
        seen[n] += 1;
        match result {
            Ok((number, _)) => assert_eq!(number, n),
            Err(TaskError::WorkerDied(_)) => assert_eq!(then(n), Then::Die),
            Err(TaskError::Failed(_)) => assert_eq!(then(n), Then::Fail),
            Err(other) => panic!("task {n}: {other:?}"),
        }
    }
    assert!(seen.iter().all(|times| *times == 1));
    // Outputs are passed on before the pool counts their tasks as not running.
    eventually("the end of all", || {
        let stats = pool.stats();
        stats.pending + stats.running == 0
    });
    let stats = pool.stats();
    assert_eq!((stats.failed, stats.retried), (10, 10));
}

fn an_unordered_map_yields_results_of_a_chunk_behind_a_task_that_still_runs() {
    let pool = warm(quiet().workers(2));
    let gate = Gate::new();
    let path = gate.path();
    let then = |n| if n == 50 { Then::WaitAt(path.clone()) } else { Then::Succeed };
    let mut results = pool.map_unordered(notes(then, None).take(TASKS));
    for _ in 1..TASKS {
        assert!(results.next().is_some_and(|(n, result)| n != 50 && result.is_ok()));
    }
    gate.open();
    assert!(results.next().is_some_and(|(n, result)| n == 50 && result.is_ok()));
    assert!(results.next().is_none());
}
