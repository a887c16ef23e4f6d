//! The worker's side: the invitation in the environment, the handshake, and the loop that runs calls
//! until the coordinator closes the connection.
//!
//! ```text
//!   main thread        next call ─► claim it ─► run ─► reply      (or n threads that do the same)
//!   lifeline thread    waits for the lifeline to break or for another parent: then the coordinator
//!                      is gone and this process ends at once
//! ```
//!
//! A worker must not outlive its coordinator, and must not begin a call that it has not claimed: the
//! coordinator finds the task that caused a crash by its claim.

mod lifeline;
mod origin;
mod reply_sender;
mod streams;
mod task_journal;
mod task_traces;
mod template;
mod worker_loop;

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::{io, process};

use ipc_channel::ipc::IpcReceiver;

use self::lifeline::{accept_lifeline, hold_the_lifeline, lifeline_server};
use self::origin::{has_the_socket, is_child_of};
pub(crate) use self::origin::{is_serving, was_asked_in_vain};
use self::reply_sender::WorkerLink;
use self::task_journal::TaskJournal;
use self::worker_loop::WorkerLoop;
pub(crate) use self::worker_loop::answer;
use crate::kept_task;
use crate::limits::Limits;
use crate::registry::Registry;
use crate::sandbox::{Layer, Sandbox, SandboxReport};
use crate::shared_value;
use crate::transport::{
    HandshakeMessage, Hello, Invitation, Marking, PROTOCOL, RunnerThreads, Sent, SharedRegion,
    Socket, Welcome,
};
use procession_os as os;
use procession_os::threads;

/// If this process was started as a worker, serves until the coordinator closes the connection, then
/// exits. Otherwise returns at once.
///
/// Call it first thing in `main` of a program that builds a process pool: the program is its own
/// worker. The attribute [`main`](macro@crate::main) does so with
/// [`Registry::collected`].
///
/// If the variable `PROCESSION_REPLAY` of the environment names a file of
/// [`Builder::keep_crashes`](crate::Builder::keep_crashes), it runs that task instead: see
/// [`replay_if_asked`].
///
/// ```no_run
/// use procession::{Registry, worker};
/// # use procession::{Context, Failure, Task};
/// # #[derive(serde::Serialize, serde::Deserialize)]
/// # struct Square(u64);
/// # impl Task for Square {
/// #     const NAME: &'static str = "square";
/// #     type Output = u64;
/// #     fn run(self, _: &Context) -> Result<u64, Failure> { Ok(self.0 * self.0) }
/// # }
///
/// fn main() {
///     worker::serve_if_asked(Registry::new().with::<Square>());
///     // Only the coordinator comes here.
/// }
/// ```
pub fn serve_if_asked(registry: Registry) {
    HAS_ASKED.store(true, Ordering::Release);
    serve_if_invited(&registry);
    replay_if_asked(&registry);
}

/// The same, without the note that this program asks whether it is a worker.
pub(crate) fn serve_if_invited(registry: &Registry) {
    if let Some(asked) = invited() {
        match asked.serve(registry.clone()) {
            Ok(()) => process::exit(0),
            Err(error) => {
                // One write, so that the whole text is the last line. It is lost if stderr is closed.
                let _ = io::stderr().write_all(format!("worker: {error}\n").as_bytes());
                process::exit(1);
            }
        }
    }
}

/// If the variable `PROCESSION_REPLAY` of the environment names a file of
/// [`Builder::keep_crashes`](crate::Builder::keep_crashes), runs that [`KeptTask`](crate::KeptTask) in
/// this process and exits. Otherwise returns at once. [`serve_if_asked`] calls it; programs that use
/// [`asked`] call it themselves, if they are to replay tasks.
///
/// It runs the pool's preload and its initializer, if there were any, and the task, with the limits and the stack size
/// of the worker, and without its timeout. No handler of signals and no second process is involved, so
/// a debugger sees the crash. The [`Sandbox`] of the pool is not imposed, since it would keep a
/// debugger out. So a task on data that you do not trust has all rights of this process here. The variable
/// `PROCESSION_REPLAY_FORCE=1` runs a task that another build has kept.
///
/// | ends | how |
/// |---|---|
/// | with the signal or exit code of the worker | the task did the same again |
/// | with exit code 0 | it has an output, which was printed |
/// | with exit code 1 | it, the preload or the initializer returned an error or panicked |
/// | with exit code 2 | it did not run: the file cannot be read, has another build or no task of this program |
///
/// ```no_run
/// use procession::{Registry, worker};
///
/// fn main() {
///     let registry = Registry::new(); // .with::<Decode>()
///     worker::replay_if_asked(&registry);
///     if let Some(asked) = worker::asked() {
///         asked.serve(registry).expect("a coordinator");
///     }
/// }
/// ```
pub fn replay_if_asked(registry: &Registry) {
    kept_task::replay_if_asked(registry);
}

