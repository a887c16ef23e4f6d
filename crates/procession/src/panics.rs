//! Calls the user's code and catches its panics. All executors run tasks by [`run`].

use std::any::Any;
use std::backtrace::{Backtrace as Capture, BacktraceStatus};
use std::cell::{Cell, RefCell};
use std::mem;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

use crate::error::{TaskError, is_library};
use crate::task::{Context, Task};

/// Runs a task. A panic becomes [`TaskError::Panicked`].
pub(crate) fn run<T: Task>(task: T, context: &Context) -> Result<T::Output, TaskError> {
    // A task in this process may run another one: `Sequential` in a task.
    let before = RUNS_TASK.replace(true);
    let result = catch(|| __rust_begin_short_backtrace(|| task.run(context)));
    RUNS_TASK.set(before);
    match result {
        Ok(Ok(output)) => Ok(output),
        Ok(Err(failure)) => Err(TaskError::Failed(failure.into_cause())),
        Err(panic) => Err(panic.into()),
    }
}

/// Calls the task. By its name the standard library finds the end of the backtrace that it prints, and
/// [`calls_of_task`] that of the one that the error carries.
#[inline(never)]
fn __rust_begin_short_backtrace<R>(call: impl FnOnce() -> R) -> R {
    let result = call();
    // The call above is no tail call, so this function is in the backtrace.
    std::hint::black_box(());
    result
}

/// A caught panic: its message, and its location if known.
pub(crate) struct Panic {
    pub message: String,
    pub location: Option<String>,
    /// See [`TaskError::Panicked`].
    pub backtrace: Vec<String>,
}

impl From<Box<Panic>> for TaskError {
    fn from(panic: Box<Panic>) -> Self {
        let Panic { message, location, backtrace } = *panic;
        Self::Panicked { message, location, backtrace }
    }
}

/// Calls the program's code: a task, its `Serialize` or `Deserialize`, a callback. A panic is in a box,
/// since most results are none, and each task has several of these.
#[inline]
pub(crate) fn catch<R>(user_code: impl FnOnce() -> R) -> Result<R, Box<Panic>> {
    install_hook();
    match panic::catch_unwind(AssertUnwindSafe(user_code)) {
        Ok(result) => Ok(result),
        Err(panic) => Err(caught(panic)),
    }
}

/// What was caught. It is not generic, so that it is compiled once, and not with each call of [`catch`].
#[cold]
fn caught(panic: Box<dyn Any + Send>) -> Box<Panic> {
    let (location, capture) = LAST_PANIC.try_with(RefCell::take).ok().flatten().unwrap_or_default();
    let backtrace = capture.map_or_else(Vec::new, |capture| calls_of_task(&capture.to_string()));
    Box::new(Panic { message: message(panic), location, backtrace })
}

/// Drops a value of the program, whose `Drop` may panic.
#[inline]
pub(crate) fn discard<T>(value: T) {
    if mem::needs_drop::<T>() {
        let mut value = Some(value);
        drop_by(&mut || drop(value.take()));
    }
}

/// It is compiled once, and not for each type.
fn drop_by(drop: &mut dyn FnMut()) {
    let _ = catch(drop);
}

/// Calls the program's code and returns its panic, which the caller resumes later.
pub(crate) fn hold<R>(user_code: impl FnOnce() -> R) -> Result<R, Box<dyn Any + Send>> {
    panic::catch_unwind(AssertUnwindSafe(user_code))
}

thread_local! {
    /// The location of the last panic, and the calls that it came from.
    static LAST_PANIC: RefCell<Option<(Option<String>, Option<Capture>)>> = const { RefCell::new(None) };
    /// This thread runs a task.
    static RUNS_TASK: Cell<bool> = const { Cell::new(false) };
}

/// Most calls of a backtrace, and most characters of one.
pub(crate) const MOST_CALLS: usize = 50;
const MOST_CHARS: usize = 300;

/// The calls of the task in a backtrace, as the standard library writes it: without those of the panic, and
/// without those that called the task.
fn calls_of_task(text: &str) -> Vec<String> {
    let mut calls: Vec<String> = Vec::new();
    for line in text.lines().map(str::trim_start) {
        match (line.strip_prefix("at "), line.split_once(": "), calls.last_mut()) {
            (Some(place), _, Some(call)) => call.extend([" at ", place]),
            (_, Some((number, function)), _) if number.parse::<u32>().is_ok() => {
                calls.push(function.to_owned());
            }
            _ => {}
        }
    }
    if let Some(end) = calls.iter().position(|call| call.contains("__rust_begin_short_backtrace")) {
        calls.truncate(end);
    }
    let begin = calls.iter().position(|call| !is_library(call)).unwrap_or(calls.len());
    let end = calls.iter().rposition(|call| !is_library(call)).map_or(begin, |last| last + 1);
    let of_task = calls.drain(begin..end).take(MOST_CALLS);
    of_task.map(|call| call.chars().take(MOST_CHARS).collect()).collect()
}

/// Installs a panic hook that keeps the location of the last panic of each thread, which only a hook
/// gets. It calls the hook that was installed before.
#[inline]
fn install_hook() {
    static ONCE: Once = Once::new();
    if !ONCE.is_completed() {
        install_hook_once(&ONCE);
    }
}

#[cold]
fn install_hook_once(once: &Once) {
    once.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let location = info.location().map(ToString::to_string);
            // At the end of a thread its thread-locals may be gone.
            let runs_task = RUNS_TASK.try_with(Cell::get).unwrap_or_default();
            let capture = runs_task.then(Capture::capture);
            let capture = capture.filter(|it| it.status() == BacktraceStatus::Captured);
            let _ = LAST_PANIC.try_with(|last| *last.borrow_mut() = Some((location, capture)));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_calls_of_a_task_are_those_between_the_panic_and_the_pool() {
        let text = "   0: <std::backtrace::Backtrace>::create
             at /rustc/1/library/std/src/backtrace.rs:331:13
   1: procession::panics::install_hook::{closure#0}
   2: core::option::expect_failed
   3: app::inner
             at ./src/main.rs:7:5
   4: <core::slice::Iter<T> as core::iter::Iterator>::fold
   5: <app::thumb as procession::task::Task>::run
             at ./src/main.rs:3:1
   6: procession::panics::run::{{closure}}
   7: procession::panics::__rust_begin_short_backtrace
   8: app::main
";
        let calls = [
            "app::inner at ./src/main.rs:7:5",
            "<core::slice::Iter<T> as core::iter::Iterator>::fold",
            "<app::thumb as procession::task::Task>::run at ./src/main.rs:3:1",
        ];
        assert_eq!(calls_of_task(text), calls);
        assert_eq!(calls_of_task("unsupported backtrace"), [""; 0]);
        let many: String = (0..100).map(|n| format!("{n}: app::{}\n", "x".repeat(1000))).collect();
        let calls = calls_of_task(&many);
        assert!(calls.len() == MOST_CALLS && calls.iter().all(|it| it.len() == MOST_CHARS));
    }
}
