//! The transport between a coordinator and one worker process.
//!
//! ```text
//!   worker                              coordinator
//!     │ ◄────────────── Begin, Memory ────── │   messages of the socket pair; the worker has its end as
//!     │                                      │   standard input
//!     │ ── Hello{build, server, …} ────────► │   message of the socket pair
//!     │ ◄──────── Lifeline{token, end} ───── │   one-shot server of the worker, by the channel library
//!     │ ◄──────────────── Welcome{…} ─────── │   message of the socket pair
//!     │ ── Ready ──────────────────────────► │   message of the socket pair
//!     │ ◄────────────── call, released ───── │ ┐ records in the memory that both share
//!     │ ── said, partial, traced, reply ───► │ ┘ (`shared_region.rs`)
//!     │ ◄───────────────── attachment ─────► │   for what does not fit into a record (`attachment.rs`): in
//!     │                                      │   segments that the record names, or messages of the socket pair
//!     │ ◄────────────────────────────────────│   lifeline: carries nothing, and breaks when the
//!     │                                      │   coordinator ends
//! ```
//!
//! The coordinator receives nothing by the channel library, which trusts the lengths in its messages and
//! whose servers any process of the user can reach by their names. A worker waits for its lifeline for a
//! second; without one, it watches the process id of its parent alone. Waits for messages of the socket
//! pair end when the other side is gone, and need no resource for that.
//!
//! The envelope of a reply is JSON. Tasks and outputs are encoded by [`codec`](crate::codec). Both
//! are independent of rings and sockets, so that another kind of connection can carry them. A text
//! above [`INLINE_LIMIT`] is an attachment of its record.

mod attachment;
mod call;
mod channel;
mod claim;
mod disposal;
mod event_count;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod handshake;
mod labels;
mod reply;
mod ring;
#[cfg(test)]
mod ring_tests;
mod segments;
mod shared_region;
mod socket;
mod sync;
#[cfg(feature = "tracing")]
mod traced;

pub(crate) use self::attachment::{
    Assembly, Attachment, MOST_APPENDED, Passed, Patience, Stuck, pass,
};
pub(crate) use self::call::Call;
pub(crate) use self::channel::{is_interruption, prepare};
pub(crate) use self::claim::Progress;
pub(crate) use self::event_count::AdaptiveSpin;
pub(crate) use self::handshake::{
    HandshakeMessage, Hello, Invitation, Lifeline, Marking, PROTOCOL, RunnerThreads, StartFile,
    Welcome, build_with,
};
#[cfg(feature = "journal")]
pub(crate) use self::labels::cut as cut_label;
pub(crate) use self::reply::{Reply, ReplyBuffer, Status, Timed, split, undelivered};
pub(crate) use self::ring::{Garbled, Reader, Record, Records, Writer};
pub(crate) use self::segments::{Direction, MOST_BYTES, SegmentReader, SegmentWriter};
pub(crate) use self::shared_region::{SharedRegion, now};
pub(crate) use self::socket::{Sent, Socket, identity, maker};
#[cfg(feature = "tracing")]
pub(crate) use self::traced::{
    FieldValue, MAX_FIELDS, MAX_NAMES, MAX_SITES, MAX_SPANS, MAX_TEXT, TRACES_VARIABLE,
    TraceRecord, TraceSite, Values,
};

/// The environment variable with the process id of the coordinator and the directory of the run, for its workers.
#[cfg(feature = "journal")]
pub(crate) const JOURNAL_VARIABLE: &str = "PROCESSION_JOURNAL";

/// The longest text in a record, in bytes.
pub(crate) const INLINE_LIMIT: usize = 64 * 1024;

// The kinds of records.
pub(crate) const CALL: u8 = 1;
pub(crate) const REPLY: u8 = 2;
/// A line that a task says while it runs.
pub(crate) const SAID: u8 = 3;
/// The output of the next task of a call with several tasks. The rest of its reply follows from the
/// call.
pub(crate) const OUTPUT: u8 = 4;
/// Asks the reader to receive attachments from the socket, which has no room for the rest of those
/// of the next record.
pub(crate) const TAKE_IN: u8 = 5;
/// The worker cannot receive the call of this claim, and has not begun it. The text is the reason.
pub(crate) const NOT_RECEIVED: u8 = 6;
/// A task has left the worker's process in a state that is not fit for further tasks. The text is
/// the reason.
pub(crate) const UNFIT: u8 = 7;
/// A value that a task emits while it runs.
pub(crate) const PARTIAL: u8 = 8;
/// A span or an event of a task (`traced.rs`).
pub(crate) const TRACED: u8 = 9;
/// The worker is to drop shared values (`shared_value/released.rs`).
pub(crate) const RELEASED: u8 = 10;
/// A flag in the kind of a record that has an attachment: in its appendix, or in the socket.
pub(crate) const HAS_ATTACHMENT: u8 = 0x80;
