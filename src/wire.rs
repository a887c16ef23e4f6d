//! All that crosses the process border.
//!
//! ```text
//!   worker                              coordinator
//!     │ ── Hello{token, build, …} ─────────► │   over the one-shot socket
//!     │ ◄──────────────── Welcome{…} ─────── │ ┐ the call channel
//!     │ ── Ready ──────────────────────────► │ │ the reply channel
//!     │ ◄────────── Calls[Call, Call, …] ─── │ ┘
//!     │ ── Reply ──────────────────────────► │   the reply channel
//!     │ ◄──── Recall{from, through}, End ─── │   the lifeline
//!     │ ── Returned{from, through} ────────► │   the reply channel
//! ```
//!
//! A task and a reply are JSON texts inside these plain structs, because the encoding of the
//! channel itself is not self-describing and would garble untagged or flattened types. A message
//! stays below [`INLINE_LIMIT`], since a larger one is sent in fragments, and a fragmented send to
//! a process that dies meanwhile never returns; larger texts travel in shared memory.
//!
//! The JSON of calls and replies knows nothing of the channel, so that it can travel over another
//! kind of connection one day.

use std::time::Duration;

use ipc_channel::ipc::{IpcSender, IpcSharedMemory};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::error::{Cause, TaskError};
use crate::executor::Limits;
use crate::guard;

/// Grows with every change of these types.
pub(crate) const PROTOCOL: u32 = 1;

/// Which build of this crate (sources, version, profile) this is; both sides must be of the same.
pub(crate) const BUILD: &str = env!("PROCESSION_BUILD");

/// The largest text that is sent inside a message.
pub(crate) const INLINE_LIMIT: usize = 64 * 1024;

/// What a worker finds in its environment: where to report, and that it was invited at all.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Invitation {
    /// Name of the one-shot socket.
    pub socket: String,
    /// Proves to the coordinator that whoever connects is the process that it started.
    pub token: String,
    /// The worker's parent. A process with another parent was not invited: it inherited the
    /// environment of a worker.
    pub coordinator: u32,
    /// Which worker of the pool this is to be.
    pub worker: usize,
}

impl Invitation {
    pub(crate) const VARIABLE: &str = "PROCESSION_INVITATION";
}

/// The worker's first words.
#[derive(Serialize, Deserialize)]
pub(crate) struct Hello {
    pub token: String,
    pub protocol: u32,
    pub build: String,
    pub pid: u32,
    pub calls: IpcSender<ToWorker>,
    pub lifeline: IpcSender<Whisper>,
}

#[derive(Serialize, Deserialize)]
pub(crate) enum ToWorker {
    Welcome(Welcome),
    Calls(Vec<Call>),
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Welcome {
    /// How many tasks the worker runs at the same time, on threads.
    pub threads: usize,
    /// What the worker may use.
    pub limits: Limits,
    pub replies: IpcSender<FromWorker>,
}

/// One task on its way to a worker.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Call {
    pub id: u64,
    /// Counts the calls to this one worker, from 1; a worker begins its calls in this order.
    pub turn: u64,
    pub attempt: u32,
    pub name: String,
    pub task: Text,
}

/// What is said on the lifeline, past the calls that lie in the channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Whisper {
    Recall(Recall),
    /// End the call of this turn, together with the process, if it still runs and has run for as
    /// long as it may.
    End {
        turn: u64,
        allowed: Duration,
    },
}

/// Calls by their turns: those that are to be given back if they have not begun, and, in the
/// answer, those that had not and never will.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Recall {
    pub from: u64,
    pub through: u64,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum FromWorker {
    /// The worker has its limits and its threads, and takes calls from now on.
    Ready,
    /// It cannot work, and why.
    Unfit(String),
    Reply(Text),
    /// The calls of a recall that had not begun, whether they have arrived or not. There is no
    /// such answer if all had: they are replied to as usual.
    Returned(Recall),
    /// The call that was to be ended has begun only so long ago.
    NotYet {
        turn: u64,
        ran_for: Duration,
    },
    /// Said by the coordinator to itself, in the worker's stead, when the operating system
    /// reports the worker's end: it arrives after all that the worker sent.
    Ended,
}

/// A JSON text, small or large.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Text {
    Inline(String),
    Shared(IpcSharedMemory),
}

impl Text {
    pub(crate) fn new(text: &str) -> Self {
        Self::within(INLINE_LIMIT, text)
    }

    /// Inside the message up to this length.
    pub(crate) fn within(limit: usize, text: &str) -> Self {
        match text.len() <= limit.min(INLINE_LIMIT) {
            true => Self::Inline(text.to_owned()),
            // The channel library panics where there are no descriptors left. Such a text then
            // travels in fragments: slower, and stuck if the receiver dies meanwhile, but not lost.
            false => guard::catch(|| IpcSharedMemory::from_bytes(text.as_bytes()))
                .map_or_else(|_| Self::Inline(text.to_owned()), Self::Shared),
        }
    }

    pub(crate) fn as_str(&self) -> Result<&str, std::str::Utf8Error> {
        match self {
            Self::Inline(text) => Ok(text),
            Self::Shared(memory) => std::str::from_utf8(memory),
        }
    }
}

