//! The eyes: one thread that starts all workers of a pool, and wakes the scheduler when a time
//! has come.
//!
//! It lives as long as any worker does. That matters on Linux: the signal by which a worker
//! learns of its parent's death is sent at the end of the thread that started it.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Instant;

use ipc_channel::ipc::IpcOneShotServer;
use uuid::Uuid;

use super::Output;
use super::child::{self, Child};
use super::handler::{self, Attendance};
use super::post::Post;
use super::scheduler::{Again, Event};
use super::shared::Shared;
use crate::guard;
use crate::wire::{self, Exchange, Invitation, Note, Sent, Socket};

/// What the supervisor is asked to do.
pub(crate) enum Order {
    Start(Arc<Post>),
    /// The scheduler wants to be woken earlier than it said before.
    WakeEarlier,
    End,
}

/// Carries out orders until the end.
pub(crate) fn supervise(shared: &Arc<Shared>, orders: &Receiver<Order>) {
    loop {
        let order = match shared.wake_at() {
            None => orders.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(at) => orders.recv_timeout(at.saturating_duration_since(Instant::now())),
        };
        match order {
            Ok(Order::Start(post)) => {
                if let Err(NotStarted { cause, again }) = start(shared, &post) {
                    let tenant = post.tenant;
                    shared.handle(Event::StartFailed { tenant, cause, again });
                }
            }
            Ok(Order::WakeEarlier) => {}
            Err(RecvTimeoutError::Timeout) => shared.handle(Event::Tick),
            Ok(Order::End) | Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// Why there is no worker; and no process is left, either.
struct NotStarted {
    cause: String,
    again: Again,
}

impl From<String> for NotStarted {
    fn from(cause: String) -> Self {
        Self { cause, again: Again::WithBackoff }
    }
}

/// Starts a worker and the threads that attend it.
fn start(shared: &Arc<Shared>, post: &Arc<Post>) -> Result<(), NotStarted> {
    let (rank, program) = shared.program();
    let refused = |what: &str, error: &dyn std::fmt::Display| format!("cannot {what}: {error}");

    wire::prepare().map_err(|short| refused("start a worker", &short))?;
    // The channel library panics on most of what can be wrong here.
    let (server, socket) = match guard::catch(IpcOneShotServer::new) {
        Ok(made) => made.map_err(|error| refused("make a socket for a worker", &error))?,
        Err(panic) => Err(refused("make a socket for a worker", &panic.message))?,
    };
    let (pair, input) =
        Socket::pair().map_err(|error| refused("make a socket for a worker", &error))?;
    let invitation = Invitation {
        socket,
        token: Uuid::new_v4().to_string(),
        coordinator: std::process::id(),
        input: wire::identity(input.as_fd()).unwrap_or_default(),
        worker: post.worker(),
    };
    let (exchange, memory) = Exchange::create(shared.most_calls(post.worker()))
        .map_err(|error| refused("make memory to share with a worker", &error))?;
    if Note::Memory.send(&pair, &[memory.as_fd()]) != Sent::Yes {
        Err(refused("send a worker its memory", &"the system has no room"))?;
    }
    drop(memory);
    let _ = (post.exchange.set(exchange), post.socket.set(pair));
    let spawned = Child::spawn(program, &invitation, shared.worker_env(), input);
    let (child, mouth) = spawned.map_err(|error| {
        let cause = refused(&format!("start {}", program.path.display()), &error);
        // Want of processes or memory has nothing to do with the program.
        let is_its_fault = !matches!(
            error.kind(),
            io::ErrorKind::WouldBlock | io::ErrorKind::OutOfMemory | io::ErrorKind::Interrupted
        ) && error.raw_os_error()
            != Some(rustix::io::Errno::MFILE.raw_os_error());
        let is_passed_over = is_its_fault && shared.pass_over(rank, &error.to_string());
        NotStarted { cause, again: if is_passed_over { Again::AtOnce } else { Again::WithBackoff } }
    })?;
    let child = Arc::new(child);
    let _ = post.child.set(Arc::clone(&child));
    if post.doom().is_some() {
        child.kill();
    }

    let (report, ended) = mpsc::channel();
    let (pid, worker) = (child.pid(), post.worker());
    let ends = Arc::clone(post);
    let listens = Arc::clone(shared);
    let said = move |stream, line: &str| listens.said(&Output { worker, pid, stream, line });
    let watcher = child::watch(Arc::clone(&child), mouth, said, move |end| {
        // The report first: whoever is freed will ask for it.
        let _ = report.send(end);
        ends.note_end();
    });
    let watcher = watcher.map_err(|error| {
        child.kill_and_reap();
        refused("start a thread", &error)
    })?;
    shared.keep(watcher);

    let attends = Arc::clone(shared);
    let attendance = Attendance { post: Arc::clone(post), server, invitation, rank, ended };
    let handler = thread::Builder::new()
        .name(format!("worker-{worker}"))
        .spawn(move || handler::attend(&attends, attendance))
        .map_err(|error| {
            child.kill();
            refused("start a thread", &error)
        })?;
    shared.keep(handler);
    Ok(())
}
