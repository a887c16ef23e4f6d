//! What only calls of the operating system itself can do: the one place with `unsafe`, in small
//! files. Each function is safe to call.

#![allow(unsafe_code, reason = "the operating system's own interface")]

pub(crate) mod descriptors;
pub(crate) mod fork;
pub(crate) mod memory;
pub(crate) mod reap;
pub(crate) mod sealed;
pub(crate) mod signals;
pub(crate) mod spawn;
pub(crate) mod terminal;
