//! The book's LOCAL, DELAY and ERROR servers, embedded: they send real flag images over HTTP, with delays and
//! errors where these are wanted, and need no network.
//!
//! ```text
//!            the server's own thread
//!   HTTP ──► site ───────────► faults    delay or error of this request (pure)
//!            the request ────► images    the flag, as a GIF             (pure)
//!   server   starts and stops the thread
//! ```
//!
//! A [`FlagServer`] ends when it is dropped. It is reached by HTTP alone; it writes no file and prints
//! nothing.

mod drawings;
mod faults;
mod images;
mod server;
mod site;

pub use faults::{DEFAULT_SEED, DELAY, FaultPlan, Faults, ServerKind};
pub use images::image;
pub use server::{FlagServer, FlagServerBuilder, StartError};
pub use site::{ATTEMPT_HEADER, RequestInfo};
