//! Per-process logs: every process of a run writes its own file, none waits for another.
//!
//! ```text
//!  logs/latest ─► logs/2026-11-22T23-49-32-4711/   run_dir: one directory a run
//!                   coordinator-4711.jsonl         writer:  one file a process
//!                   worker-0-4712.jsonl            entry:   one JSON object a line
//! ```

pub mod entry;
pub mod event;
pub mod run_dir;
pub mod slots;
pub mod writer;

pub use entry::{Entry, Head, Level, Process};
pub use event::{Event, FORMAT, Stream, Terms, Usage};
pub use run_dir::RunDir;
pub use slots::Slot;
pub use writer::{Journal, current, is_being_written, set};
