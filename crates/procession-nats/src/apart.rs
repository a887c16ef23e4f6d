//! [`apart`]: runs a function on a thread of its own, and waits for it. A runtime must not be entered on a thread that
//! runs another runtime, such as that of the asynchronous code of a program. [`ask`]: sends requests to the servers
//! from such a thread.

use std::io;
use std::panic::resume_unwind;
use std::thread;

use procession::PoolError;

use crate::link::Link;
use crate::settings::ConnectSettings;

/// # Errors
///
/// The system has no thread to give.
pub(crate) fn apart<T: Send>(run: impl FnOnce() -> T + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("apart".to_owned()).spawn_scoped(scope, run)?;
        Ok(thread.join().unwrap_or_else(|panic| resume_unwind(panic)))
    })
}

/// Connects to the servers, sends the requests of `question`, and waits for its result.
pub(crate) fn ask<T: Send>(
    settings: &ConnectSettings,
    question: impl AsyncFnOnce(&Link) -> Result<T, PoolError> + Send,
) -> Result<T, PoolError> {
    let system = |error: io::Error| PoolError::System(error.to_string());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(system)?;
    let answered =
        apart(move || runtime.block_on(async { question(&Link::connect(settings).await?).await }));
    answered.map_err(system)?
}
