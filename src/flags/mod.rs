//! The flags of the world, one file a country: which codes there are, which are selected, and the
//! item that each of them is for a [download](crate::files).

pub mod codes;
pub mod items;
pub mod selection;
pub mod site;
