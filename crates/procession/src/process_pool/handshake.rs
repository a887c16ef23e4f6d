//! The handshake with one worker, from the side of the coordinator. It runs on the handler thread.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use ipc_channel::IpcError;
use ipc_channel::ipc::{IpcOneShotServer, IpcSender};

use super::inner::PoolInner;
use super::receive;
use super::start_failure::{CLEARED_ENVIRONMENT, StartFailure};
use super::worker_handle::{Outgoing, Process, WorkerHandle};
use crate::scheduler::UnfitProgram;
use crate::transport::{
    self, Garbled, HandshakeMessage, Hello, Invitation, PROTOCOL, RunnerThreads, Sent, Socket,
    Welcome,
};

/// Performs the handshake, and runs the initializer. Takes the server when the worker has connected.
/// Returns the number of threads of the worker.
pub(super) fn perform(
    pool: &PoolInner,
    handle: &WorkerHandle,
    server: &mut Option<IpcOneShotServer<Hello>>,
    invitation: &Invitation,
) -> Result<RunnerThreads, StartFailure> {
    let Some(Process { socket, .. }) = handle.process() else {
        return Err(StartFailure::System("there is no socket to the worker".to_owned()));
    };
    await_hello(socket)?;
    await_descriptors(handle)?;
    let Some(server) = server.take() else {
        return Err(StartFailure::System("there is no server for the handshake".to_owned()));
    };
    let welcome = accept(pool, handle, server, invitation)?;
    let threads = pool.setup.scheduling.slots[handle.worker()];
    let limits = pool.setup.limits;
    let stack = pool.setup.stack;
    transport::send(&welcome, || Welcome { threads, limits, stack })
        .map_err(|_| StartFailure::Gone)?;
    if HandshakeMessage::Welcomed.send(socket, &[]) != Sent::Yes {
        return Err(StartFailure::Gone);
    }
    let threads = await_ready(socket)?;
    handle.note_ready();
    run_initializer(pool, handle)?;
    Ok(threads)
}

/// Receives the `Hello` of the worker and checks it. Returns where to send the `Welcome`.
fn accept(
    pool: &PoolInner,
    handle: &WorkerHandle,
    server: IpcOneShotServer<Hello>,
    invitation: &Invitation,
) -> Result<IpcSender<Welcome>, StartFailure> {
    // The receiver that `accept` returns is dropped at once: the next worker would inherit its
    // descriptor.
    let hello = match server.accept() {
        Ok((_, hello)) => hello,
        Err(IpcError::SerializationError(_)) => return Err(StartFailure::another_protocol()),
        Err(IpcError::Disconnected | IpcError::Io(_)) => return Err(StartFailure::Gone),
    };
    let Hello { token, protocol, build, pid, welcome, lifeline } = hello;
    if token != invitation.token || pid != handle.pid() {
        return Err(StartFailure::System(format!("process {pid} connected without an invitation")));
    }
    let ours = transport::build_with(&pool.setup.build_id);
    if protocol != PROTOCOL || build != ours {
        return Err(StartFailure::Stranger(format!(
            "it is of another build ({build}, not {ours})"
        )));
    }
    handle.set_lifeline(lifeline);
    Ok(welcome)
}

/// Waits for the worker to be ready.
fn await_ready(socket: &Socket) -> Result<RunnerThreads, StartFailure> {
    match HandshakeMessage::receive(socket) {
        Ok(Some((HandshakeMessage::Ready(threads), _))) => Ok(threads),
        Ok(Some((HandshakeMessage::CannotServe(reason), _))) => {
            Err(StartFailure::Uninitialized(reason))
        }
        Ok(Some((HandshakeMessage::Short(reason), _))) => Err(StartFailure::Short(reason)),
        Ok(Some((HandshakeMessage::Refused(reason), _))) => Err(StartFailure::System(reason)),
        Ok(Some(_)) | Err(Garbled) => Err(StartFailure::another_protocol()),
        Ok(None) => Err(StartFailure::Gone),
    }
}

/// Runs the initializer in the worker, if there is one.
fn run_initializer(pool: &PoolInner, handle: &WorkerHandle) -> Result<(), StartFailure> {
    let Some(initializer) = &pool.setup.initializer else { return Ok(()) };
    let (work_item, future) = initializer.work_item();
    handle.enqueue(Outgoing { seq: 0, attempt: 1, work_item: Arc::clone(&work_item), items: 0..1 });
    handle.flush();
    if !receive::initializer_reply(pool, handle, &work_item).map_err(|_| StartFailure::Gone)? {
        return Err(StartFailure::GoneInItsInitializer);
    }
    let failed = |error| StartFailure::Uninitialized(format!("its initializer failed: {error}"));
    future.result().map(drop).map_err(failed)
}

/// Waits for the first message of the worker: that it sent its `Hello`, or why it does not.
fn await_hello(socket: &Socket) -> Result<(), StartFailure> {
    match HandshakeMessage::receive(socket) {
        Ok(Some((HandshakeMessage::HelloSent, _))) => Ok(()),
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
