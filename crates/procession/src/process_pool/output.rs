//! [`OutputPipes`]: reads the standard output and error of a worker, line by line.

use std::collections::VecDeque;
use std::io::{self, PipeReader, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::ioctl_fionread;

use super::flood::Throttle;

/// Number of lines of output that are kept for [`Death::last_output`](crate::Death::last_output).
const LAST_LINES: usize = 50;
/// Maximum number of bytes of these lines. A program may keep the errors of many tasks, each with its lines.
const LAST_BYTES: usize = 256 * 1024;
/// In bytes. A longer line is split.
const LONGEST_LINE: usize = 64 * 1024;

/// The standard stream to which a worker wrote.
///
/// ```
/// use procession::{OutputStream, ProcessPool};
///
/// let builder = ProcessPool::builder().on_output(|output| {
///     if output.stream == OutputStream::Stderr {
///         eprintln!("{}", output.line);
///     }
/// });
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OutputStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// The read ends of the standard output and error of a worker.
pub(super) struct OutputPipes {
    stdout: PipeReader,
    stderr: PipeReader,
    /// The first lines of stdout that are not passed on.
    prelude: &'static [&'static str],
}

impl OutputPipes {
    /// The pipes, and their write ends for standard output and error of the worker. The lines of the
    /// prelude are what the program prints before it serves.
    pub(super) fn create(prelude: &'static [&'static str]) -> io::Result<(Self, OwnedFd, OwnedFd)> {
        let (stdout, its_stdout) = io::pipe()?;
        let (stderr, its_stderr) = io::pipe()?;
        for pipe in [&stdout, &stderr] {
            // Another process may open the pipe, and take the bytes between `poll` and `read`.
            fcntl_setfl(pipe, fcntl_getfl(pipe)? | OFlags::NONBLOCK)?;
        }
        Ok((Self { stdout, stderr, prelude }, its_stdout.into(), its_stderr.into()))
    }

    /// Reads the output of the process until both pipes are closed, or `gone` is: another process may
    /// hold the pipes open for ever. Returns the last lines.
    pub(super) fn read_until_closed(
        self,
        gone: &PipeReader,
        on_line: impl Fn(OutputStream, &str),
    ) -> Vec<String> {
        let (mut last, mut last_bytes) = (VecDeque::<String>::with_capacity(LAST_LINES), 0);
        let mut prelude = self.prelude.iter();
        let mut throttle = Throttle::default();
        let mut pass = |stream, line: &str| {
            if stream == OutputStream::Stdout && prelude.next().is_some_and(|first| *first == line)
            {
                return;
            }
            last_bytes += line.len();
            while last.len() == LAST_LINES || last_bytes > LAST_BYTES {
                let Some(first) = last.pop_front() else { break };
                last_bytes -= first.len();
            }
            last.push_back(line.to_owned());
            on_line(stream, line);
        };
        let mut outputs = [
            Lines::new(OutputStream::Stdout, self.stdout),
            Lines::new(OutputStream::Stderr, self.stderr),
        ];
        loop {
            let mut open: Vec<_> = outputs.iter_mut().filter(|lines| !lines.is_closed).collect();
            if open.is_empty() {
                break;
            }
            let fds = open.iter().map(|lines| lines.pipe.as_fd()).chain([gone.as_fd()]);
            let Some(ready) = wait_for_input(fds) else { continue };
            let is_gone = ready[open.len()];
            if is_gone {
                for lines in open {
                    lines.drain(&mut pass);
                }
                break;
            }
            for (lines, ready) in open.iter_mut().zip(ready) {
                if ready {
                    let (bytes, ends) = lines.read(&mut pass);
                    throttle.count(ends, bytes);
                }
            }
            // During the pause the pipe fills up, which stops the worker.
            throttle.pause(|pause| {
                let _ = poll_one(gone.as_fd(), pause);
            });
        }
        for lines in &mut outputs {
            lines.flush(&mut pass);
        }
        last.into()
    }
}

