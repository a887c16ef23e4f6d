//! Calls code that is not ours so that no panic escapes: the one place in which a task is run, for
//! all executors.

use std::any::Any;
use std::cell::RefCell;
use std::mem;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

use crate::error::TaskError;
use crate::task::{Context, Task};

/// Runs a task.
pub(crate) fn run<T: Task>(task: T, context: &Context) -> Result<T::Output, TaskError> {
    match catch(|| task.run(context)) {
        Ok(Ok(output)) => Ok(output),
        Ok(Err(failure)) => Err(TaskError::Failed(failure.into_cause())),
        Err(Panic { message, location }) => Err(TaskError::Panicked { message, location }),
    }
}

/// What is known of a panic that was caught.
pub(crate) struct Panic {
    pub message: String,
    pub location: Option<String>,
}

/// Calls code that is not ours: a task, its `Serialize` or `Deserialize`, a callback.
pub(crate) fn catch<R>(user_code: impl FnOnce() -> R) -> Result<R, Panic> {
    remember_where_panics_happen();
    panic::catch_unwind(AssertUnwindSafe(user_code))
        .map_err(|panic| Panic { message: message(panic), location: LAST_PANIC.take() })
}

/// Drops what is not ours: its `Drop` may panic as well.
pub(crate) fn discard<T>(value: T) {
    let _ = catch(|| drop(value));
}

/// Calls code that is not ours, whose panic is to go on when something else was done first.
pub(crate) fn hold<R>(user_code: impl FnOnce() -> R) -> Result<R, Box<dyn Any + Send>> {
    panic::catch_unwind(AssertUnwindSafe(user_code))
}

thread_local! {
    static LAST_PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// A panic's location is known only to the panic hook. Ours notes it and calls the one that was
/// there before, so that an application's own hook works on.
#[inline]
fn remember_where_panics_happen() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let location = info.location().map(ToString::to_string);
            // During the end of a thread its storage may be gone; the location is then unknown.
            let _ = LAST_PANIC.try_with(|last| *last.borrow_mut() = location);
            before(info);
        }));
    });
}

/// What a panic said, where it said it with text.
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
