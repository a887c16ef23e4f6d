//! The handler thread of one worker: it performs the handshake, then receives the replies of the
//! worker until the operating system reports the end of the process.
//!
//! ```text
//!   accept ─► Hello: right token, process, protocol, build? ─► Welcome ─► ready
//!                                                                          │
//!             ┌──────── sleep on the event count   ◄───────────────────────┘
//!             ├─ replies ─► to the scheduler, then to the promises
//!             ├─ said ─► to `on_say`
//!             └─ ended, and all replies read ─► to the scheduler
//! ```
//!
//! Until the worker is ready, the handler blocks only in reads of the socket pair: the worker
//! announces there each message that it has put into a channel. The watch thread shuts the socket
//! down at the end of the process, which wakes the handler without any resource. A silent process
//! is killed at the scheduler's deadline.

use std::fs;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use ipc_channel::IpcError;
use ipc_channel::ipc::IpcOneShotServer;

use super::PoolEvent;
use super::child::{Ended, Usage};
use super::inner::PoolInner;
use super::receive;
use super::supervisor::tells_of_shortage;
use super::worker_handle::{KillReason, Outgoing, Process, WorkerHandle};
use crate::error::Exit;
use crate::panics;
use crate::scheduler::{Again, Event, Misuse};
use crate::transport::{
    self, Garbled, HandshakeMessage, Hello, Invitation, PROTOCOL, RunnerThreads, Sent, Socket,
    Welcome,
};
use crate::worker::{LOST_ENVIRONMENT, LOST_INPUT};

/// The arguments of [`attend`].
pub(crate) struct HandlerSetup {
    pub handle: Arc<WorkerHandle>,
    pub server: IpcOneShotServer<Hello>,
    pub invitation: Invitation,
    /// Index, in the pool's [`Programs`](super::program::Programs), of the program that the worker runs.
    pub rank: usize,
    /// Receives the end of the process, from the watch thread.
    pub ended: Receiver<Ended>,
}

/// Why a started process did not become a worker.
enum StartFailure {
    /// Wrong build or protocol: each process of this program fails the same way.
    Stranger(String),
    /// Its limits or its initializer prevent it: each process fails the same way.
    Uninitialized(String),
    /// A shortage of system resources, in the worker or in this process.
    Short(String),
    /// The process ended in its initializer.
    GoneInItsInitializer,
    /// The program does not call `serve_if_asked`, or is a wrapper that starts another process.
    Misused(Misuse, String),
    /// The process ended before its first message.
    Mute,
    /// The process ended after its first message and before it was ready.
    Gone,
    /// The operating system refused a call in this process.
    System(String),
}

