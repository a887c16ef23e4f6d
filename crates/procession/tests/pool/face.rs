//! The public interface of a pool when no fault occurs.

use std::collections::{HashMap, HashSet};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::thread;

use libtest_mimic::Trial;
use procession::{
    Executor, Exit, OutputStream, PoolError, PoolEvent, ProcessPool, Shutdown, ThreadPool,
    as_completed,
};
use rustix::process::Signal;

use crate::harness::{eventually, is_alive, signal};
use crate::tasks::{Echo, Env, Local, Nested, Pid, Say, Seat, pool, quiet, succeeds_with};
use crate::works::Leak;

pub(crate) fn trials() -> Vec<Trial> {
    trials![
        tasks_run_in_the_workers_and_not_here,
        there_are_never_more_processes_than_asked_for_and_all_are_used,
        a_pool_of_no_workers_is_refused,
        variables_that_no_environment_can_have_are_refused,
        a_stack_that_is_too_small_is_raised_to_one_that_suffices,
        a_fresh_pool_takes_tasks_at_once,
        a_task_knows_its_worker_and_its_attempt,
        a_local_is_made_once_for_each_worker,
        workers_get_the_environment_and_what_is_added,
        each_line_of_output_comes_with_its_worker_and_stream,
        a_callback_for_output_or_events_that_panics_harms_nobody,
        the_start_and_the_end_of_each_worker_are_reported,
        what_a_worker_used_is_told_at_its_end_also_if_it_was_killed,
        a_task_may_have_a_pool_of_its_own,
        many_threads_may_submit_at_once,
        sixty_four_workers_do_their_share,
        many_short_tasks_each_get_their_own_output,
    ]
}

fn tasks_run_in_the_workers_and_not_here() {
    let pool = pool(2);
    let pid = pool.submit(Pid()).result().expect("a process id");
    assert_ne!(pid, std::process::id());
    assert!(pool.pids().contains(&pid));
}

fn there_are_never_more_processes_than_asked_for_and_all_are_used() {
    let pool = pool(3);
    let before: HashSet<_> = pool.pids().into_iter().collect();
    // One may still be starting while the others do all there is.
    eventually("work of all workers", || {
        let seats = pool.map((0..60).map(|_| Seat()));
        let used: HashSet<_> = seats.map(|seat| seat.expect("a seat").1).collect();
        assert!(used.is_subset(&before));
        used == before
    });
    assert_eq!(pool.pids().into_iter().collect::<HashSet<_>>(), before);
}

fn variables_that_no_environment_can_have_are_refused() {
    for (name, value, reason) in [
        ("", "x", "worker_env: the name \"\" is empty"),
        ("A=B", "x", "worker_env: the name \"A=B\" contains '='"),
        ("A\0B", "x", "worker_env: the name \"A\\0B\" contains a zero byte"),
        ("A", "x\0y", "worker_env: the value of \"A\" contains a zero byte"),
    ] {
        let pool = quiet().workers(1).worker_env("GOOD", "=").worker_env(name, value).build();
        assert_eq!(pool.err(), Some(PoolError::Setting(reason.to_owned())));
    }
}

fn a_stack_that_is_too_small_is_raised_to_one_that_suffices() {
    for bytes in [0, 1, 20_000] {
        let pool = quiet().workers(2).concurrency(3).stack_size(bytes).build().expect("a pool");
        succeeds_with(&pool, 20);
        let threads = ThreadPool::new(2).stack_size(bytes);
        assert!(threads.submit(Pid()).result().is_ok());
    }
}

fn a_pool_of_no_workers_is_refused() {
    let refused = |builder: procession::Builder| match builder.build() {
        Err(PoolError::Setting(reason)) => reason,
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(ProcessPool::builder().workers(0)), "workers must be at least 1");
    assert_eq!(refused(ProcessPool::builder().concurrency(0)), "concurrency must be at least 1");
}

fn a_fresh_pool_takes_tasks_at_once() {
    let pool = quiet().workers(2).build().expect("a pool");
    succeeds_with(&pool, 10);
}

fn a_task_knows_its_worker_and_its_attempt() {
    let pool = pool(2);
    let mut pids_of = HashMap::<_, HashSet<_>>::new();
    for seat in pool.map((0..40).map(|_| Seat())) {
        let (worker, pid, attempt) = seat.expect("a seat");
        assert_eq!(attempt, 1);
        pids_of.entry(worker).or_default().insert(pid);
    }
    let mut workers: Vec<_> = pids_of.keys().copied().collect();
    workers.sort_unstable();
    assert_eq!(workers, [0, 1]);
    assert!(pids_of.values().all(|pids| pids.len() == 1), "{pids_of:?}");
}

fn a_local_is_made_once_for_each_worker() {
    for concurrency in [2, 6] {
        let pool = quiet().workers(2).concurrency(concurrency).build().expect("a pool");
        let locals = pool.map((0..100).map(|_| Local()));
        assert!(locals.into_iter().all(|local| local.expect("a local").1 == 0));
    }
}

fn workers_get_the_environment_and_what_is_added() {
    let pool = quiet().workers(1).worker_env("ADDED", "ünï =cödé").build().expect("a pool");
    let get = |name: &str| pool.submit(Env(name.to_owned())).result().expect("an answer");
    assert_eq!(get("ADDED").as_deref(), Some("ünï =cödé"));
    assert_eq!(get("PATH"), std::env::var("PATH").ok());
    assert!(std::env::var("ADDED").is_err(), "this process keeps its own");
}

