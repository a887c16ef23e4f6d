//! Starts threads where the system may refuse one, because there are too many or there is no memory for its
//! stack. The refusal may be temporary or permanent.

use std::ffi::OsStr;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle, sleep};
use std::time::Duration;

use rustix::io::Errno;

use crate::memory;

/// The default stack size of a thread, in bytes.
pub const USUAL_STACK: usize = 2 << 20;

/// A thread with a smaller stack than this would overflow it, which ends the whole program: code that
/// is not optimized takes several times as much as code that is.
const LEAST_STACK: usize = 256 * 1024;

/// What a limit of memory must leave for all that is not a stack. A thread that took the last of it
/// would have the next allocation end the process.
const LEFT_FOR_THE_REST: usize = 16 << 20;

/// Whether the first thread of this process, whose stack is limited by `ulimit -s`, may use less than
/// this many bytes of it.
pub fn main_has_less_than(bytes: usize) -> bool {
    use rustix::process::{Resource, getrlimit};
    getrlimit(Resource::Stack).current.is_some_and(|most| most < bytes as u64)
}

/// What a program's main thread may count on, in bytes.
const MAIN_STACK: usize = 1 << 20;

/// Runs the body of a program's `main` with a stack that does not depend on `ulimit -s`: on a thread of
/// its own where that limit is low.
///
/// # Errors
///
/// If there is no such thread, in which case the body does not run.
pub fn with_enough_stack<R: Send + 'static>(
    body: impl FnOnce() -> R + Send + 'static,
) -> io::Result<R> {
    if !main_stack_is_small() {
        return Ok(body());
    }
    let thread = ThreadSpec::new("main").with_stack(Some(USUAL_STACK)).start_with_retries(body)?;
    thread.join().or_else(|panic| std::panic::resume_unwind(panic))
}

/// Whether the limit of the main thread's stack is so low that [`with_enough_stack`] starts a thread.
pub fn main_stack_is_small() -> bool {
    main_has_less_than(MAIN_STACK)
}

/// The name and the stack of a thread.
#[derive(Debug, Clone)]
pub struct ThreadSpec {
    /// Shown by debuggers; Linux cuts it after 15 bytes.
    pub name: String,
    /// In bytes; `None`: the default.
    pub stack: Option<usize>,
}

impl ThreadSpec {
    /// A thread of this name with the usual stack.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), stack: None }
    }

    /// The same with a stack of this size in bytes, or of 256 KiB if that is larger; `None` is
    /// the usual one.
    pub fn with_stack(self, stack: Option<usize>) -> Self {
        Self { stack: stack.map(|bytes| bytes.max(LEAST_STACK)), ..self }
    }

    /// Starts the thread, unless a limit of memory leaves too little for all the rest then.
    pub fn start<R: Send + 'static>(
        self,
        body: impl FnOnce() -> R + Send + 'static,
    ) -> io::Result<JoinHandle<R>> {
        self.check_room()?;
        self.start_unchecked(body)
    }

    /// An error if a limit of memory leaves too little for the stack of the thread and [`LEFT_FOR_THE_REST`].
    fn check_room(&self) -> io::Result<()> {
        match memory::has_room(self.stack_bytes().saturating_add(LEFT_FOR_THE_REST)) {
            true => Ok(()),
            false => Err(Errno::NOMEM.into()),
        }
    }

    fn builder(self) -> Builder {
        let stack = self.stack_bytes();
        Builder::new().name(self.name).stack_size(stack)
    }

    /// Starts the thread, however little is left for the rest.
    pub fn start_unchecked<R: Send + 'static>(
        self,
        body: impl FnOnce() -> R + Send + 'static,
    ) -> io::Result<JoinHandle<R>> {
        spawn(self.builder(), Box::new(body))
    }

    /// The size of its stack, in bytes.
    fn stack_bytes(&self) -> usize {
        self.stack.unwrap_or_else(|| usual_stack(std::env::var_os("RUST_MIN_STACK").as_deref()))
    }

    /// Runs the body on such a thread, and waits for its end. The error inside is its panic.
    ///
    /// # Errors
    ///
    /// If the thread cannot be started, or if a limit of memory would leave too little for everything else.
    pub fn run<R: Send>(
        self,
        body: impl FnOnce() -> R + Send,
    ) -> io::Result<std::thread::Result<R>> {
        self.check_room()?;
        let mut result = None;
        let ended = run_scoped(self.builder(), Box::new(|| result = Some(body())))?;
        Ok(ended.map(|()| result.expect("the body has returned")))
    }

    /// Starts a thread that the program cannot do without: repeats the try during a shortage.
    pub fn start_with_retries<R: Send + 'static>(
        self,
        body: impl FnOnce() -> R + Send + 'static,
    ) -> io::Result<JoinHandle<R>> {
        start_with_retries(&self, Box::new(body))
    }
}

