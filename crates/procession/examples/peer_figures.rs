//! Prints one figure of this crate's process pool, as JSON. `benches/peers/dispatch.py` runs it in turn with
//! other pools.
//!
//! `cargo run --release --example peer_figures -- dispatch workers=2 batch=10000 seconds=1`

#[allow(dead_code, reason = "the benchmarks use more of it")]
#[path = "../benches/pool/echo.rs"]
mod echo;
#[allow(dead_code, reason = "the benchmarks use more of it")]
#[path = "../benches/pool/placement.rs"]
mod placement;
#[allow(dead_code, reason = "the benchmarks use more of it")]
#[path = "../benches/pool/tasks.rs"]
mod tasks;

use std::collections::HashMap;
use std::env;
use std::hint::black_box;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use procession::{
    Context, Engine, Executor, Failure, ProcessPool, Registry, Task, ThreadPool, as_completed,
    worker,
};
use serde::{Deserialize, Serialize};

/// Told by the script: the CPU for the workers to keep to. Its own the script has set already.
const WORKER_CPU: &str = "PEER_WORKER_CPU";

/// Does nothing with a number.
#[derive(Serialize, Deserialize)]
struct Number(u64);

impl Task for Number {
    const NAME: &'static str = "number";
    type Output = ();

    fn run(self, _: &Context) -> Result<(), Failure> {
        Ok(())
    }
}

/// A fixed amount of work: unlike waiting for a time to pass, it takes longer when others need the
/// CPU as well.
#[derive(Serialize, Deserialize)]
struct Work {
    rounds: u64,
}

impl Work {
    fn lasting(time: Duration) -> Self {
        let took = |rounds| {
            let begun = Instant::now();
            work(rounds);
            begun.elapsed()
        };
        let rounds = 1_000_000;
        let fastest = (0..20).map(|_| took(rounds)).min().unwrap_or(time);
        Self { rounds: (rounds as f64 * time.as_secs_f64() / fastest.as_secs_f64()) as u64 }
    }
}

impl Task for Work {
    const NAME: &'static str = "work";
    type Output = ();

    fn run(self, _: &Context) -> Result<(), Failure> {
        work(self.rounds);
        Ok(())
    }
}

fn work(rounds: u64) {
    let mut random = 1_u64;
    for _ in 0..rounds {
        // xorshift: each round needs the result of the one before.
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
    }
    black_box(random);
}

