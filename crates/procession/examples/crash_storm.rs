//! Measures a process pool whose tasks and workers die: 1,000 tasks of 2 ms on 2 workers.
//!
//! `cargo run --release --example crash_storm`
//!
//! 1. One of the tasks kills its own process.
//! 2. The same at its first attempt only, with one retry.
//! 3. Every 20 ms a worker is killed from outside, with retries.
//! 4. The time from a worker's death to the next result of its replacement.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use std::{process, thread};

use procession::{
    Context, Executor, Failure, Future, ProcessPool, Registry, Retries, Task, TaskError, worker,
};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

const TASKS: usize = 1000;

/// Works for a while; or dies in the middle of that, always or the first time.
#[derive(Serialize, Deserialize)]
enum Work {
    Done,
    Suicide,
    SuicideAtFirst,
}

impl Task for Work {
    const NAME: &'static str = "work";
    type Output = u32;

    fn run(self, context: &Context) -> Result<u32, Failure> {
        thread::sleep(Duration::from_millis(2));
        match self {
            Self::Suicide => kill(process::id()),
            Self::SuicideAtFirst if context.attempt() == 1 => kill(process::id()),
            _ => {}
        }
        Ok(process::id())
    }
}

fn kill(pid: u32) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        // A worker may be gone already when the storm looks for it.
        let _ = kill_process(pid, Signal::KILL);
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    worker::serve_if_asked(Registry::new().with::<Work>());

    println!("{TASKS} tasks of 2 ms, 2 workers");
    let pool = pool(Retries::none())?;
    let one_dies = (0..TASKS).map(|n| if n == TASKS / 2 { Work::Suicide } else { Work::Done });
    report("one kills its process", &pool, one_dies);

    let pool = self::pool(Retries::times(1))?;
    let dies_once =
        (0..TASKS).map(|n| if n == TASKS / 2 { Work::SuicideAtFirst } else { Work::Done });
    report("the same at its first attempt only, one retry", &pool, dies_once);

    let pool = self::pool(Retries::times(50))?;
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for turn in 0.. {
                thread::sleep(Duration::from_millis(20));
                if is_over.load(Ordering::Relaxed) {
                    return;
                }
                let pids = pool.pids();
                if let Some(&pid) = pids.get(turn % pids.len().max(1)) {
                    kill(pid);
                }
            }
        });
        report("a worker killed every 20 ms, retries", &pool, (0..TASKS).map(|_| Work::Done));
        is_over.store(true, Ordering::Relaxed);
    });

    recovery()
}

fn pool(retries: Retries) -> Result<ProcessPool, procession::PoolError> {
    ProcessPool::builder().workers(2).retries(retries).build()
}

fn report(what: &str, pool: &ProcessPool, tasks: impl Iterator<Item = Work>) {
    let began = Instant::now();
    let futures: Vec<_> = tasks.map(|task| pool.submit(task)).collect();
    let (mut results, mut errors) = (0, Vec::new());
    for future in futures {
        match future.result() {
            Ok(_) => results += 1,
            Err(error) => errors.push(error),
        }
    }
    let stats = pool.stats();
    let deaths = errors.iter().filter(|error| matches!(error, TaskError::WorkerDied(_))).count();
    println!("\n{what}:");
    println!(
        "  {results} results, {} errors ({deaths} WorkerDied), {} retries, {} workers replaced, \
         {:.2} s",
        errors.len(),
        stats.retried,
        stats.respawned,
        began.elapsed().as_secs_f64(),
    );
    for error in errors.iter().take(2) {
        println!("  {error}");
    }
}

/// How long it takes from the death of the only worker until its replacement gives a result, as
/// the caller sees it: from the error of the task that died to the output of the next.
fn recovery() -> Result<(), Box<dyn std::error::Error>> {
    let pool = ProcessPool::builder().workers(1).build()?;
    let mut times: Vec<Duration> = (0..100)
        .map(|_| {
            let dies: Future<u32> = pool.submit(Work::Suicide);
            let next = pool.submit(Work::Done);
            let _ = dies.result();
            let died = Instant::now();
            next.result().map(|_| died.elapsed())
        })
        .collect::<Result<_, _>>()?;
    times.sort_unstable();
    println!(
        "\nfrom a worker's death to the next result on its replacement, less its 2 ms of work:"
    );
    let less_work = |time: Duration| time.saturating_sub(Duration::from_millis(2));
    println!("  median {:.1?}, longest {:.1?}", less_work(times[50]), less_work(times[99]));
    Ok(())
}