/// The coordinator's request to serve, if this process was started as a worker. For worker programs
/// that do more than [`serve_if_asked`], such as opening a log.
///
/// ```no_run
/// use procession::{Registry, worker};
///
/// fn main() -> Result<(), worker::ServeError> {
///     if let Some(asked) = worker::asked() {
///         eprintln!("worker {} of process {}", asked.worker(), asked.coordinator());
///         return asked.serve(Registry::new()); // .with::<Decode>()
///     }
///     Ok(()) // the coordinator
/// }
/// ```
pub fn asked() -> Option<Asked> {
    HAS_ASKED.store(true, Ordering::Release);
    invited()
}

fn invited() -> Option<Asked> {
    let invitation = origin::own_invitation();
    let marking = match &invitation {
        Some(invitation) => invitation.marking(),
        None => origin::marking()?,
    };
    Some(Asked { invitation, marking })
}

/// Whether this program has asked if it was started as a worker, so that its workers will, too.
pub(crate) fn has_asked() -> bool {
    HAS_ASKED.load(Ordering::Acquire)
}

static HAS_ASKED: AtomicBool = AtomicBool::new(false);

/// The coordinator looks for this text in the standard error of a worker that has no socket.
pub(crate) const LOST_INPUT: &str =
    "the standard input of this process is not the socket to the coordinator";
/// The same, for another cause.
pub(crate) const LOST_ENVIRONMENT: &str =
    "a wrapper has cleared the environment of this process, which was started as a worker";

/// Why a worker could not serve. See the example of [`asked`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The coordinator cannot be reached, or the handshake failed.
    #[error("cannot reach the coordinator (pid {coordinator}): {reason}")]
    Unreachable {
        /// The coordinator's process id.
        coordinator: u32,
        /// What failed.
        reason: String,
    },
    /// This process was started by a wrapper, not by the coordinator.
    #[error(
        "this process is not the one that the coordinator (pid {coordinator}) started: a wrapper \
         must become the worker program, with `exec`"
    )]
    Wrapped {
        /// The coordinator's process id.
        coordinator: u32,
    },
    /// A wrapper has replaced the standard input, which is the socket to the coordinator.
    #[error("{LOST_INPUT} (pid {coordinator}): a wrapper must leave it alone")]
    InputReplaced {
        /// The coordinator's process id.
        coordinator: u32,
    },
    /// A wrapper has cleared the environment, in which a worker finds its invitation and what the
    /// pool sets by [`Builder::worker_env`](crate::Builder::worker_env).
    #[error("{LOST_ENVIRONMENT} (of pid {coordinator}): a wrapper must leave it alone")]
    EnvironmentCleared {
        /// The coordinator's process id.
        coordinator: u32,
    },
    /// The operating system refused something.
    #[error("cannot serve: {0}")]
    System(#[from] io::Error),
}

/// A coordinator's request to serve it. See the example of [`asked`].
#[derive(Debug)]
pub struct Asked {
    /// `None` if the environment was cleared.
    invitation: Option<Invitation>,
    marking: Marking,
}

impl Asked {
    /// Which worker of the pool this process is, counted from 0. See the example of [`asked`].
    pub fn worker(&self) -> usize {
        self.marking.worker
    }

    /// The process id of the coordinator. See the example of [`asked`].
    pub fn coordinator(&self) -> u32 {
        self.marking.coordinator
    }

