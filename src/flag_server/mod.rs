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
//! A [`FlagServer`] ends when it is dropped. It is reached by HTTP alone; it writes no file and prints
//! nothing.

mod faults;
mod images;
mod server;
mod site;

pub use faults::{DEFAULT_SEED, DELAY, FaultPlan, Faults, ServerKind};
pub use images::image;
pub use server::{FlagServer, FlagServerBuilder, StartError};
pub use site::{ATTEMPT_HEADER, RequestInfo};
