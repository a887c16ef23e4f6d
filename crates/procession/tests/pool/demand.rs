//! Limits of a pool: the number of workers, room for pending tasks, priorities, initializers, resource
//! limits; and the counters of `stats`.

use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use libtest_mimic::Trial;
use procession::{
    Executor, Exit, Full, Limits, PoolError, PoolEvent, Retries, Shutdown, TaskError, TaskOptions,
};
use rustix::process::Signal;

use crate::harness::{Gate, eventually, is_alive};
use crate::tasks::{Bad, Echo, Ending, Pass, Pid, await_workers, quiet, succeeds_with};
use crate::works::{Allocate, Hang, Initialize, IsInitialized, Limited, Nap};

pub(crate) fn trials() -> Vec<Trial> {
    trials![
        workers_beyond_the_minimum_start_when_there_is_work_for_them,
        idle_workers_are_let_go_down_to_the_minimum,
        a_pool_that_let_all_workers_go_starts_new_ones,
        a_full_pool_gives_the_task_back,
        a_submit_to_a_full_pool_waits_for_room,
        a_callback_does_not_wait_for_room,
        a_submit_that_waits_for_room_ends_with_the_pool,
        tasks_of_higher_priority_go_first,
        the_initializer_runs_once_in_each_worker_before_its_tasks,
        an_initializer_that_fails_breaks_the_pool_with_its_error,
        an_initializer_that_panics_breaks_the_pool,
        limits_hold_in_the_workers,
        a_task_above_the_limit_of_memory_costs_only_its_own_worker,
        limits_under_which_no_worker_can_live_break_the_pool,
        the_longest_durations_are_valid_settings,
        an_initializer_that_crashes_is_named_as_the_cause,
        only_workers_that_were_lost_count_as_replaced,
        the_counters_of_stats_add_up,
        starts_and_timeouts_of_tasks_are_events,
    ]
}

fn workers_beyond_the_minimum_start_when_there_is_work_for_them() {
    let pool = quiet().workers(3).min_workers(0).build().expect("a pool");
    thread::sleep(Duration::from_millis(50));
    assert!(pool.pids().is_empty());
    let gate = Gate::new();
    let one = pool.submit(Pass(gate.path()));
    gate.await_arrivals(1);
    assert_eq!(pool.pids().len(), 1);
    let others: Vec<_> = (0..5).map(|_| pool.submit(Pass(gate.path()))).collect();
    gate.await_arrivals(3);
    assert_eq!(pool.pids().len(), 3);
    gate.open();
    assert!(one.result().is_ok());
    assert!(others.into_iter().all(|future| future.result().is_ok()));
    assert_eq!(pool.pids().len(), 3);
}

fn idle_workers_are_let_go_down_to_the_minimum() {
    let pool = quiet()
        .workers(3)
        .min_workers(1)
        .idle_timeout(Duration::from_millis(50))
        .build()
        .expect("a pool");
    let gate = Gate::new();
    let futures: Vec<_> = (0..3).map(|_| pool.submit(Pass(gate.path()))).collect();
    gate.await_arrivals(3);
    let pids = pool.pids();
    gate.open();
    assert!(futures.into_iter().all(|future| future.result().is_ok()));
    eventually("only the minimum", || pool.pids().len() == 1);
    assert_eq!(pids.into_iter().filter(|&pid| is_alive(pid)).count(), 1);
    thread::sleep(Duration::from_millis(150));
    assert_eq!(pool.pids().len(), 1);
}

fn a_pool_that_let_all_workers_go_starts_new_ones() {
    let pool = quiet()
        .workers(2)
        .min_workers(0)
        .idle_timeout(Duration::from_millis(10))
        .build()
        .expect("a pool");
    for _ in 0..5 {
        succeeds_with(&pool, 20);
        eventually("no worker", || pool.pids().is_empty());
    }
}

fn a_full_pool_gives_the_task_back() {
    let pool = quiet().workers(1).max_pending(2).build().expect("a pool");
    let gate = Gate::new();
    let running = pool.submit(Pass(gate.path()));
    gate.await_arrivals(1);
    let pending: Vec<_> =
        (0..2).map(|_| pool.try_submit(Pass(gate.path())).expect("room")).collect();
    assert!(
        matches!(pool.try_submit(Echo("back".to_owned())), Err(Full(Echo(text))) if text == "back")
    );
    assert!(pending[0].cancel());
    let fits = pool.try_submit(Echo("fits".to_owned())).expect("room again");
    gate.open();
    assert!(running.result().is_ok());
    assert_eq!(fits.result(), Ok("fits".to_owned()));
}

