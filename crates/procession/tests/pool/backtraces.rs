//! The error of a worker that crashed has the calls in which it did.

#![allow(unsafe_code, reason = "a task that forks")]

use std::time::Duration;

use libtest_mimic::Trial;
use procession::{
    Context, Death, Executor, Exit, Failure, ProcessPool, Registry, Task, TaskError, TaskOptions,
};
use rustix::process::Signal;
use serde::{Deserialize, Serialize};

use crate::harness::skip;
use crate::tasks::{Bad, Ending, pool, quiet, succeeds_with};

pub(crate) fn trials() -> Vec<Trial> {
    trials![
        a_segfault_in_a_function_of_c_is_told_with_its_name,
        an_abort_in_a_function_of_c_is_told_with_its_name,
        a_call_of_a_null_pointer_names_its_caller,
        a_jump_to_nowhere_from_a_lost_stack_is_told_without_calls,
        a_walk_that_crashes_ends_the_process_by_the_first_signal,
        a_walk_that_takes_too_long_ends_the_process_by_the_first_signal,
        a_stack_overflow_is_told_with_the_function_that_recurses,
        a_crash_of_a_thread_that_a_task_has_started_is_told,
        a_crash_in_a_chunk_is_told,
        a_crash_among_several_tasks_at_a_time_is_told,
        a_crash_is_told_though_a_forked_child_crashed_before,
        a_worker_that_was_killed_has_no_calls_to_tell,
        a_panic_has_the_calls_of_its_task_where_backtraces_are_on,
    ]
}

pub(crate) fn add_to(registry: Registry) -> Registry {
    let registry = registry.with::<Decode>().with::<Recurse>().with::<LoseTheStack>();
    registry.with::<CrashThread>().with::<CrashChild>()
}

/// Calls the decoder in C.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Decode(Vec<u8>);

impl Decode {
    /// An image whose first row is far behind its end.
    pub(crate) fn broken() -> Self {
        Self(vec![255; 7])
    }

    fn good() -> Self {
        Self(vec![0, 0, 0, 0, 1, 2, 3])
    }
}

impl Task for Decode {
    const NAME: &'static str = "decode";
    type Output = u32;

    fn run(self, _: &Context) -> Result<u32, Failure> {
        Ok(example_c_library::decode(&self.0))
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Recurse;

impl Task for Recurse {
    const NAME: &'static str = "recurse";
    type Output = u64;

    fn run(self, _: &Context) -> Result<u64, Failure> {
        Ok(recurse_for_ever(1))
    }
}

#[inline(never)]
fn recurse_for_ever(depth: u64) -> u64 {
    let frame = std::hint::black_box([depth; 64]);
    if depth == 0 { 0 } else { recurse_for_ever(depth + 1) + frame[63] }
}

/// Crashes with a stack that cannot be walked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum LoseTheStack {
    /// At an instruction that does not exist, with a stack where there is no memory.
    NoMemory,
    /// The same, with a stack in memory that another process would have to fill, and which nothing does.
    NeverFilled,
    /// By a jump to where there is no memory.
    Jump,
}

impl Task for LoseTheStack {
    const NAME: &'static str = "lose the stack";
    type Output = bool;

