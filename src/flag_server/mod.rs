//! The book's LOCAL, DELAY and ERROR servers, embedded: real flag images over real HTTP, with
//! trouble on demand and no network needed.
//!
//! ```text
//!            the server's own thread
//!   HTTP ──► site ───────────► faults    what goes wrong this time? (pure)
//!            who asked what?─► images    the flag, as a GIF         (pure)
//!   server   starts and stops all that
//! ```
//!
//! A [`FlagServer`] belongs to whoever started it and ends with its owner. It must never write a
//! file, print, or know who is downloading: it is a server like any other, reached by HTTP alone.

mod faults;
mod images;
mod server;
mod site;

pub use faults::{DEFAULT_SEED, DELAY, FaultPlan, Faults, ServerKind};
pub use images::image;
pub use server::{FlagServer, FlagServerBuilder};
pub use site::{ATTEMPT_HEADER, Access};
