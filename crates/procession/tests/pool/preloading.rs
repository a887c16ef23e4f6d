//! Workers that are copies of a process which has run a preload task.

use std::collections::HashSet;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use std::{fs, process, thread};

use libtest_mimic::Trial;
use procession::{
    Builder, Context, Executor, Exit, Failure, KeptTask, PoolError, PoolEvent, ProcessPool,
    Recycling, Registry, Sandbox, Task, TaskError, TaskOptions,
};
use rustix::process::{Signal, getppid};
use serde::{Deserialize, Serialize};

use crate::harness::{self, Gate, ON_PURPOSE, eventually, is_alive};
use crate::impostor::{Guise, pool_of};
use crate::tasks::{Bad, Ending, Pass, Pid, quiet, succeeds_with};

pub(crate) fn trials() -> Vec<Trial> {
    trials![
        every_worker_has_what_was_loaded_once_and_is_a_child_of_the_pool,
        the_workers_share_the_memory_of_what_was_loaded,
        workers_are_replaced_by_copies_after_each_kind_of_end,
        a_template_that_is_killed_takes_no_worker_with_it_and_is_replaced,
        spares_and_recycled_workers_are_copies,
        copies_are_confined_by_a_sandbox,
        what_a_copy_prints_is_told_as_its_own,
        a_preload_that_fails_breaks_the_pool_and_is_quoted,
        a_preload_that_starts_a_thread_breaks_the_pool,
        a_preload_that_crashes_breaks_the_pool,
        a_preload_that_crashes_in_a_worker_is_kept_and_not_the_initializer,
        a_first_task_that_cannot_be_sent_is_named,
        a_kept_task_is_replayed_after_the_preload,
        an_initializer_runs_in_each_copy,
        a_pool_that_is_shut_down_while_its_preload_runs_ends,
        a_program_that_does_not_serve_is_told_so_before_it_is_to_preload,
        a_preload_may_start_programs_that_have_pools,
    ]
}

pub(crate) fn add_to(registry: Registry) -> Registry {
    registry.with::<Load>().with::<Look>().with::<Count>().with::<Print>().with::<Fragile>()
}

const IS_LINUX: bool = cfg!(all(target_os = "linux", not(feature = "portable")));

/// What was loaded, by which process.
static LOADED: OnceLock<(u32, Vec<u8>)> = OnceLock::new();

/// What a preload does.
#[derive(Debug, Clone, Serialize, Deserialize)]
enum Load {
    /// So many bytes.
    Bytes(usize),
    Fail,
    Panic,
    Abort,
    StartThread,
    Wait,
    /// Whether it could start programs that have pools.
    LookForAwaited,
}

impl Task for Load {
    const NAME: &'static str = "preload something";
    type Output = ();

    fn run(self, context: &Context) -> Result<(), Failure> {
        match self {
            Self::Bytes(bytes) => {
                LOADED.get_or_init(|| (process::id(), vec![7; bytes]));
                *context.local(|| Mutex::new(0)).lock().expect("no panic") = process::id();
            }
            Self::Fail => return Err(Failure::msg("there is no model")),
            Self::Panic => panic!("{ON_PURPOSE}"),
            Self::Abort => process::abort(),
            Self::StartThread => drop(thread::spawn(|| thread::sleep(Duration::from_secs(600)))),
            Self::Wait => thread::sleep(Duration::from_secs(600)),
            Self::LookForAwaited => {
                let invitation = std::env::var("PROCESSION_INVITATION")?;
                let invitation: serde_json::Value = serde_json::from_str(&invitation)?;
                let dir = Path::new(invitation["awaited"].as_str().ok_or("no directory")?);
                let start = usize::try_from(invitation["start"].as_u64().ok_or("no start")?)?;
                if std::fs::read(dir.join("starts"))?[start] == b'1' {
                    return Err(Failure::msg("other programs would be taken for workers"));
                }
            }
        }
        Ok(())
    }
}

/// What a worker says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Seen {
    pid: u32,
    parent: u32,
    /// The process that has loaded what is in the static, and in the context.
    loaders: (u32, u32),
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Look;

impl Task for Look {
    const NAME: &'static str = "look at what was loaded";
    type Output = Seen;

