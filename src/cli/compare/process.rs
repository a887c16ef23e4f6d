//! One measured process: started, watched until its end, with all that it started, and stopped if
//! need be.
//!
//! CPU time comes from the system when the process is waited for: its own and that of all its
//! descendants that it waited for in turn. Peak memory does not: of descendants the system tells
//! only that of the largest, and of the process itself it counts what its parent had when it was
//! started. So on Linux memory is looked at while the processes run, see
//! [`memory`](super::memory).

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use wait4::Wait4;

use super::memory::Watch;
use crate::cli::signals;

/// How long a process has to end in order when it is stopped.
const GRACE: Duration = Duration::from_secs(3);

/// What a process used.
#[derive(Debug)]
pub(super) struct Used {
    pub status: ExitStatus,
    /// From its start to its end.
    pub wall: Duration,
    pub user: Duration,
    pub system: Duration,
    /// Of all its processes together, in bytes.
    pub peak_rss: u64,
}

/// Where a process runs, and where it can be stopped from another thread. No further one can be
/// started then.
#[derive(Default)]
pub(super) struct Stage {
    now: Mutex<Now>,
    /// Signalled at the end of a process.
    ended: Condvar,
    /// Whether memory is looked at closely, which costs time.
    is_close: AtomicBool,
}

#[derive(Default)]
struct Now {
    is_closed: bool,
    running: Option<Pid>,
}

impl Stage {
    fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_closed(&self) -> bool {
        self.now().is_closed
    }

    /// Whether to look closely at the memory of what is run from now on; only where its time does
    /// not matter.
    pub(super) fn look_closely(&self, closely: bool) {
        self.is_close.store(closely, Ordering::Relaxed);
    }

    /// Runs a process to its end.
    pub(super) fn run(&self, command: &mut Command) -> io::Result<Used> {
        let mut now = self.now();
        if now.is_closed {
            return Err(io::ErrorKind::Interrupted.into());
        }
        // A group of its own: a Ctrl-C in the terminal is for us to handle.
        let began = Instant::now();
        let mut child = command.process_group(0).spawn()?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| io::Error::other("the process id is no process id"))?;
        now.running = Some(pid);
        drop(now);
        let watch = Watch::new(child.id(), self.is_close.load(Ordering::Relaxed));
        let (wall, peak_rss) = thread::scope(|scope| {
            let watcher = thread::Builder::new().spawn_scoped(scope, || watch.until_over());
            wait_for(pid);
            let wall = began.elapsed();
            watch.is_over();
            (wall, watcher.ok().and_then(|watcher| watcher.join().ok()).flatten())
        });
        let (status, user, system, largest) = self.reap(&mut child, pid)?;
        Ok(Used { status, wall, user, system, peak_rss: peak_rss.unwrap_or(largest) })
    }

    fn reap(
        &self,
        child: &mut Child,
        pid: Pid,
    ) -> io::Result<(ExitStatus, Duration, Duration, u64)> {
        let mut now = self.now();
        // What it may have left behind. As long as it was not reaped the group is surely its own.
        let _ = kill_process_group(pid, Signal::KILL);
        now.running = None;
        let waited = child.wait4();
        drop(now);
        self.ended.notify_all();
        let waited = waited?;
        let usage = waited.rusage;
        Ok((waited.status, usage.utime, usage.stime, usage.maxrss))
    }

    /// Ends the process that runs, in order if it can, and lets no other begin.
    pub(super) fn close(&self) {
        let mut now = self.now();
        now.is_closed = true;
        let Some(pid) = now.running else { return };
        // A coordinator takes the first for a wish and the second, if that comes later, for an
        // order. Two of the same kind could arrive as one.
        let steps = [
            (Signal::INT, signals::BURST + Duration::from_millis(50)),
            (Signal::TERM, GRACE),
            (Signal::KILL, Duration::ZERO),
        ];
        for (signal, patience) in steps {
            if now.running.is_none() {
                return;
            }
            let _ = kill_process_group(pid, signal);
            let runs = |now: &mut Now| now.running.is_some();
            let waited = self.ended.wait_timeout_while(now, patience, runs);
            (now, _) = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Waits for the process to end, without reaping it.
fn wait_for(pid: Pid) {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    while let Err(rustix::io::Errno::INTR) = waitid(WaitId::Pid(pid), options) {}
}
