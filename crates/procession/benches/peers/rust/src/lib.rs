//! What the programs have in common: their arguments, their measurement and their output.

use std::collections::HashMap;
use std::env;
use std::time::{Duration, Instant};

/// Told by the script: the CPU for the workers to keep to.
const WORKER_CPU: &str = "PEER_WORKER_CPU";

/// A measure, and numbers that say what it should be like: `dispatch workers=2 batch=1000`.
pub struct Asked {
    pub measure: String,
    numbers: HashMap<String, f64>,
}

impl Asked {
    pub fn from_args() -> Self {
        let mut args = env::args().skip(1);
        let measure = args.next().unwrap_or_default();
        let number = |arg: String| {
            let (name, value) = arg.split_once('=')?;
            Some((name.to_owned(), value.parse().ok()?))
        };
        Self { measure, numbers: args.filter_map(number).collect() }
    }

    pub fn count(&self, name: &str, default: usize) -> usize {
        self.numbers.get(name).map_or(default, |number| *number as usize)
    }

    /// Does it again and again until the time is over, and gives the median of how long it took,
    /// in seconds.
    pub fn median(&self, mut once: impl FnMut() -> Duration) -> f64 {
        let seconds = self.numbers.get("seconds").copied().unwrap_or(1.0);
        let (begun, most) = (Instant::now(), self.count("times", usize::MAX));
        let mut times = vec![once()];
        while times.len() < most && begun.elapsed().as_secs_f64() < seconds {
            times.push(once());
        }
        times.sort_unstable();
        times[times.len() / 2].as_secs_f64()
    }
}

pub fn timed(job: impl FnOnce()) -> Duration {
    let begun = Instant::now();
    job();
    begun.elapsed()
}

/// In a worker: keeps to the CPU that the script has named, if it has.
pub fn keep_to_cpu() {
    let cpu = env::var(WORKER_CPU).ok().and_then(|cpu| cpu.parse().ok());
    if let Some(cpu) = cpu {
        let mut only = rustix::thread::CpuSet::new();
        only.set(cpu);
        rustix::thread::sched_setaffinity(None, &only).expect("a CPU that it may use");
    }
}

pub fn answer(value: f64) {
    println!("{{\"value\": {value}}}");
}
