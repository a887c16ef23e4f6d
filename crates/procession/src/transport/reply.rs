//! The records that a worker sends: each is a number of 8 bytes and a text.
//!
//! | kind | number | text |
//! |---|---|---|
//! | `REPLY` | the claim of the call | the envelope of a [`Reply`], with its data |
//! | `OUTPUT` | a [`Timed`] claim | an output |
//! | `SAID` | a task id | a line |
//! | `PARTIAL` | a task id | a value in the binary encoding |
//! | `TRACED` | a task id | a span or an event (`traced.rs`) |
//! | `NOT_RECEIVED` | the claim of the call | the reason |
//! | `UNFIT` | 0 | the reason |

mod buffer;

use std::cell::RefCell;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

pub(crate) use self::buffer::{ReplyBuffer, undelivered};
use super::ring::Garbled;
use crate::blob::Blob;
use crate::codec::{DecodeOutput, Encoding, Refusal};
use crate::error::{Cause, TaskError};
use crate::panics;

/// Splits a record of a worker into its number and its text.
pub(crate) fn split(record: &[u8]) -> Option<(u64, &[u8])> {
    let (number, text) = record.split_first_chunk::<8>()?;
    Some((u64::from_le_bytes(*number), text))
}

/// The number of an output's record: the claim of the call, and the run time of the task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Timed {
    pub claim: u32,
    /// Cut to 2^32 - 1 ns (4.3 s). Tasks that are sent in one call run for much less.
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

/// The reply to one task, borrowed from its record or attachment.
#[derive(Debug)]
pub(crate) struct Reply<'r> {
    pub id: u64,
    pub status: Status,
    /// The kind of task, for errors, as the coordinator knows it. Empty if that is not known.
    pub task: &'r str,
    /// The run time of the task, in microseconds.
    pub run_us: u64,
    data: &'r [u8],
    encoding: Encoding,
    /// The blobs of the output. Taken when it is decoded.
    pub blobs: RefCell<Vec<Blob>>,
}

/// The envelope of a reply, as JSON: `{"id":7,"status":"ok","data":"BR","run_us":1900}`. A binary
/// output follows its envelope: `{"id":7,"status":"ok","data":null,"len":3,"run_us":1900}`.
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
    /// The task could not be decoded. `data` is a [`Refused`].
    Undecodable,
    /// The output could not be encoded. `data` is a [`Refused`].
    Unencodable,
    /// The output could not be sent or received. `data` is the reason, a string.
    Undelivered,
}

/// Why an output was not encoded, or a task not decoded.
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
    #[serde(default)]
    backtrace: Vec<String>,
}

/// The first value of a text, and where it ends.
fn first<'r>(
    text: serde_json::Deserializer<impl serde_json::de::Read<'r>>,
) -> Result<(Envelope<'r>, usize), Garbled> {
    let mut envelopes = text.into_iter();
    let envelope = envelopes.next().and_then(Result::ok).ok_or(Garbled)?;
    Ok((envelope, envelopes.byte_offset()))
}

impl<'r> Reply<'r> {
    /// Parses a text. `Err` if anything is missing, malformed or left over.
    pub(crate) fn parse(bytes: &'r [u8]) -> Result<Self, Garbled> {
        // A text is checked once here, and not again in each of its strings.
        let (Envelope { id, status, data, len, run_us }, end) = match std::str::from_utf8(bytes) {
            Ok(text) => first(serde_json::Deserializer::from_str(text))?,
            Err(_) => first(serde_json::Deserializer::from_slice(bytes))?,
        };
        let behind = bytes.get(end..).ok_or(Garbled)?;
        let (data, encoding) = match len {
            None if behind.is_empty() => (data.get().as_bytes(), Encoding::Json),
            Some(len) if behind.len() == len => (behind, Encoding::Binary),
            _ => return Err(Garbled),
        };
        let (task, blobs) = ("", RefCell::default());
        Ok(Self { id, status, task, run_us, data, encoding, blobs })
    }

    /// The text from which an equal reply is parsed, without its id and blobs.
    #[cfg(feature = "remote")]
    pub(crate) fn to_text(&self) -> Vec<u8> {
        let mut buffer = ReplyBuffer::with(self.data, self.encoding);
        buffer.envelope(0, self.status, Duration::from_micros(self.run_us)).to_vec()
    }

    /// Decodes the output, by this function, or the error. Takes the blobs.
    pub(crate) fn result<O>(&self, decode: DecodeOutput<O>) -> Result<O, TaskError> {
        self.result_of(self.task, decode)
    }

    /// The same for a task of this kind.
    pub(crate) fn result_of<O>(&self, task: &str, decode: DecodeOutput<O>) -> Result<O, TaskError> {
        match self.status {
            Status::Ok => decode(self.encoding, self.data, self.blobs.take())
                .map_err(|refusal| refusal.into_undecodable("output", task)),
            status => Err(self.failure(status, task)),
        }
    }

