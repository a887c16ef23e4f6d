//! [`Template`]: the process that has run the preload task of a pool, and whose copies are the workers
//! (`worker/template.rs`).
//!
//! | thread | does |
//! |---|---|
//! | supervisor | starts the template, so that its parent-death signal is that of the workers |
//! | `template` | waits until it serves, and then until its preload is done |
//! | `start-N`, for each start of a worker | waits for the same, then asks for a copy |
//!
//! A copy is a child of this process, made with `CLONE_PARENT`: it is watched, killed and reaped like a worker
//! that the supervisor thread has started, and gets the parent-death signal of that thread. A template that ends
//! takes no worker with it; the next start of a worker starts another one. A program that does not serve is found
//! out before the preload, and what starts programs with pools in it are not taken for workers.

mod process;

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, setpgid};

use self::process::TemplateProcess;
use super::child::{Child, Ended};
use super::control_groups::LONGEST_END;
use super::handler::{LAST_WORDS, StartMarks};
use super::handshake;
use super::initializer::Initializer;
use super::inner::PoolInner;
use super::start_failure::StartFailure;
use super::start_worker::{self, NotStarted};
use super::worker_handle::{KillReason, WorkerHandle};
use super::{Output, PoolEvent};
use crate::scheduler::{NextStart, UnfitProgram};
use crate::transport::{HandshakeMessage, Invitation, Sent, Socket};
use procession_os::cgroup::Group;
use procession_os::copy::{self, CopyNote};
use procession_os::sealed;

/// The template of a pool. One process at a time.
pub(super) struct Template {
    preload: Initializer,
    state: Mutex<State>,
    changed: Condvar,
    /// Held by the thread that waits for a copy.
    copying: Mutex<()>,
    /// All that were started. The end of each is verified.
    started: Mutex<Vec<Weak<Child>>>,
}

/// The process.
enum State {
    /// It was not started, or it has ended: why.
    Missing(Option<(String, NextStart)>),
    /// Its preload runs.
    Preloading(Arc<TemplateProcess>),
    Ready(Arc<TemplateProcess>),
    /// Its program does not serve, or its preload failed: it would fail again.
    Failed(String, NextStart),
}

impl State {
    /// The process, while it preloads or is ready.
    fn process(&self) -> Option<&Arc<TemplateProcess>> {
        match self {
            Self::Preloading(process) | Self::Ready(process) => Some(process),
            Self::Missing(_) | Self::Failed(..) => None,
        }
    }

    fn is_of(&self, process: &Arc<TemplateProcess>) -> bool {
        self.process().is_some_and(|current| Arc::ptr_eq(current, process))
    }
}

/// How often a thread that waits looks whether its worker is still wanted.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

impl Template {
    /// A template that runs this preload task. Where the system has no templates, the task is for each worker.
    pub(super) fn of(preload: Option<Initializer>) -> (Option<Arc<Self>>, Option<Initializer>) {
        if !(copy::is_available() && sealed::is_available()) {
            return (None, preload);
        }
        let (state, changed) = (Mutex::new(State::Missing(None)), Condvar::new());
        let (copying, started) = (Mutex::new(()), Mutex::default());
        let template = |preload| Arc::new(Self { preload, state, changed, copying, started });
        (preload.map(template), None)
    }

    pub(super) fn preload(&self) -> &Initializer {
        &self.preload
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, state: State) {
        *self.state() = state;
        self.changed.notify_all();
    }

    /// On the supervisor thread: starts the process if there is none.
    pub(super) fn ensure(
        self: &Arc<Self>,
        pool: &Arc<PoolInner>,
        worker: usize,
    ) -> Result<(), NotStarted> {
        let (rank, _) = pool.setup.programs.current();
        match &*self.state() {
            State::Preloading(process) | State::Ready(process) if process.rank == rank => {
                return Ok(());
            }
            // The program was passed over.
            State::Preloading(process) | State::Ready(process) => process.child.kill(),
            State::Failed(..) => return Ok(()),
            State::Missing(_) => {}
        }
        let process = self.start(pool, worker)?;
        let (its_template, its_pool) = (Arc::clone(self), Arc::clone(pool));
        let thread = pool.start_thread("template".to_owned(), move || {
            its_template.await_preload(&its_pool, &process);
        });
        let thread = thread.map_err(|error| {
            self.stop();
            NotStarted::new("start a thread", &error)
        })?;
        pool.add_thread(thread, None);
        Ok(())
    }

