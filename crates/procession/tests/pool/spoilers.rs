//! Tasks that leave their worker's process in a state in which no other task can run there. The worker is
//! replaced, and the other tasks have their outputs.

#![allow(unsafe_code, reason = "what these tasks do has no safe interface")]

use std::fs::{self, File};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::{iter, mem, process};

use libtest_mimic::Trial;
use procession::{
    Context, Executor, Exit, Failure, Limits, PoolEvent, ProcessPool, Registry, Task, TaskError,
};
use rustix::process::{Resource, Rlimit, setrlimit};
use serde::{Deserialize, Serialize};

use crate::harness::eventually;
use crate::program::{assert_works, command_after};
use crate::tasks::{self, Bytes, Echo, Length, LengthOfAll, quiet, succeeds_with};

pub(crate) fn trials() -> Vec<Trial> {
    trials![
        what_cannot_be_received_after_a_task_has_spoiled_its_worker_runs_in_a_fresh_one,
        many_tasks_that_each_spoil_their_worker_are_all_done_with_large_ones_between,
        an_output_that_cannot_be_sent_from_a_spoiled_worker_costs_only_its_task,
        a_task_that_closes_a_standard_stream_costs_the_next_one_nothing,
        an_initializer_may_close_the_standard_streams,
        what_no_worker_can_receive_costs_only_its_task,
        a_coordinator_that_is_short_of_descriptors_waits_for_them_or_loses_one_output,
        what_is_larger_than_files_may_be_is_an_error_of_its_task,
    ]
}

pub(crate) fn add_to(registry: Registry) -> Registry {
    registry.with::<Spoil>().with::<SaysSomething>().with::<InThere>()
}

/// What is done to the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum How {
    FillDescriptors,
    CloseDescriptors,
    ForbidDescriptors,
    ForbidMemory,
    ForbidFiles,
    CloseStream(i32),
    CloseStreams,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Spoil(How);

impl Task for Spoil {
    const NAME: &'static str = "spoil";
    type Output = u32;

    fn run(self, _: &Context) -> Result<u32, Failure> {
        let forbid = |what| setrlimit(what, Rlimit { current: Some(0), maximum: Some(0) });
        let close = |fd| {
            unsafe { libc::close(fd) };
        };
        match self.0 {
            How::FillDescriptors => {
                iter::from_fn(|| File::open("/dev/null").ok()).for_each(mem::forget);
            }
            How::CloseDescriptors => (3..1000).for_each(close),
            How::ForbidDescriptors => forbid(Resource::Nofile)?,
            How::ForbidMemory => {
                // The allocator keeps this for what the worker needs to reply.
                drop(std::hint::black_box(vec![1_u8; 100_000]));
                forbid(Resource::As)?;
            }
            How::ForbidFiles => forbid(Resource::Fsize)?,
            How::CloseStream(fd) => close(fd),
            How::CloseStreams => (0..3).for_each(close),
        }
        Ok(process::id())
    }
}

/// Opens a file, prints a line to both outputs, and gives what is in the file then, and its process.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct SaysSomething(std::path::PathBuf);

impl Task for SaysSomething {
    const NAME: &'static str = "says something";
    type Output = (String, u32);

    fn run(self, _: &Context) -> Result<(String, u32), Failure> {
        let _open = File::create(&self.0)?;
        println!("out");
        eprintln!("err");
        Ok((fs::read_to_string(self.0)?, process::id()))
    }
}

/// The process.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct InThere(procession::Blob);

impl Task for InThere {
    const NAME: &'static str = "in there";
    type Output = u32;

    fn run(self, _: &Context) -> Result<u32, Failure> {
        assert_eq!(self.0.len(), LARGE);
        Ok(process::id())
    }
}

const LARGE: usize = 100_000;

fn large() -> procession::Blob {
    vec![7; LARGE].into()
}

/// What keeps a worker from receiving.
const DEAF: [How; 4] =
    [How::FillDescriptors, How::CloseDescriptors, How::ForbidDescriptors, How::ForbidMemory];

/// A pool of one worker, and the reasons for which its workers were replaced.
fn watched(limits: Limits) -> (ProcessPool, Arc<Mutex<Vec<String>>>) {
    let (pool, reasons, _) = watched_with_aborts(limits);
    (pool, reasons)
}

