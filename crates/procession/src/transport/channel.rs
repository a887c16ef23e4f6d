//! The channel of the handshake, where a signal may interrupt a call: the program may have set a
//! timer.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use ipc_channel::IpcError;
use ipc_channel::ipc::{self, IpcReceiver, IpcSender};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::socket::descriptors_are_free;
use crate::panics;

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

fn is_interruption(error: &IpcError) -> bool {
    matches!(error, IpcError::Io(error) if error.kind() == io::ErrorKind::Interrupted)
}

/// As many descriptors as a handshake takes, and some for what other threads do meanwhile.
const ENOUGH: usize = 12;

/// Makes sure that the channel library finds the descriptors for a handshake: it panics where there
/// are none, and what it settles at its first use would stay as it was settled then.
pub(crate) fn prepare() -> Result<(), Short> {
    if !descriptors_are_free(ENOUGH) {
        return Err(Short);
    }
    let warm = || -> Result<(), ()> {
        let (sender, receiver) = ipc::channel::<()>().map_err(drop)?;
        send(&sender, || ()).map_err(drop)?;
        receive(&receiver).map_err(drop)
    };
    static IS_WARM: AtomicBool = AtomicBool::new(false);
    if !IS_WARM.load(Ordering::Acquire) {
        panics::catch(warm).map_err(|_| Short)?.map_err(|()| Short)?;
        IS_WARM.store(true, Ordering::Release);
    }
    Ok(())
}

/// Too few descriptors are free for a handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too few file descriptors are free")]
pub(crate) struct Short;
