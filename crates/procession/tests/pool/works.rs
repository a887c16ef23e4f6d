//! Tasks for deadlines, retries, recycling and limits.

use std::path::PathBuf;
use std::process;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use procession::{Context, Failure, Registry, Task};
use rustix::process::{Resource, Signal, getpid, getpriority_process, getrlimit, kill_process};
use serde::{Deserialize, Serialize};

pub(crate) fn add_to(registry: Registry) -> Registry {
    registry
        .with::<Hang>()
        .with::<Nap>()
        .with::<At>()
        .with::<Leak>()
        .with::<Initialize>()
        .with::<IsInitialized>()
        .with::<Limited>()
        .with::<Allocate>()
}

macro_rules! task {
    ($name:ident -> $output:ty: $task:ident, $context:ident => $run:expr) => {
        impl Task for $name {
            const NAME: &'static str = stringify!($name);
            type Output = $output;
            fn run(self, $context: &Context) -> Result<$output, Failure> {
                let $task = self;
                $run
            }
        }
    };
}

/// The ways not to end.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) enum Hang {
    Asleep,
    DeafToSigterm,
    Spinning,
    Stopped,
}
task!(Hang -> (): task, _context => loop {
    match task {
        Hang::DeafToSigterm => {
            let flag = std::sync::Arc::default();
            signal_hook::flag::register(signal_hook::consts::SIGTERM, flag)?;
            kill_process(getpid(), Signal::TERM)?;
            thread::sleep(Duration::from_secs(3600));
        }
        Hang::Asleep => thread::sleep(Duration::from_secs(3600)),
        Hang::Spinning => std::hint::spin_loop(),
        Hang::Stopped => kill_process(getpid(), Signal::STOP)?,
    }
});

/// Sleeps for this number of milliseconds; returns the process id.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Nap(pub u64);
task!(Nap -> u32: task, _context => {
    thread::sleep(Duration::from_millis(task.0));
    Ok(process::id())
});

/// What to do at which attempt; after these, give the attempt.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct At(pub Vec<Deed>);

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) enum Deed {
    Die,
    Hang,
    Fail,
}
task!(At -> u32: task, context => {
    match task.0.get(context.attempt() as usize - 1) {
        Some(Deed::Die) => process::abort(),
        Some(Deed::Hang) => loop {
            thread::park();
        },
        Some(Deed::Fail) => Err(Failure::msg("not this time")),
        None => Ok(context.attempt()),
    }
});

/// Keeps this number of bytes for ever; returns the process id.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Leak(pub usize);
task!(Leak -> u32: task, _context => {
    static KEPT: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());
    KEPT.lock().expect("no panics here").push(vec![1; task.0]);
    Ok(process::id())
});

/// An initializer: leaves a file behind for each process, and a value.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Initialize {
    Well(PathBuf),
    Badly,
    ByPanic,
}
struct Initialized;
task!(Initialize -> (): task, context => match task {
    Initialize::Well(dir) => {
        context.local(|| Initialized);
        Ok(std::fs::write(dir.join(process::id().to_string()), "")?)
    }
    Initialize::Badly => Err(Failure::msg("no licence for this library")),
    Initialize::ByPanic => panic!("{}", crate::harness::ON_PURPOSE),
});

/// Whether the initializer ran here before; and the process.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct IsInitialized(pub PathBuf);
task!(IsInitialized -> (bool, u32): task, _context => {
    Ok((task.0.join(process::id().to_string()).exists(), process::id()))
});

/// The limits of open files and of CPU seconds, and the niceness.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Limited;
task!(Limited -> (Option<u64>, Option<u64>, i32): _task, _context => Ok((
    getrlimit(Resource::Nofile).current,
    getrlimit(Resource::Cpu).current,
    getpriority_process(None)?,
)));

/// Uses this number of bytes for a moment.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Allocate(pub usize);
task!(Allocate -> usize: task, _context => Ok(std::hint::black_box(vec![1_u8; task.0]).len()));