/// Time from the close of the worker's end of the socket until the process is killed. Usually the
/// process is about to end.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// The handler thread of one worker, from the start of the process to its end.
pub(crate) fn attend(shared: &PoolInner, attendance: HandlerSetup) {
    let HandlerSetup { handle, server, invitation, rank, ended } = attendance;
    let worker_id = handle.worker_id;
    let _delivering = shared.begin_delivering(Some(handle.worker()));
    // The channel library panics on some malformed messages and at the limit of open files. Such a
    // panic costs this worker, not the pool.
    // A worker that finds no socket of this name takes itself for uninvited, so the server is kept
    // until the end of a process whose handshake failed.
    let mut server = Some(server);
    let greeted = panics::catch(|| shake_hands(&handle, &mut server, &invitation, shared));
    let unfit = match greeted {
        Ok(Ok(hands)) => {
            shared.setup.programs.note_ready(rank);
            let (worker, pid) = (handle.worker(), handle.pid());
            shared.listeners.event(|| PoolEvent::WorkerStarted { worker, pid });
            note_narrowness(shared, &handle, hands);
            shared.handle(Event::WorkerReady { worker_id });
            let received = panics::catch(|| receive::until_ended(shared, &handle));
            if !matches!(received, Ok(Ok(()))) {
                // The worker wrote malformed records.
                handle.kill(KillReason::Unusable);
            }
            let Ended { exit, usage, last_output } = until_ended(&handle, &ended);
            shared.listeners.event(|| PoolEvent::WorkerExited { worker, pid, exit, usage });
            shared.exited(&handle, exit, last_output);
            return;
        }
        Ok(Err(unfit)) => unfit,
        Err(panic) => {
            let reason = format!("the handshake failed: {}", panic.message);
            match tells_of_shortage(&panic.message) {
                true => StartFailure::Short(reason),
                false => StartFailure::System(reason),
            }
        }
    };
    let mut unfit = unfit;
    let early = match unfit {
        StartFailure::Mute => ended.recv_timeout(LAST_WORDS),
        _ => Err(RecvTimeoutError::Disconnected),
    };
    let kill_reason = handle.kill_reason();
    if early.as_ref().err() == Some(&RecvTimeoutError::Timeout) && kill_reason.is_none() {
        let reason = "it closed its standard input and went on without reporting".to_owned();
        unfit = StartFailure::Misused(Misuse::Wrapper, reason);
    }
    handle.kill(KillReason::Unusable);
    let end = match early {
        Ok(end) => {
            handle.release();
            end
        }
        Err(_) => until_ended(&handle, &ended),
    };
    let (cause, again) = classify_failure(shared, rank, unfit, kill_reason, &end);
    shared.listeners.event(|| PoolEvent::WorkerNotStarted {
        worker: handle.worker(),
        pid: handle.pid(),
        reason: cause.clone(),
        was_needed: kill_reason != Some(KillReason::Unneeded),
    });
    if again == Again::AfterShortage {
        let (worker, reason) = (handle.worker(), cause.clone());
        shared.listeners.event(|| PoolEvent::WorkerDelayed { worker, reason });
    }
    shared.handle(Event::StartFailed { worker_id, cause, again });
}

fn until_ended(handle: &WorkerHandle, ended: &Receiver<Ended>) -> Ended {
    let gone = || Ended { exit: Exit::Unknown, usage: Usage::default(), last_output: Vec::new() };
    // The watch thread drops its sender without a report only if it panicked.
    let ended = ended.recv().unwrap_or_else(|_| gone());
    handle.release();
    ended
}

fn shake_hands(
    handle: &WorkerHandle,
    server: &mut Option<IpcOneShotServer<Hello>>,
    invitation: &Invitation,
    shared: &PoolInner,
) -> Result<RunnerThreads, StartFailure> {
    let Some(Process { socket, .. }) = handle.process() else {
        return Err(StartFailure::System("there is no socket to the worker".to_owned()));
    };
    await_hello(socket)?;
    await_descriptors(handle)?;
    // The receiver that `accept` returns is dropped at once: the next worker would inherit its
    // descriptor.
    let Some(server) = server.take() else {
        return Err(StartFailure::System("there is no server to greet the worker".to_owned()));
    };
    let hello = match server.accept() {
        Ok((_, hello)) => hello,
        Err(IpcError::SerializationError(_)) => return Err(StartFailure::another_protocol()),
        Err(IpcError::Disconnected | IpcError::Io(_)) => return Err(StartFailure::Gone),
    };
    let Hello { token, protocol, build, pid, welcome, lifeline } = hello;
    if token != invitation.token || pid != handle.pid() {
        return Err(StartFailure::System(format!("process {pid} connected uninvited")));
    }
    let ours = transport::build_with(&shared.setup.build_id);
    if protocol != PROTOCOL || build != ours {
        return Err(StartFailure::Stranger(format!(
            "it is of another build ({build}, not {ours})"
        )));
    }
    handle.set_lifeline(lifeline);
    let threads = shared.setup.scheduling.slots[handle.worker()];
    let limits = shared.setup.limits;
    let stack = shared.setup.stack;
    transport::send(&welcome, || Welcome { threads, limits, stack })
        .map_err(|_| StartFailure::Gone)?;
    if HandshakeMessage::Welcomed.send(socket, &[]) != Sent::Yes {
        return Err(StartFailure::Gone);
    }
    let hands = match HandshakeMessage::receive(socket) {
        Ok(Some((HandshakeMessage::Ready(hands), _))) => hands,
        Ok(Some((HandshakeMessage::CannotServe(reason), _))) => {
            return Err(StartFailure::Uninitialized(reason));
        }
        Ok(Some((HandshakeMessage::Short(reason), _))) => return Err(StartFailure::Short(reason)),
        Ok(Some((HandshakeMessage::Refused(reason), _))) => {
            return Err(StartFailure::System(reason));
        }
        Ok(Some(_)) | Err(Garbled) => return Err(StartFailure::another_protocol()),
        Ok(None) => return Err(StartFailure::Gone),
    };
    handle.note_ready();
    if let Some(initializer) = &shared.setup.initializer {
        let (work_item, future) = initializer.work_item();
        handle.enqueue(Outgoing {
            seq: 0,
            attempt: 1,
            work_item: Arc::clone(&work_item),
            items: 0..1,
        });
        handle.flush();
        if !receive::initializer_reply(shared, handle, &work_item)
            .map_err(|_| StartFailure::Gone)?
        {
            return Err(StartFailure::GoneInItsInitializer);
        }
        future.result().map_err(|error| {
            StartFailure::Uninitialized(format!("its initializer failed: {error}"))
        })?;
    }
    Ok(hands)
}

