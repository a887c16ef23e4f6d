//! What a worker and its coordinator tell each other through the socket until the worker is ready.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::ring::Garbled;
use super::socket::{self, LONGEST, Message, Received, Sent, Socket};

/// The first byte of these messages.
const KIND: u8 = 1;
/// A reason is cut here, in bytes: escaped it must fit into a message.
const LONGEST_REASON: usize = 800;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum HandshakeMessage {
    /// To the worker: the descriptor of the memory that both share.
    Memory,
    /// To the worker: the welcome was sent.
    Welcomed,
    /// The hello was sent, so that the coordinator finds it without waiting.
    HelloSent,
    /// The worker has its limits and its threads, and takes calls from now on.
    Ready(RunnerThreads),
    /// It cannot work, and no other will under the same settings.
    CannotServe(String),
    /// The system refused something that it needs; the next one may have better luck.
    Refused(String),
    /// It cannot work now, since the system is short of something.
    Short(String),
    /// Its program builds a pool of its own, or does other things, in place of serving.
    NotServing,
    /// It is not the process that the coordinator started, but was started by that one.
    Wrapped { pid: u32 },
    /// It is a worker by its mark or its standard input, but has lost its environment.
    NoEnvironment,
}

/// With how many threads a worker runs calls.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RunnerThreads {
    pub threads: usize,
    /// Why there are no more of them, if fewer than asked for.
    pub refused: Option<String>,
}

impl HandshakeMessage {
    /// Cuts a reason to a length that can be sent.
    pub(crate) fn reason(text: &str) -> String {
        let mut end = text.len().min(LONGEST_REASON);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text[..end].replace(char::is_control, " ")
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![KIND];
        serde_json::to_writer(&mut bytes, self).expect("text and numbers are always encodable");
        debug_assert!(bytes.len() <= LONGEST);
        bytes
    }

    pub(crate) fn send(&self, to: &Socket, fds: &[BorrowedFd<'_>]) -> Sent {
        to.send(&self.to_bytes(), fds)
    }

    /// Sends it through any descriptor of the worker's end.
    pub(crate) fn send_to(&self, end: BorrowedFd<'_>) -> Sent {
        socket::send_to(end, &self.to_bytes(), &[])
    }

    /// Waits for the next one. `None` if none will come any more.
    pub(crate) fn receive(from: &Socket) -> Result<Option<(Self, Vec<OwnedFd>)>, Garbled> {
        // A bound for each poll, so that nothing can be missed for longer.
        const LONGEST_WAIT: Duration = Duration::from_secs(1);
        loop {
            match from.receive() {
                Received::Message(Message { bytes, fds }) => {
                    let json = bytes.strip_prefix(&[KIND]).ok_or(Garbled)?;
                    let note = serde_json::from_slice(json).map_err(|_| Garbled)?;
                    return Ok(Some((note, fds)));
                }
                Received::Nothing => from.wait_readable(Some(LONGEST_WAIT)),
                Received::Gone => return Ok(None),
                Received::Cut | Received::Short(_) => return Err(Garbled),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_arrive_and_what_is_none_is_refused() {
        let (one, other) = Socket::pair().expect("a pair");
        let reason = HandshakeMessage::reason(&"ü\"\\\n".repeat(10_000));
        let longest =
            HandshakeMessage::Ready(RunnerThreads { threads: usize::MAX, refused: Some(reason) });
        let notes = [
            HandshakeMessage::HelloSent,
            longest,
            HandshakeMessage::Wrapped { pid: u32::MAX },
            HandshakeMessage::NotServing,
        ];
        for note in &notes {
            assert_eq!(note.send_to(std::os::fd::AsFd::as_fd(&other)), Sent::Yes);
        }
        for note in notes {
            let (got, fds) = HandshakeMessage::receive(&one).expect("sound").expect("a note");
            assert_eq!((got, fds.len()), (note, 0));
        }
        let refused = |bytes: &[u8]| {
            assert_eq!(socket::send_to(std::os::fd::AsFd::as_fd(&other), bytes, &[]), Sent::Yes);
            HandshakeMessage::receive(&one).is_err()
        };
        assert!(refused(b"x") && refused(&[KIND]) && refused(&[KIND, b'7']));
        drop(other);
        assert_eq!(HandshakeMessage::receive(&one).expect("sound").map(|_| ()), None);
    }
}