    /// Runs the coordinator's calls until it closes the connection. See the example of [`asked`].
    ///
    /// # Errors
    ///
    /// [`ServeError`], before the first call. The error is also sent to the coordinator, where that is possible.
    #[expect(clippy::too_many_lines, reason = "steps whose order matters")]
    pub fn serve(self, registry: Registry) -> Result<(), ServeError> {
        let invitation = self.check_wrapper()?;
        if let Some(mark) = invitation.mark {
            os::mark::close(mark);
        }
        let (invitation, locals) = match invitation.is_template {
            true => template::serve(&invitation, &registry)?,
            false => (invitation, Arc::default()),
        };
        let (coordinator, marking) = (invitation.coordinator, invitation.marking());
        die_with_the_coordinator(coordinator);
        os::signals::outlive_requests_to_end();
        os::terminal::give_up();
        // The name in the process list, however this program was started.
        os::threads::name_this_thread(c"worker");

        let socket = match take_stdin() {
            Ok(socket) => Arc::new(socket),
            Err(error) => {
                refused_by_the_system(&error).send_to(io::stdin().as_fd());
                return Err(error.into());
            }
        };
        let Handshaken { region, welcome, lifeline } =
            shake_hands(&socket, &invitation, registry.build())?;
        let Welcome { threads, limits, stack, segment_bytes } = welcome;
        let journal = TaskJournal::open(marking, &registry.build(), &region, stack);
        let link = WorkerLink { region, socket: Arc::clone(&socket), segment_bytes };
        let worker_loop = WorkerLoop::new(registry, marking, locals, link, journal);
        let worker_loop = Arc::new(worker_loop);
        worker_loop.record_crashes();
        // The main thread has the stack of `ulimit -s`, which may be too small for tasks.
        let runs_here = !threads::main_has_less_than(stack.unwrap_or(threads::USUAL_STACK));
        let first = usize::from(runs_here);
        let its_loop = Arc::downgrade(&worker_loop);
        let tidy = move || {
            if let Some(worker_loop) = its_loop.upgrade() {
                worker_loop.drop_idle_segments();
            }
        };
        let prepared = prepare(limits, &invitation.sandbox, lifeline, coordinator, stack, tidy);
        let sandbox = match prepared {
            Ok(Ok(report)) => report,
            Ok(Err(Layer { layer, missing, .. })) => {
                let cause = format!("{layer}: {}", missing.unwrap_or_default());
                let message = HandshakeMessage::Unconfined(HandshakeMessage::reason(&cause));
                message.send(&socket, &[]);
                return Err(io::Error::other(cause).into());
            }
            Err(error) => {
                // The limits of the pool are the same for the next worker, so a shortage of the system is
                // reported only without them.
                let is_short = threads::is_short(&error) && !limits.is_any();
                let message =
                    if is_short { HandshakeMessage::Short } else { HandshakeMessage::CannotServe };
                message(HandshakeMessage::reason(&error.to_string())).send(&socket, &[]);
                return Err(error.into());
            }
        };
        let runners = worker_loop.start_runners(first..threads, stack);
        // If no other thread could be started, this one runs the tasks.
        let runs_here = runs_here || runners.threads.is_empty();
        let threads = runners.threads.len() + usize::from(runs_here);
        let refused = runners.refused.map(|error| HandshakeMessage::reason(&error.to_string()));
        // The coordinator sends no call before it has this message.
        if HandshakeMessage::Ready(RunnerThreads { threads, refused, sandbox }).send(&socket, &[])
            != Sent::Yes
        {
            return Err(unreachable(coordinator, &"it hung up"));
        }
        drop(socket);

        if runs_here {
            worker_loop.run_or_end(threads);
        }
        for runner in runners.threads {
            let _ = runner.join();
        }
        shared_value::await_drops();
        worker_loop.drop_locals();
        worker_loop.end_records();
        Ok(())
    }

    /// The invitation, unless a wrapper stands between the coordinator and this process.
    fn check_wrapper(self) -> Result<Invitation, ServeError> {
        let Self { invitation, marking } = self;
        let coordinator = marking.coordinator;
        origin::note_that_it_serves();
        let Some(invitation) = invitation else {
            origin::tell_that_the_environment_is_lost(marking);
            return Err(ServeError::EnvironmentCleared { coordinator });
        };
        if !has_the_socket(&invitation) {
            origin::tell_that_the_input_is_lost();
            return Err(ServeError::InputReplaced { coordinator });
        }
        if !is_child_of(coordinator) {
            // If the coordinator is gone, this message has no reader.
            origin::tell_that_it_is_wrapped();
            return Err(ServeError::Wrapped { coordinator });
        }
        Ok(invitation)
    }
}

fn unreachable(coordinator: u32, reason: &dyn std::fmt::Display) -> ServeError {
    ServeError::Unreachable { coordinator, reason: reason.to_string() }
}

