//! [`ReplyBuffer`]: where a worker makes its reply, in one piece. Long data is not copied for its envelope.

use std::cell::RefCell;
use std::io::Write;
use std::time::Duration;

use serde::Serialize;

use super::{Panicked, Refused, Reply, Status};
use crate::blob::Blob;
use crate::codec::{self, Encoding, Refusal, with_encoding};
use crate::error::TaskError;
use crate::panics;
use crate::task::Task;

/// Room for the part of an envelope that is in front of the data: with the longest numbers and names it has 119 bytes.
const HEAD: usize = 128;

/// Holds the blobs of a task before it runs, then the data and blobs of its reply.
#[derive(Debug)]
pub(crate) struct ReplyBuffer {
    /// [`HEAD`] bytes, then the data of the reply.
    bytes: Vec<u8>,
    /// The encoding of the data.
    encoding: Encoding,
    /// The blobs of the task, then those of the data.
    pub blobs: Vec<Blob>,
}

impl Default for ReplyBuffer {
    fn default() -> Self {
        Self { bytes: vec![0; HEAD], encoding: Encoding::default(), blobs: Vec::new() }
    }
}

impl ReplyBuffer {
    /// A buffer with this data.
    #[cfg(feature = "remote")]
    pub(super) fn with(data: &[u8], encoding: Encoding) -> Self {
        Self { bytes: [&[0; HEAD], data].concat(), encoding, blobs: Vec::new() }
    }

    /// Removes the data. Its memory is kept for the next.
    pub(crate) fn clear(&mut self) {
        self.bytes.truncate(HEAD);
    }

    /// The data of the reply.
    pub(crate) fn data(&self) -> &[u8] {
        &self.bytes[HEAD..]
    }

    /// Takes the data.
    pub(crate) fn into_data(mut self) -> Vec<u8> {
        self.bytes.drain(..HEAD);
        self.bytes
    }

    pub(crate) fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// Encodes the result of a task.
    pub(crate) fn put<T: Task>(&mut self, result: Result<T::Output, TaskError>) -> Status {
        self.encoding = Encoding::Json;
        let data = &mut self.bytes;
        let output = match result {
            Ok(output) => output,
            Err(error) => return self.put_error(error),
        };
        let encoded =
            with_encoding!(T::ENCODING, F => codec::encode::<F, T::Output>(&output, data));
        panics::discard(output);
        match encoded {
            Ok(blobs) => {
                (self.blobs, self.encoding) = (blobs, T::ENCODING);
                Status::Ok
            }
            Err(refusal) => self.put_refusal(Status::Unencodable, T::NAME, refusal),
        }
    }

    /// Encodes the error of a task. It is compiled once, and not for each kind of task.
    fn put_error(&mut self, error: TaskError) -> Status {
        let data = &mut self.bytes;
        let (status, written) = match error {
            TaskError::Panicked { message, location, backtrace } => {
                let panicked = Panicked { message, location, backtrace };
                (Status::Panicked, serde_json::to_writer(data, &panicked))
            }
            TaskError::Failed(cause) => (Status::Failed, serde_json::to_writer(data, &cause)),
            other => unreachable!("a task that ran does not end as {other:?}"),
        };
        written.expect("text and numbers are always encodable");
        status
    }

    /// The error of a result that is no output, as text.
    pub(crate) fn error(&self, status: Status) -> Option<String> {
        let (data, encoding, blobs) = (self.data(), self.encoding, RefCell::default());
        let reply = Reply { id: 0, status, task: "", run_us: 0, data, encoding, blobs };
        match status {
            Status::Ok => None,
            _ => Some(reply.failure(status, "").to_string()),
        }
    }

    /// Encodes why an output was not encoded, or a task not decoded.
    pub(crate) fn put_refusal(&mut self, status: Status, task: &str, refusal: Refusal) -> Status {
        let (task, field) = (task.to_owned(), refusal.field());
        self.put_plain(status, &Refused { task, field, reason: refusal.into_reason() })
    }

    /// Encodes the reason why there is neither an output nor an error of the task.
    fn put_reason(&mut self, status: Status, reason: &str) -> Status {
        self.put_plain(status, reason)
    }

    fn put_plain(&mut self, status: Status, text: &(impl Serialize + ?Sized)) -> Status {
        self.encoding = Encoding::Json;
        self.clear();
        serde_json::to_writer(&mut self.bytes, text).expect("text is always encodable");
        status
    }

    /// The text of a reply: its envelope with JSON data in it, or binary data behind it. The end of an envelope is put
    /// behind JSON data, so [`clear`](Self::clear) must follow.
    pub(crate) fn envelope(&mut self, id: u64, status: Status, ran_for: Duration) -> &[u8] {
        let run_us = u64::try_from(ran_for.as_micros()).unwrap_or(u64::MAX);
        let len = self.data().len();
        let mut head = [0; HEAD];
        let mut rest = &mut head[..];
        // Not by `write!`: this is part of each task's time.
        put(&mut rest, r#"{"id":"#, &id);
        put(&mut rest, r#","status":"#, &status);
        match self.encoding {
            Encoding::Json => put_text(&mut rest, r#","data":"#),
            Encoding::Binary => {
                put(&mut rest, r#","data":null,"len":"#, &len);
                put(&mut rest, r#","run_us":"#, &run_us);
                put_text(&mut rest, "}");
            }
        }
        let len = HEAD - rest.len();
        self.bytes[HEAD - len..HEAD].copy_from_slice(&head[..len]);
        if self.encoding == Encoding::Json {
            put(&mut self.bytes, r#","run_us":"#, &run_us);
            self.bytes.push(b'}');
        }
        &self.bytes[HEAD - len..]
    }
}

/// The text of a reply that takes the place of one that could not be sent or received.
pub(crate) fn undelivered(id: u64, reason: &str, ran_for: Duration) -> Vec<u8> {
    let mut buffer = ReplyBuffer::default();
    let status = buffer.put_reason(Status::Undelivered, reason);
    buffer.envelope(id, status, ran_for).to_vec()
}

/// Appends a number or a name as JSON, behind the text before it.
fn put(mut to: impl Write, before: &str, value: &impl Serialize) {
    put_text(&mut to, before);
    serde_json::to_writer(to, value).expect("numbers and names are always encodable");
}

fn put_text(mut to: impl Write, text: &str) {
    to.write_all(text.as_bytes()).expect("there is room for an envelope");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_for_the_longest_envelope_and_a_buffer_is_used_again() {
        let mut buffer = ReplyBuffer::default();
        let longest = Duration::from_secs(u64::MAX);
        for encoding in [Encoding::Binary, Encoding::Json, Encoding::Binary] {
            for data in [&b"[1,2]"[..], b"", b"null"] {
                buffer.clear();
                buffer.encoding = encoding;
                buffer.bytes.extend_from_slice(data);
                assert_eq!(buffer.data(), data);
                let text = buffer.envelope(u64::MAX, Status::Undelivered, longest);
                if encoding == Encoding::Json && data.is_empty() {
                    continue; // never written
                }
                let reply = Reply::parse(text).expect("an envelope");
                assert_eq!((reply.id, reply.status), (u64::MAX, Status::Undelivered));
                assert_eq!((reply.run_us, reply.data, reply.encoding), (u64::MAX, data, encoding));
            }
        }
        assert!(ReplyBuffer::default().into_data().is_empty());
    }
}