/// Reports a worker with fewer threads than slots to the scheduler and to `on_event`.
fn note_narrowness(
    shared: &PoolInner,
    handle: &WorkerHandle,
    RunnerThreads { threads, refused }: RunnerThreads,
) {
    let (worker, pid) = (handle.worker(), handle.pid());
    let wanted = shared.setup.scheduling.slots[worker];
    if threads >= wanted {
        return;
    }
    shared.handle(Event::Narrowed { worker_id: handle.worker_id, slots: threads });
    let reason = refused.unwrap_or_default();
    shared.listeners.event(|| PoolEvent::WorkerNarrowed { worker, pid, threads, wanted, reason });
}

/// Waits for the first message of the worker: that it sent its `Hello`, or why it does not.
fn await_hello(socket: &Socket) -> Result<(), StartFailure> {
    match HandshakeMessage::receive(socket) {
        Ok(Some((HandshakeMessage::HelloSent, _))) => Ok(()),
        Ok(Some((HandshakeMessage::NotServing, _))) => {
            let reason = "it builds a pool of its own in place of serving".to_owned();
            Err(StartFailure::Misused(Misuse::NotServing, reason))
        }
        Ok(Some((HandshakeMessage::Wrapped { pid }, _))) => {
            let reason = format!("it started the program as another process, {pid}");
            Err(StartFailure::Misused(Misuse::Wrapper, reason))
        }
        Ok(Some((HandshakeMessage::NoEnvironment, _))) => {
            Err(StartFailure::Misused(Misuse::Wrapper, CLEARED_ENVIRONMENT.to_owned()))
        }
        Ok(Some((HandshakeMessage::Refused(reason), _))) => Err(StartFailure::System(reason)),
        Ok(Some(_)) | Err(Garbled) => Err(StartFailure::another_protocol()),
        Ok(None) => Err(StartFailure::Mute),
    }
}

/// Waits until there are enough free descriptors for the channel library. After `LONGEST_WAIT` the
/// worker is given up, and the scheduler decides when the next one is started.
fn await_descriptors(handle: &WorkerHandle) -> Result<(), StartFailure> {
    const PAUSE: Duration = Duration::from_millis(10);
    const LONGEST_WAIT: Duration = Duration::from_secs(5);
    let since = Instant::now();
    while let Err(short) = transport::prepare() {
        if handle.has_ended() || since.elapsed() >= LONGEST_WAIT {
            return Err(StartFailure::Short(format!("cannot greet a worker: {short}")));
        }
        thread::sleep(PAUSE);
    }
    Ok(())
}

impl StartFailure {
    fn another_protocol() -> Self {
        Self::Stranger("it speaks another protocol".to_owned())
    }
}