    /// The error of a reply with this status, which is not [`Status::Ok`].
    #[cold]
    fn failure(&self, status: Status, task: &str) -> TaskError {
        let data = self.data;
        let broken = |error: serde_json::Error| {
            Refusal::new(error.to_string()).into_undecodable("reply", task)
        };
        match status {
            Status::Ok => unreachable!("it has an output"),
            Status::Failed => {
                serde_json::from_slice::<Cause>(data).map_or_else(broken, TaskError::Failed)
            }
            Status::Panicked => serde_json::from_slice(data).map_or_else(
                broken,
                |Panicked { message, location, mut backtrace }| {
                    backtrace.truncate(panics::MOST_CALLS);
                    TaskError::Panicked { message, location, backtrace }
                },
            ),
            Status::Undecodable => {
                let refused = serde_json::from_slice(data);
                refused.map_or_else(broken, |Refused { task, field, reason }| {
                    TaskError::Undecodable { what: "task".to_owned(), task, field, reason }
                })
            }
            Status::Undelivered => {
                let reason = serde_json::from_slice::<String>(data);
                let reason = reason.unwrap_or_else(|error| error.to_string());
                TaskError::Undelivered { what: "output".to_owned(), reason }
            }
            Status::Unencodable => serde_json::from_slice(data).map_or_else(
                broken,
                |Refused { task, field, reason }| TaskError::Unencodable {
                    what: "output".to_owned(),
                    task,
                    field,
                    reason,
                },
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::collections::BTreeMap;
    use std::marker::PhantomData;

    use serde::de::DeserializeOwned;

    use crate::Failure;
    use crate::codec;
    use crate::task::{Context, Task};

    /// A task that has this output, in either encoding.
    #[derive(Serialize, Deserialize)]
    struct Gives<O, const IS_BINARY: bool>(PhantomData<O>);

    impl<O, const IS_BINARY: bool> Task for Gives<O, IS_BINARY>
    where
        O: Serialize + DeserializeOwned + Send + 'static,
    {
        const NAME: &'static str = "gives";
        const ENCODING: Encoding = if IS_BINARY { Encoding::Binary } else { Encoding::Json };
        type Output = O;
        fn run(self, _: &Context) -> Result<O, Failure> {
            Err(Failure::msg("not to be run"))
        }
    }

    fn round_trip<T: Task>(result: Result<T::Output, TaskError>) -> Result<T::Output, TaskError> {
        let mut reply_buffer = ReplyBuffer::default();
        let status = reply_buffer.put::<T>(result);
        let bytes = reply_buffer.envelope(7, status, Duration::from_micros(5));
        let reply = Reply::parse(bytes).expect("an envelope");
        assert_eq!((reply.id, reply.run_us), (7, 5));
        assert!(Reply::parse(&bytes[..bytes.len() - 1]).is_err(), "cut short");
        assert!(Reply::parse(&[bytes, b"1"].concat()).is_err(), "too long");
        reply.result(codec::decode_in)
    }

    fn both_ways<O>(result: Result<O, TaskError>) -> Result<O, TaskError>
    where
        O: Serialize + DeserializeOwned + Send + Clone + PartialEq + 'static,
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
        let json = reply_buffer.envelope(7, status, Duration::from_micros(1900));
        assert_eq!(json, br#"{"id":7,"status":"ok","data":"BR","run_us":1900}"#);
    }

    #[test]
    fn an_output_that_is_not_json_follows_its_envelope() {
        let mut reply_buffer = ReplyBuffer::default();
        let status = reply_buffer.put::<Gives<u8, true>>(Ok(200));
        let reply = reply_buffer.envelope(7, status, Duration::from_micros(1900));
        let envelope = &br#"{"id":7,"status":"ok","data":null,"len":2,"run_us":1900}"#[..];
        assert_eq!(reply.strip_prefix(envelope), Some(&[5, 200][..]));
    }

    #[test]
    fn outputs_and_errors_survive_the_border() {
        assert_eq!(both_ways(Ok(u64::MAX)), Ok(u64::MAX));
        assert_eq!(both_ways(Ok("ünï \u{0} \u{1F1E7}".to_owned())), Ok("ünï \0 🇧".to_owned()));
        let failed = TaskError::Failed(Failure::msg("no such city").into_cause());
        assert_eq!(both_ways::<()>(Err(failed.clone())), Err(failed));
        let panicked = TaskError::Panicked {
            message: "oh".to_owned(),
            location: Some("a.rs:1".to_owned()),
            backtrace: vec!["app::inner".to_owned()],
        };
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
    fn a_claim_travels_with_its_time() {
        let timed = Timed { claim: u32::MAX, ran_for: Duration::from_nanos(150) };
        assert_eq!(Timed::from_number(timed.to_number()), timed);
        let long = Timed { claim: 1, ran_for: Duration::from_secs(60) };
        assert_eq!(Timed::from_number(long.to_number()).claim, 1);
    }
}
