//! The flagship application: the flags of the world, fetched one file a country.
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
//! Everything here is plain functions and values, and one [`task`] that wraps them: nothing knows
//! which executor runs it.

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
