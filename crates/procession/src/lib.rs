//! ProcessPoolExecutor for Rust: run tasks that may crash, hang or leak, in worker processes,
//! without losing the program.
//!
//! ```text
//!  your thread            │ coordinator process                        │ worker process (one per CPU)
//!                         │                                            │
//!  submit(task) ──────────┼─► Scheduler ── Call{id, seq, task}  ───────┼─► claim ─► decode ─► Task::run ──┐
//!     │                   │   (pure; under one lock)   shared memory   │      (panic? error? caught)      │
//!     ▼                   │                                            │                                  │
//!  Future ◄── Promise ────┼── handler thread ◄── Reply{id,status,data} ┼──────── encode ◄─────────────────┘
//!  .result() .await       │   (one per worker)   JSON, shared memory   │
//!  as_completed(..)       │        ▲ ended                             │   lifeline thread: ends the worker
//!                         │   watch thread (one per worker)            │   when the coordinator is gone
//!                         │   supervisor thread: starts workers, time  │
//! ```
//!
//! A [`Task`] is a value with a method `run`, so the same line of code runs it in a worker process
//! ([`ProcessPool`]), on a thread ([`ThreadPool`]) or in the calling thread ([`Sequential`]): all
//! three are [`Executor`]s. Most tasks are functions with the attribute [`task`](macro@task):
//!
//! ```standalone_crate
//! # #[cfg(feature = "macros")] mod example {
//! use procession::{Executor, ProcessPool, as_completed};
//!
//! #[procession::task]
//! fn checksum(bytes: Vec<u8>) -> u32 {
//!     bytes.iter().map(|&byte| u32::from(byte)).sum() // or a C library that may segfault
//! }
//!
//! #[procession::main] // this program is its own worker
//! # pub
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let pool = ProcessPool::builder().workers(2).build()?;
//!     let futures = (0..10).map(|n| pool.submit(checksum(vec![n; 100])));
//!     for future in as_completed(futures) {
//!         match future.result() {
//!             Ok(sum) => println!("{sum}"),
//!             Err(error) => eprintln!("{error}"), // "worker 0 (pid 4712) died of signal 11 (SIGSEGV) …"
//!         }
//!     }
//!     Ok(())
//! }
//! # }
//! # #[cfg(not(feature = "macros"))] mod example { pub fn main() -> Result<(), ()> { Ok(()) } }
//! # fn main() { example::main().unwrap() }
//! ```
//!
//! The same by hand, which needs no macro and works for generic types:
//!
//! ```standalone_crate
//! use procession::{Context, Executor, Failure, ProcessPool, Registry, Task, worker};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Serialize, Deserialize)]
//! struct Checksum(Vec<u8>);
//!
//! impl Task for Checksum {
//!     const NAME: &'static str = "checksum";
//!     type Output = u32;
//!     fn run(self, _: &Context) -> Result<u32, Failure> {
//!         Ok(self.0.iter().map(|&byte| u32::from(byte)).sum())
//!     }
//! }
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     worker::serve_if_asked(Registry::new().with::<Checksum>()); // this program is its own worker
//!     let pool = ProcessPool::builder().workers(2).build()?;
//!     assert_eq!(pool.submit(Checksum(vec![1, 2])).result()?, 3);
//!     Ok(())
//! }
//! ```
//!
//! Closures cannot be tasks. What a closure captures cannot be sent, and a closure that captures
//! nothing has no name by which a worker could find it. Its address differs from process to process,
//! and its distance from another address is the same only in the same executable file: a worker of
//! another build would run other code, without an error. A name that a worker does not know is an
//! error.
//!
//! **Trust.** A worker that crashes costs one task. A worker that its input took over can write any
//! value into what it shares with the coordinator; the coordinator checks all of it. But such a worker
//! has your rights, unless [`Builder::sandbox`] takes them away. SECURITY.md in the repository has the
//! attacks that are tested.
//!
//! # Features
//!
//! | feature | default | what it does |
//! |---|---|---|
//! | `backtrace` | yes | names of the functions in which a worker crashed: [`Death::backtrace`] (Linux) |
//! | `bytemuck` | no | [`Blob`]s of plain values, and `PodVec`: a `Vec<f32>` that is not encoded number by number |
//! | `bytes` | no | `From` between [`Blob`] and `bytes::Bytes` |
//! | `dashboard` | no | `ProcessPool::dashboard`: a live page of a pool, and metrics for Prometheus |
//! | `journal` | no | `Builder::journal`: each process writes what it does into a log of its own |
//! | `log` | no | the records of the crate `log` that tasks make, for the same subscriber: `Builder::tracing` |
//! | `macros` | yes | the attributes [`task`](macro@task), [`main`](macro@main) and [`test`](macro@test), and [`Registry::collected`] |
//! | `metrics` | no | counters and histograms of a pool for the program's recorder of the crate `metrics` |
//! | `remote` | no | tasks and results as bytes, for an executor whose workers are on other hosts, such as the crate `procession-nats` |
//! | `sandbox` | yes | [`Builder::sandbox`] takes rights away from workers (Linux) |
//! | `stream` | no | [`AsCompleted`], [`Map`], [`MapUnordered`] and [`Partials`] are `futures_core::Stream`s |
//! | `tracing` | yes | events of a pool, and what its tasks trace (`Builder::tracing`), for the program's own subscriber |
//!
//! Without `backtrace` and `sandbox` their methods exist: a backtrace has addresses without names, and
//! a pool with a sandbox is refused. `macros` finds tasks by the linker, on Linux, macOS, FreeBSD,
//! OpenBSD and illumos. The events of `tracing` have the target `procession`: workers that start, exit
//! and die, tasks that are tried again or timed out, each with its worker, pid, task and cause.
//!
//! With `metrics`, a pool has the counters `procession_tasks_total` (label `outcome`: `done`, `failed` or
//! `cancelled`), `procession_task_retries_total`, `procession_worker_deaths_total`,
//! `procession_worker_replacements_total` and `procession_spare_promotions_total`, and the histograms
//! `procession_task_wait_seconds` (from submission to start) and `procession_task_run_seconds`. They go to the
//! recorder that the thread has when it builds the pool.

