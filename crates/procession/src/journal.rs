//! The journal of a pool: one directory for each run, with one file for each process. It needs the
//! feature `journal`.
//!
//! [`Builder::journal`](crate::Builder::journal) is all that a program needs:
//!
//! ```no_run
//! # use procession::{PoolError, ProcessPool};
//! # fn main() -> Result<(), PoolError> {
//! let pool = ProcessPool::builder().journal("logs").build()?;
//! # Ok(()) }
//! ```
//!
//! ```text
//!  logs/latest ─► logs/2026-11-22T23-49-32-4711/
//!                   coordinator-4711.jsonl    workers, deaths, retries, lost tasks; the pool writes it
//!                   worker-0-4712.jsonl       tasks; the worker writes it, and the pool adds its output
//! ```
//!
//! `coordinator logs logs/latest` and `coordinator timeline logs/latest` show it, and
//! [`procession_journal::read`] reads it. Each line is a JSON object.
//!
//! | task | lines |
//! |---|---|
//! | runs for a millisecond or longer | one at its end, with id, label, duration and size of the output |
//! | has run for 20 ms when the worker looks, each tenth of a second | one more before its end |
//! | fails, panics, is an attempt beyond the first | one at its end |
//! | shorter, with a [label](crate::Context::label) | one, at most a tenth of a second after its end |
//! | shorter | none: such tasks are summed over a tenth of a second, and over up to 5 s in a long run |
//! | ends with its worker | one of the pool, which knows the task by its claim, and its label |
//!
//! The number of lines of a process is bounded. After each 10,000 lines of tasks, only tasks that run twice as
//! long as before have lines, and the others are summed. Failed tasks, and short ones with labels, are summed
//! after 10,000, too. A worker that is killed loses its last sum, and short tasks with labels of the last tenth
//! of a second. The summary at the end of the run has the right numbers.
//!
//! The other functions here are for programs that keep a journal of their own, as `coordinator` does.

pub use crate::process_pool::journal_lines::{WorkerOutputs, in_words, line_of};