fn each_line_of_output_comes_with_its_worker_and_stream() {
    let (sender, lines) = mpsc::channel();
    let pool = ProcessPool::builder()
        .workers(1)
        .on_output(move |output| {
            let _ = sender.send((output.worker, output.pid, output.stream, output.line.to_owned()));
        })
        .build()
        .expect("a pool");
    let say = Say("one\nzwei ü".to_owned(), "drei".to_owned());
    pool.submit(say).result().expect("said");
    let pid = pool.pids()[0];
    pool.shutdown(Shutdown::Wait);
    drop(pool);
    let (out, err): (Vec<_>, Vec<_>) =
        lines.iter().partition(|(_, _, stream, _)| *stream == OutputStream::Stdout);
    let line = |stream, line: &str| (0, pid, stream, line.to_owned());
    assert_eq!(out, [line(OutputStream::Stdout, "one"), line(OutputStream::Stdout, "zwei ü")]);
    assert_eq!(err, [line(OutputStream::Stderr, "drei")]);
}

fn a_callback_for_output_or_events_that_panics_harms_nobody() {
    let pool = ProcessPool::builder()
        .workers(2)
        .on_output(|_| panic!("on purpose"))
        .on_event(|_| panic!("on purpose"))
        .build()
        .expect("a pool");
    for _ in 0..10 {
        pool.submit(Say("out".to_owned(), "err".to_owned())).result().expect("said");
    }
    pool.shutdown(Shutdown::Wait);
}

fn the_start_and_the_end_of_each_worker_are_reported() {
    let events = Arc::new(Mutex::new(Vec::new()));
    let notes = Arc::clone(&events);
    let note = move |event: &PoolEvent| notes.lock().expect("no panic").push(event.clone());
    let pool = quiet().workers(2).on_event(note).build().expect("a pool");
    let of = |kind: fn(&PoolEvent) -> Option<(usize, u32)>| {
        let events = events.lock().expect("no panic");
        let mut found: Vec<_> = events.iter().filter_map(kind).collect();
        found.sort_unstable();
        found
    };
    let started = || {
        of(|event| match *event {
            PoolEvent::WorkerStarted { worker, pid } => Some((worker, pid)),
            _ => None,
        })
    };
    let left = || {
        of(|event| match *event {
            PoolEvent::WorkerExited { worker, pid, exit: Exit::Code(0), .. } => Some((worker, pid)),
            _ => None,
        })
    };
    eventually("both workers reported", || started().len() == 2);
    let pids = pool.pids();
    assert_eq!(started(), [(0, pids[0]), (1, pids[1])]);
    assert_eq!(left(), []);
    pool.shutdown(Shutdown::Wait);
    assert_eq!(left(), started());
}

fn what_a_worker_used_is_told_at_its_end_also_if_it_was_killed() {
    const MANY: usize = 96 << 20;
    let (sender, ends) = mpsc::channel();
    let pool = quiet().workers(1).on_event(move |event| {
        if let PoolEvent::WorkerExited { pid, usage, .. } = *event {
            let _ = sender.send((pid, usage));
        }
    });
    let pool = pool.build().expect("a pool");
    let killed = pool.submit(Leak(MANY)).result().expect("a process that has kept them");
    signal(killed, Signal::KILL);
    let (pid, usage) = ends.recv().expect("the end of the first");
    assert_eq!(pid, killed);
    assert!(usage.peak_memory >= MANY as u64, "{usage:?}");
    assert!(!usage.cpu.is_zero(), "{usage:?}");
}

fn a_task_may_have_a_pool_of_its_own() {
    let pool = pool(2);
    let workers = pool.pids();
    for nested in [pool.submit(Nested(2)), pool.submit(Nested(1))] {
        let pids = nested.result().expect("outputs of a nested pool");
        assert!(pids.iter().all(|pid| !workers.contains(pid)));
        assert!(pids.iter().all(|&pid| !is_alive(pid)), "it was shut down");
    }
}

fn many_threads_may_submit_at_once() {
    let pool = pool(2);
    thread::scope(|scope| {
        for thread in 0..8 {
            let pool = &pool;
            scope.spawn(move || {
                let texts: Vec<_> = (0..50).map(|n| format!("{thread}/{n}")).collect();
                let futures: Vec<_> =
                    texts.iter().map(|text| pool.submit(Echo(text.clone()))).collect();
                for (future, text) in futures.into_iter().zip(texts) {
                    assert_eq!(future.result(), Ok(text));
                }
            });
        }
    });
}

fn sixty_four_workers_do_their_share() {
    let pool = pool(64);
    let gate = crate::harness::Gate::new();
    let meet = || crate::tasks::Meet(gate.path(), 64);
    let pids = pool.map((0..64).map(|_| meet())).collect::<Result<HashSet<_>, _>>();
    assert_eq!(pids, Ok(pool.pids().into_iter().collect()));
    pool.shutdown(Shutdown::Wait);
}

fn many_short_tasks_each_get_their_own_output() {
    let pool = pool(2);
    let futures = (0..5000).map(|n| pool.submit(Echo(n.to_string())));
    let outputs = as_completed(futures).map(|future| future.result().expect("an output"));
    let mut numbers: Vec<u32> = outputs.map(|text| text.parse().expect("a number")).collect();
    numbers.sort_unstable();
    assert!(numbers.into_iter().eq(0..5000));
}
