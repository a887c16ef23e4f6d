//! Workers that are replaced after a number of tasks or above an amount of memory.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use libtest_mimic::Trial;
use procession::{
    Executor, PoolEvent, ProcessPool, Recycling, RecyclingReason, Retries, Shutdown, TaskError,
};

use crate::harness::{Gate, eventually, is_alive};
use crate::tasks::{Pass, Pid, await_workers, quiet, succeeds_with};
use crate::works::{At, Deed, Leak};

pub(crate) fn trials() -> Vec<Trial> {
    trials![
        a_worker_is_replaced_after_exactly_so_many_tasks,
        short_tasks_that_are_sent_ahead_are_counted_as_well,
        a_backlog_larger_than_the_workers_drains,
        the_replacement_starts_before_the_old_one_leaves,
        a_crash_in_the_last_task_loses_nothing_else,
        a_shutdown_in_the_midst_of_a_replacement_leaves_nothing,
        a_worker_that_leaks_is_replaced_between_two_tasks,
        recycling_after_no_task_at_all_is_refused,
        an_idle_worker_above_its_age_is_replaced,
        a_busy_worker_above_its_age_ends_its_task_and_gets_no_other,
        tasks_sent_ahead_to_a_worker_above_its_age_are_run_by_another,
    ]
}

fn a_worker_is_replaced_after_exactly_so_many_tasks() {
    let recycling = Recycling::never().after_tasks(3);
    let pool = quiet().workers(1).recycling(recycling).build().expect("a pool");
    let pids: Vec<_> = (0..12).map(|_| pool.submit(Pid()).result().expect("a pid")).collect();
    for three in pids.chunks(3) {
        assert!(three.iter().all(|pid| pid == &three[0]), "{pids:?}");
    }
    assert_eq!(pids.iter().collect::<HashSet<_>>().len(), 4, "{pids:?}");
}

fn short_tasks_that_are_sent_ahead_are_counted_as_well() {
    let recycling = Recycling::never().after_tasks(50);
    let pool = quiet().workers(1).recycling(recycling).build().expect("a pool");
    let futures: Vec<_> = (0..1000).map(|_| pool.submit(Pid())).collect();
    let pids: Vec<_> = futures.into_iter().map(|future| future.result().expect("a pid")).collect();
    for fifty in pids.chunks(50) {
        assert!(fifty.iter().all(|pid| pid == &fifty[0]));
    }
    assert_eq!(pids.iter().collect::<HashSet<_>>().len(), 20);
}

fn a_backlog_larger_than_the_workers_drains() {
    let recycling = Recycling::never().after_tasks(1);
    let pool = quiet().workers(2).recycling(recycling).build().expect("a pool");
    let futures: Vec<_> = (0..50).map(|_| pool.submit(Pid())).collect();
    let pids: HashSet<_> =
        futures.into_iter().map(|future| future.result().expect("pid")).collect();
    assert_eq!(pids.len(), 50);
}

fn the_replacement_starts_before_the_old_one_leaves() {
    let recycling = Recycling::never().after_tasks(1);
    let pool = quiet().workers(1).recycling(recycling).build().expect("a pool");
    await_workers(&pool);
    let old = pool.pids()[0];
    let gate = Gate::new();
    let last = pool.submit(Pass(gate.path()));
    gate.await_arrivals(1);
    eventually("a replacement beside it", || pool.pids().len() == 2);
    assert!(pool.pids().contains(&old));
    // It does not work before the old one has left.
    let next = pool.submit(Pid());
    assert_eq!(pool.stats().running, 1);
    gate.open();
    assert_eq!(last.result(), Ok(old));
    assert_ne!(next.result(), Ok(old));
    eventually("the old one's end", || !is_alive(old));
}

fn a_crash_in_the_last_task_loses_nothing_else() {
    let recycling = Recycling::never().after_tasks(2);
    let pool =
        quiet().workers(1).recycling(recycling).retries(Retries::none()).build().expect("a pool");
    let good = pool.submit(Pid());
    let bad = pool.submit(At(vec![Deed::Die]));
    let others: Vec<_> = (0..10).map(|_| pool.submit(Pid())).collect();
    assert!(good.result().is_ok());
    assert!(matches!(bad.result(), Err(TaskError::WorkerDied(_))));
    assert!(others.into_iter().all(|future| future.result().is_ok()));
}