    fn run(self, _: &Context) -> Result<bool, Failure> {
        const NOWHERE: usize = 4096;
        let stack = match self {
            Self::NeverFilled => match never_filled() {
                Some(stack) => stack,
                None => return Ok(false),
            },
            Self::NoMemory | Self::Jump => NOWHERE,
        };
        lose_the_stack(stack, (self == Self::Jump).then_some(NOWHERE));
        Ok(true)
    }
}

/// Goes on with this stack: at an address, or at an instruction that does not exist.
#[cfg(target_arch = "x86_64")]
#[inline(never)]
fn lose_the_stack(stack: usize, jump_to: Option<usize>) {
    // SAFETY: none of this comes back.
    unsafe {
        if let Some(address) = jump_to {
            std::arch::asm!("mov rsp, {0}", "mov rbp, {0}", "jmp {1}", in(reg) stack, in(reg) address);
        }
        std::arch::asm!("mov rsp, {0}", "mov rbp, {0}", "ud2", in(reg) stack);
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn lose_the_stack(_: usize, _: Option<usize>) {}

/// An address in memory for which the system asks its user, which never answers; `None` if the system does
/// not do so.
#[cfg(target_os = "linux")]
fn never_filled() -> Option<usize> {
    const USER_MODE_ONLY: libc::c_int = 1;
    const API: libc::Ioctl = 0xc018_aa3f_u32 as libc::Ioctl;
    const REGISTER: libc::Ioctl = 0xc020_aa00_u32 as libc::Ioctl;
    const LENGTH: usize = 1 << 16;
    let (access, flags) =
        (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: new memory that nothing else uses, and structures of the right length.
    unsafe {
        let fd = libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC | USER_MODE_ONLY) as i32;
        let memory = libc::mmap(std::ptr::null_mut(), LENGTH, access, flags, -1, 0);
        let mut api = [0xaa_u64, 0, 0];
        let missing = 1;
        let mut register = [memory as u64, LENGTH as u64, missing, 0];
        let is_done = fd >= 0
            && memory != libc::MAP_FAILED
            && libc::ioctl(fd, API, api.as_mut_ptr()) == 0
            && libc::ioctl(fd, REGISTER, register.as_mut_ptr()) == 0;
        is_done.then_some(memory as usize + LENGTH / 2)
    }
}

#[cfg(not(target_os = "linux"))]
fn never_filled() -> Option<usize> {
    None
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct CrashThread;

impl Task for CrashThread {
    const NAME: &'static str = "crash thread";
    type Output = u32;

    fn run(self, _: &Context) -> Result<u32, Failure> {
        let thread = std::thread::spawn(|| example_c_library::decode(&Decode::broken().0));
        Ok(thread.join().map_err(|_| "it panicked")?)
    }
}

/// A child of the task crashes, which is no fault of the worker; then the task itself aborts.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct CrashChild;

impl Task for CrashChild {
    const NAME: &'static str = "crash child";
    type Output = u32;

    fn run(self, _: &Context) -> Result<u32, Failure> {
        // SAFETY: the child calls one function that allocates nothing.
        let child = unsafe { libc::fork() };
        if child == 0 {
            example_c_library::decode(&[255; 7]);
        }
        // SAFETY: it takes a number and writes nothing.
        unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
        Ok(example_c_library::decode(&[]))
    }
}

#[track_caller]
fn death<T: Task>(pool: &ProcessPool, task: T) -> Death {
    match pool.submit(task).result().map(drop) {
        Err(TaskError::WorkerDied(death)) => *death,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn tells(death: &Death, signal: Signal, calls: &str) {
    assert_eq!(death.exit, Exit::Signal(signal.as_raw()));
    let text = death.to_string();
    assert!(text.contains(&format!(", in {calls}")), "{text}\n{:?}", death.backtrace);
}

/// The functions of Rust that called C. Optimized code jumps from the innermost one to C, so that one has no frame.
fn called_by_rust() -> &'static str {
    match cfg!(debug_assertions) {
        true => " <- example_c_library::decode <- pool::backtraces::Decode",
        false => " <- pool::backtraces::Decode",
    }
}

fn a_segfault_in_a_function_of_c_is_told_with_its_name() {
    let pool = pool(1);
    let death = death(&pool, Decode::broken());
    tells(&death, Signal::SEGV, &format!("decode_row <- decode_image{}", called_by_rust()));
    let backtrace = death.backtrace.expect("the calls");
    let file = backtrace.frames()[0].file.as_deref();
    assert_eq!(file, std::env::current_exe().ok().as_deref());
    succeeds_with(&pool, 10);
}

fn an_abort_in_a_function_of_c_is_told_with_its_name() {
    let death = death(&pool(1), Decode(vec![1]));
    // An optimizing compiler calls the part with `abort` `decode_image.cold`.
    let part = if cfg!(debug_assertions) { "" } else { ".cold" };
    tells(&death, Signal::ABORT, &format!("decode_image{part}{}", called_by_rust()));
}

fn a_call_of_a_null_pointer_names_its_caller() {
    let death = death(&pool(1), Decode(vec![254; 7]));
    tells(&death, Signal::SEGV, &format!("decode_image{}", called_by_rust()));
}

/// What became of the task, unless it cannot be run here.
fn lose(how: LoseTheStack) -> Death {
    match pool(1).submit(how).result() {
        Err(TaskError::WorkerDied(death)) => *death,
        Ok(_) => skip("the stack cannot be lost on this system"),
        other => panic!("{other:?}"),
    }
}

fn a_jump_to_nowhere_from_a_lost_stack_is_told_without_calls() {
    let death = lose(LoseTheStack::Jump);
    assert_eq!((death.exit, death.backtrace), (Exit::Signal(Signal::SEGV.as_raw()), None));
}

fn a_walk_that_crashes_ends_the_process_by_the_first_signal() {
    tells(&lose(LoseTheStack::NoMemory), Signal::ILL, "pool::backtraces::lose_the_stack");
}

fn a_walk_that_takes_too_long_ends_the_process_by_the_first_signal() {
    tells(&lose(LoseTheStack::NeverFilled), Signal::ILL, "pool::backtraces::lose_the_stack");
}

fn a_stack_overflow_is_told_with_the_function_that_recurses() {
    let death = death(&pool(1), Recurse);
    // The standard library recognises the overflow, says so, and aborts.
    tells(&death, Signal::ABORT, "pool::backtraces::recurse_for_ever");
    assert!(death.last_output.iter().any(|line| line.contains("overflowed its stack")));
}

fn a_crash_of_a_thread_that_a_task_has_started_is_told() {
    let death = death(&pool(1), CrashThread);
    tells(&death, Signal::SEGV, "decode_row <- decode_image");
}

fn a_crash_in_a_chunk_is_told() {
    let pool = pool(1);
    succeeds_with(&pool, 200);
    let tasks = (0..200).map(|n| if n == 100 { Decode::broken() } else { Decode::good() });
    let mut deaths = pool.map(tasks).filter_map(Result::err);
    let Some(TaskError::WorkerDied(death)) = deaths.next() else { panic!("one death") };
    tells(&death, Signal::SEGV, "decode_row");
    assert!(deaths.next().is_none());
}

fn a_crash_among_several_tasks_at_a_time_is_told() {
    let pool = quiet().workers(1).concurrency(3).build().expect("a pool");
    let options = TaskOptions::new().timeout(Duration::from_secs(60));
    let death = match pool.submit_with(options, Decode::broken()).result() {
        Err(TaskError::WorkerDied(death)) => death,
        other => panic!("{other:?}"),
    };
    tells(&death, Signal::SEGV, "decode_row");
}

fn a_crash_is_told_though_a_forked_child_crashed_before() {
    tells(&death(&pool(1), CrashChild), Signal::ABORT, "decode_image");
}

fn a_worker_that_was_killed_has_no_calls_to_tell() {
    let death = death(&pool(1), Bad(Ending::Kill));
    assert_eq!((death.exit, death.backtrace), (Exit::Signal(Signal::KILL.as_raw()), None));
}

fn a_panic_has_the_calls_of_its_task_where_backtraces_are_on() {
    let calls = |is_on: &str| {
        let pool = quiet().workers(1);
        let pool = pool.worker_env("RUST_BACKTRACE", is_on).worker_env("RUST_LIB_BACKTRACE", is_on);
        let pool = pool.build().expect("a pool");
        match pool.submit(Bad(Ending::Panic)).result() {
            Err(TaskError::Panicked { backtrace, .. }) => backtrace,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(calls("0"), [""; 0]);
    let calls = calls("1");
    let first = calls.first().expect("a call");
    assert!(first.contains("Ending") && first.contains("happen"), "{calls:#?}");
    let is_pool = |call: &String| call.starts_with("procession::") || call.contains("panicking");
    assert!(calls.len() < 10 && !calls.iter().any(is_pool), "{calls:#?}");
}