    fn run(self, context: &Context) -> Result<Seen, Failure> {
        // Long enough that the other workers get some.
        thread::sleep(Duration::from_millis(5));
        let (loader, bytes) = LOADED.get().ok_or_else(|| Failure::msg("nothing was loaded"))?;
        assert!(bytes.iter().step_by(4096).all(|byte| *byte == 7));
        let parent = getppid().map_or(0, |pid| pid.as_raw_nonzero().get().unsigned_abs());
        let local = *context.local(|| Mutex::new(0)).lock().expect("no panic");
        Ok(Seen { pid: process::id(), parent, loaders: (*loader, local) })
    }
}

/// Counts in its process how often it was run.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Count;

impl Task for Count {
    const NAME: &'static str = "count in a worker";
    type Output = (u32, u32);

    fn run(self, context: &Context) -> Result<(u32, u32), Failure> {
        #[derive(Default)]
        struct Counted(Mutex<u32>);
        thread::sleep(Duration::from_millis(2));
        let counted = context.local(Counted::default);
        let mut count = counted.0.lock().expect("no panic");
        *count += 1;
        Ok((process::id(), *count))
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Print;

impl Task for Print {
    const NAME: &'static str = "print the process id";
    type Output = u32;

    fn run(self, _: &Context) -> Result<u32, Failure> {
        println!("this is {}", process::id());
        Ok(process::id())
    }
}

fn preloaded(bytes: usize) -> Builder {
    quiet().preload(Load::Bytes(bytes))
}

/// Runs rounds of tasks until this number of processes has run some.
#[track_caller]
fn look_from(pool: &ProcessPool, workers: usize) -> HashSet<Seen> {
    let mut seen = HashSet::new();
    eventually("tasks in each worker", || {
        let looks: Vec<_> = (0..4 * workers).map(|_| pool.submit(Look)).collect();
        seen.extend(looks.into_iter().map(|look| look.result().expect("an output")));
        seen.len() >= workers
    });
    seen
}

/// The process id of a template that has started, or its end.
type Told = (u32, Option<Exit>);

/// A listener, and the process ids of templates that have started and that have ended.
fn templates() -> (impl Fn(&PoolEvent) + Send + Sync + 'static, Receiver<Told>) {
    let (tell, told) = mpsc::channel();
    let tell = Mutex::new(tell);
    let listener = move |event: &PoolEvent| {
        let told = match event {
            PoolEvent::TemplateStarted { pid } => (*pid, None),
            PoolEvent::TemplateExited { pid, exit } => (*pid, Some(*exit)),
            _ => return,
        };
        let _ = tell.lock().expect("no panic").send(told);
    };
    (listener, told)
}

const PATIENCE: Duration = Duration::from_secs(30);

fn every_worker_has_what_was_loaded_once_and_is_a_child_of_the_pool() {
    let pool = preloaded(10).workers(3).build().expect("a pool");
    let seen = look_from(&pool, 3);
    assert_eq!(seen.len(), 3);
    let pids: HashSet<_> = seen.iter().map(|seen| seen.pid).collect();
    assert_eq!(pids, HashSet::from_iter(pool.pids()));
    for Seen { pid, parent, loaders: (loader, local) } in seen {
        assert_eq!((parent, loader), (process::id(), local));
        assert_eq!(pids.contains(&loader), !IS_LINUX, "{pid} is a copy of {loader}");
    }
    succeeds_with(&pool, 100);
}

/// In bytes, each page divided by the number of processes that have it.
fn proportional_memory(pid: u32) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("numbers");
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:")).expect("a line");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
}

fn the_workers_share_the_memory_of_what_was_loaded() {
    if !IS_LINUX {
        harness::skip("it is about templates, which only Linux has");
    }
    const MODEL: u64 = 64 << 20;
    let (on_event, events) = templates();
    let pool = preloaded(MODEL as usize).workers(4).on_event(on_event).build().expect("a pool");
    look_from(&pool, 4);
    let (template, _) = events.recv_timeout(PATIENCE).expect("a template");
    let all: u64 = pool.pids().into_iter().chain([template]).map(proportional_memory).sum();
    assert!(all < 2 * MODEL, "four workers take {} MiB", all >> 20);
}

fn workers_are_replaced_by_copies_after_each_kind_of_end() {
    let pool = preloaded(10).workers(2).build().expect("a pool");
    let template = look_from(&pool, 2).iter().next().expect("a worker").loaders;
    for ending in [Ending::Abort, Ending::Kill] {
        let crash = pool.submit(Bad(ending)).result();
        assert!(matches!(crash, Err(TaskError::WorkerDied(_))), "{crash:?}");
    }
    let (gate, limit) = (Gate::new(), TaskOptions::new().timeout(Duration::from_millis(50)));
    let late = pool.submit_with(limit, Pass(gate.path())).result();
    assert!(matches!(late, Err(TaskError::TimedOut { .. })), "{late:?}");
    if IS_LINUX {
        assert!(look_from(&pool, 2).iter().all(|seen| seen.loaders == template));
    }
    let pids = pool.pids();
    drop(pool);
    eventually("the end of all workers", || !pids.iter().any(|&pid| is_alive(pid)));
}

fn a_template_that_is_killed_takes_no_worker_with_it_and_is_replaced() {
    if !IS_LINUX {
        harness::skip("it is about templates, which only Linux has");
    }
    let (on_event, events) = templates();
    let pool = preloaded(10).workers(2).on_event(on_event).build().expect("a pool");
    let before = look_from(&pool, 2);
    let (first, _) = events.recv_timeout(PATIENCE).expect("a template");
    harness::signal(first, Signal::KILL);
    let killed = Exit::Signal(Signal::KILL.as_raw());
    assert_eq!(events.recv_timeout(PATIENCE), Ok((first, Some(killed))));
    assert_eq!(look_from(&pool, 2), before, "the same workers");
    assert!(pool.submit(Bad(Ending::Kill)).result().is_err());
    let (second, _) = events.recv_timeout(PATIENCE).expect("another template");
    eventually("a copy of the other template", || {
        look_from(&pool, 2).iter().any(|seen| seen.loaders.0 == second)
    });
    drop(pool);
    eventually("the end of the template", || !is_alive(second));
}

fn spares_and_recycled_workers_are_copies() {
    let recycling = Recycling::never().after_tasks(3);
    let pool = preloaded(10).workers(2).spares(1).recycling(recycling).build().expect("a pool");
    let seen = look_from(&pool, 6);
    let loaders: HashSet<_> = seen.iter().map(|seen| seen.loaders.0).collect();
    assert!(loaders.len() == 1 || !IS_LINUX, "{seen:?}");
    eventually("a spare", || pool.stats().spares == 1);
}

fn copies_are_confined_by_a_sandbox() {
    let sandbox = Sandbox::strict().best_effort();
    let pool = preloaded(10).workers(2).sandbox(sandbox).build().expect("a pool");
    look_from(&pool, 2);
    let report = pool.sandbox_report().expect("a report");
    let plain =
        quiet().workers(1).sandbox(Sandbox::strict().best_effort()).build().expect("a pool");
    plain.submit(Pid()).result().expect("a pid");
    assert_eq!(Some(report), plain.sandbox_report(), "as without a template");
}

fn what_a_copy_prints_is_told_as_its_own() {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&lines);
    let builder = preloaded(10).workers(2).on_output(move |output| {
        told.lock().expect("no panic").push((output.pid, output.line.to_owned()));
    });
    let pool = builder.build().expect("a pool");
    let pids: HashSet<_> =
        (0..20).map(|_| pool.submit(Print).result().expect("an output")).collect();
    for pid in pids {
        let line = (pid, format!("this is {pid}"));
        eventually("the line", || lines.lock().expect("no panic").contains(&line));
    }
}

