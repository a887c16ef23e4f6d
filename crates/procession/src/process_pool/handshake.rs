//! The handshake with one worker, from the side of the coordinator. It runs on the handler thread. The first
//! message of a template is checked here, too.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use ipc_channel::ipc::{self, IpcSender};

use super::handler::StartMarks;
use super::initializer::InitializerKind;
use super::inner::PoolInner;
use super::receive;
use super::start_failure::{CLEARED_ENVIRONMENT, StartFailure};
use super::worker_handle::{Outgoing, Process, WorkerHandle};
use crate::panics;
use crate::scheduler::UnfitProgram;
use crate::transport::{
    self, Garbled, HandshakeMessage, Hello, Invitation, Lifeline, PROTOCOL, RunnerThreads, Sent,
    Socket, Welcome,
};

/// For how long a program may send nothing if there is another one. A start takes some milliseconds, on a busy
/// machine some tenths of a second.
const PATIENCE: Duration = Duration::from_secs(2);

/// Performs the handshake, and runs the initializer. Drops what shows that the worker is awaited when it is
/// ready. Returns the number of threads of the worker, which runs the program of this rank.
pub(super) fn perform(
    pool: &PoolInner,
    handle: &WorkerHandle,
    rank: usize,
    awaited: &mut Option<StartMarks>,
    invitation: &Invitation,
) -> Result<RunnerThreads, StartFailure> {
    let Some(Process { socket, .. }) = handle.process() else {
        return Err(StartFailure::System("there is no socket to the worker".to_owned()));
    };
    await_report(pool, rank, socket)?;
    let hello = await_hello(socket)?;
    await_descriptors(handle)?;
    check(pool, handle.pid(), &hello)?;
    if let Some(server) = hello.server {
        send_lifeline(handle, server, invitation);
    }
    let threads = pool.setup.scheduling.threads(handle.worker());
    let limits = pool.setup.limits;
    let stack = pool.setup.stack;
    let segment_bytes = pool.setup.segment_bytes();
    let welcome = Welcome { threads, limits, stack, segment_bytes };
    let welcome = HandshakeMessage::Welcome(welcome);
    if welcome.send(socket, &[]) != Sent::Yes {
        return Err(StartFailure::Gone);
    }
    let threads = await_ready(socket)?;
    handle.note_ready();
    // The worker has its lifeline, and no process of its own yet.
    if let Some(awaited) = awaited.take() {
        awaited.end();
    }
    // The template has run the preload task, if there is one.
    run_first(pool, handle, InitializerKind::Preload)?;
    run_first(pool, handle, InitializerKind::Initializer)?;
    Ok(threads)
}

/// Waits for the first message of a template, which is that of a worker.
pub(super) fn greet_template(
    pool: &PoolInner,
    rank: usize,
    socket: &Socket,
    pid: u32,
) -> Result<(), StartFailure> {
    /// Bounds the wait, since a program that wants no timeout may set one that is longer than clocks can count.
    const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);
    await_report(pool, rank, socket)?;
    if !socket.is_readable_within(pool.setup.scheduling.start_timeout.min(LONGEST)) {
        return Err(StartFailure::Mute);
    }
    check(pool, pid, &await_hello(socket)?)
}

/// The next program is tried before the start timeout; the last one has all of that.
fn await_report(pool: &PoolInner, rank: usize, socket: &Socket) -> Result<(), StartFailure> {
    let programs = &pool.setup.programs;
    let has_another = programs.has_another(rank) && !programs.has_served(rank);
    match has_another && !socket.is_readable_within(PATIENCE) {
        true => Err(StartFailure::Silent(PATIENCE)),
        false => Ok(()),
    }
}

/// Checks the `Hello` of a process.
fn check(pool: &PoolInner, started: u32, hello: &Hello) -> Result<(), StartFailure> {
    let Hello { protocol, build, pid, server: _ } = hello;
    if *pid != started {
        return Err(StartFailure::System(format!("process {pid} connected without an invitation")));
    }
    let ours = transport::build_with(&pool.setup.build_id);
    if *protocol != PROTOCOL || *build != ours {
        return Err(StartFailure::Stranger(format!(
            "it is of another build ({build}, not {ours}): build both programs together"
        )));
    }
    Ok(())
}

