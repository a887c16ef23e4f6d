//! Cancelled tasks: pending, running, cut off.

use libtest_mimic::Trial;
use procession::{Executor, Shutdown, TaskError};

use crate::harness::{Gate, eventually, stop};
use crate::place::{AgentKind, Place};
use crate::tasks::{gated, hang, notes, square};

pub(crate) fn trials() -> Vec<Trial> {
    trials![
        a_task_that_waits_is_cancelled_by_a_record_and_never_begins,
        a_task_that_runs_is_ended_on_its_host,
        a_task_of_a_host_that_is_cut_off_is_cancelled_when_the_host_is_lost,
        a_shutdown_that_kills_ends_tasks_on_their_hosts,
    ]
}

const SHORT: AgentKind = AgentKind { workers: 1, slots: 1, lease_ms: 1000, build: "-" };

fn a_task_that_waits_is_cancelled_by_a_record_and_never_begins() {
    let place = Place::new();
    let (gate, file) = (Gate::new(), place.path("notes"));
    let cluster = place.cluster();
    let future = cluster.submit(gated(file.clone(), gate.path(), 1));
    eventually("a message in the queue", || place.messages("procession-tasks") == 1);
    assert!(future.cancel());
    assert_eq!(future.result(), Err(TaskError::Cancelled));
    let _agent = place.agent("one", SHORT);
    assert_eq!(cluster.submit(square(3)).result(), Ok(9));
    eventually("an empty queue", || place.messages("procession-tasks") == 0);
    assert!(notes(&file).is_empty());
}

fn a_task_that_runs_is_ended_on_its_host() {
    let place = Place::new();
    let file = place.path("notes");
    let cluster = place.cluster();
    let _agent = place.agent("one", SHORT);
    let future = cluster.submit(hang(file.clone()));
    eventually("a run", || notes(&file).len() == 1);
    assert!(future.cancel());
    assert_eq!(future.result(), Err(TaskError::Cancelled));
    // Its only worker is free again.
    assert_eq!(cluster.submit(square(3)).result(), Ok(9));
}

fn a_task_of_a_host_that_is_cut_off_is_cancelled_when_the_host_is_lost() {
    let place = Place::new();
    let file = place.path("notes");
    let cluster = place.builder().attempts(3).build().expect("a cluster");
    let agent = place.agent("one", SHORT);
    let future = cluster.submit(hang(file.clone()));
    eventually("a run", || notes(&file).len() == 1);
    stop(agent.pid());
    assert!(future.cancel());
    assert_eq!(future.result(), Err(TaskError::Cancelled));
    assert_eq!(notes(&file).len(), 1, "it was not begun again");
}

fn a_shutdown_that_kills_ends_tasks_on_their_hosts() {
    let place = Place::new();
    let file = place.path("notes");
    let cluster = place.cluster();
    let _agent = place.agent("one", SHORT);
    let running = cluster.submit(hang(file.clone()));
    eventually("a run", || notes(&file).len() == 1);
    let waiting = cluster.submit(square(2));
    cluster.shutdown(Shutdown::Kill);
    assert_eq!(running.result(), Err(TaskError::Cancelled));
    assert_eq!(waiting.result(), Err(TaskError::Cancelled));
    let next = place.cluster();
    assert_eq!(next.submit(square(3)).result(), Ok(9), "the worker is free");
}
