//! Runs one measured process: starts it, waits for its end, and stops it if a signal comes.
//!
//! The system reports the CPU time of the process, and of the descendants that it waited for, when it is
//! reaped. The reported peak memory is that of the largest descendant only, and for the process itself
//! includes the memory of its parent at the start. So on Linux the memory is sampled while the
//! processes run, see [`memory`](super::memory).

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use wait4::Wait4;

use super::memory::MemoryWatch;
use crate::cli::signals;

/// How long a process may take to end after it was stopped, before it is killed.
const GRACE: Duration = Duration::from_secs(3);

/// The resources that a process used.
#[derive(Debug)]
pub(super) struct ProcessUsage {
    pub status: ExitStatus,
    /// Time from the start to the end.
    pub wall: Duration,
    pub user: Duration,
    pub system: Duration,
    /// Peak memory of the process and its descendants together, in bytes.
    pub peak_rss: u64,
}

/// Runs processes, one at a time. Another thread can close the runner: the process is then stopped, and
/// no other can be started.
#[derive(Default)]
pub(super) struct ProcessRunner {
    state: Mutex<RunnerState>,
    /// Notified at the end of a process.
    ended: Condvar,
    /// Whether memory is sampled densely, which costs time.
    is_dense: AtomicBool,
}

#[derive(Default)]
struct RunnerState {
    is_closed: bool,
    running: Option<Pid>,
}

impl ProcessRunner {
    fn state(&self) -> MutexGuard<'_, RunnerState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_closed(&self) -> bool {
        self.state().is_closed
    }

    /// Sets whether memory is sampled densely from now on, for runs whose time does not count.
    pub(super) fn sample_densely(&self, is_dense: bool) {
        self.is_dense.store(is_dense, Ordering::Relaxed);
    }

    /// Runs a process to its end.
    pub(super) fn run(&self, command: &mut Command) -> io::Result<ProcessUsage> {
        let mut now = self.state();
        if now.is_closed {
            return Err(io::ErrorKind::Interrupted.into());
        }
        // In a process group of its own, which a Ctrl-C in the terminal does not reach.
        let began = Instant::now();
        let mut child = command.process_group(0).spawn()?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| io::Error::other("the process id is no process id"))?;
        now.running = Some(pid);
        drop(now);
        let watch = MemoryWatch::new(child.id(), self.is_dense.load(Ordering::Relaxed));
        let (wall, peak_rss) = thread::scope(|scope| {
            let watcher = thread::Builder::new().spawn_scoped(scope, || watch.sample());
            wait_for(pid);
            let wall = began.elapsed();
            watch.end();
            (wall, watcher.ok().and_then(|watcher| watcher.join().ok()).flatten())
        });
        let (status, user, system, largest) = self.reap(&mut child, pid)?;
        Ok(ProcessUsage { status, wall, user, system, peak_rss: peak_rss.unwrap_or(largest) })
    }

    fn reap(
        &self,
        child: &mut Child,
        pid: Pid,
    ) -> io::Result<(ExitStatus, Duration, Duration, u64)> {
        let mut now = self.state();
        // Kills the descendants that are left. Until the process is reaped, the group id is its own.
        let _ = kill_process_group(pid, Signal::KILL);
        now.running = None;
        let waited = child.wait4();
        drop(now);
        self.ended.notify_all();
        let waited = waited?;
        let usage = waited.rusage;
        Ok((waited.status, usage.utime, usage.stime, usage.maxrss))
    }

    /// Stops the process that runs, and lets no other start.
    pub(super) fn close(&self) {
        let mut now = self.state();
        now.is_closed = true;
        let Some(pid) = now.running else { return };
        // A coordinator ends its run at the first signal, and at once at the second. The signals
        // differ, since two equal ones could arrive as one.
        let steps = [
            (Signal::INT, signals::BURST + Duration::from_millis(50)),
            (Signal::TERM, GRACE),
            (Signal::KILL, Duration::ZERO),
        ];
        for (signal, timeout) in steps {
            if now.running.is_none() {
                return;
            }
            let _ = kill_process_group(pid, signal);
            let runs = |now: &mut RunnerState| now.running.is_some();
            let waited = self.ended.wait_timeout_while(now, timeout, runs);
            (now, _) = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Waits for the process to end, without reaping it.
fn wait_for(pid: Pid) {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    while let Err(rustix::io::Errno::INTR) = waitid(WaitId::Pid(pid), options) {}
}
