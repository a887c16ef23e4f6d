//! The channels of the handshake. Calls of the channel library fail when a signal interrupts them,
//! for example of a timer of the program; here they are repeated.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use ipc_channel::IpcError;
use ipc_channel::ipc::{self, IpcReceiver, IpcSender};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::socket::descriptors_are_free;
use crate::panics;

/// Sends a message. Each try consumes one, so `message` makes them.
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

/// The descriptors that a handshake needs, and some for other threads.
const ENOUGH: usize = 12;

/// Checks that enough descriptors are free for a handshake. Without them the channel library
/// panics, and a panic at its first use leaves its statics in a broken state for good. So the first
/// use is here.
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