#[track_caller]
fn breaks(load: Load) -> String {
    let pool = quiet().workers(2).preload(load).build().expect("a pool");
    match pool.submit(Pid()).result() {
        Err(TaskError::PoolBroken(PoolError::CannotStart { cause, .. })) => cause,
        other => panic!("{other:?}"),
    }
}

fn a_preload_that_fails_breaks_the_pool_and_is_quoted() {
    let cause = breaks(Load::Fail);
    assert!(cause.contains("its preload failed: there is no model"), "{cause}");
    let cause = breaks(Load::Panic);
    assert!(cause.contains("its preload failed: ") && cause.contains(ON_PURPOSE), "{cause}");
}

fn a_preload_that_starts_a_thread_breaks_the_pool() {
    if IS_LINUX {
        let cause = breaks(Load::StartThread);
        assert!(cause.contains("its preload has started a thread"), "{cause}");
    }
}

fn a_preload_that_crashes_breaks_the_pool() {
    let cause = breaks(Load::Abort);
    assert!(cause.contains("SIGABRT") || cause.contains("signal 6"), "{cause}");
    assert!(IS_LINUX || cause.contains("in its preload"), "{cause}");
}

fn a_preload_that_crashes_in_a_worker_is_kept_and_not_the_initializer() {
    if IS_LINUX {
        harness::skip("a template runs the preload, not a worker");
    }
    let dir = tempfile::tempdir().expect("a directory");
    let builder = quiet().workers(1).preload(Load::Abort).initializer(Count);
    let pool = builder.keep_crashes(dir.path()).build().expect("a pool");
    assert!(pool.submit(Pid()).result().is_err());
    let files = fs::read_dir(dir.path()).expect("a directory").flatten();
    let kept = files.filter_map(|file| KeptTask::read(file.path()).ok());
    let names: HashSet<_> = kept.map(|kept| kept.task().to_owned()).collect();
    assert_eq!(names, HashSet::from([Load::NAME.to_owned()]));
}