#![deny(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "macros")]
#[doc(hidden)]
pub mod __private;
mod blob;
mod codec;
mod error;
mod executor;
mod future;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
#[cfg(feature = "journal")]
pub mod journal;
mod kept_task;
mod limits;
mod locked_dir;
mod long_buffers;
mod panics;
mod printable;
mod process_pool;
mod progress_lines;
mod received_bytes;
mod registry;
#[cfg(feature = "remote")]
mod remote;
mod retries;
mod sandbox;
mod scheduler;
mod shared_value;
mod stop_signal;
mod task;
mod task_options;
mod temporary_files;
mod transport;
mod waiting;
pub mod worker;

pub use blob::{Blob, BlobWriter};
#[cfg(feature = "bytemuck")]
pub use blob::{PodVec, ValuesError};
pub use codec::Encoding;
pub use error::{
    Backtrace, Cause, Death, DowncastError, Exit, Failure, Frame, KeptInput, PoolError, TaskError,
};
pub use executor::{
    Cancel, Canceller, Engine, Executor, Job, JobRunner, Map, MapUnordered, Sequential, Shutdown,
    ShutdownAsync, ThreadPool,
};
pub use future::{
    AsCompleted, Future, FutureState, Partial, PartialError, Partials, Unfinished, Until, Waited,
    as_completed, wait,
};
pub use kept_task::{KeptCause, KeptTask, ReplayError, ReplayedOutput};
pub use limits::{Limits, Recycling, RecyclingReason};
#[cfg(feature = "dashboard")]
pub use process_pool::PoolDashboard;
pub use process_pool::{
    Builder, Full, Output, OutputStream, PoolEvent, PrivateDir, ProcessPool, ResourceUsage, Stats,
    SubmitAsync, Times, resume_all, suspend_all,
};
pub use progress_lines::Said;
pub use registry::Registry;
#[cfg(feature = "remote")]
pub use remote::{
    NotEncoded, RemoteChunks, RemoteLine, RemoteProgress, RemotePromise, RemoteResult, RemoteTask,
};
pub use retries::{Fault, Retries};
pub use sandbox::{Allow, Layer, Sandbox, SandboxReport};
#[cfg(any(test, feature = "simulation"))]
pub use scheduler::{bench_driver, simulation};
pub use shared_value::SharedValue;
pub use task::{Context, Task, TaskId};
pub use task_options::TaskOptions;