    fn start(
        self: &Arc<Self>,
        pool: &Arc<PoolInner>,
        worker: usize,
    ) -> Result<Arc<TemplateProcess>, NotStarted> {
        let start = start_worker::begin_start(pool)?;
        let (socket, input) = Socket::pair()
            .map_err(|error| NotStarted::new("make a socket for a template", &error))?;
        let _ = HandshakeMessage::Begin.send(&socket, &[]);
        let (mut invitation, mark) = start_worker::invite(pool, worker, &start, &input, true)?;
        invitation.is_template = true;
        let (rank, child, outputs) =
            start_worker::spawn(pool, &invitation, input, mark.as_ref(), None)?;
        let awaited = Mutex::new(Some(StartMarks::new(start, mark, &child)));
        let (its_child, failure) = (Arc::clone(&child), Mutex::default());
        let process = TemplateProcess { child: its_child, socket, rank, worker, awaited, failure };
        let process = Arc::new(process);
        // Before the watch of its end begins: an end counts only if the process is that of the state.
        self.set(State::Preloading(Arc::clone(&process)));
        let (pid, its_pool) = (child.pid(), Arc::clone(pool));
        let on_line = move |stream, line: &str| {
            its_pool.listeners.output(&Output { worker, pid, stream, line });
        };
        let (its_template, its_pool) = (Arc::clone(self), Arc::clone(pool));
        let ended = Arc::downgrade(&process);
        let on_end = move |end: Ended| its_template.note_end(&its_pool, &ended, pid, end);
        let watcher = super::child::watch(pool, Arc::clone(&child), outputs, on_line, on_end);
        let watcher = watcher.map_err(|error| {
            child.kill_and_reap();
            self.stop();
            NotStarted::new("start a thread", &error)
        })?;
        pool.add_thread(watcher, Some(Arc::downgrade(&child)));
        let mut started = self.started();
        started.retain(|child| child.strong_count() > 0);
        started.push(Arc::downgrade(&child));
        Ok(process)
    }

    fn started(&self) -> MutexGuard<'_, Vec<Weak<Child>>> {
        self.started.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// On a thread of its own: waits until the process serves and has run the preload task, or has ended.
    fn await_preload(&self, pool: &PoolInner, process: &Arc<TemplateProcess>) {
        let (rank, pid) = (process.rank, process.child.pid());
        if let Err(failure) = handshake::greet_template(pool, rank, &process.socket, pid) {
            return self.fail(process, failure);
        }
        let awaited = process.awaited().take();
        if let Some(awaited) = awaited {
            awaited.end();
        }
        match self.run_preload(process) {
            Ok(()) => {
                pool.listeners.event(|| PoolEvent::TemplateStarted { pid });
                let mut state = self.state();
                if state.is_of(process) {
                    *state = State::Ready(Arc::clone(process));
                }
                drop(state);
                self.changed.notify_all();
            }
            Err(Some(failure)) => self.fail(process, failure),
            // Its end, which the watch thread reports, is why.
            Err(None) => process.child.kill(),
        }
    }

    /// Sends the preload task, and waits for its end.
    fn run_preload(&self, process: &TemplateProcess) -> Result<(), Option<StartFailure>> {
        let (name, text) = self.preload.parts();
        let message = HandshakeMessage::Preload { name: name.to_owned() };
        let file = sealed::create(text).map_err(|error| {
            StartFailure::Short(format!("cannot make memory for a preload task: {error}"))
        })?;
        match message.send(&process.socket, &[file.as_fd()]) {
            Sent::Yes => {}
            Sent::Gone => return Err(None),
            Sent::NoRoom | Sent::Short(_) => {
                let cause = "cannot send a preload task: the system has no room";
                return Err(Some(StartFailure::Short(cause.to_owned())));
            }
        }
        match HandshakeMessage::receive(&process.socket) {
            Ok(Some((HandshakeMessage::Preloaded, _))) => Ok(()),
            Ok(Some((HandshakeMessage::CannotServe(reason), _))) => {
                Err(Some(StartFailure::Uninitialized(reason)))
            }
            Ok(Some(_)) | Err(_) => Err(Some(StartFailure::another_protocol())),
            Ok(None) => Err(None),
        }
    }

