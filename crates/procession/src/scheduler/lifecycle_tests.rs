//! Tests of failed starts and early ends of workers, and of when they break the pool.

use std::time::{Duration, Instant};

use crate::error::{Exit, PoolError};
use crate::scheduler::{
    Action, Begun, Claimed, Event, NextStart, ResolvedOptions, Scheduler, Settings, Verdict,
};
use crate::task::TaskId;

const TRIES: u32 = 5;

/// Workers with one slot, all of which are always kept.
fn settings(workers: usize, start_tries: u32) -> Settings {
    Settings {
        slots: vec![1; workers],
        spares: 0,
        min_workers: workers,
        idle_timeout: None,
        max_tasks: None,
        max_age: None,
        start_timeout: Duration::from_secs(10),
        start_tries,
    }
}

/// Runs a pool with 20 tasks whose workers each give `answers` replies and end at their next call,
/// of which `begun` tasks have begun. Returns the number of workers that ended and the verdicts,
/// when no event is due or 1000 workers have ended.
fn workers_that_end(workers: usize, answers: usize, begun: u32) -> (u32, Vec<Verdict>) {
    let settings = settings(workers, TRIES);
    let mut now = Instant::now();
    let (mut scheduler, mut actions) = Scheduler::new(settings, now);
    for id in 0..20 {
        let (options, bytes) = (ResolvedOptions::default(), 4);
        let task = Event::Submitted { id: TaskId(id), job: id, count: 1, bytes, options };
        actions.extend(scheduler.handle([task], now));
    }
    let (mut ended, mut verdicts) = (0, Vec::new());
    while ended < 1_000 {
        let mut events = Vec::new();
        for action in actions.drain(..) {
            match action {
                Action::Spawn { worker_id } => events.push(Event::WorkerReady { worker_id }),
                Action::Send { worker_id, seq, .. } => {
                    let (ran_for, has_failed, is_over_memory_limit) =
                        (Duration::from_secs(1), false, false);
                    if seq as usize <= answers {
                        let replied = Event::Replied {
                            worker_id,
                            seq,
                            ran_for,
                            has_failed,
                            is_over_memory_limit,
                        };
                        events.push(replied);
                        continue;
                    }
                    ended += 1;
                    let begun = Begun { seq, count: begun, ran_for };
                    let exit = Exit::Signal(9);
                    events.push(Event::WorkerExited { worker_id, exit, begun: vec![begun] });
                }
                Action::Complete { verdict, .. } => verdicts.push(verdict),
                _ => {}
            }
        }
        if events.is_empty() {
            match scheduler.wake_at() {
                Some(at) => now = at,
                None => break,
            }
            events.push(Event::Tick);
        }
        for event in events {
            now += Duration::from_millis(1);
            actions.extend(scheduler.handle([event], now));
        }
    }
    (ended, verdicts)
}

/// Runs a pool of two workers and one task for this long. All starts fail but, if `first`, those of
/// worker 0. Returns the number of failed starts, and the verdicts.
fn second_start_fails(
    next_start: NextStart,
    first: bool,
    for_long: Duration,
) -> (u32, Vec<Verdict>) {
    let settings = settings(2, TRIES);
    let begin = Instant::now();
    let mut now = begin;
    let (mut scheduler, mut actions) = Scheduler::new(settings, now);
    let (id, options) = (TaskId(1), ResolvedOptions::default());
    let task = Event::Submitted { id, job: 1, count: 1, bytes: 4, options };
    actions.extend(scheduler.handle([task], now));
    let (mut failed, mut verdicts) = (0, Vec::new());
    while now < begin + for_long {
        let mut events = Vec::new();
        for action in actions.drain(..) {
            match action {
                Action::Spawn { worker_id } if worker_id.worker_index == 0 && first => {
                    events.push(Event::WorkerReady { worker_id });
                }
                Action::Spawn { worker_id } => {
                    failed += 1;
                    let cause = "simulated".to_owned();
                    events.push(Event::StartFailed { worker_id, cause, next_start });
                }
                Action::Kill { .. } if first => panic!("the ready worker is killed"),
                Action::Complete { verdict, .. } => verdicts.push(verdict),
                _ => {}
            }
        }
        if events.is_empty() {
            let Some(at) = scheduler.wake_at() else { break };
            now = at;
            events.push(Event::Tick);
        }
        for event in events {
            actions.extend(scheduler.handle([event], now));
        }
    }
    (failed, verdicts)
}

#[test]
fn a_failed_start_does_not_end_a_ready_worker() {
    for next_start in [NextStart::AfterShortage, NextStart::WithBackoff, NextStart::Never] {
        let (failed, verdicts) = second_start_fails(next_start, true, Duration::from_secs(300));
        // The longest backoff is two seconds.
        assert!((100..400).contains(&failed), "{next_start:?}: {failed} starts");
        assert_eq!(verdicts, [], "{next_start:?}");
    }
}

#[test]
fn a_shortage_breaks_a_pool_without_any_worker_only_after_a_while() {
    let short = NextStart::AfterShortage;
    let (failed, verdicts) = second_start_fails(short, false, Duration::from_secs(25));
    assert!(failed > 20 && verdicts.is_empty(), "{failed}, {verdicts:?}");
    let (_, verdicts) = second_start_fails(short, false, Duration::from_secs(60));
    assert!(matches!(&verdicts[..], [Verdict::Broken(PoolError::CannotStart { .. })]));
}

