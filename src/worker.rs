//! The worker's side: from the invitation in the environment, over the handshake, to the loop that
//! runs calls until the coordinator hangs up.
//!
//! ```text
//!   main thread        receive calls ──► ledger ──► run (here, or on one of n threads) ──► reply
//!   lifeline thread    blocked on the lifeline: recalls strike calls in the ledger, a word to end
//!                      a call ends the process, if that call still runs;
//!                      when it breaks, the coordinator is gone and this process ends at once
//! ```
//!
//! A worker must never outlive its coordinator, never begin a call that it gave back, and begin
//! calls in the order of their turns: the coordinator counts on that to find the culprit of a
//! crash.

use std::collections::VecDeque;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use std::{env, io, process, thread};

use ipc_channel::IpcError;
use ipc_channel::ipc::{self, IpcReceiver, IpcSender};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::TaskError;
use crate::executor::Limits;
use crate::guard;
use crate::task::{Context, Locals, Registry, Task};
use crate::wire::{
    BUILD, Call, FromWorker, Hello, Invitation, PROTOCOL, Recall, Reply, Text, ToWorker, Welcome,
    Whisper,
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
        // Whoever looks at the process list should see what this is, however it was started.
        let _ = rustix::thread::set_name(c"worker");

        let unreachable = |error: &dyn std::fmt::Display| ServeError::Unreachable {
            coordinator,
            reason: error.to_string(),
        };
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
        let Welcome { threads, limits, replies } = match receive(&calls) {
            Ok(ToWorker::Welcome(welcome)) => welcome,
            Ok(ToWorker::Calls(_)) => return Err(unreachable(&"it sent calls before a welcome")),
            Err(error) => return Err(unreachable(&error)),
        };

        let desk = Arc::new(Desk {
            registry,
            worker,
            locals: Arc::default(),
            ledger: Mutex::default(),
            arrived: Condvar::new(),
        });
        let runners = match desk.set_up(&limits, threads, lifeline, &replies) {
            Ok(runners) => runners,
            Err(error) => {
                send(&replies, || FromWorker::Unfit(error.to_string()));
                return Err(error.into());
            }
        };
        send(&replies, || FromWorker::Ready);

        // The channel breaks when the coordinator has no more calls for us, or no life left; the
        // lifeline tells these apart.
        while let Ok(message) = receive(&calls) {
            if let ToWorker::Calls(calls) = message {
                desk.ledger().waiting.extend(calls);
                if threads > 1 {
                    desk.arrived.notify_all();
                } else {
                    desk.run_what_waits(&replies);
                }
            }
        }
        desk.ledger().is_closed = true;
        desk.arrived.notify_all();
        for runner in runners {
            let _ = runner.join();
        }
        Ok(())
    }
}

/// Receives, and goes on where a signal interrupted that.
fn receive<M: Serialize + DeserializeOwned>(from: &IpcReceiver<M>) -> Result<M, IpcError> {
    loop {
        match from.recv() {
            Err(IpcError::Io(error)) if error.kind() == io::ErrorKind::Interrupted => {}
            outcome => return outcome,
        }
    }
}

/// Sends, and tries again where a signal interrupted that: a task may have set a timer. Should the
/// coordinator be gone, the lifeline ends us.
fn send(to: &IpcSender<FromWorker>, message: impl Fn() -> FromWorker) {
    while let Err(IpcError::Io(error)) = to.send(message()) {
        if error.kind() != io::ErrorKind::Interrupted {
            return;
        }
    }
}

/// The lifeline breaks with the coordinator and ends this process with all that its tasks started;
/// but not while the process is stopped. So the death of the parent has to wake it. It must not
/// kill it: that would be faster than the lifeline, and leave behind what tasks started.
fn die_with_the_coordinator(coordinator: u32) {
    #[cfg(target_os = "linux")]
    let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::CONT));
    // It may have died before the signal was asked for, which is then never sent.
    if !is_child_of(coordinator) {
        end_at_once();
    }
}

/// Ends this process and all that its tasks started, without a word: nobody is left to listen.
fn end_at_once() -> ! {
    use rustix::process::{Signal, getpid, kill_process, kill_process_group};
    // The coordinator made each worker the leader of a group of its own.
    if rustix::process::getpgrp() == getpid() {
        let _ = kill_process_group(getpid(), Signal::KILL);
    }
    let _ = kill_process(getpid(), Signal::KILL);
    process::abort()
}

/// Where calls lie between their arrival and their turn.
struct Desk {
    registry: Registry,
    worker: usize,
    locals: Arc<Locals>,
    ledger: Mutex<Ledger>,
    arrived: Condvar,
}

#[derive(Default)]
struct Ledger {
    waiting: VecDeque<Call>,
    /// The turn of the last call that was begun.
    begun: u64,
    /// The turns of those that run, and since when.
    running: Vec<(u64, Instant)>,
    /// Turns that were recalled, whether their calls have arrived or not.
    struck: Vec<Recall>,
    is_closed: bool,
}

impl Ledger {
    /// The next call whose turn it is, now begun.
    fn begin(&mut self) -> Option<Call> {
        let begun = self.begun;
        self.struck.retain(|struck| struck.through > begun);
        while let Some(call) = self.waiting.pop_front() {
            if !self.struck.iter().any(|struck| (struck.from..=struck.through).contains(&call.turn))
            {
                self.begun = call.turn;
                self.running.push((call.turn, Instant::now()));
                return Some(call);
            }
        }
        None
    }

    /// For how long the call of this turn has run, if it does.
    fn runs_for(&self, turn: u64) -> Option<Duration> {
        let running = self.running.iter().find(|(running, _)| *running == turn);
        running.map(|(_, since)| since.elapsed())
    }

