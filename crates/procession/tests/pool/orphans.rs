//! No worker outlives its coordinator, however that ends.

use std::process::Stdio;

use libtest_mimic::Trial;
use rustix::process::Signal;

use crate::harness::{self, eventually, is_alive};
use crate::program::{assert_works, command, start_and_hear_workers};

pub(crate) fn trials() -> Vec<Trial> {
    trials![
        no_worker_is_left_when_the_program_returns,
        no_worker_is_left_when_the_program_panics,
        no_worker_is_left_when_the_program_exits,
        no_worker_is_left_when_the_program_forgets_its_pool,
        no_worker_is_left_when_the_program_is_interrupted,
        no_worker_is_left_when_the_program_is_terminated,
        no_worker_is_left_when_the_program_is_killed,
        no_spare_is_left_when_the_program_is_killed,
        no_copy_of_a_template_is_left_when_the_program_is_killed,
        no_stopped_worker_is_left_when_the_program_is_killed,
        no_worker_of_a_nested_pool_is_left_when_a_worker_is_killed,
        nothing_that_a_task_started_is_left_when_the_program_is_killed,
        no_copy_is_left_of_a_template_that_was_killed_before_it_could_tell,
    ]
}

/// Starts the program, ends it if it does not end by itself, and sees to it that its workers end.
#[track_caller]
fn no_worker_is_left(part: &str, end: impl FnOnce(u32, &[u32])) {
    let (mut program, pids) = start_and_hear_workers(command(part).stderr(Stdio::null()));
    assert_eq!(pids.len(), 3);
    end(program.id(), &pids);
    program.wait().expect("an end");
    eventually("the end of all workers", || !pids.iter().any(|&pid| is_alive(pid)));
}

fn no_worker_is_left_when_the_program_returns() {
    no_worker_is_left("returns", |_, _| {});
}

fn no_worker_is_left_when_the_program_panics() {
    no_worker_is_left("panics", |_, _| {});
}

fn no_worker_is_left_when_the_program_exits() {
    no_worker_is_left("exits", |_, _| {});
}

fn no_worker_is_left_when_the_program_forgets_its_pool() {
    no_worker_is_left("forgets its pool", |_, _| {});
}

fn no_worker_is_left_when_the_program_is_interrupted() {
    no_worker_is_left("waits", |pid, _| harness::signal(pid, Signal::INT));
}

fn no_worker_is_left_when_the_program_is_terminated() {
    no_worker_is_left("waits", |pid, _| harness::signal(pid, Signal::TERM));
}

fn no_worker_is_left_when_the_program_is_killed() {
    no_worker_is_left("waits", |pid, workers| {
        assert!(workers.iter().all(|&pid| is_alive(pid)));
        harness::signal(pid, Signal::KILL);
    });
}

fn no_spare_is_left_when_the_program_is_killed() {
    no_worker_is_left("waits with spares", |pid, workers| {
        assert!(workers.iter().all(|&pid| is_alive(pid)));
        harness::signal(pid, Signal::KILL);
    });
}

fn no_copy_of_a_template_is_left_when_the_program_is_killed() {
    no_worker_is_left("waits with a template", |pid, workers| {
        assert!(workers.iter().all(|&pid| is_alive(pid)));
        harness::signal(pid, Signal::KILL);
    });
}

fn no_stopped_worker_is_left_when_the_program_is_killed() {
    no_worker_is_left("waits", |pid, workers| {
        harness::stop(workers[0]);
        harness::signal(pid, Signal::KILL);
    });
}

fn nothing_that_a_task_started_is_left_when_the_program_is_killed() {
    let part = "waits for what it started";
    let (mut program, pids) = start_and_hear_workers(command(part).stderr(Stdio::null()));
    assert_eq!(pids.len(), 4);
    harness::signal(program.id(), Signal::KILL);
    program.wait().expect("an end");
    eventually("the end of all processes", || !pids.iter().any(|&pid| is_alive(pid)));
}

fn no_copy_is_left_of_a_template_that_was_killed_before_it_could_tell() {
    if cfg!(all(target_os = "linux", target_env = "gnu", not(feature = "portable"))) {
        assert_works(&mut command("has templates that die"));
    }
}

fn no_worker_of_a_nested_pool_is_left_when_a_worker_is_killed() {
    use crate::tasks::{NestedEndless, pool};
    use procession::Executor;

    let pool = pool(1);
    let gate = harness::Gate::new();
    let endless = pool.submit(NestedEndless(gate.path()));
    gate.await_arrivals(1);
    let nested = std::fs::read_dir(gate.path()).expect("a directory").flatten();
    let nested: Vec<u32> = nested
        .map(|arrival| arrival.file_name().to_string_lossy().split('-').next().map(str::parse))
        .map(|pid| pid.expect("a name").expect("a process id"))
        .collect();
    assert!(is_alive(nested[0]) && !pool.pids().contains(&nested[0]));
    harness::signal(pool.pids()[0], Signal::KILL);
    assert!(endless.result().is_err());
    eventually("the end of the nested worker", || !is_alive(nested[0]));
}
