//! Shutdowns and drops of a pool in callbacks: of futures, of output, of events.

use std::sync::{Arc, OnceLock, mpsc};

use libtest_mimic::Trial;
use procession::{Executor, ProcessPool, Shutdown, TaskError};

use crate::harness::{Gate, eventually, is_alive};
use crate::shutdown::{ALL, assert_gone};
use crate::tasks::{Pass, Pid, Say, pool, quiet};

pub(crate) fn trials() -> Vec<Trial> {
    trials![
        a_callback_may_shut_its_pool_down,
        a_callback_for_a_task_that_a_shutdown_cancels_may_shut_down_as_well,
        a_callback_may_drop_its_pool,
        a_callback_for_output_may_shut_its_pool_down,
        a_callback_for_events_may_shut_its_pool_down,
        a_shutdown_in_a_callback_of_another_pool_waits,
    ]
}

fn a_callback_may_shut_its_pool_down() {
    for how in ALL {
        let pool = Arc::new(pool(2));
        let pids = pool.pids();
        let gate = Gate::new();
        let first = pool.submit(Pass(gate.path()));
        let rest: Vec<_> = (0..10).map(|_| pool.submit(Pid())).collect();
        let its_pool = Arc::clone(&pool);
        let (sender, returned) = mpsc::channel();
        first.on_done(move |_| {
            its_pool.shutdown(how);
            let _ = sender.send(());
        });
        gate.open();
        returned.recv().expect("a return");
        pool.shutdown(how);
        assert_gone(&pids);
        assert!(rest.iter().all(procession::Future::is_done));
    }
}

fn a_callback_for_a_task_that_a_shutdown_cancels_may_shut_down_as_well() {
    for how in [Shutdown::CancelPending, Shutdown::Kill] {
        let pool = Arc::new(pool(1));
        let gate = Gate::new();
        let running = pool.submit(Pass(gate.path()));
        let pending = pool.submit(Pid());
        gate.await_arrivals(1);
        let its_pool = Arc::clone(&pool);
        pending.on_done(move |_| its_pool.shutdown(how));
        gate.open();
        pool.shutdown(how);
        assert!(pool.pids().is_empty() && running.is_done() && pending.is_done());
    }
}

fn a_callback_may_drop_its_pool() {
    let pool = pool(2);
    let pids = pool.pids();
    let gate = Gate::new();
    let first = pool.submit(Pass(gate.path()));
    let endless = Gate::new();
    let running = pool.submit(Pass(endless.path()));
    gate.await_arrivals(1);
    first.on_done(move |_| drop(pool));
    gate.open();
    assert_eq!(running.result(), Err(TaskError::Cancelled));
    eventually("the end of all workers", || !pids.iter().any(|&pid| is_alive(pid)));
}

/// The pool for its own callbacks, set after it is built.
type Later = Arc<OnceLock<Arc<ProcessPool>>>;

fn a_callback_for_output_may_shut_its_pool_down() {
    let later = Later::default();
    let its_pool = Arc::clone(&later);
    let pool = ProcessPool::builder()
        .workers(2)
        .on_output(move |_| its_pool.wait().shutdown(Shutdown::Wait))
        .build()
        .expect("a pool");
    let pool = Arc::new(pool);
    let _ = later.set(Arc::clone(&pool));
    let said = pool.submit(Say("enough".to_owned(), "enough".to_owned()));
    assert_eq!(said.result(), Ok(()));
    pool.shutdown(Shutdown::Wait);
    assert!(pool.pids().is_empty());
}

fn a_callback_for_events_may_shut_its_pool_down() {
    for how in ALL {
        let later = Later::default();
        let its_pool = Arc::clone(&later);
        let shut_down = move |_: &procession::PoolEvent| its_pool.wait().shutdown(how);
        let pool = quiet().workers(2).on_event(shut_down).build().expect("a pool");
        let pool = Arc::new(pool);
        let future = pool.submit(Pid());
        let _ = later.set(Arc::clone(&pool));
        let _ = future.result();
        pool.shutdown(how);
        assert!(pool.pids().is_empty());
    }
}

fn a_shutdown_in_a_callback_of_another_pool_waits() {
    let (one, other) = (pool(1), pool(1));
    let pids = other.pids();
    let gate = Gate::new();
    let endless = other.submit(Pass(gate.path()));
    gate.await_arrivals(1);
    let (sender, alive) = mpsc::channel();
    one.submit(Pid()).on_done(move |_| {
        other.shutdown(Shutdown::Kill);
        let _ = sender.send(pids.iter().any(|&pid| is_alive(pid)));
    });
    assert_eq!(alive.recv(), Ok(false));
    assert_eq!(endless.result(), Err(TaskError::Cancelled));
}