/// The cause of a failed start, as text, and when the next start is tried.
fn classify_failure(
    shared: &PoolInner,
    rank: usize,
    unfit: StartFailure,
    kill_reason: Option<KillReason>,
    Ended { exit, usage: _, last_output }: &Ended,
) -> (String, Again) {
    let programs = &shared.setup.programs;
    let start_timeout = shared.setup.scheduling.start_timeout;
    let path = programs.path(rank);
    let said =
        last_words(last_output).map(|line| format!("; it last said: {line}")).unwrap_or_default();
    let path = fs::read_link(path).unwrap_or_else(|_| path.to_owned());
    let (reason, otherwise) = match unfit {
        StartFailure::System(reason) => return (reason, Again::WithBackoff),
        StartFailure::Short(reason) => return (reason, Again::AfterShortage),
        StartFailure::Uninitialized(reason) => {
            return (format!("{reason}{said}"), Again::Never);
        }
        StartFailure::GoneInItsInitializer => {
            let reason = match kill_reason {
                Some(KillReason::Late) => {
                    format!("its initializer was not done within {start_timeout:?}")
                }
                _ => format!("it ended with {exit} in its initializer"),
            };
            return (format!("{reason}{said}"), Again::WithBackoff);
        }
        StartFailure::Stranger(reason) => (reason, Again::Never),
        StartFailure::Misused(how, reason) => (format!("{reason}{said}"), Again::Misused(how)),
        StartFailure::Gone | StartFailure::Mute if kill_reason == Some(KillReason::Unneeded) => {
            return ("it was not needed any more".to_owned(), Again::WithBackoff);
        }
        StartFailure::Mute if kill_reason == Some(KillReason::Late) => {
            let reason = format!("it had not reported after {start_timeout:?}");
            // A program that served before is slow because the machine is busy.
            if programs.has_served(rank) {
                (format!("{reason}{said}"), Again::WithBackoff)
            } else {
                // A slow start and a program that does not serve look the same.
                let hint = "it may need a longer Builder::start_timeout, or never call \
                            procession::worker::serve_if_asked";
                (format!("{reason}: {hint}{said}"), Again::Never)
            }
        }
        StartFailure::Gone if kill_reason == Some(KillReason::Late) => {
            (format!("it was not ready within {start_timeout:?}{said}"), Again::WithBackoff)
        }
        StartFailure::Mute if what_was_lost(last_output).is_some() => {
            let lost = what_was_lost(last_output).unwrap_or_default();
            (format!("{lost}{said}"), Again::Misused(Misuse::Wrapper))
        }
        StartFailure::Mute => {
            // Exit code of a program that the loader could not load, for lack of memory.
            const NOT_LOADED: i32 = 127;
            let has_left = matches!(exit, Exit::Code(code) if *code != NOT_LOADED);
            let forgets = has_left && programs.is_this(rank) && !programs.has_served(rank);
            let again = match forgets {
                // Code before `serve_if_asked` may need threads or descriptors as well.
                true if tells_of_shortage(&said) => Again::AfterShortage,
                true => Again::Misused(Misuse::NotServing),
                false => Again::WithBackoff,
            };
            (format!("it ended with {exit} before it was ready{said}"), again)
        }
        StartFailure::Gone => {
            (format!("it ended with {exit} before it was ready{said}"), Again::WithBackoff)
        }
    };
    let again = if shared.pass_over(rank, &reason) { Again::AtOnce } else { otherwise };
    (format!("worker program {}: {reason}", path.display()), again)
}

const CLEARED_ENVIRONMENT: &str = "it cleared the environment of the program";

/// What a wrapper removed, by the output of the worker.
fn what_was_lost(output: &[String]) -> Option<&'static str> {
    let says = |words: &str| output.iter().any(|line| line.contains(words));
    if says(LOST_ENVIRONMENT) {
        return Some(CLEARED_ENVIRONMENT);
    }
    says(LOST_INPUT).then_some("it replaced the standard input of the program")
}

/// The last line that is not blank; or the message of a panic, without the notes and the backtrace
/// that follow it.
fn last_words(output: &[String]) -> Option<String> {
    const LONGEST: usize = 500;
    let is_message =
        |line: &&String| !(line.starts_with("note: ") || line.starts_with("stack backtrace:"));
    if let Some(at) = output.iter().rposition(|line| line.contains("panicked at ")) {
        let lines = output[at..].iter().take_while(is_message).map(|line| line.trim());
        let text = lines.filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ");
        return Some(text.chars().take(LONGEST).collect());
    }
    output.iter().rfind(|line| !line.trim().is_empty() && is_message(line)).cloned()
}
