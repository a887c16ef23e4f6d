//! All that crosses the process border.
//!
//! ```text
//!   worker                              coordinator
//!     │ ◄───────────────────── Memory ────── │   notes, through a socket pair of which the worker
//!     │                                      │   has one end as its standard input
//!     │ ── Hello{token, build, …} ─────────► │   over the one-shot socket; then HelloSent
//!     │ ◄──────────────── Welcome{…} ─────── │   over the channel that came along; then Welcomed
//!     │ ── Ready ──────────────────────────► │   a note
//!     │ ◄──────────────────────── call ───── │ ┐ records in the memory that both share,
//!     │ ── said, reply ────────────────────► │ ┘ see `shared_region`
//!     │ ◄──────────────────► enclosure ───── │   the socket pair: what is too large for a record
//!     │ ◄────────────────────────────────────│   the lifeline: says nothing, and breaks at the end
//! ```
//!
//! Neither side waits in the channel library: each first receives a note that what it is about to
//! take out of a channel was put there. And the wait for a note ends, without any resource, when
//! the other side is gone.
//!
//! The envelope of a reply is a JSON text; tasks and outputs are encoded as [`codec`] does. They
//! know nothing of rings and sockets, so they can travel over another kind of connection one day.
//! A text above [`INLINE_LIMIT`] travels in sealed memory of its own, which is sent through the
//! socket before the record that needs it.

mod attachment;
mod channel;
mod claim;
mod event_count;
mod handshake;
mod ring;
#[cfg(test)]
mod ring_tests;
mod shared_region;
mod socket;
mod sync;

use std::cell::RefCell;
use std::fmt;
use std::io::Write;
use std::time::Duration;

use ipc_channel::ipc::IpcSender;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

pub(crate) use self::attachment::{
    Assembly, Attachment, Passed, Patience, ReceivedBytes, Stuck, pass,
};
pub(crate) use self::channel::{prepare, receive, send};
pub(crate) use self::claim::Progress;
pub(crate) use self::event_count::AdaptiveSpin;
pub(crate) use self::handshake::{HandshakeMessage, RunnerThreads};
pub(crate) use self::ring::{Garbled, Reader, Record, Records, Writer};
pub(crate) use self::shared_region::{SharedRegion, now};
pub(crate) use self::socket::{Sent, Socket, identity, maker};
use crate::blob::Blob;
use crate::codec::{self, Encoding};
use crate::error::{Cause, TaskError};
use crate::limits::Limits;
use crate::panics;
use crate::task::Task;

/// Grows with every change of these types.
pub(crate) const PROTOCOL: u32 = 6;

/// Which build of this crate (sources, version, profile) this is; both sides must be of the same.
const BUILD: &str = env!("PROCESSION_BUILD");

/// The build of this crate and of the program that uses it.
pub(crate) fn build_with(program: &str) -> String {
    if program.is_empty() { BUILD.to_owned() } else { format!("{BUILD}-{program}") }
}

/// The largest text that is sent inside a record.
pub(crate) const INLINE_LIMIT: usize = 64 * 1024;

/// What a worker finds in its environment: where to report, and that it was invited at all.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Invitation {
    /// Name of the one-shot socket.
    pub socket: String,
    /// Proves to the coordinator that whoever connects is the process that it started.
    pub token: String,
    /// The worker's parent. A process with another parent was started by a wrapper.
    pub coordinator: u32,
    /// Tells the socket that the worker has as its standard input from all others. A process
    /// without it was not invited: it inherited the environment of a worker.
    pub input: u64,
    /// Which worker of the pool this is to be.
    pub worker: usize,
    /// The number of the descriptor that says the same as far as it fits into its name, for a process
    /// that has lost its environment; closed by the worker.
    pub mark: Option<i32>,
}

impl Invitation {
    pub(crate) const VARIABLE: &str = "PROCESSION_INVITATION";

    /// What stands in the mark.
    pub(crate) fn marking(&self) -> Marking {
        let Self { coordinator, input, worker, .. } = *self;
        Marking { coordinator, input, worker }
    }
}

/// What stands in the mark of a worker: the part of its invitation by which it knows itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Marking {
    pub coordinator: u32,
    pub input: u64,
    pub worker: usize,
}

impl Marking {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split(':');
        Some(Self {
            coordinator: numbers.next()?.parse().ok()?,
            input: numbers.next()?.parse().ok()?,
            worker: numbers.next()?.parse().ok()?,
        })
    }
}

