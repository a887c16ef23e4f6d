//! One worker as the operating system sees it: started, killed with all that it started, listened to
//! while it lives, reaped when it has ended, and written off when it does not end.
//!
//! Its end is learnt by waiting for it, never from a channel. Where the program ignores SIGCHLD or
//! waits for all children by itself, a pidfd tells it; without one the process id is asked for.
//!
//! ```text
//!   watch thread    waits for the process to end ─► kills what it started ─► joins the listener
//!                   ─► reaps ─► reports
//!   listen thread   reads stdout and stderr line by line
//! ```

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::{self, PipeReader, PipeWriter, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, ioctl_fionread};
use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, kill_process, kill_process_group, test_kill_process, waitid,
};

use super::inner::PoolInner;
use super::program::Program;
use super::supervisor::Order;
use crate::error::Exit;
use crate::transport::Invitation;
use procession_os::mark::Mark;
use procession_os::reap::{Reaped, reap};
use procession_os::spawn::{Image, spawn};

/// How many of its last lines are remembered for the report of a worker's death.
const LAST_LINES: usize = 50;
/// A line without an end is cut here.
const LONGEST_LINE: usize = 64 * 1024;

/// Which of its outputs a worker wrote to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// What a process has used from its start to its end, as the operating system counts it; together
/// with those that it started itself and waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Usage {
    /// Time on CPUs, its own and the kernel's on its behalf.
    pub cpu: Duration,
    /// The most memory that was resident at a time, in bytes. On Linux at least as much as its
    /// coordinator had when it was started.
    pub peak_memory: u64,
}

/// A started worker process.
pub(crate) struct Child {
    pid: Pid,
    /// Refers to this very process, even after its id was given to another one.
    pidfd: Option<OwnedFd>,
    life: Mutex<Life>,
    /// Called once, at the end of the process or when it is written off.
    on_end: Mutex<Option<OnEnd>>,
    /// Where it is noted that an end was ordered, which is then verified.
    orders: Sender<Order>,
}

type OnEnd = Box<dyn FnOnce(Ended) + Send>;

/// What is known of whether the process lives.
#[derive(Debug, Default)]
struct Life {
    /// When it was killed first, and what the operating system says of that.
    killed: Option<(Instant, rustix::io::Result<()>)>,
    has_ended: bool,
    /// Its id may be another process's.
    is_reaped: bool,
    is_written_off: bool,
}

/// The end of a worker process.
#[derive(Debug, Clone)]
pub(crate) struct Ended {
    pub exit: Exit,
    pub usage: Usage,
    pub last_output: Vec<String>,
}

/// What a started worker writes to.
pub(crate) struct OutputPipes {
    stdout: PipeReader,
    stderr: PipeReader,
}

