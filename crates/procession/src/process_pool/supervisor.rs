//! The supervisor thread: it starts all workers of a pool, sends the scheduler a `Tick` at the time
//! that the scheduler named, and verifies that killed processes end.
//!
//! It lives as long as any worker does. Linux sends the parent-death signal of a worker at the end
//! of the thread that started it, not at the end of the process.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};

use ipc_channel::ipc::IpcOneShotServer;
use rustix::io::Errno;
use uuid::Uuid;

use super::child::{self, Child};
use super::endings::LOOK_AGAIN;
use super::handler::{self, HandlerSetup};
use super::inner::PoolInner;
use super::worker_handle::WorkerHandle;
use super::{Output, PoolEvent};
use crate::panics::{self, Panic};
use crate::scheduler::{Again, Event};
use crate::transport::{self, HandshakeMessage, Invitation, Marking, Sent, SharedRegion, Socket};
use procession_os::mark::Mark;

/// A message to the supervisor.
pub(crate) enum SupervisorMessage {
    Start(Arc<WorkerHandle>),
    /// The next `Tick` is due earlier than before, or a process was killed.
    CheckAgain,
    End,
}

/// A variable of the workers' environment that makes the supervisor panic.
#[cfg(test)]
const PANIC: &str = "PROCESSION_TEST_SUPERVISOR_PANICS";

/// The supervisor thread, until the end of the pool.
pub(crate) fn supervise(shared: &Arc<PoolInner>, messages: &Receiver<SupervisorMessage>) {
    let _delivering = shared.begin_delivering(None);
    if let Err(panic) = panics::catch(|| receive_messages(shared, messages)) {
        shared.collapse(&panic);
    }
    if shared.collapsed.get().is_some() {
        shared.await_processes();
    }
}

fn receive_messages(shared: &Arc<PoolInner>, messages: &Receiver<SupervisorMessage>) {
    let mut has_dying = false;
    while shared.collapsed.get().is_none() {
        #[cfg(test)]
        assert!(!shared.setup.worker_env.iter().any(|(name, _)| name == PANIC), "on purpose");
        let next_look = has_dying.then_some(LOOK_AGAIN);
        let next_time = shared.next_tick().map(|at| {
            let left = at.saturating_duration_since(shared.clock.now());
            // No time passes on a stopped clock: poll it.
            if shared.clock.is_stopped() { left.max(LOOK_AGAIN) } else { left }
        });
        let message = match [next_look, next_time].into_iter().flatten().min() {
            None => messages.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(left) => messages.recv_timeout(left),
        };
        match message {
            Ok(SupervisorMessage::Start(handle)) => {
                if let Err(NotStarted { cause, again }) = start(shared, &handle) {
                    let (worker_id, worker, reason) =
                        (handle.worker_id, handle.worker(), cause.clone());
                    if again != Again::AtOnce {
                        shared.listeners.event(|| PoolEvent::WorkerDelayed { worker, reason });
                    }
                    shared.handle(Event::StartFailed { worker_id, cause, again });
                }
            }
            Ok(SupervisorMessage::CheckAgain) => {}
            Err(RecvTimeoutError::Timeout) => shared.handle(Event::Tick),
            Ok(SupervisorMessage::End) | Err(RecvTimeoutError::Disconnected) => return,
        }
        has_dying = shared.verify_ends();
    }
}

/// Why no worker was started. No process is left behind.
struct NotStarted {
    cause: String,
    again: Again,
}

impl NotStarted {
    fn new(what: &str, error: &io::Error) -> Self {
        let cause = format!("cannot {what}: {error}");
        let again = if is_shortage(error) { Again::AfterShortage } else { Again::WithBackoff };
        Self { cause, again }
    }
}

/// Checks RLIMIT_FSIZE: a file beyond it would end this process by SIGXFSZ.
fn within_the_limit_of_file_size(size: usize) -> Result<(), NotStarted> {
    use rustix::process::{Resource, getrlimit};
    match getrlimit(Resource::Fsize).current {
        Some(limit) if limit < size as u64 => {
            let cause = format!(
                "cannot make memory to share with a worker: it takes {size} bytes, but no file of \
                 this process may be larger than {limit} (ulimit -f)"
            );
            Err(NotStarted { cause, again: Again::Never })
        }
        _ => Ok(()),
    }
}

/// Errors of the operating system that pass by themselves.
const SHORTAGES: [Errno; 6] =
    [Errno::AGAIN, Errno::NOMEM, Errno::MFILE, Errno::NFILE, Errno::NOSPC, Errno::NOBUFS];

pub(super) fn is_shortage(error: &io::Error) -> bool {
    Errno::from_io_error(error).is_some_and(|errno| SHORTAGES.contains(&errno))
}

/// The same for the message of a panic of the channel library.
pub(super) fn tells_of_shortage(message: &str) -> bool {
    let is_in = |errno: &Errno| {
        let code = errno.raw_os_error();
        message.contains(&format!("code: {code},"))
            || message.contains(&format!("os error {code})"))
    };
    SHORTAGES.iter().any(is_in)
}