fn a_submit_to_a_full_pool_waits_for_room() {
    let pool = quiet().workers(1).max_pending(1).build().expect("a pool");
    let gate = Gate::new();
    let running = pool.submit(Pass(gate.path()));
    gate.await_arrivals(1);
    let pending = pool.submit(Pass(gate.path()));
    let (submitted, waits) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(|| submitted.send(pool.submit(Echo("late".to_owned()))));
        assert!(waits.recv_timeout(Duration::from_millis(100)).is_err());
        gate.open();
        let late = waits.recv().expect("a future");
        assert_eq!(late.result(), Ok("late".to_owned()));
    });
    assert!(running.result().is_ok() && pending.result().is_ok());
}

fn a_callback_does_not_wait_for_room() {
    let pool = Arc::new(quiet().workers(1).max_pending(1).build().expect("a pool"));
    let (submitted, futures) = mpsc::channel();
    let submits = Arc::downgrade(&pool);
    let gate = Gate::new();
    let first = pool.submit(Pass(gate.path()));
    first.on_done(move |_| {
        let pool = submits.upgrade().expect("a pool");
        for n in 0..10 {
            let _ = submitted.send(pool.submit(Echo(n.to_string())));
        }
    });
    gate.open();
    assert!(first.result().is_ok());
    for (n, future) in futures.iter().enumerate() {
        assert_eq!(future.result(), Ok(n.to_string()));
    }
}

fn a_submit_that_waits_for_room_ends_with_the_pool() {
    let pool = quiet().workers(1).max_pending(1).build().expect("a pool");
    let running = pool.submit(Hang::Asleep);
    let pending = pool.submit(Hang::Asleep);
    thread::scope(|scope| {
        let waits = scope.spawn(|| pool.submit(Pid()).result());
        thread::sleep(Duration::from_millis(20));
        pool.shutdown(Shutdown::Kill);
        assert!(waits.join().expect("no panic").is_err());
    });
    assert!(running.result().is_err() && pending.result().is_err());
}

fn tasks_of_higher_priority_go_first() {
    let pool = quiet().workers(1).build().expect("a pool");
    let gate = Gate::new();
    let first = pool.submit(Pass(gate.path()));
    gate.await_arrivals(1);
    let order = Arc::new(Mutex::new(Vec::new()));
    let futures: Vec<_> = [(0, "c"), (10, "a"), (-5, "e"), (10, "b"), (0, "d")]
        .into_iter()
        .map(|(priority, name)| {
            let options = TaskOptions::new().priority(priority);
            let future = pool.submit_with(options, Echo(name.to_owned()));
            let order = Arc::clone(&order);
            future.on_done(move |_| order.lock().expect("no panics").push(name));
            future
        })
        .collect();
    gate.open();
    assert!(first.result().is_ok());
    assert!(futures.into_iter().all(|future| future.result().is_ok()));
    assert_eq!(*order.lock().expect("no panics"), ["a", "b", "c", "d", "e"]);
}

fn the_initializer_runs_once_in_each_worker_before_its_tasks() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = || dir.path().to_owned();
    let pool = quiet().workers(2).initializer(Initialize::Well(path())).build().expect("a pool");
    for _ in 0..2 {
        let futures: Vec<_> = (0..50).map(|_| pool.submit(IsInitialized(path()))).collect();
        for future in futures {
            assert!(future.result().expect("an output").0);
        }
        assert!(pool.submit(Bad(Ending::Abort)).result().is_err());
    }
    await_workers(&pool);
    let initialized = || std::fs::read_dir(dir.path()).expect("a directory").count();
    eventually("two workers and two replacements", || initialized() == 4);
}

fn broken_by(initializer: Initialize) -> String {
    let pool = quiet().workers(2).initializer(initializer).build().expect("a pool");
    match pool.submit(Pid()).result() {
        Err(TaskError::PoolBroken(error @ PoolError::CannotStart { tries: 1, .. })) => {
            error.to_string()
        }
        other => panic!("{other:?}"),
    }
}

fn an_initializer_that_fails_breaks_the_pool_with_its_error() {
    let error = broken_by(Initialize::Badly);
    assert!(error.contains("its initializer failed: no licence for this library"), "{error}");
}

fn an_initializer_that_panics_breaks_the_pool() {
    let error = broken_by(Initialize::ByPanic);
    assert!(error.contains("its initializer failed: task panicked at "), "{error}");
    assert!(error.contains("works.rs"), "{error}");
}

fn limits_hold_in_the_workers() {
    let limits = Limits::none().open_files(50).cpu_seconds(1000).niceness(3);
    let pool = quiet().workers(1).limits(limits).build().expect("a pool");
    let here = rustix::process::getpriority_process(None).expect("a niceness");
    let there = pool.submit(Limited).result();
    assert_eq!(there, Ok((Some(50), Some(1000), (here + 3).min(19))));
}

