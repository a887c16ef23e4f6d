//! [`Child`]: one worker process as the operating system sees it. It is started, signalled together
//! with its process group, read from, reaped after its end, and written off if it does not end.
//!
//! The end of the process is learnt by waiting for it, never from a channel. A pidfd reports it even
//! if this program ignores SIGCHLD or another thread reaps all children. Without a pidfd, `waitid` is
//! used, and as a last resort the process id is polled.
//!
//! ```text
//!   watch thread    waits for the end ─► kills the process group ─► joins the listen thread
//!                   ─► reaps ─► reports
//!   listen thread   reads stdout and stderr line by line (`output.rs`)
//! ```

use std::ffi::{OsStr, OsString};
use std::io::{self, PipeWriter};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, kill_process, kill_process_group, test_kill_process, waitid,
};

mod held;

use self::held::is_dead_but_held;
use super::control_groups::LONGEST_END;
use super::endings::{LOOK_AGAIN, WRITE_OFF};
use super::inner::PoolInner;
use super::output::{OutputPipes, OutputStream};
use super::program::Program;
use super::supervisor::SupervisorMessage;
use crate::error::Exit;
use crate::transport::Invitation;
use procession_os::cgroup::Group;
use procession_os::mark::Mark;
use procession_os::reap::{Reaped, reap};
use procession_os::spawn::{Image, spawn};

/// Resources that a process used from its start to its end, as counted by the operating system,
/// including those of its children that it waited for. All zero if the status of the process could
/// not be had.
///
/// ```
/// # use procession::{PoolEvent, ProcessPool};
/// let builder = ProcessPool::builder().on_event(|event| {
///     if let PoolEvent::WorkerExited { pid, usage, .. } = event {
///         println!("process {pid}: {:?} of CPU time, {} MiB", usage.cpu, usage.peak_memory >> 20);
///     }
/// });
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ResourceUsage {
    /// CPU time, user and system.
    pub cpu: Duration,
    /// The largest resident memory, in bytes. On Linux it is never below the resident memory of the
    /// coordinator at the time of the start.
    pub peak_memory: u64,
}

/// A started worker process.
pub(crate) struct Child {
    pid: Pid,
    /// Refers to this process even after its id is reused.
    pidfd: Option<OwnedFd>,
    /// Its control group, until the processes in it have ended.
    group: Mutex<Option<Group>>,
    life: Mutex<Life>,
    /// Taken and called once: at the end of the process, or when it is written off.
    on_end: Mutex<Option<OnEnd>>,
    /// Wakes the supervisor after a kill, which it verifies.
    supervisor: Sender<SupervisorMessage>,
}

type OnEnd = Box<dyn FnOnce(Ended) + Send>;

/// The state of the process, as far as it is known.
#[derive(Debug, Default)]
struct Life {
    /// Time of the first kill, and the result of the last.
    killed: Option<(Instant, rustix::io::Result<()>)>,
    has_ended: bool,
    /// Its id may belong to another process now.
    is_reaped: bool,
    is_written_off: bool,
}

/// The end of a worker process.
#[derive(Debug, Clone)]
pub(crate) struct Ended {
    pub exit: Exit,
    pub usage: ResourceUsage,
    pub last_output: Vec<String>,
    /// The system killed it because it had more memory than its control group may have.
    pub is_out_of_memory: bool,
}

impl Ended {
    /// The end of a process whose status and last lines are not known.
    pub(super) fn unknown(exit: Exit) -> Self {
        let (usage, last_output) = (ResourceUsage::default(), Vec::new());
        Self { exit, usage, last_output, is_out_of_memory: false }
    }
}

impl Child {
    /// Starts the program as a worker; `input` becomes its standard input, and `mark` is inherited.
    pub(crate) fn spawn(
        program: &Program,
        invitation: &Invitation,
        env: &[(OsString, OsString)],
        input: OwnedFd,
        mark: Option<&Mark>,
        group: Option<Group>,
        supervisor: Sender<SupervisorMessage>,
    ) -> io::Result<(Self, OutputPipes)> {
        let (outputs, its_stdout, its_stderr) = OutputPipes::create(program.prelude)?;
        let shown_as = program.shown_as.as_deref().unwrap_or(program.path.as_os_str());
        let text = serde_json::to_string(invitation)?;
        let variables = env.iter().cloned().chain([(Invitation::VARIABLE.into(), text.into())]);
        let sandbox = invitation.sandbox.clone();
        let inherited = |name: &OsStr| sandbox.inherits(name);
        let image = Image::new(&program.path, shown_as, &program.arguments, inherited, variables)?
            .closing_all_descriptors(sandbox.is_on());
        // It leads a process group: Ctrl-C in the terminal reaches only the coordinator, and the
        // processes that a task starts can be killed together with the worker.
        let pid = spawn(image, [input, its_stdout, its_stderr], mark, group.as_ref())?;
        Ok((Self::of(pid, group, supervisor), outputs))
    }

