//! The lifeline: it breaks when the coordinator ends, and this process ends with it.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;
use std::{io, thread};

use ipc_channel::ipc::{IpcOneShotServer, IpcReceiver};
use ipc_channel::{IpcError, TryRecvError};
use rustix::fs::Access;

use super::origin::is_child_of;
use super::{end_at_once, refused};
use crate::panics;
use crate::transport::{self, Garbled, HandshakeMessage, Invitation, Lifeline, Socket};
use procession_os as os;
use procession_os::threads::ThreadSpec;

/// The longest wait for the lifeline.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// A server for the lifeline, and its name. `None` if there is no directory or descriptor for it: this
/// process then watches the process id of its parent alone.
pub(super) fn lifeline_server(
    invitation: &Invitation,
) -> Option<(IpcOneShotServer<Lifeline>, String)> {
    /// The longest path of a socket is 104 bytes on some systems; the channel library adds 18.
    const LONGEST_DIR: usize = 80;
    let dir = Path::new(&invitation.awaited);
    if invitation.awaited.len() > LONGEST_DIR || !dir.is_absolute() {
        return None;
    }
    // The channel library panics if it cannot make a directory there: a wrapper may run this process as another
    // user.
    rustix::fs::access(dir, Access::WRITE_OK | Access::EXEC_OK).ok()?;
    // The channel library panics if it finds no free descriptor.
    panics::catch(|| {
        transport::prepare().ok()?;
        // The coordinator removes that directory if this process is killed.
        os::environment::with_temporary_directory(dir, || IpcOneShotServer::new().ok())
    })
    .ok()?
}

/// Waits for the lifeline. Any process of the user can connect to the server: then there is no lifeline.
pub(super) fn accept_lifeline(
    server: IpcOneShotServer<Lifeline>,
    invitation: &Invitation,
) -> Option<IpcReceiver<()>> {
    // The library has no wait that ends, but a signal interrupts it.
    let accept = || panics::catch(|| server.accept().ok());
    let (_, Lifeline { token, end }) =
        os::signals::interrupting_after(LONGEST_WAIT, accept).ok()??;
    (token == invitation.token).then_some(end)
}

/// The next message of the handshake. Ends this process if the coordinator is not its parent any more. A process that
/// was forked from the coordinator may hold the other end of the socket, which then never closes.
pub(super) fn receive(
    socket: &Socket,
    coordinator: u32,
) -> Result<Option<(HandshakeMessage, Vec<OwnedFd>)>, Garbled> {
    let received = HandshakeMessage::receive_while(socket, || is_child_of(coordinator));
    if matches!(received, Ok(None)) && !is_child_of(coordinator) {
        end_at_once();
    }
    received
}

/// Interval at which the parent's process id is checked. The lifeline is not enough: a process that was
/// forked from the coordinator may hold its other end.
const ASK_FOR_THE_COORDINATOR: Duration = Duration::from_secs(1);

/// Ends this process when the lifeline breaks, or the coordinator is not its parent any more. Until
/// then, frees what is not used any more.
pub(super) fn hold_the_lifeline(
    lifeline: Option<IpcReceiver<()>>,
    coordinator: u32,
    stack: Option<usize>,
    tidy: impl Fn() + Send + 'static,
) -> io::Result<()> {
    let thread = ThreadSpec::new("lifeline").with_stack(stack);
    let thread = thread.start_with_retries(move || {
        // Continues a stopped process, whose threads could not end it otherwise.
        #[cfg(all(target_os = "linux", not(feature = "portable")))]
        let _ =
            rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::CONT));
        while is_child_of(coordinator) {
            tidy();
            // If the channel library panics, the check of the parent still works.
            let Some(lifeline) = &lifeline else {
                thread::sleep(ASK_FOR_THE_COORDINATOR);
                continue;
            };
            match panics::catch(|| lifeline.try_recv_timeout(ASK_FOR_THE_COORDINATOR)) {
                Ok(Err(TryRecvError::IpcError(IpcError::Disconnected))) => break,
                Ok(Ok(()) | Err(TryRecvError::Empty)) => {}
                // A task may have closed the descriptor of the lifeline.
                Ok(Err(_)) | Err(_) => thread::sleep(ASK_FOR_THE_COORDINATOR),
            }
        }
        end_at_once();
    });
    thread.map(drop).map_err(refused)
}