impl fmt::Display for Marking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { coordinator, input, worker } = self;
        write!(f, "{coordinator}:{input}:{worker}")
    }
}

/// The worker's first words.
#[derive(Serialize, Deserialize)]
pub(crate) struct Hello {
    pub token: String,
    pub protocol: u32,
    pub build: String,
    pub pid: u32,
    /// Where to send the welcome.
    pub welcome: IpcSender<Welcome>,
    /// Held by the coordinator as long as it lives.
    pub lifeline: IpcSender<()>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Welcome {
    /// How many tasks the worker runs at the same time, on threads.
    pub threads: usize,
    /// What the worker may use.
    pub limits: Limits,
    /// Of each of its threads, in bytes, where it is not the usual one.
    pub stack: Option<usize>,
}

/// The kinds of records.
pub(crate) const CALL: u8 = 1;
pub(crate) const REPLY: u8 = 2;
/// A line that a task says while it runs.
pub(crate) const SAID: u8 = 3;
/// The output of the next task of a call that consists of several: all that is new in its reply.
pub(crate) const OUTPUT: u8 = 4;
/// Asks the reader to take in what is in the socket, where there is no room for the rest of what
/// the next record lacks.
pub(crate) const TAKE_IN: u8 = 5;
/// The call of this claim cannot be received by the worker, which has not begun it, for the reason that
/// follows.
pub(crate) const NOT_RECEIVED: u8 = 6;
/// A task has left the worker's process in a state in which it should run no others, for the reason
/// that follows.
pub(crate) const UNFIT: u8 = 7;
/// Set in the kind of a record that lacks something, which comes in a message of its own.
pub(crate) const ENCLOSED: u8 = 0x80;

/// What stands in a call's record before the name and the text of its task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Call {
    pub id: u64,
    /// Tells the call from others that used the same claim.
    pub seq: u32,
    pub attempt: u32,
    pub claim: u32,
    pub name_len: u32,
    /// Of how many tasks it consists; if several, the lengths of their texts stand before these.
    pub items: u32,
}

impl Call {
    pub(crate) const LEN: usize = 28;

    pub(crate) fn to_bytes(self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[..8].copy_from_slice(&self.id.to_le_bytes());
        let words = [self.seq, self.attempt, self.claim, self.name_len, self.items];
        for (at, word) in bytes[8..].chunks_exact_mut(4).zip(words) {
            at.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// The parts of a record.
    pub(crate) fn split(record: &[u8]) -> Option<(Self, Parts<'_>)> {
        let (head, rest) = record.split_first_chunk::<{ Self::LEN }>()?;
        let (id, words) = head.split_first_chunk::<8>()?;
        let mut words = words.chunks_exact(4).filter_map(|word| word.try_into().ok());
        let mut word = || words.next().map(u32::from_le_bytes);
        let call = Self {
            id: u64::from_le_bytes(*id),
            seq: word()?,
            attempt: word()?,
            claim: word()?,
            name_len: word()?,
            items: word()?,
        };
        let (name, rest) = rest.split_at_checked(call.name_len as usize)?;
        let number_of_lengths = if call.items > 1 { call.items as usize } else { 0 };
        let (lengths, text) = rest.split_at_checked(4 * number_of_lengths)?;
        let name = std::str::from_utf8(name).ok()?;
        Some((call, Parts { name, lengths, text }))
    }
}

/// What follows the head of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Parts<'r> {
    pub name: &'r str,
    lengths: &'r [u8],
    pub text: &'r [u8],
}

impl Parts<'_> {
    /// Cuts the text, which may have come separately, into those of the single tasks.
    pub(crate) fn texts<'t>(&self, text: &'t [u8]) -> impl Iterator<Item = &'t [u8]> {
        let lengths = self.lengths.chunks_exact(4).filter_map(|length| length.try_into().ok());
        let mut rest = text;
        lengths
            .map(move |length| {
                let (text, behind) = rest.split_at_checked(u32::from_le_bytes(length) as usize)?;
                rest = behind;
                Some(text)
            })
            .map_while(|text| text)
    }
}

/// What a worker sends is a number and a text: a claim and a [`Reply`], a [`Timed`] claim and an
/// output, or a task and what it said.
pub(crate) fn split(record: &[u8]) -> Option<(u64, &[u8])> {
    let (number, text) = record.split_first_chunk::<8>()?;
    Some((u64::from_le_bytes(*number), text))
}

