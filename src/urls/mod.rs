//! Any URLs as the items of a [download](crate::files): a list of lines, and the names of the files.

pub mod list;
pub mod name;
