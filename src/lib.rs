//! ProcessPoolExecutor for Rust.

#[cfg(feature = "cli")]
pub mod cli;
#[cfg(feature = "cli")]
pub mod flag_server;
#[cfg(feature = "cli")]
pub mod flags;
#[cfg(feature = "cli")]
pub mod journal;
