//! Chunks in pools whose tasks have events, or may not be pending in any number.

use std::collections::{BTreeSet, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use libtest_mimic::Trial;
use procession::{Executor, PoolEvent, Shutdown, TaskError};

use crate::chunks::{Then, notes, warm};
use crate::harness::{Gate, eventually};
use crate::tasks::{Length, quiet};

pub(crate) fn trials() -> Vec<Trial> {
    trials![
        each_task_of_a_chunk_has_an_event_when_it_is_sent,
        the_event_of_a_deadline_names_the_task_of_its_chunk,
        no_more_tasks_are_pending_than_may_be,
        a_map_waits_for_room_and_others_are_not_kept_out_by_it,
        a_map_that_waits_for_room_ends_with_its_pool,
    ]
}

const TASKS: usize = 20_000;

fn each_task_of_a_chunk_has_an_event_when_it_is_sent() {
    let started = Arc::new(Mutex::new(HashSet::new()));
    let noted = Arc::clone(&started);
    let pool = warm(quiet().workers(2).on_event(move |event| {
        if let PoolEvent::TaskStarted { task, attempt: 1, .. } = event {
            noted.lock().expect("no panic").insert(*task);
        }
    }));
    started.lock().expect("no panic").clear();
    let lens = pool.map((0..TASKS).map(|_| Length("x".to_owned())));
    assert!(lens.into_iter().all(|len| len == Ok(1)));
    assert_eq!(started.lock().expect("no panic").len(), TASKS);
}

fn the_event_of_a_deadline_names_the_task_of_its_chunk() {
    let events = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&events);
    let builder = quiet().workers(1).timeout(Duration::from_millis(500));
    let pool = warm(builder.on_event(move |event| {
        noted.lock().expect("no panic").push(event.clone());
    }));
    events.lock().expect("no panic").clear();
    let then = |number| if number == 20 { Then::Hang } else { Then::Succeed };
    let results: Vec<_> = pool.map(notes(then, None).take(50)).collect();
    assert!(matches!(results[20], Err(TaskError::TimedOut { .. })), "{:?}", results[20]);
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 49);
    let events = events.lock().expect("no panic");
    let started = events.iter().filter_map(|event| match event {
        PoolEvent::TaskStarted { task, .. } => Some(*task),
        _ => None,
    });
    let timed_out = events.iter().filter_map(|event| match event {
        PoolEvent::TaskTimedOut { task, .. } => Some(*task),
        _ => None,
    });
    // The ids are in the order of the tasks.
    let ids: BTreeSet<_> = started.collect();
    assert_eq!(ids.len(), 50);
    assert_eq!(timed_out.collect::<Vec<_>>(), [*ids.iter().nth(20).expect("50 ids")]);
}

fn no_more_tasks_are_pending_than_may_be() {
    for max in [1, 2, 7, 500] {
        let builder = quiet().workers(2).max_pending(max);
        // Few pending tasks come in small chunks, or in none.
        let pool = if max > 100 { warm(builder) } else { builder.build().expect("a pool") };
        let is_over = AtomicBool::new(false);
        let most = thread::scope(|scope| {
            let watch = scope.spawn(|| {
                let mut most = 0;
                while !is_over.load(Ordering::Relaxed) {
                    most = most.max(pool.stats().pending);
                }
                most
            });
            // From two threads, and single tasks between them.
            let maps: Vec<_> = (0..2)
                .map(|_| {
                    scope.spawn(|| {
                        let tasks = (0..TASKS / 10).map(|_| Length("x".to_owned()));
                        pool.map(tasks).filter(Result::is_ok).count()
                    })
                })
                .collect();
            for _ in 0..500 {
                assert_eq!(pool.submit(Length("xy".to_owned())).result(), Ok(2));
            }
            let done = maps.into_iter().map(|map| map.join().expect("no panic"));
            assert_eq!(done.sum::<usize>(), TASKS / 10 * 2, "at most {max} pending");
            is_over.store(true, Ordering::Relaxed);
            watch.join().expect("no panic")
        });
        // `pending` counts tasks that were sent ahead and have not begun as well.
        assert!(most <= max + SENT_AHEAD, "{most} pending of at most {max}");
    }
}

/// More tasks than are sent to two workers before they can begin: about a millisecond of work, at most
/// 1024 in a chunk.
const SENT_AHEAD: usize = 2 * 2 * 1024;

fn a_map_waits_for_room_and_others_are_not_kept_out_by_it() {
    let gate = Gate::new();
    let pool = warm(quiet().workers(1).max_pending(100));
    let first = pool.submit(notes(|_| Then::WaitAt(gate.path()), None).next().expect("a task"));
    gate.await_arrivals(1);
    thread::scope(|scope| {
        let map = scope.spawn(|| {
            let tasks = (0..5_000).map(|_| Length("x".to_owned()));
            pool.map(tasks).filter(Result::is_ok).count()
        });
        let single = scope.spawn(|| pool.submit(Length("xy".to_owned())).result());
        gate.open();
        assert_eq!(map.join().expect("no panic"), 5_000);
        assert_eq!(single.join().expect("no panic"), Ok(2));
    });
    assert!(first.result().is_ok());
}

fn a_map_that_waits_for_room_ends_with_its_pool() {
    let gate = Gate::new();
    let pool = warm(quiet().workers(1).max_pending(50));
    let first = pool.submit(notes(|_| Then::WaitAt(gate.path()), None).next().expect("a task"));
    gate.await_arrivals(1);
    thread::scope(|scope| {
        let map = scope.spawn(|| {
            let tasks = (0..5_000).map(|_| Length("x".to_owned()));
            pool.map(tasks).filter(Result::is_ok).count()
        });
        eventually("pending tasks", || pool.stats().pending > 0);
        pool.shutdown(Shutdown::Kill);
        assert!(map.join().expect("no panic") < 5_000);
    });
    assert!(first.result().is_err());
}
