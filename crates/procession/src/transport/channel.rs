//! The channel of the lifeline. Calls of the channel library fail when a signal interrupts them, for
//! example of a timer of the program; then they are repeated.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use ipc_channel::IpcError;
use ipc_channel::ipc;

use super::socket::descriptors_are_free;
use crate::panics;

/// Whether a signal interrupted a call of the channel library, which is then to be repeated.
pub(crate) fn is_interruption(error: &IpcError) -> bool {
    matches!(error, IpcError::Io(error) if error.kind() == io::ErrorKind::Interrupted)
}

fn repeated(call: impl Fn() -> Result<(), IpcError>) -> Result<(), ()> {
    loop {
        let done = call();
        if !done.as_ref().is_err_and(is_interruption) {
            return done.map_err(drop);
        }
    }
}

/// The descriptors that a handshake needs, and some for other threads.
const ENOUGH: usize = 14;

/// Checks that enough descriptors are free for a handshake. Without them the channel library
/// panics, and a panic at its first use leaves its statics in a broken state for good. So the first
/// use is here.
pub(crate) fn prepare() -> Result<(), Short> {
    if !descriptors_are_free(ENOUGH) {
        return Err(Short);
    }
    let warm = || -> Result<(), ()> {
        let (sender, receiver) = ipc::channel::<()>().map_err(drop)?;
        repeated(|| sender.send(()))?;
        repeated(|| receiver.recv())
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
