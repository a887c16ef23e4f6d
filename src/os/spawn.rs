//! What a worker process does between its fork and its exec.

use std::collections::BTreeMap;
use std::env;
use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use libc::c_char;
use rustix::process::{Pid, getpid, getppid};

/// What a process is replaced with.
pub(crate) struct Image {
    path: CString,
    /// Pointers to `texts`, with a null pointer at the end of each.
    argv: [*const c_char; 2],
    envp: Vec<*const c_char>,
    _texts: Vec<CString>,
}

// SAFETY: the pointers lead to the heap memory of `_texts`, which moves along and is never changed.
unsafe impl Send for Image {}
// SAFETY: as above; all of it is only read.
unsafe impl Sync for Image {}

impl Image {
    /// The program at the path, with this process's environment and these variables.
    pub(crate) fn new(
        path: &Path,
        shown_as: &OsStr,
        variables: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> io::Result<Self> {
        let text = |text: OsString| CString::new(text.into_vec()).map_err(io::Error::from);
        let environment: BTreeMap<_, _> = env::vars_os().chain(variables).collect();
        let mut texts = vec![text(shown_as.to_owned())?];
        for (mut entry, value) in environment {
            entry.push("=");
            entry.push(value);
            texts.push(text(entry)?);
        }
        let pointers: Vec<_> = texts.iter().map(|text| text.as_ptr()).collect();
        let null = std::ptr::null();
        let (argv, envp) = ([pointers[0], null], [&pointers[1..], &[null]].concat());
        Ok(Self { path: text(path.into())?, argv, envp, _texts: texts })
    }

    /// Replaces this process; returns only if that is refused.
    ///
    /// The standard library would give a file that is no program to a shell.
    fn replace_this_process(&self) -> io::Error {
        // SAFETY: the texts end with a zero, the arrays with a null pointer, and all of them live.
        unsafe { libc::execve(self.path.as_ptr(), self.argv.as_ptr(), self.envp.as_ptr()) };
        io::Error::last_os_error()
    }
}

/// Prepares the start of a process that ends with this one from its first moment, whatever program
/// it runs, and that inherits no ignored or blocked signals. On Linux the kernel sends the signal
/// when the thread ends that calls [`Command::spawn`]. Program, arguments and environment are those
/// of the image; the command settles the rest.
pub(crate) fn tie_to_this_process(command: &mut Command, image: Image) {
    let parent = getpid();
    // SAFETY: the closure runs in the forked child, where only async-signal-safe functions may be
    // called. It makes system calls and touches no lock and no heap memory.
    unsafe {
        command.pre_exec(move || {
            die_with(parent)?;
            reset_signals();
            Err(image.replace_this_process())
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
