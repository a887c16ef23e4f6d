//! Calls of the operating system, for the library and the programs: the only library of the workspace with
//! `unsafe`, so also what else needs it ([`numbers`]). Each function is safe to call.
//!
//! Part of [procession](https://docs.rs/procession), and made for it alone: the interface may change with any
//! version.

#![allow(unsafe_code, reason = "the operating system's own interface")]

pub mod cgroup;
pub mod copy;
pub mod crash;
pub mod descriptors;
pub mod directories;
pub mod environment;
pub mod file_lock;
pub mod fork;
pub mod held_dir;
pub mod mark;
pub mod memory;
pub mod numbers;
pub mod reap;
pub mod regular_file;
pub mod sandbox;
pub mod sealed;
pub mod segment;
pub mod shared;
pub mod signals;
pub mod spawn;
pub mod startup;
pub mod terminal;
pub mod threads;
