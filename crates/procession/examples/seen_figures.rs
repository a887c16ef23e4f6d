//! What it costs in CPU time, of the coordinator and its workers together, that a pool can be seen: the same tasks
//! on pools with and without a journal, and with and without events, in turn.
//!
//! ```text
//! cargo run --release -p procession --example seen_figures --features tracing,macros -- [ROUNDS]
//! ```
//!
//! CPU time says more than times of the clock on a machine that is busy with other work.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use std::{env, thread};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use procession::{Builder, Executor, ProcessPool, Shutdown, Task};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

const SHORT: u64 = 1_000_000;
/// Of a millisecond. Each has a line of its own: a worker writes 10,000 before it sums up longer tasks.
const LONG: u64 = 8_000;
/// A worker sends no more than 20,000 in a second.
const EVENTS: u64 = 15_000;

#[procession::task]
fn nothing() {}

#[procession::task]
fn millisecond() {
    thread::sleep(Duration::from_millis(1));
}

#[procession::task]
fn events(count: u64) {
    for number in 0..count {
        tracing::info!(number, "an event");
    }
}

/// Counts events, and does nothing else about them.
struct Counter;

static COUNTED: AtomicU64 = AtomicU64::new(0);

impl Subscriber for Counter {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() != "procession"
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, _: &Event<'_>) {
        COUNTED.fetch_add(1, Ordering::Relaxed);
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// CPU time of this process and of the workers that have ended, in seconds.
fn cpu() -> f64 {
    let of = |who| {
        let usage = getrusage(who).expect("the usage of this process");
        let (user, system) = (usage.user_time(), usage.system_time());
        (user.num_microseconds() + system.num_microseconds()) as f64 / 1e6
    };
    of(UsageWho::RUSAGE_SELF) + of(UsageWho::RUSAGE_CHILDREN)
}

/// The CPU time of a pool that runs these tasks, a task, in microseconds.
fn cost<T: Task>(pool: Builder, count: u64, task: impl Fn() -> T) -> f64 {
    let before = cpu();
    let pool = pool.workers(2).build().expect("a pool");
    let done = pool.map((0..count).map(|_| task())).filter(Result::is_ok).count();
    assert_eq!(done as u64, count);
    pool.shutdown(Shutdown::Wait);
    (cpu() - before) / count as f64 * 1e6
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}

fn print(what: &str, costs: &[(f64, f64)]) {
    let without = median(costs.iter().map(|cost| cost.0).collect());
    let more: Vec<f64> = costs.iter().map(|(without, with)| with - without).collect();
    let (least, most) = more
        .iter()
        .fold((f64::MAX, f64::MIN), |(least, most), more| (least.min(*more), most.max(*more)));
    let median = median(more);
    println!("{what}: {without:.2} µs without, {median:+.2} µs with ({least:+.2} to {most:+.2})");
}

#[procession::main]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let rounds: usize = env::args().nth(1).map_or(Ok(5), |rounds| rounds.parse())?;
    tracing::subscriber::set_global_default(Counter)?;
    let logs = tempfile::tempdir()?;
    let plain = ProcessPool::builder;
    let seen = || plain().journal(logs.path());
    let (mut short, mut long, mut traced) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        short.push((cost(plain(), SHORT, nothing), cost(seen(), SHORT, nothing)));
        long.push((cost(plain(), LONG, millisecond), cost(seen(), LONG, millisecond)));
        let before = COUNTED.load(Ordering::Relaxed);
        let silent = cost(plain(), 1, || events(EVENTS)) / EVENTS as f64;
        let loud = cost(plain().tracing(Level::INFO), 1, || events(EVENTS)) / EVENTS as f64;
        let arrived = COUNTED.load(Ordering::Relaxed) - before;
        assert_eq!(arrived, EVENTS, "events have arrived");
        traced.push((silent, loud));
    }
    println!("CPU time, medians of {rounds} rounds:");
    print("a task that does nothing, in a sum of the journal", &short);
    print("a task of a millisecond, with a line of the journal", &long);
    print("an event of `tracing` that arrives", &traced);
    Ok(())
}
