//! The worker's side: from the invitation in the environment, over the handshake, to the loop that
//! runs calls until the coordinator hangs up.
//!
//! ```text
//!   main thread        next call ─► claim it ─► run ─► reply      (or n threads that do the same)
//!   lifeline thread    blocked on the lifeline: when it breaks, the coordinator is gone and this
//!                      process ends at once
//! ```
//!
//! A worker must never outlive its coordinator, and never begin a call that it has not claimed:
//! the coordinator counts on the claims to find the culprit of a crash.

use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use std::{env, io, process, thread};

use ipc_channel::ipc::{self, IpcReceiver, IpcSender};

use crate::blob::{self, Blob};
use crate::executor::Limits;
use crate::guard;
use crate::task::{Context, Locals, Registry, Task, TaskId};
use crate::voice::Voice;
use crate::wire::{
    self, BUILD, Call, Cargo, ENCLOSED, Enclosure, Exchange, FromWorker, Hello, INLINE_LIMIT,
    Invitation, OUTPUT, PROTOCOL, Patience, REPLY, Reader, Records, SAID, Status, Timed, ToWorker,
    Welcome, Writer,
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

        let exchange = Arc::new(exchange);
        let outlet = Arc::new(Outlet {
            exchange: Arc::clone(&exchange),
            outbox: Mutex::new(Outbox { writer: Writer::default(), replies: replies.clone() }),
        });
        let speaks = Arc::clone(&outlet);
        let desk = Arc::new(Desk {
            registry,
            worker,
            locals: Arc::default(),
            voice: Voice::new(move |task, _, line| speaks.say(task, line)),
            exchange,
            inbox: Mutex::new(Inbox {
                reader: Reader::default(),
                records: Records::default(),
                calls,
                patience: Patience::default(),
            }),
            outlet,
            busy: AtomicUsize::new(0),
            is_over: Mutex::new(false),
            is_over_now: Condvar::new(),
        });
        let runners = match desk.set_up(&limits, threads, lifeline) {
            Ok(runners) => runners,
            Err(error) => {
                let _ = wire::send(&replies, || FromWorker::Unfit(error.to_string()));
                return Err(error.into());
            }
        };
        // Without a word of it nobody would ever send a call.
        wire::send(&replies, || FromWorker::Ready).map_err(|error| unreachable(&error))?;
        drop(replies);

        if runners.is_empty() {
            desk.run_until_closed(threads);
        } else {
            desk.wait_for_the_end();
        }
        Ok(())
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

/// What the threads that run calls have in common.
struct Desk {
    registry: Registry,
    worker: usize,
    locals: Arc<Locals>,
    voice: Voice,
    exchange: Arc<Exchange>,
    inbox: Mutex<Inbox>,
    outlet: Arc<Outlet>,
    /// How many threads have a call.
    busy: AtomicUsize,
    /// None of them has one, and none will come.
    is_over: Mutex<bool>,
    is_over_now: Condvar,
}

/// Where calls come from.
struct Inbox {
    reader: Reader,
    records: Records,
    calls: IpcReceiver<ToWorker>,
    patience: Patience,
}

/// What this process says to the coordinator.
struct Outlet {
    exchange: Arc<Exchange>,
    outbox: Mutex<Outbox>,
}

/// Where replies go.
struct Outbox {
    writer: Writer,
    replies: IpcSender<FromWorker>,
}

/// A call as it was taken out of the inbox; used again for the next one.
#[derive(Default)]
struct Taken {
    record: Vec<u8>,
    enclosed: Enclosure,
}

impl Desk {
    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Imposes the limits, and starts the lifeline thread and, for more than one slot, the runners.
    fn set_up(
        self: &Arc<Self>,
        limits: &Limits,
        threads: usize,
        lifeline: IpcReceiver<()>,
    ) -> io::Result<Vec<JoinHandle<()>>> {
        limits.impose().map_err(io::Error::other)?;
        let refused = |error| io::Error::other(format!("cannot start a thread: {error}"));
        let lifeline_thread = thread::Builder::new().name("lifeline".to_owned()).spawn(move || {
            let _ = guard::catch(|| while wire::receive(&lifeline).is_ok() {});
            // The coordinator is gone; or nobody would notice any more if it were.
            end_at_once();
        });
        drop(lifeline_thread.map_err(refused)?);
        let runners = if threads > 1 { 0..threads } else { 0..0 };
        let run = |n| {
            let desk = Arc::clone(self);
            let thread = thread::Builder::new().name(format!("runner-{n}"));
            thread.spawn(move || desk.run_until_closed(threads)).map_err(refused)
        };
        runners.map(run).collect()
    }

    fn run_until_closed(&self, threads: usize) {
        let (mut taken, mut cargo) = (Taken::default(), Cargo::default());
        while self.take_next(&mut taken) {
            self.run(&mut taken, &mut cargo);
            self.busy.fetch_sub(1, Ordering::SeqCst);
            if threads > 1 {
                // The one that waits for calls could not know that it was the last.
                self.note_if_idle();
            }
        }
        if self.busy.load(Ordering::SeqCst) == 0 {
            *self.is_over.lock().unwrap_or_else(PoisonError::into_inner) = true;
            self.is_over_now.notify_all();
        }
    }

    /// Waits until the runners are done. Those that have nothing to do are not even woken.
    fn wait_for_the_end(&self) {
        let mut is_over = self.is_over.lock().unwrap_or_else(PoisonError::into_inner);
        while !*is_over {
            is_over = self.is_over_now.wait(is_over).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// With nothing to do, replies that nobody was called for are all that will come for now.
    fn note_if_idle(&self) {
        if self.busy.load(Ordering::SeqCst) == 0 {
            self.exchange.set_idle(true);
            self.exchange.reply_bell().rouse();
        }
    }

    /// Waits for the next call; false if none will come any more. Of several threads one waits for
    /// the bell, and the others for that one.
    fn take_next(&self, taken: &mut Taken) -> bool {
        let mut inbox = self.inbox();
        let Inbox { reader, records, calls, patience } = &mut *inbox;
        let ring = self.exchange.calls();
        loop {
            // The coordinator is no stranger: what it writes is sound, or it is at its end.
            let record = records.next().unwrap_or_else(|_| end_at_once());
            if let Some(record) = record {
                taken.record.clear();
                taken.record.extend_from_slice(records.bytes(record));
                taken.enclosed = match record.kind & ENCLOSED != 0 {
                    true => receive_enclosed(calls).unwrap_or_else(|()| {
                        // It may be more than this process can take in. The call is to blame:
                        // given to the next worker, it would end that one, too.
                        self.begin(&taken.record);
                        end_at_once()
                    }),
                    false => Enclosure::default(),
                };
                self.busy.fetch_add(1, Ordering::SeqCst);
                return true;
            }
            // Whether none will come must be known before looking whether there is one.
            let is_closed = self.exchange.is_closed();
            if reader.read(&ring, records).unwrap_or_else(|_| end_at_once()) {
                continue;
            }
            if is_closed {
                return false;
            }
            self.note_if_idle();
            let is_there = || reader.is_ready(&ring) || self.exchange.is_closed();
            self.exchange.call_bell().wait_unless(patience, is_there);
            self.exchange.set_idle(false);
        }
    }

    /// Claims a call that will not be run.
    fn begin(&self, record: &[u8]) {
        let call = Call::split(record).map(|(call, _)| call);
        if let Some(call) = call
            && let Some(claim) = self.exchange.claim(call.claim)
        {
            claim.begin(call.turn, wire::now());
        }
    }

    fn run(&self, taken: &mut Taken, cargo: &mut Cargo) {
        let Some((call, parts)) = Call::split(&taken.record) else { end_at_once() };
        let Some(claim) = self.exchange.claim(call.claim) else { end_at_once() };
        let mut context = Context {
            task: TaskId(call.id),
            worker: self.worker,
            attempt: call.attempt,
            locals: Arc::clone(&self.locals),
            voice: self.voice.clone(),
        };
        let runner = self.registry.runner(parts.name);
        let mut blobs = taken.enclosed.take_blobs();
        let text = taken.enclosed.text(parts.text);
        let mut texts = parts.texts(text.unwrap_or_default());
        let mut now = wire::now();
        for item in 0..u64::from(call.items) {
            if !claim.begin(call.turn, now) {
                // It was taken back. There may be more that found no room behind it.
                self.exchange.reply_bell().ring();
                return;
            }
            context.task = TaskId(call.id + item);
            cargo.data.clear();
            cargo.blobs = std::mem::take(&mut blobs);
            let task = if call.items == 1 { text } else { Ok(texts.next().unwrap_or_default()) };
            let status = match (task, runner) {
                (Ok(task), Some(run)) => run(task, &context, cargo),
                (Ok(_), None) => {
                    let reason = format!(
                        "the worker knows no task named {:?}: add it to its Registry",
                        parts.name
                    );
                    cargo.put_reason(Status::Undecodable, &reason)
                }
                (Err(error), _) => cargo.put_reason(Status::Undecodable, &error.to_string()),
            };
            claim.end();
            let then = std::mem::replace(&mut now, wire::now());
            let ran_for = Duration::from_nanos(now.saturating_sub(then));
            let blobs = std::mem::take(&mut cargo.blobs);
            let has_waited = if call.items > 1 && status == Status::Ok && blobs.is_empty() {
                self.outlet.output(Timed { claim: call.claim, ran_for }, &cargo.data)
            } else {
                let reply = wire::envelope(call.id + item, status, &cargo.data, ran_for);
                self.outlet.reply(call.claim, &reply, &blobs)
            };
            if has_waited {
                // That is no part of the next task's time.
                now = wire::now();
            }
        }
    }
}

impl Outlet {
    /// Says whether it had to wait for room; so do the next ones.
    fn reply(&self, claim: u32, reply: &str, blobs: &[Blob]) -> bool {
        let has_waited = self.send(REPLY, u64::from(claim), reply.as_bytes(), blobs);
        self.exchange.announce_reply(claim, self.exchange.replies().is_filling());
        has_waited
    }

    fn output(&self, timed: Timed, output: &[u8]) -> bool {
        let has_waited = self.send(OUTPUT, timed.to_number(), output, &[]);
        self.exchange.announce_reply(timed.claim, self.exchange.replies().is_filling());
        has_waited
    }

    fn say(&self, task: TaskId, line: &str) {
        self.send(SAID, task.0, line.as_bytes(), &[]);
        self.exchange.reply_bell().ring();
    }

    fn send(&self, kind: u8, number: u64, text: &[u8], blobs: &[Blob]) -> bool {
        let ring = self.exchange.replies();
        let mut has_waited = false;
        let mut outbox = self.outbox.lock().unwrap_or_else(PoisonError::into_inner);
        let Outbox { writer, replies } = &mut *outbox;
        let is_inline = text.len() <= INLINE_LIMIT;
        let enclosed = (!is_inline).then(|| std::str::from_utf8(text).expect("JSON is text"));
        let lacks = Enclosure::send(enclosed, blobs, replies, FromWorker::Enclosed).unwrap_or_else(
            |stuck| {
                // Nobody would ever hear of it. The task that has left so few descriptors to this
                // process is to blame, and the next process has all of its own.
                let _ = writeln!(io::stderr(), "worker: {stuck}");
                end_at_once()
            },
        );
        let kind = if lacks { kind | ENCLOSED } else { kind };
        let inline = if is_inline { text } else { &[] };
        let parts = [&number.to_le_bytes()[..], inline];
        // Full: the coordinator's own code is in a callback, or it has a lot to do.
        while !writer.write(&ring, kind, &parts).unwrap_or_else(|_| end_at_once()) {
            let fits = || writer.fits(&ring, &parts);
            self.exchange.space_bell().sleep_unless(fits);
            has_waited = true;
        }
        has_waited
    }
}

fn receive_enclosed(calls: &IpcReceiver<ToWorker>) -> Result<Enclosure, ()> {
    // The channel library panics on a message of which not all descriptors could be taken in.
    let next = || match guard::catch(|| wire::receive(calls)) {
        Ok(Ok(ToWorker::Enclosed(enclosure))) => Ok(enclosure),
        _ => Err(()),
    };
    Enclosure::receive(next)
}

/// Decodes a task, runs it and puts what comes of it: what a [`Registry`] keeps of a kind of task.
pub(crate) fn answer<T: Task>(task: &str, context: &Context, cargo: &mut Cargo) -> Status {
    // `Deserialize` is the user's code as well.
    let blobs = std::mem::take(&mut cargo.blobs);
    let decode = || guard::catch(|| serde_json::from_str::<T>(task));
    let task = match blob::put_back(blobs, decode) {
        Ok(Ok(task)) => task,
        Ok(Err(error)) => return cargo.put_reason(Status::Undecodable, &error.to_string()),
        Err(panic) => return cargo.put_reason(Status::Undecodable, &panic.message),
    };
    cargo.put(guard::run(task, context))
}
