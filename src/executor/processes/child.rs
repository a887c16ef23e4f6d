//! One worker as the operating system sees it: started, written off when it ends, killed with all
//! that it started, and listened to while it lives.
//!
//! Its end is learnt by waiting for it, never from a channel, and never by asking again and again.
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
use std::os::unix::process::CommandExt;
use std::process::{self, Command};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::ioctl_fionread;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use wait4::{ResUse, ResourceUsage, Wait4};

use super::program::Program;
use crate::error::Exit;
use crate::wire::Invitation;

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
#[derive(Debug)]
pub(crate) struct Child {
    pid: Pid,
    /// `None` once it was reaped: from then on its id may be another process's.
    handle: Mutex<Option<process::Child>>,
}

/// The end of a worker process.
#[derive(Debug, Clone)]
pub(crate) struct Ended {
    pub exit: Exit,
    pub usage: Usage,
    pub last_output: Vec<String>,
}

/// What a started worker writes to.
pub(crate) struct Mouth {
    stdout: PipeReader,
    stderr: PipeReader,
}

impl Child {
    /// Starts the program as a worker, with this as its standard input.
    pub(crate) fn spawn(
        program: &Program,
        invitation: &Invitation,
        env: &[(OsString, OsString)],
        input: OwnedFd,
    ) -> io::Result<(Self, Mouth)> {
        let (stdout, its_stdout) = io::pipe()?;
        let (stderr, its_stderr) = io::pipe()?;
        let mut command = Command::new(&program.path);
        if let Some(shown_as) = &program.shown_as {
            command.arg0(shown_as);
        }
        let handle = command
            .envs(env.iter().map(|(name, value)| (name, value)))
            .env(Invitation::VARIABLE, serde_json::to_string(invitation)?)
            .stdin(input)
            .stdout(its_stdout)
            .stderr(its_stderr)
            // A group of its own: a Ctrl-C in the terminal is for the coordinator to handle, and
            // what a task starts can be ended together with its worker.
            .process_group(0)
            .spawn()?;
        let pid = i32::try_from(handle.id()).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| io::Error::other("the process id is no process id"))?;
        Ok((Self { pid, handle: Mutex::new(Some(handle)) }, Mouth { stdout, stderr }))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Whether the process id is still its own.
    pub(crate) fn is_there(&self) -> bool {
        self.handle.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Ends the process, and whatever it started, at once.
    pub(crate) fn kill(&self) {
        let handle = self.handle.lock().unwrap_or_else(PoisonError::into_inner);
        if handle.is_some() {
            let _ = kill_process_group(self.pid, Signal::KILL);
        }
    }

    /// Waits for the process to end, without reaping it.
    fn wait(&self) {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        while let Err(rustix::io::Errno::INTR) = waitid(WaitId::Pid(self.pid), options) {}
    }

    /// Ends the process and leaves no trace of it, where nobody watches it.
    pub(crate) fn kill_and_reap(&self) {
        self.kill();
        self.reap();
    }

    fn reap(&self) -> (Exit, Usage) {
        let mut handle = self.handle.lock().unwrap_or_else(PoisonError::into_inner);
        match handle.take().map(|mut handle| wait_for(&mut handle)) {
            Some(Ok(ResUse { status, rusage: ResourceUsage { utime, stime, maxrss } })) => {
                (Exit::of(status), Usage { cpu: utime + stime, peak_memory: maxrss })
            }
            // Somebody else waits for all children of this process, and was faster.
            _ => (Exit::Code(-1), Usage::default()),
        }
    }
}

fn wait_for(handle: &mut process::Child) -> io::Result<ResUse> {
    loop {
        match handle.wait4() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            waited => return waited,
        }
    }
}

/// Watches over the process until its end, then calls `ended`. Every line that it writes goes to
/// `said`.
pub(crate) fn watch(
    child: Arc<Child>,
    mouth: Mouth,
    said: impl Fn(Stream, &str) + Send + 'static,
    ended: impl FnOnce(Ended) + Send + 'static,
) -> io::Result<thread::JoinHandle<()>> {
    let (gone, its_end) = io::pipe()?;
    let pid = child.pid();
    let listener = thread::Builder::new()
        .name(format!("listen-{pid}"))
        .spawn(move || listen(mouth, &gone, said))?;
    let watch = move || {
        child.wait();
        // What it started may live on, and write for ever. As long as the process is not reaped,
        // the group's id is surely its own.
        child.kill();
        // What it wrote last is part of the story of its end.
        let signal: PipeWriter = its_end;
        drop(signal);
        let last_output = listener.join().unwrap_or_default();
        let (exit, usage) = child.reap();
        ended(Ended { exit, usage, last_output });
    };
    thread::Builder::new().name(format!("watch-{pid}")).spawn(watch)
}

/// Reads what the process writes until it has closed both its outputs, or is gone: a process that
/// it left behind may hold them open, and write to them, for ever.
fn listen(mouth: Mouth, gone: &PipeReader, said: impl Fn(Stream, &str)) -> Vec<String> {
    let mut last = VecDeque::with_capacity(LAST_LINES);
    let mut say = |stream, line: &str| {
        if last.len() == LAST_LINES {
            last.pop_front();
        }
        last.push_back(line.to_owned());
        said(stream, line);
    };
    let mut outputs =
        [Lines::new(Stream::Stdout, mouth.stdout), Lines::new(Stream::Stderr, mouth.stderr)];
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
