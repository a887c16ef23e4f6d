//! Drives the `Scheduler` alone, without workers and without faults, for `cargo bench`. The tests
//! of its decisions are in [`simulation`](super::simulation).

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::{Action, Event, ResolvedOptions, Scheduler, Settings, WorkerId};
use crate::task::TaskId;

/// Submits `tasks` tasks to a pool of `workers`, and replies to each call in the order of the
/// `Send` actions. Returns the number of events that the scheduler handled.
///
/// # Panics
///
/// If a task is not completed.
pub fn run(workers: usize, tasks: u64) -> u64 {
    let mut now = Instant::now();
    let (mut scheduler, actions) = Scheduler::new(settings(workers), now);
    let mut sent = VecDeque::new();
    let (mut events, mut done) = (0, 0);
    let mut handle = |event, sent: &mut VecDeque<(WorkerId, u64)>| {
        events += 1;
        now += Duration::from_micros(1);
        for action in scheduler.handle([event], now) {
            match action {
                Action::Send { worker_id, seq, .. } => sent.push_back((worker_id, seq)),
                Action::Complete { .. } => done += 1,
                _ => {}
            }
        }
    };
    for action in actions {
        if let Action::Spawn { worker_id } = action {
            handle(Event::WorkerReady { worker_id }, &mut sent);
        }
    }
    for id in 0..tasks {
        let options = ResolvedOptions::default();
        handle(
            Event::Submitted { id: TaskId(id), job: id, count: 1, bytes: 4, options },
            &mut sent,
        );
    }
    while let Some((worker_id, seq)) = sent.pop_front() {
        let ran_for = Duration::from_micros(1);
        let (has_failed, is_over_memory_limit) = (false, false);
        handle(
            Event::Replied { worker_id, seq, ran_for, has_failed, is_over_memory_limit },
            &mut sent,
        );
    }
    assert_eq!(done, tasks, "every task is done");
    events
}

fn settings(workers: usize) -> Settings {
    Settings {
        slots: vec![1; workers],
        spares: 0,
        min_workers: workers,
        idle_timeout: None,
        max_tasks: None,
        max_age: None,
        start_timeout: Duration::from_secs(10),
        start_tries: 1,
    }
}