    /// A child of this process that was started in another way.
    pub(crate) fn of(
        pid: Pid,
        group: Option<Group>,
        supervisor: Sender<SupervisorMessage>,
    ) -> Self {
        let (life, on_end, group) = (Mutex::default(), Mutex::default(), Mutex::new(group));
        Self { pid, pidfd: pidfd(pid), group, life, on_end, supervisor }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    fn life(&self) -> MutexGuard<'_, Life> {
        self.life.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the process id still belongs to this process.
    pub(crate) fn is_there(&self) -> bool {
        let life = self.life();
        !(life.is_reaped || life.is_written_off)
    }

    /// Whether the process was neither killed nor has ended.
    pub(crate) fn is_unharmed(&self) -> bool {
        let life = self.life();
        life.killed.is_none() && !life.has_ended
    }

    /// Sends SIGKILL to the process and its group. The supervisor verifies that it ends.
    pub(crate) fn kill(&self) {
        let mut life = self.life();
        if life.is_reaped {
            return;
        }
        let done = self.signal_all(Signal::KILL);
        let is_first = life.killed.is_none();
        let since = life.killed.map_or_else(Instant::now, |(since, _)| since);
        life.killed = Some((since, done));
        let is_open = is_first && !life.has_ended;
        drop(life);
        if is_open {
            let _ = self.supervisor.send(SupervisorMessage::CheckAgain);
        }
    }

    /// Signals the process, and the group that it was started as the leader of; the process may have
    /// moved to another group.
    pub(crate) fn signal(&self, signal: Signal) {
        let life = self.life();
        if !life.is_reaped {
            let _ = self.signal_all(signal);
        }
    }

    fn signal_all(&self, signal: Signal) -> rustix::io::Result<()> {
        let itself = match self.pidfd.as_ref().map(|fd| signal_by(fd, signal)) {
            None | Some(Err(Errno::NOSYS | Errno::PERM)) => kill_process(self.pid, signal),
            Some(done) => done,
        };
        if itself == Err(Errno::SRCH) {
            // It ended and another part of the program reaped it: the id, of process and group, may
            // be reused.
            return Ok(());
        }
        let _ = kill_process_group(self.pid, signal);
        itself
    }

    /// If it was killed and has not ended: the time since the first kill, and the result of the last.
    pub(crate) fn dying(&self) -> Option<(Duration, rustix::io::Result<()>)> {
        let life = self.life();
        let (since, done) = life.killed?;
        (!life.has_ended && !life.is_written_off).then(|| (since.elapsed(), done))
    }

    /// Checks a process that was killed and has not ended: kills it again, reports it as ended if it is dead and
    /// not released, and writes it off after [`WRITE_OFF`]. `on_write_off` is called before that with the result
    /// of the last kill.
    ///
    /// # Errors
    ///
    /// The process runs, and the system has refused to kill it.
    pub(crate) fn verify_end(
        &self,
        on_write_off: impl FnOnce(rustix::io::Result<()>),
    ) -> rustix::io::Result<()> {
        let Some((since, killed)) = self.dying() else { return Ok(()) };
        if since >= WRITE_OFF {
            on_write_off(killed);
            self.write_off();
        } else if since >= LOOK_AGAIN && self.is_dead_but_held() {
            self.conclude_held();
        } else {
            if since >= LOOK_AGAIN {
                self.kill();
            }
            return killed;
        }
        Ok(())
    }

    /// Gives the process up: reports it as ended with [`Exit::WrittenOff`].
    fn write_off(&self) {
        self.life().is_written_off = true;
        self.conclude(Ended::unknown(Exit::WrittenOff));
    }

    /// Whether all of its threads are dead and another process keeps them as their tracer: until it lets
    /// go, the system does not report the end.
    fn is_dead_but_held(&self) -> bool {
        cfg!(all(target_os = "linux", not(feature = "portable"))) && is_dead_but_held(self.pid())
    }

    /// Reports such a process as ended.
    fn conclude_held(&self) {
        self.life().is_written_off = true;
        self.conclude(Ended::unknown(Exit::Unknown));
    }

    /// Whether it was given up, so that its threads may never end.
    pub(crate) fn is_written_off(&self) -> bool {
        self.life().is_written_off
    }

    fn conclude(&self, ended: Ended) {
        // The lock is released before the call: the callback uses this `Child`.
        let on_end = self.on_end.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(on_end) = on_end {
            on_end(ended);
        }
    }

    /// Waits for the process to end, without reaping it.
    fn wait(&self) {
        if let Some(pidfd) = &self.pidfd {
            // A pidfd is readable even if a debugger holds the status.
            let mut fds = [PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN)];
            loop {
                match poll(&mut fds, None) {
                    Ok(_) => return,
                    Err(Errno::INTR | Errno::AGAIN | Errno::NOMEM) => {}
                    Err(_) => break,
                }
            }
        }
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        loop {
            match waitid(WaitId::Pid(self.pid), options) {
                Err(Errno::INTR) => {}
                Ok(_) => return,
                Err(_) => break,
            }
        }
        // Another part of the program reaped it, or the system discards statuses.
        while matches!(test_kill_process(self.pid), Ok(()) | Err(Errno::PERM)) {
            thread::sleep(ASK_AGAIN);
        }
    }

