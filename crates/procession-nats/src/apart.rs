//! [`apart`]: runs something on a thread of its own, and waits for it. A runtime must not be entered on a thread
//! that runs another one, as it does in the asynchronous code of a program.

use std::io;
use std::panic::resume_unwind;
use std::thread;

/// # Errors
///
/// The system has no thread to give.
pub(crate) fn apart<T: Send>(run: impl FnOnce() -> T + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("apart".to_owned()).spawn_scoped(scope, run)?;
        Ok(thread.join().unwrap_or_else(|panic| resume_unwind(panic)))
    })
}
