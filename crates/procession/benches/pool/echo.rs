//! What round trips are compared with: a SEQPACKET socket pair, and a process at its other end that sends
//! back what it gets.

use std::env;
use std::io;
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};

use rustix::io::{FdFlags, fcntl_setfd};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair,
};

/// About as much as a small task takes.
pub(crate) const MESSAGE: [u8; 64] = [7; 64];

/// Tells this program that it is the peer.
pub(crate) const VARIABLE: &str = "PROCESSION_BENCH_ECHO";

/// The near end, and the process at the far one.
pub(crate) struct Echo {
    socket: OwnedFd,
    process: Child,
}

impl Echo {
    /// Starts this program as the peer, with a variable in its environment.
    pub(crate) fn start(env: (&str, &str)) -> io::Result<Self> {
        let (socket, far) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::empty(), None)?;
        // Else the peer would hold our end as well, and never see it closed.
        fcntl_setfd(&socket, FdFlags::CLOEXEC)?;
        let mut command = Command::new(env::current_exe()?);
        command.env(VARIABLE, "1").env(env.0, env.1);
        let process = command.stdin(Stdio::from(far)).spawn()?;
        Ok(Self { socket, process })
    }

    /// There and back.
    pub(crate) fn round_trip(&self) -> io::Result<()> {
        send(&self.socket, &MESSAGE, SendFlags::empty())?;
        let mut buffer = MESSAGE;
        match recv(&self.socket, &mut buffer, RecvFlags::empty())? {
            (_, length) if length == MESSAGE.len() => Ok(()),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// If this process was started as the peer: sends back what comes on its standard input, which is
/// the socket, until that is closed.
pub(crate) fn serve_if_asked() {
    if env::var_os(VARIABLE).is_none() {
        return;
    }
    let socket = io::stdin();
    let mut buffer = [0; 1024];
    while let Ok((_, length @ 1..)) = recv(&socket, &mut buffer, RecvFlags::empty()) {
        if send(&socket, &buffer[..length], SendFlags::empty()).is_err() {
            break;
        }
    }
    std::process::exit(0);
}
