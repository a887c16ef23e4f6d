//! The one place for `unsafe`: what the operating system offers in no other way.

#![allow(unsafe_code)]

pub(crate) mod sealed;