fn main() -> ExitCode {
    if let Some(asked) = worker::asked() {
        placement::keep_if_asked();
        let registry = tasks::add_to(Registry::new()).with::<Number>().with::<Work>();
        return if asked.serve(registry).is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    if env::var_os(echo::VARIABLE).is_some() {
        placement::keep_if_asked();
        echo::serve_if_asked();
    }
    let mut args = env::args().skip(1);
    let measure = args.next().unwrap_or_default();
    let asked = Asked(
        args.filter_map(|arg| {
            let (name, value) = arg.split_once('=')?;
            Some((name.to_owned(), value.parse().ok()?))
        })
        .collect(),
    );
    let value = match measure.as_str() {
        "dispatch" => dispatch(&asked),
        "map" => map(&asked),
        "round_trip" => round_trip(&asked),
        "raw_round_trip" => raw_round_trip(&asked),
        "start_up" => start_up(&asked),
        "payload" => payload(&asked),
        "overhead" => overhead(&asked),
        _ => {
            eprintln!("usage: peer_figures MEASURE [NAME=NUMBER]...; see the source");
            return ExitCode::from(2);
        }
    };
    println!("{}", serde_json::json!({ "value": value, "peak_mib": peak_mib() }));
    ExitCode::SUCCESS
}

/// What the script wants it to be like.
struct Asked(HashMap<String, f64>);

impl Asked {
    fn number(&self, name: &str, default: f64) -> f64 {
        self.0.get(name).copied().unwrap_or(default)
    }

    fn count(&self, name: &str, default: usize) -> usize {
        self.0.get(name).map_or(default, |number| *number as usize)
    }

    /// Does it again and again until the time is over, and gives how long it took each time.
    fn times(&self, mut once: impl FnMut() -> Duration) -> Vec<Duration> {
        let (begun, most) = (Instant::now(), self.count("times", usize::MAX));
        let mut times = vec![once()];
        while times.len() < most && begun.elapsed().as_secs_f64() < self.number("seconds", 1.0) {
            times.push(once());
        }
        times
    }
}

fn timed(job: impl FnOnce()) -> Duration {
    let begun = Instant::now();
    job();
    begun.elapsed()
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64()
}

fn pool(workers: usize) -> ProcessPool {
    let cpu = env::var(WORKER_CPU).unwrap_or_default();
    let pool = ProcessPool::builder().workers(workers).worker_env(placement::VARIABLE, cpu);
    tasks::warm(pool.build().expect("a pool"))
}

/// Tasks per second, submitted in batches and taken as they are completed.
fn dispatch(asked: &Asked) -> f64 {
    let (pool, batch) = (pool(asked.count("workers", 2)), asked.count("batch", 10_000));
    let once = || {
        timed(|| {
            let futures = (0..batch as u64).map(|n| pool.submit(Number(n)));
            as_completed(futures).for_each(|future| future.result().expect("a result"));
        })
    };
    once();
    batch as f64 / median(asked.times(once))
}

/// Tasks per second through `map`, from a lazy iterator.
fn map(asked: &Asked) -> f64 {
    let (pool, tasks) = (pool(2), asked.count("tasks", 1_000_000));
    let time = timed(|| {
        let results = pool.map((0..tasks as u64).map(Number));
        assert_eq!(results.filter(Result::is_ok).count(), tasks);
    });
    tasks as f64 / time.as_secs_f64()
}

/// Microseconds for one task at a time.
fn round_trip(asked: &Asked) -> f64 {
    let pool = pool(1);
    let times = asked.times(|| timed(|| pool.submit(Number(7)).result().expect("a result")));
    median(times) * 1e6
}

/// The same between two processes that know of nothing but their socket.
fn raw_round_trip(asked: &Asked) -> f64 {
    let cpu = env::var(WORKER_CPU).unwrap_or_default();
    let echo = echo::Echo::start((placement::VARIABLE, &cpu)).expect("a peer");
    let times = asked.times(|| timed(|| echo.round_trip().expect("an answer")));
    median(times) * 1e6
}

/// Milliseconds from nothing to the first result.
fn start_up(asked: &Asked) -> f64 {
    let times = asked.times(|| {
        let begun = Instant::now();
        let pool = ProcessPool::builder().workers(2).build().expect("a pool");
        pool.submit(Number(7)).result().expect("a result");
        begun.elapsed()
    });
    median(times) * 1e3
}

/// Milliseconds for a large payload, there and back.
fn payload(asked: &Asked) -> f64 {
    let pool = pool(1);
    let bytes = vec![7; asked.count("mib", 64) << 20];
    let is_anew = asked.count("anew", 0) > 0;
    let times = asked.times(|| {
        let blob = bytes.clone().into();
        timed(|| {
            let back = match is_anew {
                true => pool.submit(tasks::Anew(blob)).result(),
                false => pool.submit(tasks::Laden(blob)).result(),
            };
            // Its memory has to be there, too, each page of it.
            let back = back.expect("a result");
            assert!(back.len() == bytes.len() && back.chunks(4096).all(|page| page[0] == 7));
        })
    });
    median(times) * 1e3
}

/// By how many percent tasks of 1 ms take longer in processes than on threads: the median of many
/// short comparisons, since what disturbs one batch most often disturbs the next one, too.
fn overhead(asked: &Asked) -> f64 {
    const TASKS: usize = 100;
    let Work { rounds } = Work::lasting(Duration::from_millis(1));
    let (threads, processes) = (ThreadPool::new(2), pool(2));
    let batch = |executor: &dyn Engine| {
        timed(|| {
            let futures = (0..TASKS).map(|_| executor.submit(Work { rounds }));
            as_completed(futures).for_each(|future| future.result().expect("a result"));
        })
    };
    let mut ratios = Vec::new();
    asked.times(|| {
        let (on_threads, in_processes) = (batch(&threads), batch(&processes));
        ratios.push(in_processes.as_secs_f64() / on_threads.as_secs_f64());
        on_threads + in_processes
    });
    ratios.sort_unstable_by(f64::total_cmp);
    (ratios[ratios.len() / 2] - 1.0) * 100.0
}

/// The most memory that this process, without its workers, has used. Where the system does not say,
/// nothing.
fn peak_mib() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: f64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kib / 1024.0)
}
