//! Sets which signals end a worker. Notes signals that come before a program has its handlers.

use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicU64, Ordering};

/// Keeps a worker alive on the signals that are sent to a whole session or service: its coordinator gets
/// the same signal, and may want running tasks to finish. The signals are caught, not ignored, because
/// programs that tasks start would inherit an ignored signal. The program's own handlers stay.
pub fn outlive_requests_to_end() {
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
        if disposition(signal) == Some(libc::SIG_DFL) {
            catch(signal, do_nothing);
        }
    }
}

/// Whether this process ignores a signal; a process inherits that from its parent.
pub fn is_ignored(signal: i32) -> bool {
    disposition(signal) == Some(libc::SIG_IGN)
}

fn disposition(signal: i32) -> Option<libc::sighandler_t> {
    let mut action = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: the call fills `action` when it gives 0, and it is read only then.
    unsafe {
        (libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr()) == 0)
            .then(|| action.assume_init_ref().sa_sigaction)
    }
}

extern "C" fn do_nothing(_: libc::c_int) {}

/// The signals that came since [`note_from_now`], a bit each.
static NOTED: AtomicU64 = AtomicU64::new(0);

extern "C" fn note(signal: libc::c_int) {
    NOTED.fetch_or(1 << signal, Ordering::Relaxed);
}

/// From now on, only notes that this signal came, in place of its default action. A program calls this before it
/// registers handlers with a library. Some libraries replace the default action first, and store the function to call
/// later. Between these two steps they call the previous handler; without this one, the signal would be lost.
pub fn note_from_now(signal: i32) {
    if (1..64).contains(&signal) && disposition(signal) == Some(libc::SIG_DFL) {
        catch(signal, note);
    }
}

/// Whether the signal came since [`note_from_now`].
pub fn was_noted(signal: i32) -> bool {
    (1..64).contains(&signal) && NOTED.load(Ordering::Relaxed) >> signal & 1 == 1
}

fn catch(signal: i32, handler: extern "C" fn(libc::c_int)) {
    // SAFETY: all zeros are a valid `sigaction`, of which the needed fields are set. The handlers of
    // this file are async-signal-safe.
    unsafe {
        let mut action = MaybeUninit::<libc::sigaction>::zeroed().assume_init();
        action.sa_sigaction = handler as *const () as libc::sighandler_t;
        action.sa_flags = libc::SA_RESTART;
        libc::sigemptyset(&mut action.sa_mask);
        libc::sigaction(signal, &action, std::ptr::null_mut());
    }
}

/// Runs a function whose system calls a signal interrupts after this time, again and again until the
/// function returns. For calls that have no time limit of their own, before other threads are started.
/// Timer and handler of the program for SIGALRM are put back afterwards.
pub fn interrupting_after<R>(after: std::time::Duration, run: impl FnOnce() -> R) -> R {
    let micros = |time: std::time::Duration| libc::timeval {
        tv_sec: libc::time_t::try_from(time.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_usec: time.subsec_micros() as libc::suseconds_t,
    };
    let again = std::time::Duration::from_millis(20);
    let timer = libc::itimerval { it_interval: micros(again), it_value: micros(after) };
    // SAFETY: all zeros are a valid `sigaction` and a valid `itimerval`; the calls fill or read what the
    // pointers lead to, which outlives them. The handler is async-signal-safe.
    unsafe {
        let mut action = MaybeUninit::<libc::sigaction>::zeroed().assume_init();
        action.sa_sigaction = do_nothing as *const () as libc::sighandler_t;
        libc::sigemptyset(&mut action.sa_mask);
        let mut its_action = MaybeUninit::<libc::sigaction>::zeroed().assume_init();
        let mut its_timer = MaybeUninit::<libc::itimerval>::zeroed().assume_init();
        libc::sigaction(libc::SIGALRM, &action, &mut its_action);
        libc::setitimer(libc::ITIMER_REAL, &timer, &mut its_timer);
        let result = run();
        libc::setitimer(libc::ITIMER_REAL, &its_timer, std::ptr::null_mut());
        libc::sigaction(libc::SIGALRM, &its_action, std::ptr::null_mut());
        result
    }
}

/// Makes this process, and all that is in its process group, end with the parent process. To be
/// called by each thread that runs tasks.
///
/// The setting is a thread's own and survives exec, while a handler does not: whatever image a task
/// replaces its process with is ended by the signal itself.
#[cfg(all(target_os = "linux", not(feature = "portable")))]
pub fn end_with_the_parent() {
    let signal = parents_death();
    catch(signal, end_the_group);
    // SAFETY: this option takes one number and reads no memory.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, signal as libc::c_ulong);
    }
}

/// On other systems the worker only checks the process id of its parent; see `worker.rs`.
#[cfg(not(all(target_os = "linux", not(feature = "portable"))))]
pub fn end_with_the_parent() {}

/// A real-time signal near the upper end: libraries that need one begin at the lower end.
#[cfg(all(target_os = "linux", not(feature = "portable")))]
fn parents_death() -> i32 {
    libc::SIGRTMAX() - 3
}

#[cfg(all(target_os = "linux", not(feature = "portable")))]
extern "C" fn end_the_group(_: libc::c_int) {
    // SAFETY: `kill` and `getpid` are async-signal-safe. The group of this number can only be one
    // that this process was the leader of.
    unsafe {
        libc::kill(-libc::getpid(), libc::SIGKILL);
        libc::kill(libc::getpid(), libc::SIGKILL);
    }
}
