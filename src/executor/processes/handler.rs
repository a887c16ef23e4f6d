//! The hands: one thread for each worker, which shakes hands with it and then receives its
//! replies, until the operating system reports its end.
//!
//! ```text
//!   accept ─► Hello: right token, process, protocol, build? ─► Welcome ─► ready
//!                                                                          │
//!             ┌──────── sleep until the bell rings ◄───────────────────────┘
//!             ├─ replies ─► to the scheduler, then the promises are kept
//!             ├─ said ─► to whoever listens to tasks
//!             └─ ended, and all replies read ─► to the scheduler
//! ```
//!
//! Every wait here blocks. What frees it is the watch thread ([`Line::hang_up`]), which never
//! fails to see the end of the process; and what ends a process that is silent is the scheduler's
//! deadline.

use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, PoisonError};
use std::{fs, io};

use ipc_channel::IpcError;
use ipc_channel::ipc::{self, IpcOneShotServer, IpcReceiver, IpcSender};

use super::PoolEvent;
use super::child::{Ended, Usage};
use super::post::{Doom, Outgoing, Post};
use super::receive;
use super::scheduler::{Again, Event};
use super::shared::Shared;
use super::supervisor::{is_shortage, tells_of_shortage};
use crate::error::Exit;
use crate::guard;
use crate::wire::{self, BUILD, FromWorker, Hello, Invitation, PROTOCOL, ToWorker, Welcome};

/// What a handler needs to know of the worker that it attends.
pub(crate) struct Attendance {
    pub post: Arc<Post>,
    pub server: IpcOneShotServer<Hello>,
    pub invitation: Invitation,
    /// Which of the pool's programs the worker runs.
    pub rank: usize,
    pub line: Arc<Line>,
    /// Brings the report of the worker's end.
    pub ended: Receiver<Ended>,
}

/// Where a handler waits, for the watch thread to know how to free it.
pub(crate) struct Line(Mutex<Waits>);

enum Waits {
    /// For somebody to connect to this socket.
    ForHello(String),
    /// For messages on the channel that this sends to, or for replies.
    ForReplies(IpcSender<FromWorker>),
    /// For nothing: the process is gone.
    No,
}

impl Line {
    pub(crate) fn new(socket: String) -> Self {
        Self(Mutex::new(Waits::ForHello(socket)))
    }

    /// Frees the handler, after the process has ended.
    pub(crate) fn hang_up(&self) {
        let mut waits = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match std::mem::replace(&mut *waits, Waits::No) {
            Waits::ForHello(socket) => knock(socket),
            Waits::ForReplies(line) => drop(line.send(FromWorker::Ended)),
            Waits::No => {}
        }
    }

    /// Notes that the handler waits for replies from now on; false if the process is gone.
    fn connect(&self, replies: IpcSender<FromWorker>) -> bool {
        let mut waits = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_there = !matches!(*waits, Waits::No);
        if is_there {
            *waits = Waits::ForReplies(replies);
        }
        is_there
    }
}

/// Connects to the socket and hangs up: to accept a connection that breaks at once is the way to
/// stop accepting.
fn knock(socket: String) {
    // On macOS the socket is a name that only the channel library understands.
    #[cfg(target_os = "macos")]
    drop(IpcSender::<Hello>::connect(socket));
    // Elsewhere, it would leak a descriptor if nobody accepts any more, since the worker had
    // reported before it ended.
    #[cfg(not(target_os = "macos"))]
    {
        use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
        let flags = SocketFlags::CLOEXEC;
        let connect = || {
            let fd =
                rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
            rustix::net::connect(&fd, &SocketAddrUnix::new(socket)?)
        };
        // Nobody is there: then nobody is to be freed.
        let _ = connect();
    }
}

/// Why a worker that was started is of no use.
enum Unfit {
    /// It is not what was asked for; another of the same program will not be, either.
    Stranger(String),
    /// It has what it was to run, but cannot, and will not the next time: its limits or its
    /// initializer forbid it.
    Uninitialized(String),
    /// The system is short of something, here or there.
    Short(String),
    /// It ended while it ran its initializer.
    GoneInItsInitializer,
    /// It ended, or was ended, before it was ready.
    Gone,
    /// The operating system refused something here.
    System(String),
}

/// Attends a worker from its start until its end.
pub(crate) fn attend(shared: &Shared, attendance: Attendance) {
    let Attendance { post, server, invitation, rank, line, ended } = attendance;
    let tenant = post.tenant;
    let _delivering = shared.deliver_for(Some(post.worker()));
    // The channel library panics on some of what a worker could send, or at the limit of open
    // files. That must cost this worker, not the pool.
    let greeted = guard::catch(|| greet(&post, server, &invitation, &line, shared));
    let unfit = match greeted {
        Ok(Ok(())) => {
            shared.report(|| PoolEvent::WorkerStarted { worker: post.worker(), pid: post.pid() });
            shared.handle(Event::WorkerReady { tenant });
            let received = guard::catch(|| receive::until_ended(shared, &post));
            if !matches!(received, Ok(Ok(()))) {
                // Nothing it says can be trusted.
                post.kill(Doom::Unfit);
            }
            let Ended { exit, usage, last_output } = until_ended(&post, &ended);
            let (worker, pid) = (post.worker(), post.pid());
            shared.report(|| PoolEvent::WorkerExited { worker, pid, exit, usage });
            shared.exited(&post, exit, last_output);
            return;
        }
        Ok(Err(unfit)) => unfit,
        Err(panic) => {
            let reason = format!("the handshake failed: {}", panic.message);
            match tells_of_shortage(&panic.message) {
                true => Unfit::Short(reason),
                false => Unfit::System(reason),
            }
        }
    };
    let doom = post.doom();
    post.kill(Doom::Unfit);
    let end = until_ended(&post, &ended);
    let (cause, again) = judge(shared, rank, unfit, doom, &end);
    shared.report(|| PoolEvent::WorkerNotStarted {
        worker: post.worker(),
        pid: post.pid(),
        reason: cause.clone(),
        was_needed: doom != Some(Doom::Unneeded),
    });
    if again == Again::AfterShortage {
        let (worker, reason) = (post.worker(), cause.clone());
        shared.report(|| PoolEvent::WorkerDelayed { worker, reason });
    }
    shared.handle(Event::StartFailed { tenant, cause, again });
}