    fn kill_group(&self) {
        let _ = kill_process_group(self.pid, Signal::KILL);
    }

    /// After the end of the process: ends all others in its control group, and removes that. Returns whether the
    /// system has killed it for its memory.
    fn end_group(&self) -> bool {
        let group = self.group.lock().unwrap_or_else(PoisonError::into_inner).take();
        // Where a process runs on, the group stays, and the sweep of another program tries again.
        group.is_some_and(|group| group.end(LONGEST_END))
    }

    /// Ends and reaps a process that has no watch thread.
    pub(crate) fn kill_and_reap(&self) {
        self.kill();
        let _ = self.end_group();
        let _ = self.reap();
    }

    /// Takes the status of a process that was killed or has ended.
    fn reap(&self) -> (Exit, ResourceUsage) {
        let unknown = (Exit::Unknown, ResourceUsage::default());
        let until = Instant::now() + LONGEST_REAP;
        loop {
            let mut life = self.life();
            match reap(self.pid) {
                Ok(Some(Reaped { status, cpu, peak_memory })) => {
                    life.is_reaped = true;
                    return (Exit::from(status), ResourceUsage { cpu, peak_memory });
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => {
                    life.is_reaped = true;
                    return unknown;
                }
                Ok(None) => {}
            }
            drop(life);
            if Instant::now() >= until {
                // A debugger holds the status until it detaches.
                self.life().is_reaped = true;
                reap_later(self.pid);
                return unknown;
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// The longest wait for the status of a process that has ended.
const LONGEST_REAP: Duration = Duration::from_millis(500);
/// Polling interval where the end of a process cannot be waited for.
const ASK_AGAIN: Duration = Duration::from_millis(20);

#[cfg(all(target_os = "linux", not(feature = "portable")))]
fn pidfd(pid: Pid) -> Option<OwnedFd> {
    // Missing on old kernels and at the limit of descriptors; the process id is used then.
    rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).ok()
}

#[cfg(not(all(target_os = "linux", not(feature = "portable"))))]
fn pidfd(_: Pid) -> Option<OwnedFd> {
    None
}

#[cfg(all(target_os = "linux", not(feature = "portable")))]
fn signal_by(pidfd: &OwnedFd, signal: Signal) -> rustix::io::Result<()> {
    rustix::process::pidfd_send_signal(pidfd, signal)
}

#[cfg(not(all(target_os = "linux", not(feature = "portable"))))]
fn signal_by(_: &OwnedFd, _: Signal) -> rustix::io::Result<()> {
    Err(Errno::NOSYS)
}

/// Keeps the process in a list whose members are reaped at the next call.
fn reap_later(pid: Pid) {
    static HELD: Mutex<Vec<Pid>> = Mutex::new(Vec::new());
    let mut held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
    held.retain(|&pid| matches!(reap(pid), Ok(None)));
    held.push(pid);
}

/// Starts the watch thread and the listen thread of a process. `on_line` is called with each line
/// of output; `ended` is called once, at the end of the process or when it is written off.
pub(crate) fn watch(
    pool: &Arc<PoolInner>,
    child: Arc<Child>,
    outputs: OutputPipes,
    on_line: impl Fn(OutputStream, &str) + Send + 'static,
    ended: impl FnOnce(Ended) + Send + 'static,
) -> io::Result<thread::JoinHandle<()>> {
    *child.on_end.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(ended));
    let (gone, its_end) = io::pipe()?;
    let pid = child.pid();
    let (last_lines, its_last_lines) = mpsc::channel();
    let listener = pool.start_thread(format!("listen-{pid}"), move || {
        let _ = last_lines.send(outputs.read_until_closed(&gone, on_line));
    })?;
    let watch = move || {
        child.wait();
        child.life().has_ended = true;
        // Processes that it started could hold its output open. The group's id cannot be reused
        // before the process is reaped.
        child.kill_group();
        let is_out_of_memory = child.end_group();
        // The last lines belong to the report, so they are read before it is made.
        let signal: PipeWriter = its_end;
        drop(signal);
        let last_output = its_last_lines.recv().unwrap_or_default();
        let _ = listener.join();
        let (exit, usage) = child.reap();
        child.conclude(Ended { exit, usage, last_output, is_out_of_memory });
    };
    pool.start_thread(format!("watch-{pid}"), watch)
}