impl Child {
    /// Starts the program as a worker, with this as its standard input, and with the mark.
    pub(crate) fn spawn(
        program: &Program,
        invitation: &Invitation,
        env: &[(OsString, OsString)],
        input: OwnedFd,
        mark: Option<&Mark>,
        orders: Sender<Order>,
    ) -> io::Result<(Self, OutputPipes)> {
        let (stdout, its_stdout) = io::pipe()?;
        let (stderr, its_stderr) = io::pipe()?;
        let shown_as = program.shown_as.as_deref().unwrap_or(program.path.as_os_str());
        let invitation = serde_json::to_string(invitation)?;
        let variables =
            env.iter().cloned().chain([(Invitation::VARIABLE.into(), invitation.into())]);
        let image = Image::new(&program.path, shown_as, variables)?;
        // A group of its own: a Ctrl-C in the terminal is for the coordinator to handle, and what a
        // task starts can be ended together with its worker.
        let pid = spawn(image, [input, its_stdout.into(), its_stderr.into()], mark)?;
        let child = Self {
            pid,
            pidfd: pidfd(pid),
            life: Mutex::default(),
            on_end: Mutex::default(),
            orders,
        };
        Ok((child, OutputPipes { stdout, stderr }))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    fn life(&self) -> MutexGuard<'_, Life> {
        self.life.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the process id is still its own.
    pub(crate) fn is_there(&self) -> bool {
        let life = self.life();
        !(life.is_reaped || life.is_written_off)
    }

    /// Orders the end of the process, and of whatever it started, at once. Whether it ends is
    /// verified by the supervisor.
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
            let _ = self.orders.send(Order::WakeEarlier);
        }
    }

    /// Signals the process, wherever it went, and the group that it was made the leader of.
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
            // It has ended and another part of the program took its status: its number, and the
            // group's, may be another process's.
            return Ok(());
        }
        let _ = kill_process_group(self.pid, signal);
        itself
    }

    /// For how long its end has been ordered without having come, and what was refused.
    pub(crate) fn dying(&self) -> Option<(Duration, rustix::io::Result<()>)> {
        let life = self.life();
        let (since, done) = life.killed?;
        (!life.has_ended && !life.is_written_off).then(|| (since.elapsed(), done))
    }

    /// Reports an end that does not come.
    pub(crate) fn write_off(&self) {
        self.life().is_written_off = true;
        let (exit, usage) = (Exit::WrittenOff, Usage::default());
        self.conclude(Ended { exit, usage, last_output: Vec::new() });
    }

    /// Whether its threads are not to be waited for.
    pub(crate) fn is_written_off(&self) -> bool {
        self.life().is_written_off
    }

    fn conclude(&self, ended: Ended) {
        // Bound first: it may call code that asks for this process.
        let on_end = self.on_end.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(on_end) = on_end {
            on_end(ended);
        }
    }

    /// Waits for the process to end, without reaping it.
    fn wait(&self) {
        if let Some(pidfd) = &self.pidfd {
            // It is readable even if the status cannot be had because a debugger holds it.
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
        // Its status was taken by another part of the program, or is discarded by the system.
        while matches!(test_kill_process(self.pid), Ok(()) | Err(Errno::PERM)) {
            thread::sleep(ASK_AGAIN);
        }
    }

    fn kill_what_it_started(&self) {
        let _ = kill_process_group(self.pid, Signal::KILL);
    }

    /// Ends the process and leaves no trace of it, where no thread watches it.
    pub(crate) fn kill_and_reap(&self) {
        self.kill();
        let _ = self.reap();
    }

    /// Takes the status of the process, which has ended or will in a moment.
    fn reap(&self) -> (Exit, Usage) {
        let unknown = (Exit::Unknown, Usage::default());
        let until = Instant::now() + LONGEST_REAP;
        loop {
            let mut life = self.life();
            match reap(self.pid) {
                Ok(Some(Reaped { status, cpu, peak_memory })) => {
                    life.is_reaped = true;
                    return (Exit::from(status), Usage { cpu, peak_memory });
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
                // A debugger holds it: its status can be had when that has let go of it.
                self.life().is_reaped = true;
                reap_later(self.pid);
                return unknown;
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// How long a process whose end is known may take to give its status.
const LONGEST_REAP: Duration = Duration::from_secs(2);
/// How often it is asked whether a process is there where its end cannot be waited for.
const ASK_AGAIN: Duration = Duration::from_millis(20);

#[cfg(target_os = "linux")]
fn pidfd(pid: Pid) -> Option<OwnedFd> {
    // Old kernels have none, and descriptors may be short: the process id does, too.
    rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).ok()
}

#[cfg(not(target_os = "linux"))]
fn pidfd(_: Pid) -> Option<OwnedFd> {
    None
}

#[cfg(target_os = "linux")]
fn signal_by(pidfd: &OwnedFd, signal: Signal) -> rustix::io::Result<()> {
    rustix::process::pidfd_send_signal(pidfd, signal)
}

#[cfg(not(target_os = "linux"))]
fn signal_by(_: &OwnedFd, _: Signal) -> rustix::io::Result<()> {
    Err(Errno::NOSYS)
}

/// Takes the statuses that could not be had before, and keeps one more for later.
fn reap_later(pid: Pid) {
    static HELD: Mutex<Vec<Pid>> = Mutex::new(Vec::new());
    let mut held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
    held.retain(|&pid| matches!(reap(pid), Ok(None)));
    held.push(pid);
}

/// Watches over the process until its end, then calls `ended`, unless it was written off before.
/// Every line that it writes goes to `said`.
pub(crate) fn watch(
    shared: &Arc<PoolInner>,
    child: Arc<Child>,
    outputs: OutputPipes,
    said: impl Fn(Stream, &str) + Send + 'static,
    ended: impl FnOnce(Ended) + Send + 'static,
) -> io::Result<thread::JoinHandle<()>> {
    *child.on_end.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(ended));
    let (gone, its_end) = io::pipe()?;
    let pid = child.pid();
    let (words, last_words) = mpsc::channel();
    let listener = shared.start_thread(format!("listen-{pid}"), move || {
        let _ = words.send(listen(outputs, &gone, said));
    })?;
    let watch = move || {
        child.wait();
        child.life().has_ended = true;
        // What it started may live on, and write for ever. As long as the process is not reaped,
        // the group's id is surely its own.
        child.kill_what_it_started();
        // What it wrote last is part of the story of its end.
        let signal: PipeWriter = its_end;
        drop(signal);
        let last_output = last_words.recv().unwrap_or_default();
        let _ = listener.join();
        let (exit, usage) = child.reap();
        child.conclude(Ended { exit, usage, last_output });
    };
    shared.start_thread(format!("watch-{pid}"), watch)
}

/// Reads what the process writes until it has closed both its outputs, or is gone: a process that
/// it left behind may hold them open, and write to them, for ever.
fn listen(outputs: OutputPipes, gone: &PipeReader, said: impl Fn(Stream, &str)) -> Vec<String> {
    let mut last = VecDeque::with_capacity(LAST_LINES);
    let mut say = |stream, line: &str| {
        if last.len() == LAST_LINES {
            last.pop_front();
        }
        last.push_back(line.to_owned());
        said(stream, line);
    };
    let mut outputs =
        [Lines::new(Stream::Stdout, outputs.stdout), Lines::new(Stream::Stderr, outputs.stderr)];
    loop {
        let mut open: Vec<_> = outputs.iter_mut().filter(|lines| !lines.is_closed).collect();
        if open.is_empty() {
            break;
        }
        let fds = open.iter().map(|lines| lines.pipe.as_fd()).chain([gone.as_fd()]);
        let Some(ready) = wait_for_input(fds) else { continue };
        if ready[open.len()] {
            for lines in open {
                lines.read_what_is_there(&mut say);
            }
            break;
        }
        for (lines, ready) in open.iter_mut().zip(ready) {
            if ready {
                lines.read(&mut say);
            }
        }
    }
    for lines in &mut outputs {
        lines.flush(&mut say);
    }
    last.into()
}

/// Waits, and says which of these can be read, or have been closed; `None` if a signal came
/// between.
fn wait_for_input<'fd>(fds: impl Iterator<Item = BorrowedFd<'fd>>) -> Option<Vec<bool>> {
    let mut fds: Vec<_> = fds.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
    poll(&mut fds, None).ok()?;
    Some(fds.iter().map(|fd| !fd.revents().is_empty()).collect())
}

/// Cuts what comes out of a pipe into lines.
struct Lines {
    stream: Stream,
    pipe: PipeReader,
    partial: Vec<u8>,
    is_closed: bool,
}

impl Lines {
    fn new(stream: Stream, pipe: PipeReader) -> Self {
        Self { stream, pipe, partial: Vec::new(), is_closed: false }
    }

    /// Reads once, so that it does not wait when something is there; gives the number of bytes.
    fn read(&mut self, say: &mut impl FnMut(Stream, &str)) -> u64 {
        let mut buffer = [0; 8192];
        match self.pipe.read(&mut buffer) {
            Ok(n) if n > 0 => {
                self.take(&buffer[..n], say);
                return n as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(_) | Err(_) => self.is_closed = true,
        }
        0
    }

    /// Reads as much as lies in the pipe now, and maybe somewhat more, but does not wait.
    fn read_what_is_there(&mut self, say: &mut impl FnMut(Stream, &str)) {
        let mut left = ioctl_fionread(&self.pipe).unwrap_or_default();
        while left > 0 && !self.is_closed {
            left = left.saturating_sub(self.read(say));
        }
    }

    fn take(&mut self, bytes: &[u8], say: &mut impl FnMut(Stream, &str)) {
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            self.partial.extend_from_slice(piece);
            if piece.ends_with(b"\n") || self.partial.len() >= LONGEST_LINE {
                self.flush(say);
            }
        }
    }

    fn flush(&mut self, say: &mut impl FnMut(Stream, &str)) {
        if !self.partial.is_empty() {
            let line = String::from_utf8_lossy(&self.partial);
            say(self.stream, line.trim_end_matches(['\n', '\r']));
            self.partial.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_is_cut_into_lines_whatever_the_pieces() {
        let (reader, _writer) = io::pipe().expect("a pipe");
        let mut lines = Lines::new(Stream::Stdout, reader);
        let mut said = Vec::new();
        let mut say = |_, line: &str| said.push(line.to_owned());
        for piece in ["one\ntw", "o\r\n\nthr", "ee"] {
            lines.take(piece.as_bytes(), &mut say);
        }
        lines.flush(&mut say);
        assert_eq!(said, ["one", "two", "", "three"]);
    }
}
