//! The messages between a worker and its coordinator until the worker is ready, and those by which it says why
//! it cannot be. `transport.rs` has their order.

use std::fmt;
use std::fs::File;
use std::hash::{Hash, Hasher};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipc_channel::ipc::IpcReceiver;
use serde::{Deserialize, Serialize};

use super::ring::Garbled;
use super::socket::{self, LONGEST, Message, Received, Sent, Socket};
use crate::limits::Limits;
use crate::sandbox::{Sandbox, SandboxReport};

/// Incremented with every change of the types that cross the border.
pub(crate) const PROTOCOL: u32 = 11;

/// The build of this crate: sources, version and profile. Both sides must have the same.
const BUILD: &str = env!("PROCESSION_BUILD");

/// The build of this crate, and that of the program that uses it, if it has one.
pub(crate) fn build_with(program: &str) -> String {
    let build = if program.is_empty() { BUILD.to_owned() } else { format!("{BUILD}-{program}") };
    if build.len() <= LONGEST_BUILD {
        return build;
    }
    // It must fit into a message.
    let mut hasher = rustc_hash::FxHasher::default();
    build.hash(&mut hasher);
    let start: String = build.chars().take(LONGEST_BUILD / 8).collect();
    format!("{start}...{:016x}", hasher.finish())
}

/// In bytes. With all characters escaped it still fits into a message.
const LONGEST_BUILD: usize = 250;

/// The value of an environment variable of a worker process, in JSON.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Invitation {
    /// The directory in which the worker makes its server, and in which the [`StartFile`] is.
    pub awaited: String,
    /// The place of this start in the [`StartFile`].
    #[serde(default)]
    pub start: u64,
    /// Sent with the lifeline: shows the worker that it comes from the coordinator.
    pub token: String,
    /// The process id of the coordinator. A worker with another parent was started by a wrapper.
    pub coordinator: u32,
    /// The identity of the socket that is the worker's standard input. A process with another
    /// standard input is not the worker: it inherited the environment of one.
    pub input: u64,
    /// The worker index.
    pub worker: usize,
    /// What the process may do. Not in the [`Welcome`]: its paths may not fit into a message.
    #[serde(default)]
    pub sandbox: Sandbox,
    /// The process is a template, not a worker (`worker/template.rs`).
    #[serde(default)]
    pub is_template: bool,
    /// The descriptor whose name is the [`Marking`], for a process that has lost its environment.
    /// The worker closes it.
    pub mark: Option<i32>,
}

/// The file in which a pool notes which of its starts it awaits, a byte each. A process that has the environment of a
/// worker, but not its socket, was started by a wrapper if the start is still awaited, and else by a task.
pub(crate) struct StartFile;

impl StartFile {
    /// The number of places. They are used in turn, again and again.
    pub(crate) const MOST: u64 = 1 << 16;
    pub(crate) const AWAITED: u8 = b'1';
    pub(crate) const OVER: u8 = b'0';

    pub(crate) fn path(dir: &Path) -> PathBuf {
        dir.join("starts")
    }

    /// Whether a coordinator that uses this directory awaits the start.
    pub(crate) fn is_awaited(dir: &Path, start: u64) -> bool {
        let mut state = [0];
        let read =
            File::open(Self::path(dir)).and_then(|file| file.read_exact_at(&mut state, start));
        read.is_ok() && state == [Self::AWAITED]
    }
}

impl Invitation {
    pub(crate) const VARIABLE: &str = "PROCESSION_INVITATION";

    pub(crate) fn marking(&self) -> Marking {
        let Self { coordinator, input, worker, .. } = *self;
        Marking { coordinator, input, worker }
    }
}

/// The name of the mark of a worker: the part of its [`Invitation`] that says that it is a worker,
/// as `coordinator:input:worker`.
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

/// The first message of a worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hello {
    pub protocol: u32,
    pub build: String,
    pub pid: u32,
    /// The name of the worker's one-shot server, for the [`Lifeline`]. `None` if it could not make one.
    pub server: Option<String>,
}

/// What the coordinator sends to the one-shot server of a worker: the only message that travels over the
/// channel library. Whatever a worker sends is received by other means.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Lifeline {
    pub token: String,
    /// The coordinator keeps the other end until it ends.
    pub end: IpcReceiver<()>,
}

/// The answer to a [`Hello`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Welcome {
    /// The number of tasks that the worker runs at a time, each on a thread.
    pub threads: usize,
    /// Imposed before the first task.
    pub limits: Limits,
    /// The stack size of each thread, in bytes. `None` means the default.
    pub stack: Option<usize>,
    /// What the segments of the worker may take, in bytes.
    pub segment_bytes: u64,
}

