//! The two programs, `coordinator` and `worker`: a download of the flags of the world that can run
//! in sequence, on threads or in worker processes, and commands that compare, show and serve it.

#![deny(unsafe_code)]

pub mod cli;
pub mod files;
pub mod flag_server;
pub mod flags;
pub mod urls;
mod workload;

/// The README's example is compiled and run as well.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
