//! The worker's side: from the invitation in the environment, over the handshake, to the desk at
//! which calls are run until the coordinator hangs up.
//!
//! ```text
//!   main thread        next call ─► claim it ─► run ─► reply      (or n threads that do the same)
//!   lifeline thread    waits for the lifeline to break or for another parent: then the coordinator
//!                      is gone and this process ends at once
//! ```
//!
//! A worker must never outlive its coordinator, and never begin a call that it has not claimed:
//! the coordinator counts on the claims to find the culprit of a crash.

mod desk;

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use std::{env, io, process, thread};

use ipc_channel::ipc::{self, IpcReceiver, IpcSender};
use ipc_channel::{IpcError, TryRecvError};

use self::desk::Desk;
pub(crate) use self::desk::answer;
use crate::guard;
use crate::os;
use crate::task::Registry;
use crate::wire::{
    self, BUILD, Exchange, FromWorker, Hello, Invitation, PROTOCOL, ToWorker, Welcome,
};

/// If this process was started as a worker: serves until the coordinator hangs up, then exits.
/// Else returns at once.
///
/// Call it first thing in `main` of a program that builds a process pool: the program is its own
/// worker.
pub fn serve_if_asked(registry: Registry) {
    if let Some(asked) = asked() {
        match asked.serve(registry) {
            Ok(()) => process::exit(0),
            Err(error) => {
                // With stderr closed, nobody can be told.
                let _ = writeln!(io::stderr(), "worker: {error}");
                process::exit(1);
            }
        }
    }
}

/// The coordinator's request to serve, if this process was started as a worker. For a worker
/// program that has more to do than [`serve_if_asked`], such as opening a log.
pub fn asked() -> Option<Asked> {
    let invitation = invitation()?;
    IS_SERVING.store(true, Ordering::Release);
    Some(Asked { invitation })
}

/// Whether this process was started as a worker and its `main` paid no heed to that.
pub(crate) fn was_asked_in_vain() -> bool {
    invitation().is_some() && !IS_SERVING.load(Ordering::Acquire)
}

static IS_SERVING: AtomicBool = AtomicBool::new(false);

fn invitation() -> Option<Invitation> {
    let invitation = env::var(Invitation::VARIABLE).ok()?;
    let invitation: Invitation = serde_json::from_str(&invitation).ok()?;
    // A process that a task starts inherits the environment, but it is not the one that was asked.
    is_child_of(invitation.coordinator).then_some(invitation)
}

fn is_child_of(coordinator: u32) -> bool {
    rustix::process::getppid()
        .is_some_and(|parent| u32::try_from(parent.as_raw_nonzero().get()) == Ok(coordinator))
}

/// Why a worker could not serve.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The coordinator cannot be reached, or the handshake broke off.
    #[error("cannot reach the coordinator (pid {coordinator}): {reason}")]
    Unreachable {
        /// The coordinator's process id.
        coordinator: u32,
        /// What failed.
        reason: String,
    },
    /// The operating system refused something.
    #[error("cannot serve: {0}")]
    System(#[from] io::Error),
}

/// A coordinator's request to serve it.
#[derive(Debug)]
pub struct Asked {
    invitation: Invitation,
}

impl Asked {
    /// Which worker of the pool this process is, counted from 0.
    pub fn worker(&self) -> usize {
        self.invitation.worker
    }

    /// The process id of the coordinator.
    pub fn coordinator(&self) -> u32 {
        self.invitation.coordinator
    }