/// Makes a program its own worker: the function serves before anything else, if the process was
/// started as a worker.
///
/// ```
/// # use procession::{Executor, ProcessPool};
/// #[procession::task]
/// fn square(n: u64) -> u64 {
///     n * n
/// }
///
/// #[procession::main]
/// fn main() -> Result<(), Box<dyn std::error::Error>> {
///     let pool = ProcessPool::builder().workers(2).build()?;
///     assert_eq!(pool.map((1..=3).map(square)).sum::<Result<u64, _>>()?, 14);
///     Ok(())
/// }
/// ```
///
/// It is `worker::serve_if_asked(Registry::collected())` before the first statement. Other attributes
/// of the function, such as `#[tokio::main]`, take effect after that, so no runtime is started in a
/// worker, and tasks run outside of any. Nothing runs before `main`.
///
/// In a library with a pool inside, let its user call `serve_if_asked` at the beginning of `main`, before a
/// runtime is started; benchmarks with `harness = false` have a `main` as well.
/// `#[procession::main(crate = "path")]` names this crate where it has another path.
#[cfg(feature = "macros")]
pub use procession_macros::main;
/// Makes a function a task: calling it makes a value, as calling an `async fn` does, and an executor
/// runs it.
///
/// ```standalone_crate
/// use std::path::PathBuf;
/// use procession::{Context, Executor, ProcessPool};
///
/// #[derive(serde::Serialize, serde::Deserialize)]
/// struct Thumb { pixels: Vec<u8> }
///
/// /// Makes a thumbnail.
/// #[procession::task]
/// fn thumb(path: PathBuf, size: u32, context: &Context) -> std::io::Result<Thumb> {
///     context.say(format_args!("{} …", path.display()));
///     let pixels = std::fs::read(path)?; // decode, scale
///     Ok(Thumb { pixels: pixels.into_iter().take(size as usize).collect() })
/// }
///
/// #[procession::main]
/// fn main() -> Result<(), Box<dyn std::error::Error>> {
///     let pool = ProcessPool::builder().workers(2).build()?;
///     # let (path, files) = (PathBuf::from("Cargo.toml"), [PathBuf::from("Cargo.toml")]);
///     let one = pool.submit(thumb(path, 200)).result()?;
///     for thumb in pool.map(files.into_iter().map(|file| thumb(file, 200))) {
///         println!("{} bytes", thumb?.pixels.len());
///     }
///     # assert_eq!(one.pixels.len(), 200);
///     Ok(())
/// }
/// ```
///
/// - **Arguments** implement `Serialize`, `Deserialize` and `Send`, and are owned. A parameter of the
///   type [`&Context`](Context) is not sent; the executor supplies it. An attribute `#[serde(…)]` of a
///   parameter says how that is encoded.
/// - **The output** has the same bounds. If the type that the function returns is named `Result`, as
///   `io::Result` and `anyhow::Result` are too, the task may fail: with any error, `anyhow::Error`, a box of an
///   error, or a text. A `Result` by another name does not compile. An error that implements `Serialize` and
///   `Deserialize` comes back as its own type: [`TaskError::downcast`].
/// - **The name** of the task is the path of its module and the function; `#[task(name = "…")]` gives
///   another. Errors contain it, and the worker finds the code by it.
/// - **The encoding** is JSON; `#[task(encoding = binary)]` chooses another: see [`Encoding`].
/// - **The type** of the value has the name of the function and implements [`Task`]. No type or module
///   in scope may have the same name.
/// - **The plain function** cannot be called any more: a call makes the value. Code that is also called
///   directly, or calls itself, goes into a second function, which the task calls.
/// - **Not possible** are generic and `async` functions, and methods. In an `impl` the compiler says
///   that a struct “is not supported in `trait`s or `impl`s”: the function belongs outside of it.
/// - **Registered** by itself: [`Registry::collected`] finds the task, also in a library.
/// - `#[task(crate = "path")]` names this crate where it has another path.
#[cfg(feature = "macros")]
pub use procession_macros::task;
/// Lets a test have process pools under `cargo test` and nextest, where `main` is that of the test
/// harness. It stands in place of `#[test]`.
///
/// ```
/// # use procession::{Executor, ProcessPool};
/// # #[procession::task]
/// # fn square(n: u64) -> u64 { n * n }
/// #[procession::test]
/// fn squares() {
///     let pool = ProcessPool::builder().workers(2).build().unwrap();
///     assert_eq!(pool.submit(square(3)).result(), Ok(9));
/// }
/// ```
///
/// Workers run the test program with arguments by which the harness runs one such test alone, and that
/// serves in place of the test. So one of them in a test program is enough for all pools there, also
/// for those in tests with a plain `#[test]`; each file in `tests/` is a program of its own.
///
/// `#[ignore]` and `#[should_panic]` mean what they do elsewhere. Another attribute that makes a test,
/// such as `#[tokio::test]`, goes below, and takes effect after the test has served. A documentation
/// test has a `main`: see [`main`](macro@main). `#[procession::test(crate = "path")]` names this crate where it
/// has another path, such as `the_library::procession` in a library that re-exports it.
#[cfg(feature = "macros")]
pub use procession_macros::test;

/// The README's example is compiled and run as well.
#[cfg(all(doctest, feature = "macros"))]
#[doc = include_str!("../README.md")]
struct Readme;
