//! A socket pair between a coordinator and one worker, for small messages with descriptors.
//!
//! Only the `wait_…` methods block. [`shut_down`](Socket::shut_down) ends such a wait and needs no
//! resource for that. A message is read into memory of a fixed size, with a fixed number of
//! descriptors, whatever the other side sends.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use procession_os::fork::Origin;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{FileType, OFlags, fcntl_getfl, fcntl_setfl, fstat};
use rustix::io::{Errno, fcntl_dupfd_cloexec};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, Shutdown, SocketFlags, SocketType, recv,
    recvmsg, sendmsg, shutdown, socketpair,
};

use super::disposal;
use super::ring::Garbled;

/// The longest message, in bytes: what all systems support.
pub(crate) const LONGEST: usize = 2048;
/// The most descriptors in a message.
pub(crate) const MOST_FDS: usize = 32;

/// One end of the pair.
#[derive(Debug)]
pub(crate) struct Socket {
    /// `None` while it is dropped. Shared with a thread that removes a message.
    end: Option<Arc<OwnedFd>>,
    /// The process that made the pair. It does not trust what was sent to its end. `None`: this is a duplicate.
    maker: Option<Origin>,
}

/// The result of sending a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sent {
    Yes,
    /// Not sent: the other side must receive messages first.
    NoRoom,
    /// The other end is closed.
    Gone,
    /// Not sent: the system lacks a resource.
    Short(Errno),
}

/// The result of receiving a message.
#[derive(Debug)]
pub(crate) enum Received {
    Message(Message),
    /// There is no message now.
    Nothing,
    /// The other end is closed, or this one was shut down. No message will come.
    Gone,
    /// A message was too long, or had more than [`MOST_FDS`] descriptors.
    Cut,
    /// The system lacks a resource for the message, most often descriptors. On Linux the message
    /// stays in the socket for the next try; elsewhere its descriptors are lost.
    Short(Errno),
}

#[derive(Debug)]
pub(crate) struct Message {
    pub bytes: Vec<u8>,
    pub fds: Vec<OwnedFd>,
}

impl Socket {
    /// Both ends, non-blocking, and closed in programs that this process executes.
    pub(crate) fn pair() -> io::Result<(Self, OwnedFd)> {
        // Apple's systems have no `SEQPACKET`. Local datagrams keep their order there as well.
        let kind =
            if cfg!(target_vendor = "apple") { SocketType::DGRAM } else { SocketType::SEQPACKET };
        #[cfg(not(target_vendor = "apple"))]
        let flags = SocketFlags::CLOEXEC;
        #[cfg(target_vendor = "apple")]
        let flags = SocketFlags::empty();
        let (ours, theirs) = socketpair(AddressFamily::UNIX, kind, flags, None)?;
        for end in [&ours, &theirs] {
            #[cfg(target_vendor = "apple")]
            {
                rustix::io::fcntl_setfd(end, rustix::io::FdFlags::CLOEXEC)?;
                rustix::net::sockopt::set_socket_nosigpipe(end, true)?;
            }
            fcntl_setfl(end, fcntl_getfl(end)? | OFlags::NONBLOCK)?;
        }
        Ok((Self { end: Some(Arc::new(ours)), maker: Some(Origin::here()) }, theirs))
    }

    /// Duplicates a descriptor of an end. The new one is closed in programs that this process
    /// executes.
    pub(crate) fn of(end: BorrowedFd<'_>) -> io::Result<Self> {
        // From 3 on: 0 to 2 are the standard descriptors.
        Ok(Self { end: Some(Arc::new(fcntl_dupfd_cloexec(end, 3)?)), maker: None })
    }