/// The same, and how many workers ended by `abort`.
fn watched_with_aborts(limits: Limits) -> (ProcessPool, Arc<Mutex<Vec<String>>>, Arc<AtomicUsize>) {
    let aborts = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&aborts);
    let reasons = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&reasons);
    let note = move |event: &PoolEvent| {
        if let PoolEvent::WorkerUnfit { reason, pid, .. } = event {
            assert!(*pid > 0);
            noted.lock().expect("no panic").push(reason.clone());
        }
        if let PoolEvent::WorkerExited { exit: Exit::Signal(libc::SIGABRT), .. } = event {
            counted.fetch_add(1, Ordering::SeqCst);
        }
    };
    let pool = quiet().workers(1).limits(limits).on_event(note).build().expect("a pool");
    (pool, reasons, aborts)
}

fn what_cannot_be_received_after_a_task_has_spoiled_its_worker_runs_in_a_fresh_one() {
    for how in DEAF {
        let (pool, reasons, aborts) = watched_with_aborts(Limits::none().open_files(200));
        let spoiled = pool.submit(Spoil(how)).result().expect("an output");
        let next = pool.submit(InThere(large())).result();
        assert_ne!(next.as_ref().expect("an output"), &spoiled, "{how:?}");
        let text = pool.submit(Length("x".repeat(LARGE))).result();
        assert_eq!(text, Ok(LARGE), "{how:?}");
        succeeds_with(&pool, 20);
        let (stats, reasons) = (pool.stats(), reasons.lock().expect("no panic").clone());
        assert_eq!((stats.failed, stats.respawned), (0, 1), "{how:?} {reasons:?}");
        if how == How::ForbidMemory && reasons.is_empty() {
            // A process without memory may abort at an allocation before it can report.
            assert_eq!(aborts.load(Ordering::SeqCst), 1, "{how:?}");
            continue;
        }
        assert_eq!(reasons.len(), 1, "{how:?} {reasons:?}");
        assert!(reasons[0].contains("os error"), "{how:?}: {reasons:?}");
    }
}

fn many_tasks_that_each_spoil_their_worker_are_all_done_with_large_ones_between() {
    let pool = quiet().workers(2).limits(Limits::none().open_files(200)).build().expect("a pool");
    let futures: Vec<_> =
        (0..12).map(|n| (pool.submit(Spoil(DEAF[n % 3])), pool.submit(InThere(large())))).collect();
    for (spoils, follows) in futures {
        spoils.result().expect("an output");
        follows.result().expect("an output");
    }
    assert_eq!((pool.stats().done, pool.stats().failed), (24, 0));
}

fn an_output_that_cannot_be_sent_from_a_spoiled_worker_costs_only_its_task() {
    for how in [How::FillDescriptors, How::CloseDescriptors, How::ForbidFiles] {
        let (pool, reasons) = watched(Limits::none().open_files(200));
        pool.submit(Spoil(how)).result().expect("an output");
        // It is small on its way there, and large on its way back.
        match pool.submit(tasks::Repeat("x".to_owned(), LARGE)).result() {
            Err(TaskError::Undelivered { what, reason }) => {
                assert_eq!(what, "output", "{how:?}");
                assert!(reason.starts_with("the worker cannot send an attachment: "), "{reason}");
            }
            other => panic!("{how:?}: {other:?}"),
        }
        let again = pool.submit(tasks::Repeat("x".to_owned(), LARGE)).result();
        assert_eq!(again.expect("an output").len(), LARGE, "{how:?}");
        assert_eq!(reasons.lock().expect("no panic").len(), 1, "{how:?}");
        assert_eq!((pool.stats().failed, pool.stats().respawned), (1, 1), "{how:?}");
    }
}

fn a_task_that_closes_a_standard_stream_costs_the_next_one_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    for how in [0, 1, 2].map(How::CloseStream).into_iter().chain([How::CloseStreams]) {
        let (pool, reasons) = watched(Limits::none());
        let spoiled = pool.submit(Spoil(how)).result().expect("an output");
        // The worker looks at its streams from time to time.
        std::thread::sleep(std::time::Duration::from_millis(5));
        let said = pool.submit(SaysSomething(dir.path().join("file"))).result();
        let (text, pid) = said.expect("an output");
        assert_eq!(text, "", "{how:?}");
        assert_ne!(pid, spoiled, "{how:?}");
        let reasons = reasons.lock().expect("no panic").clone();
        assert!(reasons.len() == 1 && reasons[0].contains("a task has closed the standard"));
    }
}

