//! Closes descriptors that another process has sent. To close the last descriptor of a connection can take any time, if
//! that process wants it to. The same is true for a file whose file system is a program. So such descriptors are closed
//! on a thread of their own.
//!
//! A descriptor in a message that was never received is closed with the message ([`run`]), or with the socket.

use std::os::fd::OwnedFd;
use std::sync::mpsc;
use std::time::Duration;

use procession_os::sealed;
use procession_os::threads::ThreadSpec;
use rustix::fs::{FileType, fstat};
use rustix::net::sockopt::set_socket_linger;

/// Whether all of them are files of the kind that attachments have. To close such a file takes no time.
pub(super) fn are_plain(files: &[OwnedFd]) -> bool {
    let is_file = |file| {
        fstat(file).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile)
    };
    let is_plain = |file| match sealed::is_available() {
        true => sealed::is_in_memory(file),
        false => is_file(file),
    };
    files.iter().all(is_plain)
}

/// Closes them on a thread of its own; here if there is none.
pub(super) fn close(files: Vec<OwnedFd>) {
    start(move || close_here(files));
}

/// Calls `act`, which may close such descriptors, on a thread of its own, and returns its result. `None`: it takes
/// longer than `longest`.
pub(super) fn run<R: Send + 'static>(
    longest: Duration,
    act: impl Fn() -> R + Clone + Send + 'static,
) -> Option<R> {
    let (tell, told) = mpsc::channel();
    let body = act.clone();
    match ThreadSpec::new("closer").start(move || _ = tell.send(body())) {
        Ok(_) => told.recv_timeout(longest).ok(),
        // The thread could not be started.
        Err(_) => Some(act()),
    }
}

/// Calls `body`, which closes such descriptors, on a thread of its own.
pub(super) fn start(body: impl FnOnce() + Send + 'static) {
    // If it is not started, the closure is dropped here, and what is in it.
    let _ = ThreadSpec::new("closer").start(body);
}

/// Closes them in this thread.
pub(super) fn close_here(files: Vec<OwnedFd>) {
    for file in files {
        // If it is a connection, its close need not wait: then the thread ends soon.
        let _ = set_socket_linger(&file, None);
    }
}