/// The envelope of an answer: `{"id":7,"status":"ok","data":"BR","run_us":1900}`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Reply<D> {
    pub id: u64,
    pub status: Status,
    pub data: D,
    /// How long the task ran, in microseconds.
    #[serde(default)]
    pub run_us: u64,
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
    /// The output could not be encoded; `data` says why.
    Unencodable,
}

#[derive(Debug, Serialize, Deserialize)]
struct Panicked {
    message: String,
    location: Option<String>,
}

impl Reply<()> {
    /// The answer to a task that ran, encoded.
    pub(crate) fn to_result<O: Serialize>(
        id: u64,
        result: Result<O, TaskError>,
        ran_for: Duration,
    ) -> String {
        let run_us = u64::try_from(ran_for.as_micros()).unwrap_or(u64::MAX);
        match result {
            Ok(data) => {
                let reply = Reply { id, status: Status::Ok, data, run_us };
                // The output's `Serialize` is user code and may refuse, or panic.
                match guard::catch(|| serde_json::to_string(&reply)) {
                    Ok(Ok(json)) => json,
                    Ok(Err(error)) => encode(id, Status::Unencodable, error.to_string(), run_us),
                    Err(panic) => encode(id, Status::Unencodable, panic.message, run_us),
                }
            }
            Err(TaskError::Panicked { message, location }) => {
                encode(id, Status::Panicked, Panicked { message, location }, run_us)
            }
            Err(TaskError::Failed(cause)) => encode(id, Status::Failed, cause, run_us),
            Err(other) => unreachable!("a task that ran does not end as {other:?}"),
        }
    }

    pub(crate) fn undecodable(id: u64, reason: &str) -> String {
        encode(id, Status::Undecodable, reason, 0)
    }
}

fn encode<D: Serialize>(id: u64, status: Status, data: D, run_us: u64) -> String {
    serde_json::to_string(&Reply { id, status, data, run_us })
        .expect("text and numbers are always encodable")
}

impl Reply<&RawValue> {
    /// The output or the error that this reply brings.
    pub(crate) fn result<O: serde::de::DeserializeOwned>(&self) -> Result<O, TaskError> {
        let json = self.data.get();
        let undecodable =
            |what: &str, reason: String| TaskError::Undecodable { what: what.to_owned(), reason };
        let broken = |error: serde_json::Error| undecodable("reply", error.to_string());
        let reason = || serde_json::from_str::<String>(json).unwrap_or_else(|e| e.to_string());
        match self.status {
            Status::Ok => match guard::catch(|| serde_json::from_str(json)) {
                Ok(Ok(output)) => Ok(output),
                Ok(Err(error)) => Err(undecodable("output", error.to_string())),
                Err(panic) => Err(undecodable("output", panic.message)),
            },
            Status::Failed => {
                Err(serde_json::from_str::<Cause>(json).map_or_else(broken, TaskError::Failed))
            }
            Status::Panicked => Err(serde_json::from_str(json).map_or_else(
                broken,
                |Panicked { message, location }| TaskError::Panicked { message, location },
            )),
            Status::Undecodable => Err(undecodable("task", reason())),
            Status::Unencodable => {
                Err(TaskError::Unencodable { what: "output".to_owned(), reason: reason() })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip<O: Serialize + serde::de::DeserializeOwned>(
        result: Result<O, TaskError>,
    ) -> Result<O, TaskError> {
        let json = Reply::to_result(7, result, Duration::from_micros(5));
        let reply: Reply<&RawValue> = serde_json::from_str(&json).expect("an envelope");
        assert_eq!((reply.id, reply.run_us), (7, 5));
        reply.result()
    }

    #[test]
    fn a_reply_is_json_with_status_and_data() {
        let json = Reply::to_result(7, Ok("BR"), Duration::from_micros(1900));
        assert_eq!(json, r#"{"id":7,"status":"ok","data":"BR","run_us":1900}"#);
    }

    #[test]
    fn outputs_and_errors_survive_the_border() {
        assert_eq!(round_trip(Ok(u64::MAX)), Ok(u64::MAX));
        assert_eq!(round_trip(Ok("ünï \u{0} \u{1F1E7}".to_owned())), Ok("ünï \0 🇧".to_owned()));
        let failed = TaskError::Failed(crate::Failure::msg("no such city").into_cause());
        assert_eq!(round_trip::<()>(Err(failed.clone())), Err(failed));
        let panicked =
            TaskError::Panicked { message: "oh".to_owned(), location: Some("a.rs:1".to_owned()) };
        assert_eq!(round_trip::<()>(Err(panicked.clone())), Err(panicked));
    }

    #[test]
    fn an_output_that_refuses_to_be_encoded_is_a_typed_error() {
        assert!(matches!(round_trip(Ok(Odd)), Err(TaskError::Unencodable { .. })));
    }

    #[derive(serde::Deserialize)]
    struct Odd;
    impl Serialize for Odd {
        fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(serde::ser::Error::custom("will not"))
        }
    }

    #[test]
    fn the_limit_decides_what_travels_in_shared_memory() {
        for (len, inline) in [(0, true), (INLINE_LIMIT, true), (INLINE_LIMIT + 1, false)] {
            let text = Text::new(&"x".repeat(len));
            assert_eq!(matches!(text, Text::Inline(_)), inline, "{len} bytes");
            assert_eq!(text.as_str().expect("utf-8").len(), len);
        }
    }
}