#[test]
fn workers_that_begin_no_task_break_the_pool() {
    for workers in [1, 3] {
        let (ended, verdicts) = workers_that_end(workers, 0, 0);
        // Every second end is charged to a task, and does not count.
        assert!(ended.div_ceil(workers as u32) <= 2 * TRIES, "{ended} of {workers} workers");
        let is_broken = |verdict: &&Verdict| {
            matches!(verdict, Verdict::Broken(PoolError::CannotStart { tries: TRIES, cause })
                if cause.contains("before it began what it was given"))
        };
        let broken = verdicts.iter().filter(is_broken).count();
        let died = verdicts.iter().filter(|v| matches!(v, Verdict::Died { .. })).count();
        assert_eq!(broken + died, 20, "{verdicts:?}");
        assert!(died < TRIES as usize * workers, "{verdicts:?}");
    }
}

#[test]
fn a_task_that_ends_its_worker_without_a_claim_is_charged_the_second_time() {
    let settings = settings(1, 8);
    let mut now = Instant::now();
    let (mut scheduler, mut actions) = Scheduler::new(settings, now);
    for id in 0..3 {
        let (options, bytes) = (ResolvedOptions::default(), 4);
        let task = Event::Submitted { id: TaskId(id), job: id, count: 1, bytes, options };
        actions.extend(scheduler.handle([task], now));
    }
    let (mut runs, mut verdicts) = ([0; 3], Vec::new());
    while verdicts.len() < 3 {
        let mut events = Vec::new();
        for action in actions.drain(..) {
            match action {
                Action::Spawn { worker_id } => events.push(Event::WorkerReady { worker_id }),
                Action::Send { worker_id, job: 1, .. } => {
                    runs[1] += 1;
                    let (exit, begun) = (Exit::Signal(9), Vec::new());
                    events.push(Event::WorkerExited { worker_id, exit, begun });
                }
                Action::Send { worker_id, seq, job, .. } => {
                    runs[job as usize] += 1;
                    let (ran_for, has_failed, is_over_memory_limit) = (Duration::MAX, false, false);
                    events.push(Event::Replied {
                        worker_id,
                        seq,
                        ran_for,
                        has_failed,
                        is_over_memory_limit,
                    });
                }
                Action::Complete { job, verdict, .. } => verdicts.push((job, verdict)),
                _ => {}
            }
        }
        if events.is_empty() && verdicts.len() < 3 {
            now = scheduler.wake_at().expect("a worker is started again").max(now);
            events.push(Event::Tick);
        }
        for event in events {
            now += Duration::from_millis(1);
            actions.extend(scheduler.handle([event], now));
        }
    }
    assert_eq!(runs, [1, 2, 1]);
    let died = Verdict::Died {
        exit: Exit::Signal(9),
        attempts: 1,
        ran_for: Duration::from_millis(1),
        is_collateral: false,
    };
    verdicts.sort_by_key(|(job, _)| *job);
    let [(_, first), (_, second), (_, third)] = &verdicts[..] else { panic!("three") };
    assert_eq!((first, second, third), (&Verdict::Answered, &died, &Verdict::Answered));
}

#[test]
fn workers_that_answer_a_task_before_they_end_do_not_break_the_pool() {
    let (ended, verdicts) = workers_that_end(1, 1, 0);
    assert!(ended >= 19, "{ended}");
    assert_eq!(verdicts, vec![Verdict::Answered; 20]);
}

#[test]
fn workers_that_die_of_their_tasks_do_not_break_the_pool() {
    let (ended, verdicts) = workers_that_end(3, 0, 1);
    assert_eq!((ended, verdicts.len()), (20, 20));
    assert!(verdicts.iter().all(|verdict| matches!(verdict, Verdict::Died { .. })));
}

/// Runs a task with this timeout whose workers claim not to have begun it, and start in 50 ms. Returns when
/// it was completed, after its submission to a ready worker, and the number of workers that were killed.
fn never_begun(timeout: Duration) -> (Duration, u32) {
    let mut now = Instant::now();
    let (mut scheduler, mut actions) = Scheduler::new(settings(1, TRIES), now);
    let (mut killed, mut submitted) = (0, None);
    for _ in 0..1_000 {
        let mut events = Vec::new();
        for action in actions.drain(..) {
            match action {
                Action::Spawn { worker_id } => {
                    now += Duration::from_millis(50);
                    events.push(Event::WorkerReady { worker_id });
                }
                Action::EndCall { worker_id, seq, .. } => {
                    events.push(Event::NotEnded { worker_id, seq, claimed: Claimed::NotBegun });
                }
                Action::Kill { worker_id, .. } => {
                    killed += 1;
                    let exit = Exit::Signal(9);
                    events.push(Event::WorkerExited { worker_id, exit, begun: Vec::new() });
                }
                Action::Complete { verdict, .. } => {
                    assert!(matches!(verdict, Verdict::TimedOut { .. }), "{verdict:?}");
                    return (now - submitted.expect("a task"), killed);
                }
                _ => {}
            }
        }
        if events.is_empty() && submitted.is_none() {
            submitted = Some(now);
            let options = ResolvedOptions { timeout: Some(timeout), ..ResolvedOptions::default() };
            let (id, job, count, bytes) = (TaskId(1), 1, 1, 4);
            events.push(Event::Submitted { id, job, count, bytes, options });
        } else if events.is_empty() {
            now = scheduler.wake_at().expect("it does not wait for ever");
            events.push(Event::Tick);
        }
        actions.extend(scheduler.handle(events, now));
    }
    panic!("it goes on for ever");
}

#[test]
fn a_call_that_denies_to_have_begun_times_out_half_a_second_after_its_deadline() {
    for (timeout, most) in [(100, 800), (300, 800), (1_000, 1_500), (60_000, 60_500)] {
        let (took, killed) = never_begun(Duration::from_millis(timeout));
        let (least, most) = (Duration::from_millis(timeout), Duration::from_millis(most));
        assert!(least < took && took <= most, "{timeout} ms: {took:?}");
        assert_eq!(killed, 2, "{timeout} ms");
    }
}
