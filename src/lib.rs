//! ProcessPoolExecutor for Rust.

pub mod error;
pub mod executor;
pub mod future;
mod guard;
pub mod task;
mod wire;
pub mod worker;

#[cfg(feature = "cli")]
pub mod cli;
#[cfg(feature = "cli")]
pub mod flag_server;
#[cfg(feature = "cli")]
pub mod flags;
#[cfg(feature = "cli")]
pub mod journal;

pub use error::{Cause, Death, Exit, Failure, PoolError, TaskError};
#[doc(hidden)]
pub use executor::simulation;
pub use executor::{
    Builder, Executor, Output, PoolEvent, ProcessPool, Sequential, Shutdown, Stream, ThreadPool,
};
pub use future::{Future, State, Unfinished, Until, Waited, as_completed, wait};
pub use task::{Context, Registry, Task, TaskId};