    fn end(&self) -> BorrowedFd<'_> {
        self.end.as_ref().expect("it is not dropped").as_fd()
    }

    pub(crate) fn send(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Sent {
        send_to(self.end(), bytes, fds)
    }

    /// Receives the next message, if there is one. On Linux it is removed from the socket only
    /// after it was received with all its descriptors.
    pub(crate) fn receive(&self) -> Received {
        #[cfg(all(target_os = "linux", not(feature = "portable")))]
        let looked = {
            let looked = self.receive_with(RecvFlags::CMSG_CLOEXEC | RecvFlags::PEEK);
            match looked {
                // The descriptors came with the first read. A message that stayed would be received twice.
                Received::Message(_) if self.discard().is_none() => Received::Gone,
                looked => looked,
            }
        };
        #[cfg(all(
            not(all(target_os = "linux", not(feature = "portable"))),
            not(target_vendor = "apple")
        ))]
        let looked = self.receive_with(RecvFlags::CMSG_CLOEXEC);
        #[cfg(target_vendor = "apple")]
        let looked = self.receive_with(RecvFlags::empty());
        looked
    }

    /// Removes the next message from the socket without its descriptors, which needs no free
    /// descriptor. Returns its bytes.
    #[cfg_attr(
        not(all(target_os = "linux", not(feature = "portable"))),
        allow(dead_code, reason = "for tests there")
    )]
    pub(crate) fn discard(&self) -> Option<Vec<u8>> {
        discard(self.end())
    }

    /// The same for a message whose descriptors were not received. The system closes them with the message, and the
    /// other side can make this close take any time. So another thread removes the message. This one waits 2 s for that
    /// at most; then it returns an error.
    pub(crate) fn discard_unreceived(&self) -> Result<Option<Vec<u8>>, Garbled> {
        const LONGEST_CLOSE: Duration = Duration::from_secs(2);
        let Some(end) = self.end.clone() else { return Ok(None) };
        disposal::run(LONGEST_CLOSE, move || discard(end.as_fd())).ok_or(Garbled)
    }

    /// Closes the descriptors in its messages.
    fn close_messages(&self) {
        /// More messages than a socket holds. There is a bound since another process may go on sending at the other end.
        const MOST: usize = 1_000;
        for _ in 0..MOST {
            let Received::Message(Message { fds, .. }) = self.receive() else { break };
            disposal::close_here(fds);
        }
    }

    fn receive_with(&self, flags: RecvFlags) -> Received {
        let mut bytes = [0; LONGEST];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FDS))];
        let mut was_reset = false;
        loop {
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let received =
                recvmsg(self.end(), &mut [IoSliceMut::new(&mut bytes)], &mut control, flags);
            let received = match received {
                Ok(received) => received,
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => return Received::Nothing,
                // Reported once before the messages, if the other side closed with unread messages.
                Err(Errno::CONNRESET) if !was_reset => {
                    was_reset = true;
                    continue;
                }
                Err(Errno::CONNRESET | Errno::NOTCONN | Errno::PIPE) => return Received::Gone,
                Err(error) => return Received::Short(error),
            };
            let mut fds = Vec::new();
            for message in control.drain() {
                if let RecvAncillaryMessage::ScmRights(rights) = message {
                    fds.extend(rights);
                }
            }
            #[cfg(target_vendor = "apple")]
            for fd in &fds {
                let _ = rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::CLOEXEC);
            }
            // All that may be there came, and others were cut.
            let are_too_many = fds.len() >= MOST_FDS;
            match received.flags {
                flags if flags.contains(ReturnFlags::TRUNC) => return Received::Cut,
                flags if !flags.contains(ReturnFlags::CTRUNC) => {}
                _ if are_too_many => return Received::Cut,
                _ => return Received::Short(Errno::MFILE),
            }
            if received.bytes == 0 {
                return Received::Gone;
            }
            return Received::Message(Message { bytes: bytes[..received.bytes].to_vec(), fds });
        }
    }

    /// Waits until there is a message, or none will come. May return early.
    pub(crate) fn wait_readable(&self, timeout: Option<Duration>) {
        self.wait(PollFlags::IN, timeout);
    }

    /// Waits for this time. Whether there is a message then, or none will come.
    pub(crate) fn is_readable_within(&self, time: Duration) -> bool {
        let until = Instant::now() + time;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if self.wait(PollFlags::IN, Some(left)) || left.is_zero() {
                return self.wait(PollFlags::IN, Some(Duration::ZERO));
            }
        }
    }

    /// Waits until there is room for a message, or the other end is closed. May return early.
    pub(crate) fn wait_writable(&self, timeout: Duration) {
        self.wait(PollFlags::OUT, Some(timeout));
    }

    /// Whether the socket is ready for that, or closed.
    fn wait(&self, what: PollFlags, timeout: Option<Duration>) -> bool {
        let timeout = timeout.and_then(|timeout| timeout.try_into().ok());
        let ready = poll(&mut [PollFd::from_borrowed_fd(self.end(), what)], timeout.as_ref());
        ready.is_ok_and(|number| number > 0)
    }

    /// Ends all waits at this end, now and later. Messages that were sent to it can still be
    /// received on Linux; elsewhere they may be lost.
    pub(crate) fn shut_down(&self) {
        let _ = shutdown(self.end(), Shutdown::Both);
    }
}