fn refused_by_the_system(error: &dyn std::fmt::Display) -> HandshakeMessage {
    HandshakeMessage::Refused(HandshakeMessage::reason(&format!(
        "the worker cannot serve: {error}"
    )))
}

/// Moves the socket from the standard input to another descriptor, which tasks and their processes do
/// not inherit, and opens an empty standard input.
fn take_stdin() -> io::Result<Socket> {
    let socket = Socket::of(io::stdin().as_fd())?;
    let empty: OwnedFd = match File::open("/dev/null") {
        Ok(null) => null.into(),
        // Without `/dev/null`: a pipe whose writing end is closed at once.
        Err(_) => io::pipe()?.0.into(),
    };
    rustix::stdio::dup2_stdin(empty)?;
    Ok(socket)
}

/// The result of the handshake.
struct Handshaken {
    region: Arc<SharedRegion>,
    welcome: Welcome,
    lifeline: Option<IpcReceiver<()>>,
}

/// Sends the hello and waits for the lifeline and the welcome.
fn shake_hands(
    socket: &Socket,
    invitation: &Invitation,
    build: String,
) -> Result<Handshaken, ServeError> {
    let unreachable = |reason: &dyn std::fmt::Display| unreachable(invitation.coordinator, reason);
    let receive = || lifeline::receive(socket, invitation.coordinator);
    let first = match receive() {
        Ok(Some((HandshakeMessage::Begin, _))) => receive(),
        first => first,
    };
    let memory = match first {
        Ok(Some((HandshakeMessage::Memory, mut fds))) => fds.pop(),
        _ => None,
    };
    let memory = memory.ok_or_else(|| unreachable(&"it sent no memory"))?;
    let region = Arc::new(SharedRegion::open(memory.into()).map_err(io::Error::other)?);
    let (server, name) = lifeline_server(invitation).unzip();
    let hello = Hello { protocol: PROTOCOL, build, pid: process::id(), server: name };
    if HandshakeMessage::Hello(hello).send(socket, &[]) != Sent::Yes {
        return Err(unreachable(&"it hung up"));
    }
    let lifeline = server.and_then(|server| accept_lifeline(server, invitation));
    match receive() {
        Ok(Some((HandshakeMessage::Welcome(welcome), _))) => {
            Ok(Handshaken { region, welcome, lifeline })
        }
        _ => Err(unreachable(&"it hung up")),
    }
}

/// What must be in place before the first task: the limits, some memory in reserve, the sandbox, the
/// lifeline. The inner error is a layer of the sandbox that is missing.
fn prepare(
    limits: Limits,
    sandbox: &Sandbox,
    lifeline: Option<IpcReceiver<()>>,
    coordinator: u32,
    stack: Option<usize>,
    tidy: impl Fn() + Send + 'static,
) -> io::Result<Result<SandboxReport, Layer>> {
    limits.impose().map_err(io::Error::other)?;
    os::memory::reserve_little();
    // Before the first thread is started: a part of the sandbox is that of a thread, which the threads that
    // it starts inherit.
    let report = match sandbox.impose() {
        Ok(report) => report,
        Err(missing) => return Ok(Err(missing)),
    };
    hold_the_lifeline(lifeline, coordinator, stack, tidy)?;
    Ok(Ok(report))
}

/// Keeps the kind of the error, which shows whether it is a shortage.
fn refused(error: io::Error) -> io::Error {
    io::Error::new(error.kind(), threads::refusal(&error))
}

/// Sets the parent-death signal. It ends this process where the lifeline cannot: in a program that a task
/// has replaced this process with, and while this process is stopped. Before this call it was SIGKILL,
/// which kills this process alone; it has started no other yet.
fn die_with_the_coordinator(coordinator: u32) {
    os::signals::end_with_the_parent();
    // If the parent died before this call, no signal is sent.
    if !is_child_of(coordinator) {
        end_at_once();
    }
}

/// Ends this process and the processes that its tasks started, without a message: the coordinator is
/// gone.
fn end_at_once() -> ! {
    use rustix::process::{Signal, getpid, kill_process, kill_process_group};
    // Each worker is the leader of a process group. A task may have moved the worker out of it.
    let _ = kill_process_group(getpid(), Signal::KILL);
    let _ = kill_process(getpid(), Signal::KILL);
    process::abort()
}
