//! The standard descriptors of this process.

use std::os::fd::{AsRawFd, IntoRawFd};

use rustix::fs::{Mode, OFlags, open};

/// Which of the standard descriptors are open, the bit of value 1 for standard input.
pub fn open_standard() -> u8 {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use rustix::stdio::{stderr, stdin, stdout};
    let mut fds =
        [stdin(), stdout(), stderr()].map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::empty()));
    let no_time = Timespec { tv_sec: 0, tv_nsec: 0 };
    if poll(&mut fds, Some(&no_time)).is_err() {
        return 0b111;
    }
    let open =
        |(bit, fd): (usize, &PollFd<'_>)| u8::from(!fd.revents().contains(PollFlags::NVAL)) << bit;
    fds.iter().enumerate().map(open).sum()
}

/// Makes each write to standard output an error (`EPIPE`), for a program that was started without one.
pub fn break_stdout() -> std::io::Result<()> {
    let (_reader, writer) = std::io::pipe()?;
    Ok(rustix::stdio::dup2_stdout(writer)?)
}

/// Opens `/dev/null` in place of standard descriptors that are closed. The next file that is opened
/// would get such a number otherwise, be it a pipe or shared memory, and what the program prints
/// would be written into it.
pub fn fill_standard() {
    // The lowest free number is given out first.
    while let Ok(file) = open("/dev/null", OFlags::RDWR, Mode::empty()) {
        if file.as_raw_fd() > 2 {
            return;
        }
        let _stays_open = file.into_raw_fd();
    }
}