/// As [`ThreadSpec::start_with_retries`], generic only over the result.
fn start_with_retries<R: Send + 'static>(
    thread: &ThreadSpec,
    body: Box<dyn FnOnce() -> R + Send>,
) -> io::Result<JoinHandle<R>> {
    let body = Arc::new(Mutex::new(Some(body)));
    let mut pauses = pauses();
    loop {
        let taken = Arc::clone(&body);
        let started = thread.clone().start_unchecked(move || {
            let body = taken.lock().unwrap_or_else(PoisonError::into_inner).take();
            body.expect("one of the threads was started")()
        });
        match started {
            Err(error) if is_short(&error) => match pauses.next() {
                Some(pause) => sleep(pause),
                None => return Err(error),
            },
            started => return started,
        }
    }
}

/// Starts a thread. It is generic only over the result, so that the standard library's code is not compiled for each type
/// of body.
fn spawn<R: Send + 'static>(
    builder: Builder,
    body: Box<dyn FnOnce() -> R + Send>,
) -> io::Result<JoinHandle<R>> {
    builder.spawn(body)
}

/// Runs the body on a thread, and waits for its end. It is not generic, for the same reason.
fn run_scoped(
    builder: Builder,
    body: Box<dyn FnOnce() + Send + '_>,
) -> io::Result<std::thread::Result<()>> {
    std::thread::scope(|scope| Ok(builder.spawn_scoped(scope, body)?.join()))
}

/// The stack of a thread that names no size: that of the standard library, which the variable `RUST_MIN_STACK` sets,
/// but never so small that the thread would overflow it.
fn usual_stack(variable: Option<&OsStr>) -> usize {
    let typed = variable.and_then(|typed| typed.to_str()?.parse::<usize>().ok());
    typed.unwrap_or(USUAL_STACK).max(LEAST_STACK)
}

/// Whether a thread could not be started because of a shortage that may pass.
pub fn is_short(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::OutOfMemory)
}

/// That a thread could not be started, with what a shortage may be of: the system's text names neither.
pub fn refusal(error: &io::Error) -> String {
    let cause = match error.kind() {
        io::ErrorKind::WouldBlock => {
            ": too many processes and threads (ulimit -u), or no memory for a stack"
        }
        _ => "",
    };
    format!("cannot start a thread: {error}{cause}")
}

/// The pauses between tries, of one and a half seconds in all.
pub fn pauses() -> impl Iterator<Item = Duration> {
    const FIRST: Duration = Duration::from_millis(10);
    const LONGEST: Duration = Duration::from_millis(250);
    const TRIES: usize = 10;
    let double = |pause: &Duration| Some((*pause * 2).min(LONGEST));
    std::iter::successors(Some(FIRST), double).take(TRIES)
}

/// Names the calling thread; in the main thread, on Linux, that is what the process list shows. Elsewhere
/// it does nothing.
pub fn name_this_thread(name: &std::ffi::CStr) {
    #[cfg(all(target_os = "linux", not(feature = "portable")))]
    {
        // A name that is too long is cut; nothing depends on it.
        let _ = rustix::thread::set_name(name);
    }
    #[cfg(not(all(target_os = "linux", not(feature = "portable"))))]
    let _ = name;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_the_limit_that_may_be_too_low() {
        let refused = |errno| refusal(&io::Error::from(errno));
        assert!(refused(Errno::AGAIN).ends_with("or no memory for a stack"));
        assert!(refused(Errno::NOMEM).ends_with(')'));
    }

    #[test]
    fn the_variable_of_the_standard_library_sets_no_stack_that_is_too_small() {
        let usual = |typed: &str| usual_stack(Some(OsStr::new(typed)));
        assert_eq!([usual("1"), usual("16384")], [LEAST_STACK; 2]);
        assert_eq!([usual("x"), usual(""), usual("-1"), usual_stack(None)], [USUAL_STACK; 4]);
        assert_eq!(usual("8388608"), 8 << 20);
    }

    #[test]
    fn a_thread_that_is_started_with_retries_runs_once() {
        let thread = ThreadSpec::new("counts").with_stack(Some(128 << 10));
        let thread = thread.start_with_retries(|| std::thread::current().name().map(str::to_owned));
        assert_eq!(thread.expect("a thread").join().expect("no panic").as_deref(), Some("counts"));
        let patience: Duration = pauses().sum();
        assert!((Duration::from_secs(1)..Duration::from_secs(2)).contains(&patience));
    }
}
