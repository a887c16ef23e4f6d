//! [`Template`]: the process that has run the preload task of a pool, and whose copies are the workers
//! (`worker/template.rs`).
//!
//! | thread | does |
//! |---|---|
//! | supervisor | starts the template, so that its parent-death signal is that of the workers |
//! | `template` | waits until its preload is done |
//! | `start-N`, for each start of a worker | waits for the same, then asks for a copy |
//!
//! A copy is a child of this process, made with `CLONE_PARENT`: it is watched, killed and reaped like a worker
//! that the supervisor thread has started, and gets the parent-death signal of that thread. A template that ends
//! takes no worker with it; the next start of a worker starts another one.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, setpgid};

use super::child::{Child, Ended};
use super::handler::StartMarks;
use super::initializer::Initializer;
use super::inner::PoolInner;
use super::start_worker::{self, NotStarted};
use super::worker_handle::WorkerHandle;
use super::{Output, PoolEvent};
use crate::printable::printable;
use crate::scheduler::NextStart;
use crate::transport::{HandshakeMessage, Invitation, Sent, Socket};
use procession_os::{copy, sealed};

/// The template of a pool. One process at a time.
pub(super) struct Template {
    preload: Initializer,
    state: Mutex<State>,
    changed: Condvar,
    /// Held by the thread that waits for a copy.
    copying: Mutex<()>,
}

/// The process.
#[derive(Clone)]
enum State {
    /// It was not started, or it has ended: why.
    Missing(Option<String>),
    /// Its preload runs.
    Preloading(Arc<TemplateProcess>),
    Ready(Arc<TemplateProcess>),
    /// Its preload failed, and would fail again.
    Failed(String),
}

struct TemplateProcess {
    child: Arc<Child>,
    socket: Socket,
    /// The rank of its program.
    rank: usize,
}

/// A process that does not answer to a request for a copy is killed after this time.
const LONGEST_COPY: Duration = Duration::from_secs(10);
/// How often a thread that waits looks whether its worker is still wanted.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