/// Sends the worker its lifeline. If that fails, the worker goes on without one.
fn send_lifeline(handle: &WorkerHandle, server: String, invitation: &Invitation) {
    // The channel library never closes the socket of a connection that is refused, so none is made to a
    // process that is dead.
    if !handle.child().is_some_and(|child| child.is_unharmed()) {
        return;
    }
    let sent = panics::catch(|| {
        let to = IpcSender::connect(server).ok()?;
        loop {
            let (lifeline, end) = ipc::channel().ok()?;
            match to.send(Lifeline { token: invitation.token.clone(), end }) {
                Ok(()) => return Some(lifeline),
                Err(error) if transport::is_interruption(&error) => {}
                Err(_) => return None,
            }
        }
    });
    if let Ok(Some(lifeline)) = sent {
        handle.set_lifeline(lifeline);
    }
}

/// Waits for the worker to be ready.
fn await_ready(socket: &Socket) -> Result<RunnerThreads, StartFailure> {
    match HandshakeMessage::receive(socket) {
        Ok(Some((HandshakeMessage::Ready(threads), _))) => Ok(threads),
        Ok(Some((HandshakeMessage::CannotServe(reason), _))) => {
            Err(StartFailure::Uninitialized(reason))
        }
        Ok(Some((HandshakeMessage::Short(reason), _))) => Err(StartFailure::Short(reason)),
        Ok(Some((HandshakeMessage::Unconfined(reason), _))) => {
            Err(StartFailure::Unconfined(reason))
        }
        Ok(Some((HandshakeMessage::Refused(reason), _))) => Err(StartFailure::System(reason)),
        Ok(Some(_)) | Err(Garbled) => Err(StartFailure::another_protocol()),
        Ok(None) => Err(StartFailure::Gone),
    }
}

/// Runs a task in the worker before all others, if there is one: its preload or its initializer.
fn run_first(
    pool: &PoolInner,
    handle: &WorkerHandle,
    kind: InitializerKind,
) -> Result<(), StartFailure> {
    let Some(task) = pool.setup.first_task(kind) else { return Ok(()) };
    let (work_item, future) = task.work_item();
    let call = Outgoing {
        seq: 0,
        attempt: 1,
        stop_after: None,
        work_item: Arc::clone(&work_item),
        items: 0..1,
    };
    handle.enqueue(call);
    handle.flush();
    if !receive::initializer_reply(pool, handle, &work_item).map_err(|_| StartFailure::Gone)? {
        return Err(StartFailure::GoneInItsInitializer(kind));
    }
    let failed = |error| StartFailure::Uninitialized(format!("its {kind} failed: {error}"));
    future.result().map(drop).map_err(failed)
}

/// Waits for the first message of the worker: that it sent its `Hello`, or why it does not.
fn await_hello(socket: &Socket) -> Result<Hello, StartFailure> {
    match HandshakeMessage::receive(socket) {
        Ok(Some((HandshakeMessage::Hello(hello), _))) => Ok(hello),
        Ok(Some((HandshakeMessage::NotServing, _))) => {
            let reason = "it builds a pool instead of serving".to_owned();
            Err(StartFailure::Misused(UnfitProgram::NotServing, reason))
        }
        Ok(Some((HandshakeMessage::Wrapped { pid }, _))) => {
            let reason = format!("it started the program as another process, {pid}");
            Err(StartFailure::Misused(UnfitProgram::Wrapper, reason))
        }
        Ok(Some((HandshakeMessage::NoEnvironment, _))) => {
            Err(StartFailure::Misused(UnfitProgram::Wrapper, CLEARED_ENVIRONMENT.to_owned()))
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
            return Err(StartFailure::Short(format!(
                "cannot start the handshake with a worker: {short}"
            )));
        }
        thread::sleep(PAUSE);
    }
    Ok(())
}