/// Waits until a descriptor is readable or closed, and returns which are. `None`: a signal
/// interrupted the wait.
fn wait_for_input<'fd>(fds: impl Iterator<Item = BorrowedFd<'fd>>) -> Option<Vec<bool>> {
    let mut fds: Vec<_> = fds.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
    poll(&mut fds, None).ok()?;
    Some(fds.iter().map(|fd| !fd.revents().is_empty()).collect())
}

/// Waits until the descriptor is readable or closed, for this long at most.
fn poll_one(fd: BorrowedFd<'_>, longest: std::time::Duration) -> rustix::io::Result<usize> {
    let timeout = longest.try_into().ok();
    poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::IN)], timeout.as_ref())
}

/// Splits the content of a pipe into lines.
struct Lines {
    stream: OutputStream,
    pipe: PipeReader,
    partial: Vec<u8>,
    is_closed: bool,
}

impl Lines {
    fn new(stream: OutputStream, pipe: PipeReader) -> Self {
        Self { stream, pipe, partial: Vec::new(), is_closed: false }
    }

    /// Reads once, without blocking. Returns the number of bytes and of lines.
    fn read(&mut self, pass: &mut impl FnMut(OutputStream, &str)) -> (u64, u64) {
        let mut buffer = [0; 8192];
        match self.pipe.read(&mut buffer) {
            Ok(n) if n > 0 => {
                let ends = buffer[..n].iter().filter(|&&byte| byte == b'\n').count();
                self.take(&buffer[..n], pass);
                return (n as u64, ends as u64);
            }
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock
                ) => {}
            Ok(_) | Err(_) => self.is_closed = true,
        }
        (0, 0)
    }

    /// Reads at least the bytes that are in the pipe now, without blocking.
    fn drain(&mut self, pass: &mut impl FnMut(OutputStream, &str)) {
        let mut left = ioctl_fionread(&self.pipe).unwrap_or_default();
        while left > 0 && !self.is_closed {
            let (bytes, _) = self.read(pass);
            if bytes == 0 {
                // Another process took the rest.
                break;
            }
            left = left.saturating_sub(bytes);
        }
    }

    fn take(&mut self, bytes: &[u8], pass: &mut impl FnMut(OutputStream, &str)) {
        for part in bytes.split_inclusive(|&byte| byte == b'\n') {
            self.partial.extend_from_slice(part);
            if part.ends_with(b"\n") || self.partial.len() >= LONGEST_LINE {
                self.flush(pass);
            }
        }
    }

    fn flush(&mut self, pass: &mut impl FnMut(OutputStream, &str)) {
        if !self.partial.is_empty() {
            let line = String::from_utf8_lossy(&self.partial);
            pass(self.stream, line.trim_end_matches(['\n', '\r']));
            self.partial.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_is_cut_into_lines_at_any_boundary_of_reads() {
        let (reader, _writer) = io::pipe().expect("a pipe");
        let mut lines = Lines::new(OutputStream::Stdout, reader);
        let mut lines_seen = Vec::new();
        let mut pass = |_, line: &str| lines_seen.push(line.to_owned());
        for piece in ["one\ntw", "o\r\n\nthr", "ee"] {
            lines.take(piece.as_bytes(), &mut pass);
        }
        lines.flush(&mut pass);
        assert_eq!(lines_seen, ["one", "two", "", "three"]);
    }

    #[test]
    fn the_last_lines_are_bounded_in_their_number_and_their_bytes() {
        for (line, number) in [("short", LAST_LINES), (&"x".repeat(60_000), 4)] {
            let (pipes, mut stdout, stderr) = OutputPipes::create(&[])
                .map(|(pipes, out, err)| (pipes, std::fs::File::from(out), err))
                .expect("pipes");
            let (gone, _here) = io::pipe().expect("a pipe");
            drop(stderr);
            let text = format!("{line}\n").repeat(100);
            let writes =
                std::thread::spawn(move || io::Write::write_all(&mut stdout, text.as_bytes()));
            let last = pipes.read_until_closed(&gone, |_, _| {});
            writes.join().expect("a thread").expect("written");
            assert_eq!(last, vec![line; number]);
        }
    }
}