fn a_shutdown_in_the_midst_of_a_replacement_leaves_nothing() {
    for how in [Shutdown::Wait, Shutdown::CancelPending, Shutdown::Kill] {
        let recycling = Recycling::never().after_tasks(1);
        let pool = quiet().workers(2).recycling(recycling).build().expect("a pool");
        let futures: Vec<_> = (0..10).map(|_| pool.submit(Pid())).collect();
        let mut pids = pool.pids();
        pool.shutdown(how);
        pids.extend(pool.pids());
        assert!(!pids.into_iter().any(is_alive));
        for future in futures {
            assert!(future.is_done());
            let result = future.result();
            assert!(result.is_ok() || how != Shutdown::Wait, "{result:?}");
        }
    }
}

fn a_worker_that_leaks_is_replaced_between_two_tasks() {
    let recycling = Recycling::never().above_memory(150 << 20);
    let pool = quiet().workers(1).recycling(recycling).build().expect("a pool");
    let futures: Vec<_> = (0..20).map(|_| pool.submit(Leak(40 << 20))).collect();
    let pids: Vec<_> = futures.into_iter().map(|future| future.result().expect("a pid")).collect();
    if cfg!(all(target_os = "linux", not(feature = "portable"))) {
        let processes = pids.iter().collect::<HashSet<_>>().len();
        // Three or four of these fit into one.
        assert!((5..=10).contains(&processes), "{pids:?}");
    }
    succeeds_with(&pool, 10);
}

fn recycling_after_no_task_at_all_is_refused() {
    let recycling = Recycling::never().after_tasks(0);
    let error = quiet().recycling(recycling).build().expect_err("a refusal");
    assert!(error.to_string().contains("after_tasks must be at least 1"), "{error}");
    let recycling = Recycling::never().above_age(Duration::ZERO);
    let error = quiet().recycling(recycling).build().expect_err("a refusal");
    assert!(error.to_string().contains("above_age must be above zero"), "{error}");
}

/// Process ids of the workers that were recycled, and why.
type Recycled = Arc<Mutex<Vec<(u32, RecyclingReason)>>>;

/// A pool of one worker that is replaced at this age, in milliseconds, and the reasons so far.
fn aging(age: u64) -> (ProcessPool, Recycled) {
    let reasons = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&reasons);
    let note = move |event: &PoolEvent| {
        if let PoolEvent::WorkerRecycled { worker: 0, pid, reason } = event {
            noted.lock().expect("no panic").push((*pid, *reason));
        }
    };
    let recycling = Recycling::never().above_age(Duration::from_millis(age));
    let pool = quiet().workers(1).recycling(recycling).on_event(note).build().expect("a pool");
    await_workers(&pool);
    (pool, reasons)
}

fn an_idle_worker_above_its_age_is_replaced() {
    let (pool, reasons) = aging(100);
    let mut pids = HashSet::new();
    eventually("five workers, one after the other", || {
        pids.extend(pool.submit(Pid()).result());
        pids.len() >= 5
    });
    let reasons = reasons.lock().expect("no panic").clone();
    assert!(reasons.len() >= 4, "{reasons:?}");
    assert!(reasons.iter().all(|(_, reason)| *reason == RecyclingReason::Age), "{reasons:?}");
    assert_eq!((pool.stats().failed, pool.stats().retried), (0, 0));
}

fn a_busy_worker_above_its_age_ends_its_task_and_gets_no_other() {
    let (pool, reasons) = aging(300);
    let gate = Gate::new();
    let last = pool.submit(Pass(gate.path()));
    gate.await_arrivals(1);
    eventually("a replacement beside it", || pool.pids().len() == 2);
    let next = pool.submit(Pid());
    assert_eq!(pool.stats().running, 1);
    gate.open();
    let old = last.result().expect("a pid");
    assert_ne!(next.result(), Ok(old));
    eventually("the old one's end", || !is_alive(old));
    assert!(reasons.lock().expect("no panic").contains(&(old, RecyclingReason::Age)));
}

fn tasks_sent_ahead_to_a_worker_above_its_age_are_run_by_another() {
    let (pool, _) = aging(300);
    // Short tasks, so that others are sent ahead of their turn.
    succeeds_with(&pool, 2_000);
    let gate = Gate::new();
    let first = pool.submit(Pass(gate.path()));
    let others: Vec<_> = (0..20).map(|_| pool.submit(Pid())).collect();
    gate.await_arrivals(1);
    eventually("a replacement beside it", || pool.pids().len() == 2);
    eventually("the others were taken back", || pool.stats().pending == 20);
    gate.open();
    let old = first.result().expect("a pid");
    assert!(others.into_iter().all(|other| other.result().is_ok_and(|pid| pid != old)));
}