/// A claim, and for how long the task ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Timed {
    pub claim: u32,
    /// Up to four seconds, which is long for a task that travels together with others.
    pub ran_for: Duration,
}

impl Timed {
    pub(crate) fn to_number(self) -> u64 {
        let nanos = u32::try_from(self.ran_for.as_nanos()).unwrap_or(u32::MAX);
        u64::from(nanos) << 32 | u64::from(self.claim)
    }

    pub(crate) fn from_number(number: u64) -> Self {
        let claim = (number % (1 << 32)) as u32;
        Self { claim, ran_for: Duration::from_nanos(number >> 32) }
    }
}

/// What came of a task.
#[derive(Debug)]
pub(crate) struct Reply<'r> {
    pub id: u64,
    pub status: Status,
    /// How long the task ran, in microseconds.
    pub run_us: u64,
    data: &'r [u8],
    encoding: Encoding,
    /// What the data mentions, until the output is decoded.
    pub blobs: RefCell<Vec<Blob>>,
}

/// The envelope of a reply: `{"id":7,"status":"ok","data":"BR","run_us":1900}`. An output that is
/// not JSON follows it: `{"id":7,"status":"ok","data":null,"len":3,"run_us":1900}`.
#[derive(Deserialize)]
struct Envelope<'r> {
    id: u64,
    status: Status,
    #[serde(borrow)]
    data: &'r RawValue,
    len: Option<usize>,
    #[serde(default)]
    run_us: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Status {
    /// `data` is the task's output.
    Ok,
    /// `data` is the task's own error, a [`Cause`].
    Failed,
    /// `data` is a [`Panicked`].
    Panicked,
    /// The task could not be decoded; `data` says why.
    Undecodable,
    /// The output could not be encoded; `data` is a [`Refused`].
    Unencodable,
    /// The output could not be sent, or not be received; `data` says why.
    Undelivered,
}

/// Why an output was not encoded.
#[derive(Debug, Serialize, Deserialize)]
struct Refused {
    task: String,
    field: String,
    reason: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Panicked {
    message: String,
    location: Option<String>,
}

/// What a worker takes out of a call, and puts into its reply.
#[derive(Debug, Default)]
pub(crate) struct ReplyBuffer {
    /// The data of the reply.
    pub data: Vec<u8>,
    /// Of the data.
    encoding: Encoding,
    /// What the task mentions, then what the data mentions.
    pub blobs: Vec<Blob>,
}

impl ReplyBuffer {
    /// Writes what came of a task.
    pub(crate) fn put<T: Task>(&mut self, result: Result<T::Output, TaskError>) -> Status {
        self.encoding = Encoding::Json;
        let data = &mut self.data;
        let (status, plain) = match result {
            Ok(output) => {
                let encoded = codec::encode(T::ENCODING, &output, data);
                panics::discard(output);
                match encoded {
                    Ok(blobs) => {
                        (self.blobs, self.encoding) = (blobs, T::ENCODING);
                        return Status::Ok;
                    }
                    Err(refusal) => {
                        data.clear();
                        let (task, field) = (T::NAME.to_owned(), refusal.field());
                        let refused = Refused { task, field, reason: refusal.into_reason() };
                        (Status::Unencodable, serde_json::to_writer(data, &refused))
                    }
                }
            }
            Err(TaskError::Panicked { message, location }) => {
                (Status::Panicked, serde_json::to_writer(data, &Panicked { message, location }))
            }
            Err(TaskError::Failed(cause)) => (Status::Failed, serde_json::to_writer(data, &cause)),
            Err(other) => unreachable!("a task that ran does not end as {other:?}"),
        };
        plain.expect("text and numbers are always encodable");
        status
    }