    /// Runs the coordinator's calls until it hangs up.
    pub fn serve(self, registry: Registry) -> Result<(), ServeError> {
        let Invitation { socket, token, coordinator, worker } = self.invitation;
        die_with_the_coordinator(coordinator);
        os::signals::outlive_requests_to_end();
        os::terminal::give_up();
        // Whoever looks at the process list should see what this is, however it was started.
        let _ = rustix::thread::set_name(c"worker");

        let unreachable = |error: &dyn std::fmt::Display| ServeError::Unreachable {
            coordinator,
            reason: error.to_string(),
        };
        let exchange = Exchange::from_stdin().map_err(|error| unreachable(&error))?;
        let (call_sender, calls) = ipc::channel()?;
        let (lifeline_sender, lifeline) = ipc::channel()?;
        IpcSender::connect(socket)
            .map_err(|error| unreachable(&error))?
            .send(Hello {
                token,
                protocol: PROTOCOL,
                build: BUILD.to_owned(),
                pid: process::id(),
                calls: call_sender,
                lifeline: lifeline_sender,
            })
            .map_err(|error| unreachable(&error))?;
        let Welcome { threads, limits, replies } = match wire::receive(&calls) {
            Ok(ToWorker::Welcome(welcome)) => welcome,
            Ok(ToWorker::Enclosed(_)) => {
                return Err(unreachable(&"it sent a text before a welcome"));
            }
            Err(error) => return Err(unreachable(&error)),
        };

        let desk = Arc::new(Desk::new(registry, worker, exchange, calls, replies.clone()));
        let set_up = || {
            limits.impose().map_err(io::Error::other)?;
            hold_the_lifeline(lifeline, coordinator)?;
            desk.start_runners(threads)
        };
        let runners = match set_up() {
            Ok(runners) => runners,
            Err(error) => {
                // The worker's own limits are the same the next time.
                let is_short = error.kind() == io::ErrorKind::WouldBlock && !limits.is_any();
                let told = if is_short { FromWorker::Short } else { FromWorker::Unfit };
                let _ = wire::send(&replies, || told(error.to_string()));
                return Err(error.into());
            }
        };
        // Without a word of it nobody would ever send a call.
        wire::send(&replies, || FromWorker::Ready).map_err(|error| unreachable(&error))?;
        drop(replies);

        if runners.is_empty() {
            desk.run_until_closed(threads);
        }
        for runner in runners {
            let _ = runner.join();
        }
        desk.drop_locals();
        Ok(())
    }
}

/// How often it is asked whether the coordinator is there, beside the lifeline: a process that was
/// forked from it may hold the lifeline's other end.
const ASK_FOR_THE_COORDINATOR: Duration = Duration::from_secs(1);

/// Ends this process when the lifeline breaks, or the coordinator is not its parent any more.
fn hold_the_lifeline(lifeline: IpcReceiver<()>, coordinator: u32) -> io::Result<()> {
    let thread = thread::Builder::new().name("lifeline".to_owned()).spawn(move || {
        // This process may be stopped; then its other threads cannot end it before it goes on.
        #[cfg(target_os = "linux")]
        let _ =
            rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::CONT));
        while is_child_of(coordinator) {
            // Whatever the channel library's panics mean, the parent tells.
            match guard::catch(|| lifeline.try_recv_timeout(ASK_FOR_THE_COORDINATOR)) {
                Ok(Err(TryRecvError::IpcError(IpcError::Disconnected))) => break,
                Ok(Ok(()) | Err(TryRecvError::Empty)) => {}
                // A task may have closed the descriptor.
                Ok(Err(_)) | Err(_) => thread::sleep(ASK_FOR_THE_COORDINATOR),
            }
        }
        end_at_once();
    });
    thread.map(drop).map_err(refused)
}

/// Keeps the kind of the error, by which a shortage is known.
fn refused(error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot start a thread: {error}"))
}

/// The lifeline breaks with the coordinator and ends this process with all that its tasks started.
/// The death of the parent does the same, and takes effect where the lifeline cannot: in what a task
/// has replaced this process with, and while this process is stopped. From the fork until now, it
/// has killed this process alone, which had started nothing.
fn die_with_the_coordinator(coordinator: u32) {
    os::signals::end_with_the_parent();
    // It may have died before the signal was asked for, which is then never sent.
    if !is_child_of(coordinator) {
        end_at_once();
    }
}

/// Ends this process and all that its tasks started, without a word: nobody is left to listen.
fn end_at_once() -> ! {
    use rustix::process::{Signal, getpid, kill_process, kill_process_group};
    // The coordinator made each worker the leader of a group, which a task may have left.
    let _ = kill_process_group(getpid(), Signal::KILL);
    let _ = kill_process(getpid(), Signal::KILL);
    process::abort()
}
