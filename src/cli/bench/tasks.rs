//! The tasks that are measured. A worker must know them, since it may be asked by a
//! `coordinator bench`.

use std::hint::black_box;
use std::process;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use procession::{Context, Failure, Registry, Task};

/// All of them.
pub(in crate::cli) fn add_to(registry: Registry) -> Registry {
    registry.with::<Nothing>().with::<Same>().with::<Work>().with::<Die>()
}

/// Does nothing: what it takes is what the executor takes.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Nothing;

impl Task for Nothing {
    const NAME: &'static str = "bench::nothing";
    type Output = ();

    fn run(self, _: &Context) -> Result<(), Failure> {
        Ok(())
    }
}

/// Gives back what it is given.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Same(pub String);

impl Task for Same {
    const NAME: &'static str = "bench::same";
    type Output = String;

    fn run(self, _: &Context) -> Result<String, Failure> {
        Ok(self.0)
    }
}

/// A fixed amount of work. It takes longer where it must share its CPU, which waiting for a time to
/// pass would not.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Work {
    rounds: u64,
}

impl Work {
    /// About as much as a CPU does in this time if it is left alone.
    pub(super) fn lasting(time: Duration) -> Self {
        let sample = Self { rounds: 100_000 };
        let took = || {
            let begun = Instant::now();
            sample.work();
            begun.elapsed().as_secs_f64()
        };
        // What disturbs it only makes it longer.
        let fastest = (0..20).map(|_| took()).fold(f64::INFINITY, f64::min);
        Self { rounds: (sample.rounds as f64 * time.as_secs_f64() / fastest) as u64 }
    }

    fn work(self) {
        let mut random = 1_u64;
        for _ in 0..self.rounds {
            // Each round needs the result of the one before.
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
        }
        black_box(random);
    }
}

impl Task for Work {
    const NAME: &'static str = "bench::work";
    type Output = ();

    fn run(self, _: &Context) -> Result<(), Failure> {
        self.work();
        Ok(())
    }
}

/// Ends its process.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Die;

impl Task for Die {
    const NAME: &'static str = "bench::die";
    type Output = ();

    fn run(self, _: &Context) -> Result<(), Failure> {
        process::exit(1)
    }
}