fn a_task_above_the_limit_of_memory_costs_only_its_own_worker() {
    let limits = Limits::none().address_space(1 << 30);
    // Without a backtrace, which could displace the message from the last lines.
    let pool = quiet()
        .workers(1)
        .limits(limits)
        .worker_env("RUST_BACKTRACE", "0")
        .build()
        .expect("a pool");
    let large = pool.submit(Allocate(2 << 30));
    let small = pool.submit(Allocate(1 << 20));
    match large.result() {
        Err(TaskError::WorkerDied(death)) => {
            assert_eq!(death.exit, Exit::Signal(Signal::ABORT.as_raw()));
            let says_why = |line: &String| line.contains("memory allocation");
            assert!(death.last_output.iter().any(says_why), "{death:?}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(small.result(), Ok(1 << 20));
}

fn limits_under_which_no_worker_can_live_break_the_pool() {
    let started = Arc::new(Mutex::new(0));
    let counts = Arc::clone(&started);
    let pool = quiet()
        .workers(2)
        .limits(Limits::none().address_space(1 << 20))
        .on_event(move |event| {
            if matches!(event, PoolEvent::WorkerStarted { .. }) {
                *counts.lock().expect("no panics") += 1;
            }
        })
        .build()
        .expect("a pool");
    let futures: Vec<_> = (0..50).map(|_| pool.submit(Pid())).collect();
    for future in futures {
        let result = future.result();
        assert!(
            matches!(result, Err(TaskError::PoolBroken(PoolError::CannotStart { .. }))),
            "{result:?}"
        );
    }
    assert_eq!(*started.lock().expect("no panics"), 0, "none was ever ready");
}

fn the_longest_durations_are_valid_settings() {
    let pool = quiet()
        .workers(2)
        .min_workers(0)
        .start_timeout(Duration::MAX)
        .idle_timeout(Duration::MAX)
        .timeout(Duration::MAX)
        .retries(Retries::times(1).backoff(Duration::MAX, Duration::MAX))
        .build()
        .expect("a pool");
    succeeds_with(&pool, 20);
    let waits_for_ever = pool.submit(Bad(Ending::Abort));
    eventually("a retry", || pool.stats().retried == 1);
    succeeds_with(&pool, 20);
    assert!(waits_for_ever.cancel());
}

fn an_initializer_that_crashes_is_named_as_the_cause() {
    let pool = quiet().workers(1).initializer(Bad(Ending::Abort)).build().expect("a pool");
    match pool.submit(Pid()).result() {
        Err(TaskError::PoolBroken(error)) => {
            let error = error.to_string();
            assert!(error.contains("signal 6 (SIGABRT) in its initializer"), "{error}");
        }
        other => panic!("{other:?}"),
    }
}

fn only_workers_that_were_lost_count_as_replaced() {
    let idle = Duration::from_millis(10);
    let pool = quiet().workers(2).min_workers(0).idle_timeout(idle).build().expect("a pool");
    for _ in 0..3 {
        succeeds_with(&pool, 4);
        eventually("no worker", || pool.pids().is_empty());
    }
    assert_eq!(pool.stats().respawned, 0);
    for n in 1..=3 {
        assert!(pool.submit(Bad(Ending::Abort)).result().is_err());
        succeeds_with(&pool, 4);
        assert!(pool.stats().respawned <= n);
    }
    assert!(pool.stats().respawned > 0);
}

fn the_counters_of_stats_add_up() {
    let pool = quiet().workers(1).build().expect("a pool");
    succeeds_with(&pool, 20);
    assert!(pool.submit(Bad(Ending::Fail)).result().is_err());
    assert!(pool.submit(Bad(Ending::Abort)).result().is_err());
    let gate = Gate::new();
    let running = pool.submit(Pass(gate.path()));
    gate.await_arrivals(1);
    let pending: Vec<_> = (0..3).map(|_| pool.submit(Nap(0))).collect();
    assert!(pending[0].cancel());
    let stats = pool.stats();
    assert_eq!((stats.pending, stats.running), (2, 1));
    assert_eq!((stats.done, stats.failed, stats.cancelled), (20, 2, 1));
    assert_eq!((stats.respawned, stats.retried), (1, 0));
    assert_eq!((stats.run.count(), stats.wait.count()), (21, 21));
    assert_eq!(stats.pids, pool.pids());
    gate.open();
    assert!(running.result().is_ok());
    assert!(pending.into_iter().skip(1).all(|future| future.result().is_ok()));
    assert_eq!(pool.stats().done, 23);
}

fn starts_and_timeouts_of_tasks_are_events() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sees = Arc::clone(&seen);
    let timeout = Duration::from_millis(100);
    let pool = quiet()
        .workers(1)
        .timeout(timeout)
        .on_event(move |event| sees.lock().expect("no panics").push(event.clone()))
        .build()
        .expect("a pool");
    await_workers(&pool);
    let pid = pool.pids()[0];
    let future = pool.submit(Hang::Asleep);
    let task = future.id();
    assert!(future.result().is_err());
    let seen = seen.lock().expect("no panics");
    assert!(
        seen.contains(&PoolEvent::TaskStarted { task, worker: 0, pid, attempt: 1 }),
        "{seen:?}"
    );
    assert!(seen.contains(&PoolEvent::TaskTimedOut { task, after: timeout }), "{seen:?}");
}
