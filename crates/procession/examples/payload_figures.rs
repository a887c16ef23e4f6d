//! What payloads cost, by their size and by the way that they go. Prints a table in Markdown: the CPU time of the
//! coordinator and its workers together, and the time by the clock. The cases run in turn, for several rounds.
//!
//! ```text
//! cargo run --release -p procession --example payload_figures -- [ROUNDS] [PART OF A NAME]
//! ```
//!
//! With a part of a name, only the cases with it are run.
//!
//! CPU time says more than times of the clock on a machine that is busy with other work.

#[allow(dead_code, reason = "the benchmarks use more of it")]
#[path = "../benches/pool/tasks.rs"]
mod tasks;

use std::time::{Duration, Instant};
use std::{env, fs};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use procession::{Blob, Executor, ProcessPool, Registry, Task, worker};

use tasks::{Anew, AnewBinary, Doubled, DoubledPodVec, DoubledVec};

const KIB: usize = 1 << 10;
/// Lengths of blobs, on both sides of each length at which the way of sending changes.
const SIZES: [usize; 13] = [
    64,
    256,
    257,
    KIB,
    2 * KIB,
    4 * KIB,
    8 * KIB,
    12 * KIB,
    12 * KIB + 1,
    16 * KIB,
    32 * KIB,
    32 * KIB + 1,
    64 * KIB,
];

/// The CPU time of this process and of the workers, in seconds.
fn cpu(pool: &ProcessPool) -> f64 {
    let own = getrusage(UsageWho::RUSAGE_SELF).expect("the usage of this process");
    let own = own.user_time().num_microseconds() + own.system_time().num_microseconds();
    let of_threads = |pid: u32| {
        let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        let nanos = threads.filter_map(|thread| {
            let statistics = fs::read_to_string(thread.path().join("schedstat")).ok()?;
            statistics.split(' ').next()?.parse::<u64>().ok()
        });
        nanos.sum::<u64>()
    };
    own as f64 / 1e6 + pool.pids().into_iter().map(of_threads).sum::<u64>() as f64 / 1e9
}

/// What is measured. `run` uses a pool with `workers` workers, and returns how often it did the work.
struct Case {
    name: String,
    workers: usize,
    run: Box<dyn Fn(&ProcessPool) -> usize>,
    /// CPU time and time by the clock for each time, in seconds: one pair for each round.
    costs: Vec<(f64, f64)>,
}

impl Case {
    fn new(name: String, workers: usize, run: impl Fn(&ProcessPool) -> usize + 'static) -> Self {
        Self { name, workers, run: Box::new(run), costs: Vec::new() }
    }

    /// By `map`, each with bytes of its own.
    fn of_own_blobs<T: Task>(encoding: &str, size: usize, make: fn(Blob) -> T) -> Self {
        const TASKS: usize = 4_000;
        Self::new(format!("{size} bytes, {encoding}"), 2, move |pool| {
            let bytes = vec![7; size];
            let tasks = (0..TASKS).map(|_| make(bytes.clone().into()));
            assert_eq!(pool.map(tasks).filter(Result::is_ok).count(), TASKS);
            TASKS
        })
    }

    /// 10 MB, one after the other.
    fn doubled<T: Task>(name: &str, make: fn(Vec<f32>) -> T) -> Self {
        const TIMES: usize = 10;
        Self::new(format!("10 MB of `f32` doubled, {name}"), 1, move |pool| {
            for _ in 0..TIMES {
                let numbers = vec![0.5; 2_500_000];
                assert!(pool.submit(make(numbers)).result().is_ok());
            }
            TIMES
        })
    }

    fn measure(&mut self) {
        let pool = ProcessPool::builder().workers(self.workers).build().expect("a pool");
        let pool = tasks::warm(pool);
        // The first run allocates memory that the measured runs use again.
        (self.run)(&pool);
        let (cpu_before, began) = (cpu(&pool), Instant::now());
        let times = (self.run)(&pool) as f64;
        let (took, used) = (began.elapsed().as_secs_f64(), cpu(&pool) - cpu_before);
        self.costs.push((used / times, took / times));
    }

    fn print(&self) {
        let sorted = |of: fn(&(f64, f64)) -> f64| {
            let mut costs: Vec<f64> = self.costs.iter().map(of).collect();
            costs.sort_by(f64::total_cmp);
            let show = |seconds: f64| format!("{:.3?}", Duration::from_secs_f64(seconds));
            [0, costs.len() / 2, costs.len() - 1].map(|at| show(costs[at]))
        };
        let ([least, median, most], [fastest, usual, _]) =
            (sorted(|cost| cost.0), sorted(|cost| cost.1));
        println!("| {} | {median} | {least} – {most} | {usual} | {fastest} |", self.name);
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    worker::serve_if_asked(tasks::add_to(Registry::new()));
    let rounds: usize = env::args().nth(1).map_or(Ok(5), |rounds| rounds.parse())?;
    let mut cases = Vec::new();
    for size in SIZES {
        cases.push(Case::of_own_blobs("binary", size, AnewBinary));
        cases.push(Case::of_own_blobs("JSON", size, Anew));
    }
    cases.push(Case::doubled("a `Blob`", |numbers| Doubled(Blob::from_values(numbers))));
    cases.push(Case::doubled("a `PodVec`", |numbers| DoubledPodVec(numbers.into())));
    cases.push(Case::doubled("a `Vec` in binary", DoubledVec));
    let part = env::args().nth(2).unwrap_or_default();
    cases.retain(|case| case.name.contains(&part));
    for _ in 0..rounds {
        cases.iter_mut().for_each(Case::measure);
    }
    println!(
        "| a task with its output | CPU, median | least – most | by the clock, median | fastest |"
    );
    println!("|---|---|---|---|---|");
    cases.iter().for_each(Case::print);
    Ok(())
}