    /// Writes why there is neither an output nor an error of the task's own.
    pub(crate) fn put_reason(&mut self, status: Status, reason: &str) -> Status {
        self.encoding = Encoding::Json;
        self.data.clear();
        serde_json::to_writer(&mut self.data, reason).expect("text is always encodable");
        status
    }
}

/// A reply in place of one that cannot be sent, or was not received.
pub(crate) fn undelivered(id: u64, reason: &str, ran_for: Duration) -> Vec<u8> {
    let mut buffer = ReplyBuffer::default();
    let status = buffer.put_reason(Status::Undelivered, reason);
    envelope(id, status, &buffer, ran_for)
}

/// Puts data into the envelope of a reply, or behind it if it is not JSON.
pub(crate) fn envelope(
    id: u64,
    status: Status,
    reply_buffer: &ReplyBuffer,
    ran_for: Duration,
) -> Vec<u8> {
    let run_us = u64::try_from(ran_for.as_micros()).unwrap_or(u64::MAX);
    let status = serde_json::to_string(&status).expect("text is always encodable");
    let (len, encoding) = (reply_buffer.data.len(), reply_buffer.encoding);
    let mut reply = Vec::with_capacity(100 + len);
    let head = write!(reply, r#"{{"id":{id},"status":{status},"data":"#);
    let tail = match encoding {
        Encoding::Json => {
            reply.extend_from_slice(&reply_buffer.data);
            write!(reply, r#","run_us":{run_us}}}"#)
        }
        Encoding::Binary => {
            let tail = write!(reply, r#"null,"len":{len},"run_us":{run_us}}}"#);
            reply.extend_from_slice(&reply_buffer.data);
            tail
        }
    };
    head.and(tail).expect("memory takes any bytes");
    reply
}

impl<'r> Reply<'r> {
    pub(crate) fn parse(bytes: &'r [u8]) -> Result<Self, Garbled> {
        let mut envelopes = serde_json::Deserializer::from_slice(bytes).into_iter();
        let Some(Ok(Envelope { id, status, data, len, run_us })) = envelopes.next() else {
            return Err(Garbled);
        };
        let behind = bytes.get(envelopes.byte_offset()..).ok_or(Garbled)?;
        let (data, encoding) = match len {
            None if behind.is_empty() => (data.get().as_bytes(), Encoding::Json),
            Some(len) if behind.len() == len => (behind, Encoding::Binary),
            _ => return Err(Garbled),
        };
        Ok(Self { id, status, run_us, data, encoding, blobs: RefCell::default() })
    }

    /// The output or the error that this reply brings.
    pub(crate) fn result<O>(&self) -> Result<O, TaskError>
    where
        O: Serialize + serde::de::DeserializeOwned,
    {
        let data = self.data;
        let undecodable =
            |what: &str, reason: String| TaskError::Undecodable { what: what.to_owned(), reason };
        let broken = |error: serde_json::Error| undecodable("reply", error.to_string());
        match self.status {
            Status::Ok => codec::decode(self.encoding, data, self.blobs.take())
                .map_err(|reason| undecodable("output", reason)),
            Status::Failed => {
                Err(serde_json::from_slice::<Cause>(data).map_or_else(broken, TaskError::Failed))
            }
            Status::Panicked => Err(serde_json::from_slice(data).map_or_else(
                broken,
                |Panicked { message, location }| TaskError::Panicked { message, location },
            )),
            Status::Undecodable => {
                let reason = serde_json::from_slice::<String>(data);
                Err(undecodable("task", reason.unwrap_or_else(|error| error.to_string())))
            }
            Status::Undelivered => {
                let reason = serde_json::from_slice::<String>(data);
                let reason = reason.unwrap_or_else(|error| error.to_string());
                Err(TaskError::Undelivered { what: "output".to_owned(), reason })
            }
            Status::Unencodable => Err(serde_json::from_slice(data).map_or_else(
                broken,
                |Refused { task, field, reason }| TaskError::Unencodable {
                    what: "output".to_owned(),
                    task,
                    field,
                    reason,
                },
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::collections::BTreeMap;
    use std::marker::PhantomData;

    use crate::task::Context;

    /// A task that has this output, in either encoding.
    #[derive(Serialize, Deserialize)]
    struct Gives<O, const IS_BINARY: bool>(PhantomData<O>);

    impl<O, const IS_BINARY: bool> Task for Gives<O, IS_BINARY>
    where
        O: Serialize + serde::de::DeserializeOwned + Send + 'static,
    {
        const NAME: &'static str = "gives";
        const ENCODING: Encoding = if IS_BINARY { Encoding::Binary } else { Encoding::Json };
        type Output = O;
        fn run(self, _: &Context) -> Result<O, crate::Failure> {
            Err(crate::Failure::msg("not to be run"))
        }
    }

    fn round_trip<T: Task>(result: Result<T::Output, TaskError>) -> Result<T::Output, TaskError> {
        let mut reply_buffer = ReplyBuffer::default();
        let status = reply_buffer.put::<T>(result);
        let bytes = envelope(7, status, &reply_buffer, Duration::from_micros(5));
        let reply = Reply::parse(&bytes).expect("an envelope");
        assert_eq!((reply.id, reply.run_us), (7, 5));
        assert!(Reply::parse(&bytes[..bytes.len() - 1]).is_err(), "cut short");
        assert!(Reply::parse(&[&bytes[..], b"1"].concat()).is_err(), "too long");
        reply.result()
    }

    fn both_ways<O>(result: Result<O, TaskError>) -> Result<O, TaskError>
    where
        O: Serialize + serde::de::DeserializeOwned + Send + Clone + PartialEq + 'static,
        O: std::fmt::Debug,
    {
        let json = round_trip::<Gives<O, false>>(result.clone());
        assert_eq!(round_trip::<Gives<O, true>>(result), json);
        json
    }

    #[test]
    fn a_reply_is_json_with_status_and_data() {
        let mut reply_buffer = ReplyBuffer::default();
        let status = reply_buffer.put::<Gives<String, false>>(Ok("BR".to_owned()));
        let json = envelope(7, status, &reply_buffer, Duration::from_micros(1900));
        assert_eq!(json, br#"{"id":7,"status":"ok","data":"BR","run_us":1900}"#);
    }

    #[test]
    fn an_output_that_is_not_json_follows_its_envelope() {
        let mut reply_buffer = ReplyBuffer::default();
        let status = reply_buffer.put::<Gives<u8, true>>(Ok(200));
        let reply = envelope(7, status, &reply_buffer, Duration::from_micros(1900));
        let envelope = &br#"{"id":7,"status":"ok","data":null,"len":2,"run_us":1900}"#[..];
        assert_eq!(reply.strip_prefix(envelope), Some(&[5, 200][..]));
    }

    #[test]
    fn outputs_and_errors_survive_the_border() {
        assert_eq!(both_ways(Ok(u64::MAX)), Ok(u64::MAX));
        assert_eq!(both_ways(Ok("ünï \u{0} \u{1F1E7}".to_owned())), Ok("ünï \0 🇧".to_owned()));
        let failed = TaskError::Failed(crate::Failure::msg("no such city").into_cause());
        assert_eq!(both_ways::<()>(Err(failed.clone())), Err(failed));
        let panicked =
            TaskError::Panicked { message: "oh".to_owned(), location: Some("a.rs:1".to_owned()) };
        assert_eq!(both_ways::<()>(Err(panicked.clone())), Err(panicked));
    }

    #[test]
    fn an_output_that_refuses_to_be_encoded_is_a_typed_error() {
        let output = BTreeMap::from([("a", vec![1.0, f64::NAN])]);
        let output: BTreeMap<String, Vec<f64>> =
            output.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        let refused = round_trip::<Gives<_, false>>(Ok(output)).expect_err("refused");
        assert_eq!(
            refused.to_string(),
            r#"cannot encode the output of task "gives" at .a[1]: JSON has no number NaN"#
        );
    }

    #[test]
    fn a_call_survives_the_border() {
        let call = Call { id: u64::MAX, seq: 7, attempt: 1, claim: 3, name_len: 5, items: 1 };
        let mut record = call.to_bytes().to_vec();
        record.extend_from_slice("fläg[1]".as_bytes());
        let parts = Parts { name: "fläg", lengths: &[], text: b"[1]" };
        assert_eq!(Call::split(&record), Some((call, parts)));
        assert_eq!(Call::split(&record[..20]), None);
        assert_eq!(Call::split(&record[..30]), None, "shorter than its name");
    }

    #[test]
    fn the_texts_of_several_tasks_are_told_apart_by_their_lengths() {
        let call = Call { id: 1, seq: 1, attempt: 1, claim: 0, name_len: 1, items: 3 };
        let mut record = call.to_bytes().to_vec();
        record.push(b'n');
        record.extend([1_u32, 4, 2].map(u32::to_le_bytes).concat());
        record.extend_from_slice(b"1[\n2]{}");
        let (_, parts) = Call::split(&record).expect("sound");
        assert_eq!(parts.texts(parts.text).collect::<Vec<_>>(), [&b"1"[..], b"[\n2]", b"{}"]);
        assert_eq!(parts.texts(b"1[").count(), 1, "shorter than it says");
    }

    #[test]
    fn a_claim_travels_with_its_time() {
        let timed = Timed { claim: u32::MAX, ran_for: Duration::from_nanos(150) };
        assert_eq!(Timed::from_number(timed.to_number()), timed);
        let long = Timed { claim: 1, ran_for: Duration::from_secs(60) };
        assert_eq!(Timed::from_number(long.to_number()).claim, 1);
    }
}