fn until_ended(post: &Post, ended: &Receiver<Ended>) -> Ended {
    let gone = || Ended { exit: Exit::Unknown, usage: Usage::default(), last_output: Vec::new() };
    // The watch thread reports in any case; the sender breaks only if it panicked.
    let ended = ended.recv().unwrap_or_else(|_| gone());
    post.disconnect();
    ended
}

fn greet(
    post: &Post,
    server: IpcOneShotServer<Hello>,
    invitation: &Invitation,
    line: &Line,
    shared: &Shared,
) -> Result<(), Unfit> {
    // The receiver that comes along is dropped at once: its descriptor would be inherited by the
    // next worker.
    let hello = match server.accept() {
        Ok((_, hello)) => hello,
        Err(IpcError::SerializationError(_)) => {
            return Err(Unfit::Stranger("it speaks another protocol".to_owned()));
        }
        Err(IpcError::Disconnected | IpcError::Io(_)) => return Err(Unfit::Gone),
    };
    let Hello { token, protocol, build, pid, calls, lifeline } = hello;
    if token != invitation.token || pid != post.pid() {
        return Err(Unfit::System(format!("process {pid} connected uninvited")));
    }
    if protocol != PROTOCOL || build != BUILD {
        return Err(Unfit::Stranger(format!("it is of another build ({build}, not {BUILD})")));
    }
    let (replies, messages) = ipc::channel().map_err(|error: io::Error| {
        let reason = error.to_string();
        if is_shortage(&error) { Unfit::Short(reason) } else { Unfit::System(reason) }
    })?;
    let (threads, limits) = (shared.slots(post.worker()), shared.limits());
    let welcome = || Welcome { threads, limits, replies: replies.clone() };
    wire::send(&calls, || ToWorker::Welcome(welcome())).map_err(|_| Unfit::Gone)?;
    if !line.connect(replies) {
        return Err(Unfit::Gone);
    }
    await_ready(&messages)?;
    post.connect(calls, lifeline, messages);
    if let Some(initializer) = shared.initializer() {
        let (parcel, future) = initializer.parcel();
        post.put(Outgoing { turn: 0, attempt: 1, parcel: Arc::clone(&parcel), items: 0..1 });
        post.flush();
        if !receive::only_reply(shared, post, &parcel).map_err(|_| Unfit::Gone)? {
            return Err(Unfit::GoneInItsInitializer);
        }
        future
            .result()
            .map_err(|error| Unfit::Uninitialized(format!("its initializer failed: {error}")))?;
    }
    Ok(())
}

/// Waits for the worker to say that it is ready.
fn await_ready(messages: &IpcReceiver<FromWorker>) -> Result<(), Unfit> {
    loop {
        match wire::receive(messages) {
            Ok(FromWorker::Ready) => return Ok(()),
            Ok(FromWorker::Unfit(reason)) => return Err(Unfit::Uninitialized(reason)),
            Ok(FromWorker::Short(reason)) => return Err(Unfit::Short(reason)),
            Ok(FromWorker::Enclosed(_)) => {}
            Ok(FromWorker::Ended) | Err(_) => return Err(Unfit::Gone),
        }
    }
}

/// Says in words why the start failed, and what it means for the next.
fn judge(
    shared: &Shared,
    rank: usize,
    unfit: Unfit,
    doom: Option<Doom>,
    Ended { exit, usage: _, last_output }: &Ended,
) -> (String, Again) {
    let path = shared.program_path(rank);
    let said = last_output.last().map(|line| format!("; it last said: {line}")).unwrap_or_default();
    let path = fs::read_link(path).unwrap_or_else(|_| path.to_owned());
    let (reason, is_hopeless) = match unfit {
        Unfit::System(reason) => return (reason, Again::WithBackoff),
        Unfit::Short(reason) => return (reason, Again::AfterShortage),
        Unfit::Uninitialized(reason) => {
            return (format!("{reason}{said}"), Again::Never);
        }
        Unfit::GoneInItsInitializer => {
            let reason = match doom {
                Some(Doom::Late) => {
                    format!("its initializer was not done within {:?}", shared.start_timeout())
                }
                _ => format!("it ended with {exit} in its initializer"),
            };
            return (format!("{reason}{said}"), Again::WithBackoff);
        }
        Unfit::Stranger(reason) => (reason, true),
        Unfit::Gone if doom == Some(Doom::Unneeded) => {
            return ("it was not needed any more".to_owned(), Again::WithBackoff);
        }
        Unfit::Gone if doom == Some(Doom::Late) => {
            (format!("it did not report within {:?}{said}", shared.start_timeout()), false)
        }
        Unfit::Gone => (format!("it ended with {exit} before it was ready{said}"), false),
    };
    let again = match shared.pass_over(rank, &reason) {
        true => Again::AtOnce,
        false if is_hopeless => Again::Never,
        false => Again::WithBackoff,
    };
    (format!("worker program {}: {reason}", path.display()), again)
}