/// A task that cannot be encoded.
#[derive(Debug, Deserialize)]
struct Refused;

impl Serialize for Refused {
    fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("it has no form"))
    }
}

impl Task for Refused {
    const NAME: &'static str = "refused";
    type Output = ();

    fn run(self, _: &Context) -> Result<(), Failure> {
        Ok(())
    }
}

/// Crashes in a worker with this variable, and looks elsewhere.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Fragile;

const CRASHES: &str = "PROCESSION_TEST_FRAGILE_CRASHES";

impl Task for Fragile {
    const NAME: &'static str = "fragile";
    type Output = Seen;

    fn run(self, context: &Context) -> Result<Seen, Failure> {
        if std::env::var_os(CRASHES).is_some() {
            process::abort();
        }
        Look.run(context)
    }
}

fn a_kept_task_is_replayed_after_the_preload() {
    let dir = tempfile::tempdir().expect("a directory");
    let builder = preloaded(10).workers(1).worker_env(CRASHES, "1").initializer(Count);
    let pool = builder.keep_crashes(dir.path()).build().expect("a pool");
    let error = pool.submit(Fragile).result().expect_err("a crash");
    let kept = KeptTask::read(error.kept_file().expect("a file")).expect("a kept task");
    let output = kept.replay(&add_to(Registry::new())).expect("an output");
    let seen = output.decode::<Seen>().expect("what was seen");
    assert_eq!(seen.loaders, (process::id(), process::id()));
}

fn a_first_task_that_cannot_be_sent_is_named() {
    let (preload, initializer) = (quiet().preload(Refused), quiet().initializer(Refused));
    for (builder, name) in [(preload, "preload"), (initializer, "initializer")] {
        let error = builder.build().expect_err("a refusal").to_string();
        assert!(error.contains(&format!("the {name} cannot be sent: ")), "{error}");
    }
}

fn an_initializer_runs_in_each_copy() {
    let pool = preloaded(10).workers(2).initializer(Count).build().expect("a pool");
    let mut first = HashSet::new();
    eventually("tasks in each worker", || {
        let counts: Vec<_> = (0..8).map(|_| pool.submit(Count)).collect();
        for count in counts {
            let (pid, count) = count.result().expect("an output");
            assert!(count >= 2, "the initializer was the first");
            if count == 2 {
                first.insert(pid);
            }
        }
        first.len() == 2
    });
}

fn a_pool_that_is_shut_down_while_its_preload_runs_ends() {
    let pool = quiet().workers(2).preload(Load::Wait).build().expect("a pool");
    let never = pool.submit(Pid());
    drop(pool);
    assert!(never.result().is_err());
}

fn a_program_that_does_not_serve_is_told_so_before_it_is_to_preload() {
    for (guise, what) in [
        (Guise::NeverServes, "it builds a pool instead of serving"),
        (Guise::Ends, "it ended with exit code 0 before it was ready"),
        (Guise::GoesOn, "it had not reported after 300 ms: it does not call procession"),
        (Guise::OfAnotherBuild, "it is of another build"),
    ] {
        let pool = pool_of(guise).preload(Load::Bytes(10));
        let pool = match guise {
            Guise::GoesOn => pool.start_timeout(Duration::from_millis(300)),
            _ => pool,
        };
        let pool = pool.build().expect("a pool");
        let Err(TaskError::PoolBroken(error)) = pool.submit(Pid()).result() else {
            panic!("{guise:?}: a result");
        };
        let text = error.to_string();
        assert!(text.contains(what), "{guise:?}: {text}");
        if let PoolError::CannotStart { tries, .. } = error {
            assert!(tries <= 1, "{guise:?}: {tries} tries");
        }
    }
}

fn a_preload_may_start_programs_that_have_pools() {
    if IS_LINUX {
        let pool = quiet().workers(1).preload(Load::LookForAwaited).build().expect("a pool");
        succeeds_with(&pool, 10);
    }
}