/// Allocates the region that the worker and this process share, and sends it to the worker.
fn share_memory(worker: &Socket, claims: usize) -> Result<SharedRegion, NotStarted> {
    let (region, memory) = SharedRegion::create(claims)
        .map_err(|error| NotStarted::new("make memory to share with a worker", &error))?;
    match HandshakeMessage::Memory.send(worker, &[memory.as_fd()]) {
        // If the worker has ended, the watch thread reports it.
        Sent::Yes | Sent::Gone => Ok(region),
        Sent::NoRoom | Sent::Short(_) => Err(NotStarted {
            cause: "cannot send a worker its memory: the system has no room".to_owned(),
            again: Again::AfterShortage,
        }),
    }
}

/// Starts a worker process, its watch, listen and handler threads.
fn start(shared: &Arc<PoolInner>, handle: &Arc<WorkerHandle>) -> Result<(), NotStarted> {
    let (rank, program) = shared.setup.programs.current();
    transport::prepare().map_err(|short| NotStarted {
        cause: format!("cannot start a worker: {short}"),
        again: Again::AfterShortage,
    })?;
    // The channel library panics on most errors here.
    let (server, socket) = match panics::catch(IpcOneShotServer::new) {
        Ok(made) => made.map_err(|error| {
            let not_started = NotStarted::new("make a socket for a worker", &error);
            // The library reports a socket that it could not make as EBADF.
            let is_none = Errno::from_io_error(&error) == Some(Errno::BADF);
            let again = if is_none { Again::AfterShortage } else { not_started.again };
            NotStarted { again, ..not_started }
        })?,
        Err(Panic { message, .. }) => {
            let cause = format!("cannot make a socket for a worker: {message}");
            let is_short = tells_of_shortage(&message);
            let again = if is_short { Again::AfterShortage } else { Again::WithBackoff };
            return Err(NotStarted { cause, again });
        }
    };
    let (pair, input) =
        Socket::pair().map_err(|error| NotStarted::new("make a socket for a worker", &error))?;
    let claims = shared.setup.max_calls(handle.worker());
    within_the_limit_of_file_size(SharedRegion::size(claims))?;
    let (coordinator, worker) = (std::process::id(), handle.worker());
    let input_id = transport::identity(input.as_fd()).unwrap_or_default();
    let marking = Marking { coordinator, input: input_id, worker };
    let mark = Mark::create(&marking.to_string())
        .map_err(|error| NotStarted::new("make a mark for a worker", &error))?;
    let invitation = Invitation {
        socket,
        token: Uuid::new_v4().to_string(),
        coordinator,
        input: input_id,
        worker,
        mark: mark.as_ref().map(Mark::number),
    };
    let supervisor = shared.supervisor.clone();
    let env = &shared.setup.worker_env;
    let spawned = Child::spawn(program, &invitation, env, input, mark.as_ref(), supervisor);
    drop(mark);
    let (child, outputs) = spawned.map_err(|error| {
        let not_started = NotStarted::new(&format!("start {}", program.path.display()), &error);
        // A shortage is not a fault of the program.
        let is_its_fault =
            not_started.again != Again::AfterShortage && error.kind() != io::ErrorKind::Interrupted;
        let is_passed_over = is_its_fault && shared.pass_over(rank, &error.to_string());
        match is_passed_over {
            true => NotStarted { again: Again::AtOnce, ..not_started },
            false => not_started,
        }
    })?;
    let child = Arc::new(child);
    // Allocating the region takes as long as the worker needs to load its program; after the start
    // both happen at the same time.
    let region = share_memory(&pair, claims).inspect_err(|_| child.kill_and_reap())?;
    handle.set_started(Arc::clone(&child), region, pair);
    if handle.kill_reason().is_some() {
        child.kill();
    }

    let (report, ended) = mpsc::channel();
    let pid = child.pid();
    let ends = Arc::clone(handle);
    let listens = Arc::clone(shared);
    let said =
        move |stream, line: &str| listens.listeners.output(&Output { worker, pid, stream, line });
    let watcher = child::watch(shared, Arc::clone(&child), outputs, said, move |end| {
        // The report first: the handler that `note_end` wakes receives it.
        let _ = report.send(end);
        ends.note_end();
    });
    let watcher = watcher.map_err(|error| {
        child.kill_and_reap();
        NotStarted::new("start a thread", &error)
    })?;
    shared.add_thread(watcher, Some(Arc::clone(&child)));

    let attends = Arc::clone(shared);
    let attendance = HandlerSetup { handle: Arc::clone(handle), server, invitation, rank, ended };
    let attend = move || handler::attend(&attends, attendance);
    let handler = shared.start_thread(format!("worker-{worker}"), attend).map_err(|error| {
        child.kill();
        NotStarted::new("start a thread", &error)
    })?;
    shared.add_thread(handler, None);
    Ok(())
}
