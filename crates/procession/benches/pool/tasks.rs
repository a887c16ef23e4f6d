//! The tasks that are run, and the executors that run them.

use std::collections::HashSet;
use std::fmt;
use std::time::{Duration, Instant};

use procession::{
    Blob, Context, Encoding, Engine, Executor, Failure, PodVec, ProcessPool, Registry, Sequential,
    SharedValue, Task, ThreadPool,
};
use serde::{Deserialize, Serialize};

/// As many as the machine has CPUs, and no more than the figures of other pools were measured with.
pub(crate) const WORKERS: usize = 2;

/// Does nothing: what it takes is what the executor takes.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Noop;

impl Task for Noop {
    const NAME: &'static str = "noop";
    type Output = ();

    fn run(self, _: &Context) -> Result<(), Failure> {
        Ok(())
    }
}

/// The initializer of workers that need this long until they are ready.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Prepare(pub Duration);

impl Task for Prepare {
    const NAME: &'static str = "prepare";
    type Output = ();

    fn run(self, _: &Context) -> Result<(), Failure> {
        std::thread::sleep(self.0);
        Ok(())
    }
}

/// Gives back what it is given.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Text(pub String);

impl Task for Text {
    const NAME: &'static str = "text";
    type Output = String;

    fn run(self, _: &Context) -> Result<String, Failure> {
        Ok(self.0)
    }
}

/// Gives back what it is given.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Laden(pub Blob);

impl Task for Laden {
    const NAME: &'static str = "laden";
    type Output = Blob;

    fn run(self, _: &Context) -> Result<Blob, Failure> {
        Ok(self.0)
    }
}

/// The same in the binary encoding.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct LadenBinary(pub Blob);

impl Task for LadenBinary {
    const NAME: &'static str = "laden_binary";
    const ENCODING: Encoding = Encoding::Binary;
    type Output = Blob;

    fn run(self, _: &Context) -> Result<Blob, Failure> {
        Ok(self.0)
    }
}

/// Doubles each `f32`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Doubled(pub Blob);

impl Task for Doubled {
    const NAME: &'static str = "doubled";
    type Output = Blob;

    fn run(self, _: &Context) -> Result<Blob, Failure> {
        let numbers = self.0.values::<f32>()?;
        Ok(Blob::from_values(numbers.iter().map(|number| number * 2.0).collect()))
    }
}

/// The same with a `PodVec`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct DoubledPodVec(pub PodVec<f32>);

impl Task for DoubledPodVec {
    const NAME: &'static str = "doubled_pod_vec";
    type Output = PodVec<f32>;

    fn run(mut self, _: &Context) -> Result<PodVec<f32>, Failure> {
        self.0.iter_mut().for_each(|number| *number *= 2.0);
        Ok(self.0)
    }
}

/// The same with a `Vec`, in the binary encoding.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct DoubledVec(pub Vec<f32>);

impl Task for DoubledVec {
    const NAME: &'static str = "doubled_vec";
    const ENCODING: Encoding = Encoding::Binary;
    type Output = Vec<f32>;

    fn run(mut self, _: &Context) -> Result<Vec<f32>, Failure> {
        self.0.iter_mut().for_each(|number| *number *= 2.0);
        Ok(self.0)
    }
}

/// Sums a byte of each page.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Skimmed(pub Blob);

impl Task for Skimmed {
    const NAME: &'static str = "skimmed";
    type Output = u64;

    fn run(self, _: &Context) -> Result<u64, Failure> {
        Ok(self.0.iter().step_by(4096).copied().map(u64::from).sum())
    }
}

/// The same with a shared value.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct SkimmedShared(pub SharedValue<Blob>);

impl Task for SkimmedShared {
    const NAME: &'static str = "skimmed_shared";
    type Output = u64;

    fn run(self, context: &Context) -> Result<u64, Failure> {
        Skimmed((*self.0).clone()).run(context)
    }
}

/// Gives back as many bytes of its own.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Anew(pub Blob);

impl Task for Anew {
    const NAME: &'static str = "anew";
    type Output = Blob;

    fn run(self, _: &Context) -> Result<Blob, Failure> {
        Ok(self.0.to_vec().into())
    }
}

/// The same in the binary encoding.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct AnewBinary(pub Blob);

impl Task for AnewBinary {
    const NAME: &'static str = "anew_binary";
    const ENCODING: Encoding = Encoding::Binary;
    type Output = Blob;

    fn run(self, context: &Context) -> Result<Blob, Failure> {
        Anew(self.0).run(context)
    }
}

/// Gives back what it is given.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Bytes(pub Vec<u8>);

impl Task for Bytes {
    const NAME: &'static str = "bytes";
    type Output = Vec<u8>;

    fn run(self, _: &Context) -> Result<Vec<u8>, Failure> {
        Ok(self.0)
    }
}

/// Keeps a CPU busy for so long, and tells in which process.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Spin(pub Duration);

impl Task for Spin {
    const NAME: &'static str = "spin";
    type Output = u32;

    fn run(self, _: &Context) -> Result<u32, Failure> {
        let begun = Instant::now();
        while begun.elapsed() < self.0 {
            std::hint::spin_loop();
        }
        Ok(std::process::id())
    }
}

/// Ends its worker.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Die;

impl Task for Die {
    const NAME: &'static str = "die";
    type Output = ();

    fn run(self, _: &Context) -> Result<(), Failure> {
        std::process::exit(1)
    }
}

/// All of them, for the workers.
pub(crate) fn add_to(registry: Registry) -> Registry {
    registry
        .with::<Noop>()
        .with::<Text>()
        .with::<Prepare>()
        .with::<Bytes>()
        .with::<Laden>()
        .with::<Doubled>()
        .with::<DoubledPodVec>()
        .with::<DoubledVec>()
        .with::<LadenBinary>()
        .with::<Anew>()
        .with::<AnewBinary>()
        .with::<Skimmed>()
        .with::<SkimmedShared>()
        .with::<Spin>()
        .with::<Die>()
}

/// The three executors.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    Sequential,
    Threads,
    Processes,
}

pub(crate) const KINDS: [Kind; 3] = [Kind::Sequential, Kind::Threads, Kind::Processes];

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sequential => "sequential",
            Self::Threads => "threads",
            Self::Processes => "processes",
        })
    }
}

impl Kind {
    /// An executor of this kind, all of whose workers have started.
    pub(crate) fn start(self, workers: usize) -> Box<dyn Engine> {
        match self {
            Self::Sequential => Box::new(Sequential::new()),
            Self::Threads => Box::new(ThreadPool::new(workers)),
            Self::Processes => Box::new(processes(workers)),
        }
    }
}

/// A process pool, all of whose workers have started.
pub(crate) fn processes(workers: usize) -> ProcessPool {
    warm(ProcessPool::builder().workers(workers).build().expect("a pool"))
}

/// Waits until all workers have started.
pub(crate) fn warm(pool: ProcessPool) -> ProcessPool {
    let mut ready = HashSet::new();
    while ready.len() < pool.workers() {
        // Long enough that one worker does not do the work of all.
        let length = Duration::from_millis(1);
        let spins: Vec<_> = (0..pool.workers()).map(|_| pool.submit(Spin(length))).collect();
        ready.extend(spins.into_iter().map(|spin| spin.result().expect("a task that works")));
    }
    pool
}
