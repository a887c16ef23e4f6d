//! What a worker process does between its fork and its exec.

use std::io;
use std::mem::MaybeUninit;
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::process::{Pid, getpid, getppid};

/// Prepares the start of a process that ends with this one from its first moment, whatever program
/// it runs, and that inherits no ignored or blocked signals. On Linux the kernel sends the signal when the
/// thread ends that called [`Command::spawn`].
pub(crate) fn tie_to_this_process(command: &mut Command) {
    let parent = getpid();
    // SAFETY: the closure runs in the forked child, where only async-signal-safe functions may be
    // called. It makes system calls and touches no lock and no heap memory.
    unsafe {
        command.pre_exec(move || {
            die_with(parent)?;
            reset_signals();
            Ok(())
        });
    }
}

fn die_with(parent: Pid) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{Signal, set_parent_process_death_signal};
        set_parent_process_death_signal(Some(Signal::KILL))?;
    }
    // The parent may have ended before the signal was asked for, which is then never sent.
    if getppid() != Some(parent) {
        return Err(io::Error::from(rustix::io::Errno::SRCH));
    }
    Ok(())
}

/// Signals that are ignored or blocked stay so across exec: a worker could then not wait for its own
/// children (SIGCHLD), and limits of CPU time or its parent's death would not end it.
fn reset_signals() {
    let mut none = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: `sigemptyset` initializes the set, and both calls are async-signal-safe.
    unsafe {
        libc::sigemptyset(none.as_mut_ptr());
        libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut());
    }
    const STANDARD_SIGNALS: std::ops::RangeInclusive<i32> = 1..=31;
    for signal in STANDARD_SIGNALS {
        let mut action = MaybeUninit::<libc::sigaction>::uninit();
        // SAFETY: both calls are async-signal-safe. The first one fills `action` when it gives 0,
        // and `action` is read only then.
        unsafe {
            if libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr()) == 0
                && action.assume_init_ref().sa_sigaction == libc::SIG_IGN
            {
                libc::signal(signal, libc::SIG_DFL);
            }
        }
    }
}
