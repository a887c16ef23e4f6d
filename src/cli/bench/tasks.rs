//! The tasks that are measured. Each worker program has them, for `coordinator bench`.

use std::hint::black_box;
use std::process;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use procession::{Context, Failure, Registry, Task};

/// All of them.
pub(in crate::cli) fn add_to(registry: Registry) -> Registry {
    registry.with::<BenchNoop>().with::<Echo>().with::<Spin>().with::<ExitProcess>()
}

/// An empty task: its duration is that of the executor's work.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct BenchNoop;

impl Task for BenchNoop {
    const NAME: &'static str = "bench::nothing";
    type Output = ();

    fn run(self, _: &Context) -> Result<(), Failure> {
        Ok(())
    }
}

/// Returns its input.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Echo(pub String);

impl Task for Echo {
    const NAME: &'static str = "bench::same";
    type Output = String;

    fn run(self, _: &Context) -> Result<String, Failure> {
        Ok(self.0)
    }
}

/// A fixed amount of CPU-bound work. Unlike a wait, it takes longer where it shares its CPU.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Spin {
    rounds: u64,
}

impl Spin {
    /// The amount of work that an idle CPU does in about this time.
    pub(super) fn lasting(time: Duration) -> Self {
        let sample = Self { rounds: 100_000 };
        let took = || {
            let begun = Instant::now();
            sample.work();
            begun.elapsed().as_secs_f64()
        };
        // A disturbance only makes it longer.
        let fastest = (0..20).map(|_| took()).fold(f64::INFINITY, f64::min);
        Self { rounds: (sample.rounds as f64 * time.as_secs_f64() / fastest) as u64 }
    }

    fn work(self) {
        let mut random = 1_u64;
        for _ in 0..self.rounds {
            // Each round needs the result of the previous one.
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
        }
        black_box(random);
    }
}

impl Task for Spin {
    const NAME: &'static str = "bench::work";
    type Output = ();

    fn run(self, _: &Context) -> Result<(), Failure> {
        self.work();
        Ok(())
    }
}

/// Ends its process.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct ExitProcess;

impl Task for ExitProcess {
    const NAME: &'static str = "bench::die";
    type Output = ();

    fn run(self, _: &Context) -> Result<(), Failure> {
        process::exit(1)
    }
}