    /// Strikes those of the calls that have not begun, and says which: since they begin in the
    /// order of their turns, that is known of those as well that have not arrived. They may lie in
    /// the channel for as long as the present task takes.
    fn strike(&mut self, recall: Recall) -> Option<Recall> {
        let struck = Recall { from: recall.from.max(self.begun + 1), through: recall.through };
        if struck.from > struck.through {
            return None;
        }
        self.struck.push(struck);
        Some(struck)
    }
}

impl Desk {
    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Imposes the limits, and starts the lifeline thread and, for more than one slot, the runners.
    fn set_up(
        self: &Arc<Self>,
        limits: &Limits,
        threads: usize,
        lifeline: IpcReceiver<Whisper>,
        replies: &IpcSender<FromWorker>,
    ) -> io::Result<Vec<JoinHandle<()>>> {
        limits.impose().map_err(io::Error::other)?;
        let (desk, whispers_back) = (Arc::clone(self), replies.clone());
        let refused = |error| io::Error::other(format!("cannot start a thread: {error}"));
        let lifeline_thread = thread::Builder::new().name("lifeline".to_owned()).spawn(move || {
            let _ = guard::catch(|| desk.hold_the_lifeline(&lifeline, &whispers_back));
            // The coordinator is gone; or nobody would notice any more if it were.
            end_at_once();
        });
        drop(lifeline_thread.map_err(refused)?);
        let runners = if threads > 1 { 0..threads } else { 0..0 };
        let run = |n| {
            let (desk, replies) = (Arc::clone(self), replies.clone());
            let thread = thread::Builder::new().name(format!("runner-{n}"));
            thread.spawn(move || desk.run_until_closed(&replies)).map_err(refused)
        };
        runners.map(run).collect()
    }

    fn run_what_waits(&self, replies: &IpcSender<FromWorker>) {
        loop {
            // Bound first: the ledger must not stay locked while the task runs.
            let call = self.ledger().begin();
            match call {
                Some(call) => self.run(&call, replies),
                None => return,
            }
        }
    }

    fn run_until_closed(&self, replies: &IpcSender<FromWorker>) {
        let mut ledger = self.ledger();
        loop {
            if let Some(call) = ledger.begin() {
                drop(ledger);
                self.run(&call, replies);
                ledger = self.ledger();
            } else if ledger.is_closed {
                return;
            } else {
                ledger = self.arrived.wait(ledger).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }

    fn run(&self, call: &Call, replies: &IpcSender<FromWorker>) {
        let context = Context {
            worker: self.worker,
            attempt: call.attempt,
            locals: Arc::clone(&self.locals),
        };
        let reply = match call.task.as_str() {
            Ok(task) => self.registry.answer(call.id, &call.name, task, &context),
            Err(error) => Reply::undecodable(call.id, &error.to_string()),
        };
        // From here on a word to end it comes too late.
        self.ledger().running.retain(|(turn, _)| *turn != call.turn);
        send(replies, || FromWorker::Reply(Text::new(&reply)));
    }

    fn hold_the_lifeline(&self, lifeline: &IpcReceiver<Whisper>, replies: &IpcSender<FromWorker>) {
        while let Ok(whisper) = receive(lifeline) {
            let mut ledger = self.ledger();
            let recall = match whisper {
                Whisper::Recall(recall) => recall,
                Whisper::End { turn, allowed } => match ledger.runs_for(turn) {
                    // As long as the ledger is locked, no other call can begin and be hit.
                    Some(ran_for) if ran_for >= allowed => end_at_once(),
                    Some(ran_for) => {
                        drop(ledger);
                        send(replies, || FromWorker::NotYet { turn, ran_for });
                        continue;
                    }
                    None => Recall { from: turn, through: turn },
                },
            };
            let struck = ledger.strike(recall);
            drop(ledger);
            if let Some(struck) = struck {
                send(replies, || FromWorker::Returned(struck));
            }
        }
    }
}

/// Decodes a task, runs it and gives the reply, as JSON: what a [`Registry`] keeps of a kind of
/// task.
pub(crate) fn answer<T: Task>(id: u64, task: &str, context: &Context) -> String {
    // `Deserialize` is the user's code as well.
    let task = match guard::catch(|| serde_json::from_str::<T>(task)) {
        Ok(Ok(task)) => task,
        Ok(Err(error)) => return Reply::undecodable(id, &error.to_string()),
        Err(panic) => return Reply::undecodable(id, &panic.message),
    };
    let begun = Instant::now();
    let result: Result<T::Output, TaskError> = guard::run(task, context);
    let ran_for: Duration = begun.elapsed();
    Reply::to_result(id, result, ran_for)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(turn: u64) -> Call {
        let task = Text::new("null");
        Call { id: turn + 100, turn, attempt: 1, name: "none".to_owned(), task }
    }

    #[test]
    fn a_recalled_call_is_returned_and_never_begun() {
        let recall = |from, through| Recall { from, through };
        let mut ledger = Ledger::default();
        ledger.waiting.extend((1..=4).map(call));
        assert_eq!(ledger.begin().map(|call| call.turn), Some(1));
        // The call of turn 5 is on its way when its recall overtakes it.
        assert_eq!(ledger.strike(recall(1, 5)), Some(recall(2, 5)), "what has begun stays");
        ledger.waiting.extend([call(5), call(6)]);
        assert_eq!(ledger.begin().map(|call| call.turn), Some(6));
        assert_eq!(ledger.strike(recall(6, 6)), None);
        assert_eq!(ledger.begin().map(|call| call.turn), None);
    }
}