impl Template {
    /// A template that runs this preload task. Where the system has no templates, the task is for each worker.
    pub(super) fn of(preload: Option<Initializer>) -> (Option<Arc<Self>>, Option<Initializer>) {
        if !(copy::is_available() && sealed::is_available()) {
            return (None, preload);
        }
        let (state, changed) = (Mutex::new(State::Missing(None)), Condvar::new());
        let template =
            |preload| Arc::new(Self { preload, state, changed, copying: Mutex::new(()) });
        (preload.map(template), None)
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
            State::Failed(_) => return Ok(()),
            State::Missing(_) => {}
        }
        let (process, awaited) = self.start(pool, worker)?;
        self.set(State::Preloading(Arc::clone(&process)));
        let (its_template, its_pool) = (Arc::clone(self), Arc::clone(pool));
        let thread = pool.start_thread("template".to_owned(), move || {
            its_template.await_preload(&its_pool, &process, awaited);
        });
        let thread = thread.map_err(|error| {
            self.end();
            NotStarted::new("start a thread", &error)
        })?;
        pool.add_thread(thread, None);
        Ok(())
    }

    fn start(
        self: &Arc<Self>,
        pool: &Arc<PoolInner>,
        worker: usize,
    ) -> Result<(Arc<TemplateProcess>, StartMarks), NotStarted> {
        let dir = start_worker::create_awaited()?;
        let (socket, input) = Socket::pair()
            .map_err(|error| NotStarted::new("make a socket for a template", &error))?;
        let (mut invitation, mark) = start_worker::invite(pool, worker, dir.path(), &input, true)?;
        invitation.is_template = true;
        let (rank, child, outputs) = start_worker::spawn(pool, &invitation, input, mark.as_ref())?;
        let awaited = StartMarks::new(dir, mark, &child);
        let process = Arc::new(TemplateProcess { child: Arc::clone(&child), socket, rank });
        let (pid, its_pool) = (child.pid(), Arc::clone(pool));
        let on_line = move |stream, line: &str| {
            its_pool.listeners.output(&Output { worker, pid, stream, line });
        };
        let (its_template, its_pool) = (Arc::clone(self), Arc::clone(pool));
        let on_end = move |end: Ended| its_template.note_end(&its_pool, pid, &end);
        let watcher = super::child::watch(pool, Arc::clone(&child), outputs, on_line, on_end);
        let watcher = watcher.map_err(|error| {
            child.kill_and_reap();
            NotStarted::new("start a thread", &error)
        })?;
        pool.add_thread(watcher, Some(Arc::downgrade(&child)));
        Ok((process, awaited))
    }

    /// On a thread of its own: sends the preload task, and waits until it is done or the process has ended.
    fn await_preload(&self, pool: &PoolInner, process: &Arc<TemplateProcess>, awaited: StartMarks) {
        let (name, text) = self.preload.parts();
        let message = HandshakeMessage::Preload { name: name.to_owned() };
        let sent = sealed::create(text).map(|file| message.send(&process.socket, &[file.as_fd()]));
        if !matches!(sent, Ok(Sent::Yes)) {
            process.child.kill();
        }
        let state = match HandshakeMessage::receive(&process.socket) {
            Ok(Some((HandshakeMessage::Preloaded, _))) => {
                let pid = process.child.pid();
                pool.listeners.event(|| PoolEvent::TemplateStarted { pid });
                State::Ready(Arc::clone(process))
            }
            Ok(Some((HandshakeMessage::CannotServe(reason), _))) => {
                State::Failed(printable(&reason).into_owned())
            }
            Ok(Some(_)) | Err(_) => {
                process.child.kill();
                return;
            }
            // Its end is reported by the watch thread.
            Ok(None) => return,
        };
        drop(awaited);
        if matches!(&*self.state(), State::Preloading(current) if Arc::ptr_eq(current, process)) {
            self.set(state);
        }
    }

    /// On the watch thread of the process.
    fn note_end(&self, pool: &PoolInner, pid: u32, end: &Ended) {
        let Ended { exit, usage: _, last_output } = end;
        pool.listeners.event(|| PoolEvent::TemplateExited { pid, exit: *exit });
        let said = last_output.last().map(|line| format!("; it last said: {}", printable(line)));
        let mut state = self.state();
        if matches!(&*state, State::Preloading(it) | State::Ready(it) if it.child.pid() == pid) {
            let cause = format!("the template ended with {exit}{}", said.unwrap_or_default());
            *state = State::Missing(Some(cause));
        }
        drop(state);
        self.changed.notify_all();
    }

    /// Ends the process.
    pub(super) fn end(&self) {
        if let State::Preloading(process) | State::Ready(process) = &*self.state() {
            process.child.kill();
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
    ) -> Result<(usize, Child), NotStarted> {
        let process = self.await_ready(handle)?;
        let failed = |cause: &str| NotStarted {
            cause: format!("cannot copy the template: {cause}"),
            next_start: NextStart::WithBackoff,
        };
        let invitation =
            serde_json::to_vec(invitation).map_err(|error| failed(&error.to_string()))?;
        let file = sealed::create(&invitation)
            .map_err(|error| NotStarted::new("make memory for an invitation", &error))?;
        let _copying = self.copying.lock().unwrap_or_else(PoisonError::into_inner);
        let [input, output, error] = &streams;
        let fds = [input.as_fd(), output.as_fd(), error.as_fd(), file.as_fd()];
        if HandshakeMessage::Copy.send(&process.socket, &fds) != Sent::Yes {
            return Err(failed("it takes no requests"));
        }
        if !process.socket.is_readable_within(LONGEST_COPY) {
            process.child.kill();
            return Err(failed(&format!("it did not answer within {LONGEST_COPY:?}")));
        }
        match HandshakeMessage::receive(&process.socket) {
            Ok(Some((HandshakeMessage::Copied { pid }, _))) => {
                let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
                let pid = pid.ok_or_else(|| failed("it named no process"))?;
                // The copy does so itself; but it may be killed with its group before that.
                let _ = setpgid(Some(pid), Some(pid));
                Ok((process.rank, Child::of(pid, pool.supervisor.clone())))
            }
            Ok(Some((HandshakeMessage::NotCopied(reason), _))) => Err(failed(&printable(&reason))),
            _ => {
                process.child.kill();
                Err(failed("it has ended"))
            }
        }
    }

    fn await_ready(&self, handle: &WorkerHandle) -> Result<Arc<TemplateProcess>, NotStarted> {
        let mut state = self.state();
        loop {
            let (cause, next_start) = match &*state {
                State::Ready(process) => return Ok(Arc::clone(process)),
                State::Failed(reason) => (reason.clone(), NextStart::Never),
                State::Missing(cause) => {
                    let cause = cause.clone().unwrap_or("the template is gone".to_owned());
                    (cause, NextStart::WithBackoff)
                }
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