fn an_initializer_may_close_the_standard_streams() {
    let pool = quiet().workers(1).initializer(Spoil(How::CloseStreams)).build().expect("a pool");
    for _ in 0..10 {
        succeeds_with(&pool, 10);
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    assert_eq!(pool.stats().respawned, 0);
}

fn what_no_worker_can_receive_costs_only_its_task() {
    let (pool, reasons) = watched(Limits::none().address_space(400 << 20));
    let waiting: Vec<_> = (0..5).map(|n| pool.submit(Echo(n.to_string()))).collect();
    match pool.submit(LengthOfAll(vec![vec![1; 500 << 20].into()])).result() {
        Err(TaskError::Undelivered { what, reason }) => {
            assert_eq!(what, "task");
            assert!(reason.contains("2 fresh workers could not receive it: "), "{reason}");
            assert!(reason.contains("Cannot allocate memory"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
    assert!(waiting.into_iter().all(|future| future.result().is_ok()));
    succeeds_with(&pool, 20);
    assert!(reasons.lock().expect("no panic").len() <= 3, "a bounded number of workers");
    assert_eq!(pool.stats().failed, 1);
}

fn a_coordinator_that_is_short_of_descriptors_waits_for_them_or_loses_one_output() {
    assert_works(&mut command_after("ulimit -n 128", "receives with no descriptors"));
}

fn what_is_larger_than_files_may_be_is_an_error_of_its_task() {
    assert_works(&mut command_after("ulimit -f 4096", "sends more than files may hold"));
}

/// What the coordinator is where it is short of descriptors.
pub(crate) fn receives_with_no_descriptors() {
    let pool = tasks::pool(1);
    succeeds_with(&pool, 1);
    let pids = pool.pids();
    // Twice: threads of the pool close what they have used a moment after a start or a result.
    let hold = || {
        let rest = || iter::from_fn(|| File::open("/dev/null").ok());
        let mut all: Vec<File> = rest().collect();
        std::thread::sleep(std::time::Duration::from_millis(200));
        all.extend(rest());
        all
    };
    let give = || tasks::Repeat("x".to_owned(), LARGE);
    // Longer than the segment of those.
    let give_more = || tasks::Repeat("x".to_owned(), 10 * LARGE);
    // For a while.
    let all = hold();
    let future = pool.submit(give());
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert!(!future.is_done());
    drop(all);
    assert_eq!(future.result().expect("an output").len(), LARGE);
    // For good.
    let all = hold();
    let others: Vec<_> = (0..20).map(|n| pool.submit(Echo(n.to_string()))).collect();
    match pool.submit(give_more()).result() {
        Err(TaskError::Undelivered { what, reason }) => {
            assert_eq!(what, "output");
            assert!(reason.starts_with("this process cannot receive it: Too many"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
    let map: Vec<_> = pool.map((0..5).map(|_| give_more())).collect();
    assert!(map.iter().all(|it| matches!(it, Err(TaskError::Undelivered { .. }))), "{map:?}");
    assert!(others.into_iter().all(|future| future.result().is_ok()));
    drop(all);
    // The worker is not blamed, and what comes next is not what was lost.
    assert_eq!(pool.submit(give_more()).result().expect("an output").len(), 10 * LARGE);
    assert_eq!(pool.submit(give()).result().expect("an output").len(), LARGE);
    assert_eq!(pool.submit(Bytes(large())).result(), Ok(large()));
    assert_eq!((pool.pids(), pool.stats().respawned), (pids, 0));
    println!("it works");
}

/// A limit of file sizes counts for shared memory as well.
pub(crate) fn sends_more_than_files_may_hold() {
    let pool = tasks::pool(1);
    succeeds_with(&pool, 20);
    let pids = pool.pids();
    let size = 3 << 20;
    match pool.submit(Length("x".repeat(size))).result() {
        Err(TaskError::Undelivered { what, reason }) => {
            assert_eq!(what, "task");
            assert!(reason.contains("File too large"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
    match pool.submit(LengthOfAll(vec![vec![1; 100].into(), vec![1; size].into()])).result() {
        Err(TaskError::Undelivered { what, .. }) => assert_eq!(what, "task"),
        other => panic!("{other:?}"),
    }
    assert_eq!(pool.submit(Length("x".repeat(1 << 20))).result(), Ok(1 << 20));
    eventually("no change of workers", || pool.pids() == pids);
    println!("it works");
}