    /// Ends a process that is of no use. The watch thread reports it.
    fn fail(&self, process: &Arc<TemplateProcess>, failure: StartFailure) {
        let is_mute = matches!(failure, StartFailure::Mute);
        // It is readable if the process has closed it, which is then probably about to end.
        let has_closed = is_mute && process.socket.is_readable_within(Duration::ZERO);
        let kill_reason = (is_mute && !has_closed).then_some(KillReason::Late);
        *process.failure() = Some((failure, kill_reason));
        let until = Instant::now() + LAST_WORDS;
        let mut state = self.state();
        while has_closed && state.is_of(process) && Instant::now() < until {
            let waited = self.changed.wait_timeout(state, LOOK_AGAIN);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        if has_closed && state.is_of(process) {
            let reason = "it closed its standard input and did not report".to_owned();
            let failure = StartFailure::Misused(UnfitProgram::Wrapper, reason);
            *process.failure() = Some((failure, None));
        }
        drop(state);
        process.child.kill();
    }

    /// On the watch thread of the process.
    fn note_end(&self, pool: &PoolInner, ended: &Weak<TemplateProcess>, pid: u32, end: Ended) {
        let exit = end.exit;
        pool.listeners.event(|| PoolEvent::TemplateExited { pid, exit });
        let Some(process) = ended.upgrade() else { return };
        self.await_verdict(&process);
        let (cause, next_start) = process.explain(pool, end);
        let mut state = self.state();
        if state.is_of(&process) {
            *state = match next_start {
                NextStart::Never | NextStart::Unfit(_) => State::Failed(cause, next_start),
                _ => State::Missing(Some((cause, next_start))),
            };
        }
        drop(state);
        self.changed.notify_all();
    }

    /// Waits until the `template` thread has read what the process has sent before its end: that says more about a
    /// program that does not serve than how it has ended.
    fn await_verdict(&self, process: &Arc<TemplateProcess>) {
        let until = Instant::now() + LAST_WORDS;
        let mut state = self.state();
        while state.is_of(process) && process.is_undecided() && Instant::now() < until {
            let waited = self.changed.wait_timeout(state, LOOK_AGAIN);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Kills the process. One that cannot be killed, since the program gave up its rights, ends with its socket.
    fn stop(&self) {
        let state = std::mem::replace(&mut *self.state(), State::Missing(None));
        self.changed.notify_all();
        if let Some(process) = state.process() {
            process.child.kill();
            process.socket.shut_down();
        }
    }

    /// At the end of the pool: ends the process, and sees to it that all that were started have ended, or are
    /// left behind.
    pub(super) fn end(&self) {
        const LONGEST_PAUSE: Duration = Duration::from_millis(25);
        self.stop();
        let started = std::mem::take(&mut *self.started());
        for child in started.iter().filter_map(Weak::upgrade) {
            let mut pause = Duration::from_millis(1);
            while child.dying().is_some() {
                // If the process could not be killed, its closed socket asks it to end.
                let _ = child.verify_end(drop);
                thread::sleep(pause);
                pause = (2 * pause).min(LONGEST_PAUSE);
            }
        }
    }

    /// A worker that is a copy of the template, with these streams, and the rank of its program. Waits for the
    /// preload.
    pub(super) fn copy(
        &self,
        pool: &PoolInner,
        handle: &WorkerHandle,
        invitation: &Invitation,
        streams: [OwnedFd; 3],
        group: Option<Group>,
    ) -> Result<(usize, Child), NotStarted> {
        let process = self.await_ready(handle)?;
        match self.ask_for_copy(pool, &process, invitation, streams, group.as_ref()) {
            Ok(pid) => Ok((process.rank, Child::of(pid, group, pool.supervisor.clone()))),
            Err(not_started) => {
                // Only processes that the copy has started are in the group.
                let _ = group.map(|group| group.end(LONGEST_END));
                Err(not_started)
            }
        }
    }

    fn ask_for_copy(
        &self,
        pool: &PoolInner,
        process: &TemplateProcess,
        invitation: &Invitation,
        streams: [OwnedFd; 3],
        group: Option<&Group>,
    ) -> Result<Pid, NotStarted> {
        let failed = |cause: &str| NotStarted {
            cause: format!("cannot copy the template: {cause}"),
            next_start: NextStart::WithBackoff,
        };
        let invitation =
            serde_json::to_vec(invitation).map_err(|error| failed(&error.to_string()))?;
        let file = sealed::create(&invitation)
            .map_err(|error| NotStarted::new("make memory for an invitation", &error))?;
        let (note, noted) = CopyNote::create()
            .map_err(|error| NotStarted::new("make memory for a copy", &error))?;
        let _copying = self.copying.lock().unwrap_or_else(PoisonError::into_inner);
        let [input, output, error] = &streams;
        let mut fds = vec![input.as_fd(), output.as_fd(), error.as_fd(), file.as_fd()];
        fds.push(noted.as_fd());
        fds.extend(group.map(Group::as_fd));
        match process.copy(&fds) {
            Ok(pid) => {
                // The copy does so itself; but it may be killed with its group before that.
                let _ = setpgid(Some(pid), Some(pid));
                Ok(pid)
            }
            Err(cause) => {
                // The template may have made the copy, and have ended before it could answer.
                if let Some(pid) = note.process() {
                    Child::of(pid, None, pool.supervisor.clone()).kill_and_reap();
                }
                Err(failed(&cause))
            }
        }
    }

    fn await_ready(&self, handle: &WorkerHandle) -> Result<Arc<TemplateProcess>, NotStarted> {
        let mut state = self.state();
        loop {
            let (cause, next_start) = match &*state {
                State::Ready(process) => return Ok(Arc::clone(process)),
                State::Failed(cause, next_start) => (cause.clone(), *next_start),
                State::Missing(Some((cause, next_start))) => (cause.clone(), *next_start),
                State::Missing(None) => ("the template is gone".to_owned(), NextStart::WithBackoff),
                State::Preloading(_) if handle.kill_reason().is_some() => {
                    let cause = "its preload was not done".to_owned();
                    (cause, NextStart::WithBackoff)
                }
                State::Preloading(_) => {
                    let waited = self.changed.wait_timeout(state, LOOK_AGAIN);
                    state = waited.unwrap_or_else(PoisonError::into_inner).0;
                    continue;
                }
            };
            return Err(NotStarted { cause, next_start });
        }
    }
}

impl PoolInner {
    /// On the supervisor thread: starts a worker, or has it started by a thread that waits for the template.
    pub(super) fn start_worker(self: &Arc<Self>, handle: Arc<WorkerHandle>) {
        let Some(template) = &self.setup.template else {
            let started = start_worker::start(self, &handle);
            return self.note_start(&handle, started);
        };
        let ensured = template.ensure(self, handle.worker());
        let (its_pool, its_handle) = (Arc::clone(self), Arc::clone(&handle));
        let started = ensured.and_then(|()| {
            let start = move || {
                let _delivering = its_pool.begin_delivering(None);
                let started = start_worker::start(&its_pool, &its_handle);
                its_pool.note_start(&its_handle, started);
            };
            let name = format!("start-{}", handle.worker());
            let thread = self.start_thread(name, start);
            thread.map_err(|error| NotStarted::new("start a thread", &error))
        });
        match started {
            Ok(thread) => self.add_thread(thread, None),
            Err(not_started) => self.note_start(&handle, Err(not_started)),
        }
    }
}
