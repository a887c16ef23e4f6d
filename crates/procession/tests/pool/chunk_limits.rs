//! Chunks in pools whose tasks have events, or may not be pending in any number.

use std::collections::{BTreeSet, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use procession::{Executor, PoolEvent, Shutdown, TaskError};

use crate::chunks::{Then, notes, warm};
use crate::harness::{Gate, eventually};
use crate::tasks::{Length, Pass, await_workers, quiet};

pub(crate) fn trials() -> Vec<Trial> {
    trials![
        tasks_behind_a_long_one_in_a_chunk_go_to_the_free_slots,
        each_task_of_a_chunk_has_an_event_when_it_is_sent,
        the_event_of_a_deadline_names_the_task_of_its_chunk,
        no_more_tasks_are_pending_than_may_be,
        a_map_waits_for_room_and_others_are_not_kept_out_by_it,
        a_map_that_waits_for_room_ends_with_its_pool,
        workers_that_run_several_tasks_at_a_time_get_chunks_and_a_crash_costs_what_ran_beside_it,
    ]
}

const TASKS: usize = 20_000;

fn workers_that_run_several_tasks_at_a_time_get_chunks_and_a_crash_costs_what_ran_beside_it() {
    // Until the iterator is asked for 200 tasks before the first result is taken: they are handed over in chunks. How
    // many in each depends on the run times, which are longer on a busy machine.
    let pool = warm(quiet().workers(2).concurrency(6));
    // Few crashes, then a storm.
    for each in [5_000, 500] {
        let crashes = TASKS / each;
        let then = |n| if n % each == each / 2 { Then::Die } else { Then::Succeed };
        let results: Vec<_> = pool.map(notes(then, None).take(TASKS)).collect();
        assert_eq!(results.len(), TASKS);
        let mut died = 0;
        for (n, result) in results.into_iter().enumerate() {
            match result {
                Ok((number, _)) => assert!(number == n && then(n) == Then::Succeed),
                Err(TaskError::WorkerDied(_)) => died += 1,
                Err(other) => panic!("task {n}: {other:?}"),
            }
        }
        // Each of those that crash, and at most the two that ran beside it in that worker.
        assert!((crashes..=3 * crashes).contains(&died), "{died} were lost by {crashes} crashes");
        let stats = pool.stats();
        assert_eq!((stats.pending, stats.running), (0, 0));
    }
}

fn tasks_behind_a_long_one_in_a_chunk_go_to_the_free_slots() {
    for (workers, concurrency) in [(1, 3), (2, 6)] {
        let pool = warm(quiet().workers(workers).concurrency(concurrency));
        for long in [vec![10], vec![0, 50], vec![99, 98]] {
            let gate = Gate::new();
            let path = gate.path();
            let then = |n| match long.contains(&n) {
                true => Then::WaitAt(path.clone()),
                false => Then::Succeed,
            };
            let mut results = pool.map_unordered(notes(then, None).take(100));
            let first: Vec<_> = results.by_ref().take(100 - long.len()).collect();
            assert!(first.iter().all(|(n, result)| !long.contains(n) && result.is_ok()));
            gate.open();
            assert_eq!(results.filter(|(n, _)| long.contains(n)).count(), long.len());
        }
    }
}

fn each_task_of_a_chunk_has_an_event_when_it_is_sent() {
    let started = Arc::new(Mutex::new(HashSet::new()));
    let noted = Arc::clone(&started);
    let pool = warm(quiet().workers(2).on_event(move |event| {
        if let PoolEvent::TaskStarted { task, attempt: 1, .. } = event {
            noted.lock().expect("no panic").insert(*task);
        }
    }));
    // Events of earlier tasks may still come.
    let last = pool.submit(Length(String::new())).id();
    let lens = pool.map((0..TASKS).map(|_| Length("x".to_owned())));
    assert!(lens.into_iter().all(|len| len == Ok(1)));
    let started = started.lock().expect("no panic");
    assert_eq!(started.iter().filter(|task| **task > last).count(), TASKS);
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
        let gate = Gate::new();
        let pool = quiet().workers(1).max_pending(max).build().expect("a pool");
        await_workers(&pool);
        let first = pool.submit(Pass(gate.path()));
        gate.await_arrivals(1);
        thread::scope(|scope| {
            // Two maps and three threads with single tasks, in front of the closed gate.
            let maps = [(); 2].map(|()| {
                scope.spawn(|| {
                    let tasks = (0..2_000).map(|_| Length("x".to_owned()));
                    pool.map(tasks).filter(Result::is_ok).count()
                })
            });
            let singles = [(); 3].map(|()| {
                scope.spawn(|| {
                    let submit = |_| pool.submit(Length("xy".to_owned()));
                    let all: Vec<_> = (0..500).map(submit).collect();
                    all.into_iter().filter_map(|future| future.result().ok()).count()
                })
            });
            eventually("as many tasks as may be pending", || pool.stats().pending >= max);
            // The others would submit more if there were room.
            for _ in 0..200 {
                let pending = pool.stats().pending;
                assert!(pending <= max, "{pending} pending of at most {max}");
                thread::sleep(Duration::from_millis(1));
            }
            gate.open();
            assert_eq!(
                maps.into_iter().map(|map| map.join().expect("no panic")).sum::<usize>(),
                4_000
            );
            let done = singles.into_iter().map(|single| single.join().expect("no panic"));
            assert_eq!(done.sum::<usize>(), 1_500, "at most {max} pending");
        });
        assert!(first.result().is_ok());
    }
}

fn a_map_waits_for_room_and_others_are_not_kept_out_by_it() {
    let pool = warm(quiet().workers(1).max_pending(100));
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        // Two maps that go on until the single tasks are done.
        let maps = [(); 2].map(|()| {
            scope.spawn(|| {
                let go_on = |_: &usize| !is_over.load(Ordering::Relaxed);
                let tasks = (0..).take_while(go_on).map(|_| Length("x".to_owned()));
                pool.map(tasks).filter(Result::is_ok).count()
            })
        });
        eventually("tasks of the maps", || pool.stats().done > 1_000);
        let single = scope.spawn(|| {
            let submit = |_: &usize| pool.submit(Length("xy".to_owned())).result() == Ok(2);
            (0..20).filter(submit).count()
        });
        let ends = Instant::now() + Duration::from_secs(30);
        while !single.is_finished() && Instant::now() < ends {
            thread::sleep(Duration::from_millis(2));
        }
        let is_done = single.is_finished();
        is_over.store(true, Ordering::Relaxed);
        assert!(maps.into_iter().all(|map| map.join().expect("no panic") > 0));
        assert_eq!(single.join().expect("no panic"), 20);
        assert!(is_done, "the single tasks were kept out by the maps");
    });
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
