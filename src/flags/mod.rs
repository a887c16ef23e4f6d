//! The download of the flags of the world, one file a country.
//!
//! ```text
//!  selection ─► codes      site ─► base URL
//!                 │                 │
//!                 └──► download ◄───┘       fetch (by client) ─► image ─► save, timed
//!                         │
//!                         ▼
//!                      outcome ─► report
//! ```
//!
//! Everything here is plain functions and values, and one [`task`] that wraps them: nothing depends
//! on the executor.

pub mod client;
pub mod codes;
pub mod download;
pub mod fetch;
pub mod fetch_error;
pub mod image;
mod lookup;
pub mod outcome;
pub mod redirect;
pub mod report;
pub mod save;
pub mod selection;
pub mod site;
pub mod task;
pub mod validators;