/// The first byte of these messages in the socket; JSON follows.
const KIND: u8 = 1;
/// Reasons are cut to this length, in bytes. With all characters escaped they still fit into a
/// message.
const LONGEST_REASON: usize = 800;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum HandshakeMessage {
    /// To each process, sent before it is started: so a program that copies its input has something to copy, and
    /// ends. Without it, `cat` would sometimes find an empty socket, which looks like a shortage.
    Begin,
    /// To the worker, with the descriptor of the shared region.
    Memory,
    /// To the worker. The [`Lifeline`] was sent before, if it has a server.
    Welcome(Welcome),
    /// The first message of a worker that serves.
    Hello(Hello),
    /// The worker has its limits and its threads, and takes calls.
    Ready(RunnerThreads),
    /// A layer of the sandbox is missing, as `layer: cause`.
    Unconfined(String),
    /// The worker cannot work, and no other worker could with the same settings.
    CannotServe(String),
    /// The system refused something that the worker needs. The next worker may get it.
    Refused(String),
    /// The system lacks a resource now.
    Short(String),
    /// The program builds a pool of its own or does other work, and does not serve.
    NotServing,
    /// The worker was started by a child of the coordinator, and is not that child.
    Wrapped { pid: u32 },
    /// To a template, with a file that has the text of its preload task.
    Preload { name: String },
    /// The template has run that task.
    Preloaded,
    /// To a template, with the streams of a worker, a file that has its [`Invitation`], one where its process id is
    /// noted, and its control group if it has one.
    Copy,
    /// The process id of the worker.
    Copied { pid: u32 },
    /// There is no worker: why.
    NotCopied(String),
    /// It is a worker by its mark or its standard input, but has lost its environment.
    NoEnvironment,
}

/// The threads of a worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RunnerThreads {
    pub threads: usize,
    /// Why there are fewer threads than configured, if there are.
    pub refused: Option<String>,
    /// The layers of the sandbox.
    pub sandbox: SandboxReport,
}

impl HandshakeMessage {
    /// Cuts a reason to a length that can be sent, and removes control characters.
    pub(crate) fn reason(text: &str) -> String {
        let mut end = text.len().min(LONGEST_REASON);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text[..end].replace(char::is_control, " ")
    }

    /// Whether the program has copied what it was sent to its output, as `cat` does.
    pub(crate) fn is_echo(line: &str) -> bool {
        let sent = Self::Begin.to_bytes();
        line.as_bytes().windows(sent.len()).any(|part| part == sent)
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

    /// Sends through any descriptor of the worker's end.
    pub(crate) fn send_to(&self, end: BorrowedFd<'_>) -> Sent {
        socket::send_to(end, &self.to_bytes(), &[])
    }

    /// Waits for the next message. `None` if the other end is closed.
    pub(crate) fn receive(from: &Socket) -> Result<Option<(Self, Vec<OwnedFd>)>, Garbled> {
        Self::receive_while(from, || true)
    }

    /// As [`receive`](Self::receive), but calls `may_wait` once a second, and returns `None` if that is false.
    pub(crate) fn receive_while(
        from: &Socket,
        may_wait: impl Fn() -> bool,
    ) -> Result<Option<(Self, Vec<OwnedFd>)>, Garbled> {
        // A bound for each wait, so that a missed wake-up delays a message by no more.
        const LONGEST_WAIT: Duration = Duration::from_secs(1);
        loop {
            match from.receive() {
                Received::Message(Message { bytes, fds }) => {
                    let json = bytes.strip_prefix(&[KIND]).ok_or(Garbled)?;
                    let message = serde_json::from_slice(json).map_err(|_| Garbled)?;
                    return Ok(Some((message, fds)));
                }
                Received::Nothing if !may_wait() => return Ok(None),
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
    fn messages_arrive_and_other_bytes_are_refused() {
        let (one, other) = Socket::pair().expect("a pair");
        let reason = HandshakeMessage::reason(&"ü\"\\\n".repeat(10_000));
        let longest = HandshakeMessage::Ready(RunnerThreads {
            threads: usize::MAX,
            refused: Some(reason),
            sandbox: SandboxReport::default(),
        });
        let messages = [
            HandshakeMessage::Hello(Hello {
                protocol: PROTOCOL,
                build: build_with(&"\u{1}".repeat(1_000)),
                pid: u32::MAX,
                server: Some("/\u{1}".repeat(50)),
            }),
            longest,
            HandshakeMessage::Wrapped { pid: u32::MAX },
            HandshakeMessage::NotServing,
        ];
        for message in &messages {
            assert_eq!(message.send_to(std::os::fd::AsFd::as_fd(&other)), Sent::Yes);
        }
        for message in messages {
            let (got, fds) = HandshakeMessage::receive(&one).expect("sound").expect("a message");
            assert_eq!((got, fds.len()), (message, 0));
        }
        let refused = |bytes: &[u8]| {
            assert_eq!(socket::send_to(std::os::fd::AsFd::as_fd(&other), bytes, &[]), Sent::Yes);
            HandshakeMessage::receive(&one).is_err()
        };
        assert!(refused(b"x") && refused(&[KIND]) && refused(&[KIND, b'7']));
        drop(other);
        assert_eq!(HandshakeMessage::receive(&one).expect("sound").map(|_| ()), None);
    }

    #[test]
    fn a_wait_ends_when_it_may_not_go_on_though_the_other_end_is_open() {
        let (one, _other) = Socket::pair().expect("a pair");
        let asked = std::cell::Cell::new(0);
        let received = HandshakeMessage::receive_while(&one, || {
            asked.set(asked.get() + 1);
            asked.get() < 2
        });
        assert_eq!((received.expect("sound").map(|_| ()), asked.get()), (None, 2));
    }
}
