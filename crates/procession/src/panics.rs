//! Calls the user's code and catches its panics. All executors run tasks by [`run`].

use std::any::Any;
use std::cell::RefCell;
use std::mem;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

use crate::error::TaskError;
use crate::task::{Context, Task};

/// Runs a task. A panic becomes [`TaskError::Panicked`].
pub(crate) fn run<T: Task>(task: T, context: &Context) -> Result<T::Output, TaskError> {
    match catch(|| task.run(context)) {
        Ok(Ok(output)) => Ok(output),
        Ok(Err(failure)) => Err(TaskError::Failed(failure.into_cause())),
        Err(Panic { message, location }) => Err(TaskError::Panicked { message, location }),
    }
}

/// A caught panic: its message, and its location if known.
pub(crate) struct Panic {
    pub message: String,
    pub location: Option<String>,
}

/// Calls the program's code: a task, its `Serialize` or `Deserialize`, a callback.
pub(crate) fn catch<R>(user_code: impl FnOnce() -> R) -> Result<R, Panic> {
    install_hook();
    panic::catch_unwind(AssertUnwindSafe(user_code))
        .map_err(|panic| Panic { message: message(panic), location: LAST_PANIC.take() })
}

/// Drops a value of the program, whose `Drop` may panic.
pub(crate) fn discard<T>(value: T) {
    let _ = catch(|| drop(value));
}

/// Calls the program's code and returns its panic, which the caller resumes later.
pub(crate) fn hold<R>(user_code: impl FnOnce() -> R) -> Result<R, Box<dyn Any + Send>> {
    panic::catch_unwind(AssertUnwindSafe(user_code))
}

thread_local! {
    static LAST_PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Installs a panic hook that keeps the location of the last panic of each thread, which only a hook
/// gets. It calls the hook that was installed before.
#[inline]
fn install_hook() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let location = info.location().map(ToString::to_string);
            // At the end of a thread its thread-locals may be gone.
            let _ = LAST_PANIC.try_with(|last| *last.borrow_mut() = location);
            before(info);
        }));
    });
}

/// The message of a panic, if it is text.
fn message(panic: Box<dyn Any + Send>) -> String {
    match panic.downcast::<String>() {
        Ok(text) => *text,
        Err(panic) => match panic.downcast::<&'static str>() {
            Ok(text) => (*text).to_owned(),
            Err(panic) => {
                if let Err(again) = panic::catch_unwind(AssertUnwindSafe(|| drop(panic))) {
                    mem::forget(again);
                }
                "a panic without a message".to_owned()
            }
        },
    }
}