impl Drop for Socket {
    /// With the socket, the descriptors in its messages are closed.
    fn drop(&mut self) {
        let Some(end) = self.end.take() else { return };
        // A copy of this process that was forked has only a duplicate as well.
        if self.maker.take().is_some_and(|maker| !maker.is_forked()) && may_have_messages(&end) {
            let socket = Self { end: Some(end), maker: None };
            disposal::start(move || socket.close_messages());
        }
    }
}

fn discard(end: BorrowedFd<'_>) -> Option<Vec<u8>> {
    let mut bytes = [0; LONGEST];
    let mut was_reset = false;
    loop {
        return match recv(end, &mut bytes[..], RecvFlags::empty()) {
            Ok((_, len)) => Some(bytes[..len.min(LONGEST)].to_vec()),
            Err(Errno::INTR) => continue,
            // As in `receive_with`: it may be reported between a look at a message and its removal.
            Err(Errno::CONNRESET) if !was_reset => {
                was_reset = true;
                continue;
            }
            Err(_) => None,
        };
    }
}

/// Whether there is a message, or one could still come.
fn may_have_messages(end: &OwnedFd) -> bool {
    let mut byte = [0];
    loop {
        return match recv(end, &mut byte[..], RecvFlags::PEEK | RecvFlags::DONTWAIT) {
            // CONNRESET is reported once, as in `receive_with`.
            Err(Errno::INTR | Errno::CONNRESET) => continue,
            // The other end is closed.
            Ok((_, 0)) | Err(Errno::NOTCONN | Errno::PIPE) => false,
            _ => true,
        };
    }
}

/// Sends a message through a descriptor of an end.
pub(crate) fn send_to(end: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Sent {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Sent::Short(Errno::INVAL);
    }
    #[cfg(not(target_vendor = "apple"))]
    let flags = SendFlags::NOSIGNAL;
    #[cfg(target_vendor = "apple")]
    let flags = SendFlags::empty();
    loop {
        return match sendmsg(end, &[IoSlice::new(bytes)], &mut control, flags) {
            Ok(_) => Sent::Yes,
            Err(Errno::INTR) => continue,
            // `TOOMANYREFS`: too many descriptors of this user are in sockets.
            Err(Errno::AGAIN | Errno::TOOMANYREFS) => Sent::NoRoom,
            Err(Errno::NOBUFS) if !cfg!(all(target_os = "linux", not(feature = "portable"))) => {
                Sent::NoRoom
            }
            Err(Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN | Errno::CONNREFUSED) => Sent::Gone,
            Err(error) => Sent::Short(error),
        };
    }
}

/// A number that identifies this end among all sockets of the system. `None` if it is not a socket.
pub(crate) fn identity(end: BorrowedFd<'_>) -> Option<u64> {
    let stat = fstat(end).ok()?;
    #[allow(clippy::unnecessary_cast, reason = "other systems have other types")]
    let inode = stat.st_ino as u64;
    (FileType::from_raw_mode(stat.st_mode) == FileType::Socket).then_some(inode)
}

/// The process that created the pair. `None` if this is not an end of one.
#[cfg(all(target_os = "linux", not(feature = "portable")))]
pub(crate) fn maker(end: BorrowedFd<'_>) -> Option<rustix::process::Pid> {
    use rustix::net::sockopt::{socket_domain, socket_peercred, socket_type};
    let is_one = socket_domain(end) == Ok(AddressFamily::UNIX)
        && socket_type(end) == Ok(SocketType::SEQPACKET);
    is_one.then(|| socket_peercred(end).ok()).flatten().map(|maker| maker.pid)
}

/// The process that created the pair, which this system does not tell.
#[cfg(not(all(target_os = "linux", not(feature = "portable"))))]
pub(crate) fn maker(_: BorrowedFd<'_>) -> Option<rustix::process::Pid> {
    None
}

/// Whether this process can open this number of descriptors now.
pub(crate) fn descriptors_are_free(number: usize) -> bool {
    let Ok((one, _other)) = io::pipe() else { return false };
    let more = (0..number).map(|_| one.try_clone());
    more.collect::<io::Result<Vec<_>>>().is_ok()
}

#[cfg(test)]
mod tests;
