//! Tasks by which executors are compared: some use the CPU, some wait, some do nothing.
//!
//! Each does the same work with the same output on every executor, and is in the registry of every worker
//! program. None uses the network, the disk or the terminal.

mod arcfour;
mod idle;
mod primes;
mod sha;

use std::fmt;
use std::time::{Duration, Instant};

use procession::{Engine, Executor, Registry, Task, TaskError};

pub(crate) use self::idle::Noop;
pub(crate) use self::sha::hex;

use self::arcfour::Arcfour;
use self::idle::Sleep;
use self::primes::IsPrime;
use self::sha::Sha;

/// Adds all of these tasks to a registry.
pub(crate) fn add_to(registry: Registry) -> Registry {
    registry.with::<Sha>().with::<Arcfour>().with::<IsPrime>().with::<Sleep>().with::<Noop>()
}

/// A kind of work, of which there can be any number of jobs of any size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WorkKind {
    /// SHA-256 of generated data; the size is its length in bytes.
    Sha,
    /// RC4 there and back again; the size is the length of the text in bytes.
    Arcfour,
    /// Whether a number is prime, by trial division; the size is the number of its digits.
    Primes,
    /// Sleep; the size is in milliseconds.
    Sleep,
    /// Nothing, which measures the cost of a task itself.
    Noop,
}

impl WorkKind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Sha => "sha",
            Self::Arcfour => "arcfour",
            Self::Primes => "primes",
            Self::Sleep => "sleep",
            Self::Noop => "noop",
        }
    }

    /// The size of a job that takes some hundredths of a second.
    pub(crate) fn usual_size(self) -> u64 {
        match self {
            Self::Sha => 32 << 20,
            Self::Arcfour => 4 << 20,
            Self::Primes => 16,
            Self::Sleep => 50,
            Self::Noop => 0,
        }
    }

    /// The number of these jobs that take about a second.
    pub(crate) fn usual_jobs(self) -> usize {
        if self == Self::Noop { 20_000 } else { 40 }
    }

    /// The valid sizes.
    pub(crate) fn sizes(self) -> std::ops::RangeInclusive<u64> {
        match self {
            Self::Sha | Self::Arcfour => 1..=1 << 30,
            Self::Primes => 2..=19,
            Self::Sleep => 0..=3_600_000,
            Self::Noop => 0..=0,
        }
    }

    /// A job of this size in words.
    pub(crate) fn describe(self, size: u64) -> String {
        let bytes = || match size {
            _ if size.is_multiple_of(1 << 20) => format!("{} MiB", size >> 20),
            _ if size.is_multiple_of(1 << 10) => format!("{} KiB", size >> 10),
            _ => format!("{size} bytes"),
        };
        match self {
            Self::Sha => format!("SHA-256 of {}", bytes()),
            Self::Arcfour => format!("RC4 of {}, there and back again", bytes()),
            Self::Primes => format!("primality of a number of {size} digits, by trial division"),
            Self::Sleep => format!("sleep of {size} ms"),
            Self::Noop => "nothing".to_owned(),
        }
    }

    /// Runs `jobs` jobs. Returns their results in order, and the time from the first to the last.
    pub(crate) fn run(self, engine: &dyn Engine, jobs: usize, size: u64) -> (JobResults, Duration) {
        let seeds = 0..jobs as u64;
        match self {
            Self::Sha => collect(engine, seeds.map(|seed| Sha { seed, bytes: size })),
            Self::Arcfour => collect(engine, seeds.map(|seed| Arcfour { seed, bytes: size })),
            Self::Primes => {
                let numbers: Vec<_> = primes::of(size as u32).take(jobs).collect();
                collect(engine, numbers.into_iter().map(IsPrime))
            }
            Self::Sleep => collect(engine, seeds.map(|_| Sleep(size))),
            Self::Noop => collect(engine, seeds.map(|_| Noop)),
        }
    }
}

impl fmt::Display for WorkKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The results of jobs, as text.
pub(crate) type JobResults = Vec<Result<String, TaskError>>;

fn collect<T: Task<Output: fmt::Display>>(
    engine: &dyn Engine,
    tasks: impl Iterator<Item = T>,
) -> (JobResults, Duration) {
    let began = Instant::now();
    let outputs: Vec<_> = engine.map(tasks).collect();
    let took = began.elapsed();
    (outputs.into_iter().map(|result| result.map(|output| output.to_string())).collect(), took)
}

#[cfg(test)]
mod tests {
    use super::*;
    use procession::{Sequential, ThreadPool};

    fn outputs(work: WorkKind, jobs: usize, size: u64) -> Vec<String> {
        let (results, _) = work.run(&Sequential::new(), jobs, size);
        results.into_iter().map(|result| result.expect("an output")).collect()
    }

    #[test]
    fn digests_are_those_of_the_generated_data() {
        // From Python: sha256(b"".join((seed << 32 | n).to_bytes(8, "little") * 128 for n in …)).
        assert_eq!(
            outputs(WorkKind::Sha, 2, 2500),
            [
                "5681c85bbc63ee612ca2e0380c6ea1f4d33824f50547997b5234feb441106f13",
                "598912a584f06c97d3c5e58bcee6ec39f488110680b84cd1d729aaf0693b9bf5",
            ]
        );
        assert_eq!(
            outputs(WorkKind::Sha, 1, 0)[0],
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
    }

    #[test]
    fn primes_of_every_size_are_found_prime_and_others_are_not() {
        for digits in 2..=7 {
            assert_eq!(outputs(WorkKind::Primes, 30, digits), ["true"; 30], "{digits} digits");
        }
        assert!(primes::of(19).take(3).all(|prime| prime > 10_u64.pow(18)));
        let small = (0..200).filter(|&number| {
            let is_prime = Sequential::new().submit(IsPrime(number)).result();
            is_prime == Ok(true)
        });
        assert!(small.eq(primal_check_all(200)));
    }

    fn primal_check_all(below: u64) -> impl Iterator<Item = u64> {
        (0..below).filter(|&number| primal_check::miller_rabin(number))
    }

    #[test]
    fn every_kind_of_work_is_done_at_its_smallest_size_and_the_same_on_threads() {
        for work in
            [WorkKind::Sha, WorkKind::Arcfour, WorkKind::Primes, WorkKind::Sleep, WorkKind::Noop]
        {
            for size in [*work.sizes().start(), work.usual_size().min(2000)] {
                let sequential = outputs(work, 5, size);
                assert_eq!(sequential.len(), 5);
                let (on_threads, _) = work.run(&ThreadPool::new(2), 5, size);
                assert!(on_threads.into_iter().map(Result::unwrap).eq(sequential), "{work}");
            }
        }
    }
}
