//! The counters of a pool, read while tasks end.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use libtest_mimic::Trial;
use procession::{Executor, ProcessPool, as_completed};

use crate::chunks::warm;
use crate::tasks::{Echo, quiet};

pub(crate) fn trials() -> Vec<Trial> {
    trials![
        no_task_is_pending_or_running_when_its_result_has_come,
        a_task_is_counted_once_at_each_moment,
    ]
}

const ROUNDS: usize = 4;
const TASKS: usize = 500;

fn echoes() -> impl Iterator<Item = Echo> {
    (0..TASKS).map(|n| Echo(n.to_string()))
}

/// Runs tasks in each way of receiving results, and calls `check` after the last result of each.
fn run_in_each_way(pool: &ProcessPool, check: impl Fn(&str)) {
    assert!(pool.map(echoes()).all(|result| result.is_ok()));
    check("map");
    assert!(pool.map_unordered(echoes()).all(|(_, result)| result.is_ok()));
    check("map_unordered");
    let futures: Vec<_> = echoes().map(|task| pool.submit(task)).collect();
    assert!(as_completed(futures).all(|future| future.result().is_ok()));
    check("as_completed");
}

fn pools() -> [ProcessPool; 2] {
    [warm(quiet().workers(2)), warm(quiet().workers(2).concurrency(6))]
}

/// Calls `during` while both CPUs are busy and `beside` is called again and again.
fn under_load(beside: impl Fn() + Sync, during: impl FnOnce()) {
    /// Also ends the load after a panic.
    struct Over<'o>(&'o AtomicBool);
    impl Drop for Over<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let _over = Over(&is_over);
        for _ in 0..2 {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    beside();
                }
            });
        }
        during();
    });
}

fn no_task_is_pending_or_running_when_its_result_has_come() {
    for pool in pools() {
        let before = pool.stats().done;
        let ended = AtomicUsize::new(0);
        let check = |way: &str| {
            let stats = pool.stats();
            let ended = ended.fetch_add(TASKS, Ordering::Relaxed) + TASKS;
            assert_eq!((stats.pending, stats.running), (0, 0), "after {way}: {stats:?}");
            assert_eq!(stats.done - before, ended as u64, "after {way}");
        };
        // The threads that read the counters take turns in holding the locks.
        let beside = || {
            pool.stats();
        };
        under_load(beside, || (0..ROUNDS).for_each(|_| run_in_each_way(&pool, check)));
    }
}

fn a_task_is_counted_once_at_each_moment() {
    for pool in pools() {
        let before = pool.stats().done;
        // The number of tasks whose results have all come. At most `TASKS` more are in the pool at a time.
        let ended = AtomicUsize::new(0);
        let beside = || {
            let at_first = ended.load(Ordering::SeqCst);
            let stats = pool.stats();
            let counted = stats.pending + stats.running + (stats.done - before) as usize;
            // Tasks that end at this moment are counted nowhere.
            let is_right = counted <= at_first + TASKS || ended.load(Ordering::SeqCst) != at_first;
            assert!(is_right, "{counted} of {at_first} and {TASKS}: {stats:?}");
        };
        let count = |_: &str| {
            ended.fetch_add(TASKS, Ordering::SeqCst);
        };
        under_load(beside, || (0..ROUNDS).for_each(|_| run_in_each_way(&pool, count)));
        assert_eq!(pool.stats().done - before, (ROUNDS * 3 * TASKS) as u64);
    }
}
