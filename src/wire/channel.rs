//! The channel between a worker and the coordinator, where a signal may interrupt whoever is at it:
//! a program, or one of its tasks, may have set a timer.

use std::io;

use ipc_channel::IpcError;
use ipc_channel::ipc::{IpcReceiver, IpcSender};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Sends a message, which is made anew for each try: to send it is to give it away.
pub(crate) fn send<M: Serialize>(
    to: &IpcSender<M>,
    mut message: impl FnMut() -> M,
) -> Result<(), IpcError> {
    loop {
        let sent = to.send(message());
        if !sent.as_ref().is_err_and(is_interruption) {
            return sent;
        }
    }
}

/// Receives the next message.
pub(crate) fn receive<M: Serialize + DeserializeOwned>(
    from: &IpcReceiver<M>,
) -> Result<M, IpcError> {
    loop {
        let received = from.recv();
        if !received.as_ref().is_err_and(is_interruption) {
            return received;
        }
    }
}

/// Whether nobody is at the other end any more.
pub(super) fn is_gone(error: &IpcError) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionRefused, ConnectionReset, NotConnected};
    match error {
        IpcError::Disconnected => true,
        IpcError::Io(error) => {
            matches!(error.kind(), BrokenPipe | ConnectionRefused | ConnectionReset | NotConnected)
        }
        IpcError::SerializationError(_) => false,
    }
}

fn is_interruption(error: &IpcError) -> bool {
    matches!(error, IpcError::Io(error) if error.kind() == io::ErrorKind::Interrupted)
}
