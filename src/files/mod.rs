//! The download of files: any number of items, each fetched, checked and saved, each with one outcome.
//!
//! ```text
//!  flags (a code)  ──► item ──► download: fetch (by client) ─► image ─► save, timed
//!  urls (a line)   ──►  URL, file,                     │
//!                       check                          ▼
//!                                                   outcome ─► report
//! ```
//!
//! Everything here is plain functions and values, and one [`task`] that wraps them: nothing depends
//! on the executor, or on where the items come from.

pub mod client;
pub mod download;
pub mod fetch;
pub mod fetch_error;
pub mod image;
pub mod item;
pub mod line;
mod lookup;
pub mod outcome;
pub mod rate;
pub mod read;
pub mod redirect;
pub mod report;
pub mod save;
pub mod task;
pub mod validators;
