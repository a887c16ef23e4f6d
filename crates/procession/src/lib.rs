//! ProcessPoolExecutor for Rust: run tasks that may crash, hang or leak, in worker processes,
//! without losing the program.
//!
//! ```text
//!  your thread            │ coordinator process                        │ worker process (one per CPU)
//!                         │                                            │
//!  submit(task) ──────────┼─► Scheduler ── Call{id, attempt, task} ────┼─► decode ─► Task::run(ctx) ─┐
//!     │                   │   (who runs what,          IPC             │    (panic? error? caught)   │
//!     ▼                   │    a pure state machine)                   │                             │
//!  Future ◄── fulfilled ──┼── handler thread ◄── Reply{id, status, …} ─┼──────── encode ◄────────────┘
//!  .result() .await       │   (one per worker)         IPC, JSON       │
//!  as_completed(..)       │        ▲ ended (signal 11)                 │   lifeline thread: coordinator
//!                         │   watch thread, supervisor thread:         │   gone ─► exit at once
//!                         │   wait for, start, replace workers         │
//! ```
//!
//! A [`Task`] is a value that knows how to run itself, so the same line of code runs it in a
//! worker process ([`ProcessPool`]), on a thread ([`ThreadPool`]) or where it stands
//! ([`Sequential`]): all three are [`Executor`]s.
//!
//! ```standalone_crate
//! use procession::{Context, Executor, Failure, ProcessPool, Registry, Task, as_completed, worker};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Serialize, Deserialize)]
//! struct Checksum(Vec<u8>);
//!
//! impl Task for Checksum {
//!     const NAME: &'static str = "checksum";
//!     type Output = u32;
//!     fn run(self, _: &Context) -> Result<u32, Failure> {
//!         Ok(self.0.iter().map(|&byte| u32::from(byte)).sum()) // or a C library that may segfault
//!     }
//! }
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     worker::serve_if_asked(Registry::new().with::<Checksum>()); // this program is its own worker
//!     let pool = ProcessPool::builder().workers(2).build()?;
//!     let futures = (0..10).map(|n| pool.submit(Checksum(vec![n; 100])));
//!     for future in as_completed(futures) {
//!         match future.result() {
//!             Ok(sum) => println!("{sum}"),
//!             Err(error) => eprintln!("{error}"), // "worker 0 (pid 4712) died of signal 11 (SIGSEGV) …"
//!         }
//!     }
//!     Ok(())
//! }
//! ```
//!
//! **Trust.** A worker that crashes costs one task. A worker that is hostile is another matter:
//! workers run your own code with your own rights, and this crate does not defend the coordinator
//! against messages that are made to harm it.
//!
//! # Features
//!
//! `tracing` (default) tells what happens in a [`ProcessPool`] to the program's own subscriber of
//! the crate [tracing](https://docs.rs/tracing), under the target `procession`: workers that start,
//! exit and die, tasks that are tried again or timed out, each with its worker, pid, task and cause.

#![deny(unsafe_code)]

mod blob;
mod codec;
mod error;
mod executor;
mod future;
mod limits;
mod locked_dir;
mod panics;
mod process_pool;
mod progress_lines;
mod retries;
mod scheduler;
mod task;
mod transport;
mod waiting;
pub mod worker;

pub use blob::Blob;
pub use codec::Encoding;
pub use error::{Cause, Death, Exit, Failure, PoolError, TaskError};
pub use executor::{
    Cancel, Canceller, Engine, Executor, Job, JobRunner, Map, Sequential, Shutdown, ThreadPool,
};
pub use future::{AsCompleted, Future, State, Unfinished, Until, Waited, as_completed, wait};
pub use limits::{Limits, Recycling};
pub use process_pool::{
    Builder, Full, Output, PoolEvent, PrivateDir, ProcessPool, Stats, Stream, TaskOptions, Times,
    Usage, resume_all, suspend_all,
};
pub use progress_lines::Said;
pub use retries::{Fault, Retries};
#[cfg(any(test, feature = "simulation"))]
pub use scheduler::{bench_driver, simulation};
pub use task::{Context, Registry, Task, TaskId};

/// The README's example is compiled and run as well.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
