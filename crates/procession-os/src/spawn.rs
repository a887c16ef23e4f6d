//! Starts a worker process. From its first moment it ends when this process ends, whatever program it runs. It
//! inherits no ignored, caught or blocked signals.
//!
//! On Linux the new process shares this one's memory until its program is loaded, and the calling thread waits
//! for that, as in `posix_spawn`. A fork would copy the page tables: that takes milliseconds in a program that
//! uses much memory, and may be refused. On other systems it is a fork.

use std::collections::BTreeMap;
use std::env;
use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use libc::c_char;
use rustix::process::Pid;

use crate::cgroup::Group;
use crate::mark::Mark;

/// What a process is replaced with.
pub struct Image {
    path: CString,
    /// Pointers to `texts`, with a null pointer at the end of each.
    argv: Vec<*const c_char>,
    envp: Vec<*const c_char>,
    _texts: Vec<CString>,
    /// Descriptors that this process has not marked as its own are closed, too.
    #[cfg_attr(
        not(all(target_os = "linux", not(feature = "portable"))),
        allow(dead_code, reason = "it has no effect there")
    )]
    closes_all: bool,
}

// SAFETY: the pointers lead to the heap memory of `_texts`, which moves along and is never changed.
unsafe impl Send for Image {}
// SAFETY: as above; all of it is only read.
unsafe impl Sync for Image {}

impl Image {
    /// The program at the path with these arguments, and with the variables of this process's environment
    /// that are `inherited`, and with these.
    pub fn new(
        path: &Path,
        shown_as: &OsStr,
        arguments: &[OsString],
        inherited: impl Fn(&OsStr) -> bool,
        variables: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> io::Result<Self> {
        let text = |text: OsString| CString::new(text.into_vec()).map_err(io::Error::from);
        let of_this = env::vars_os().filter(|(name, _)| inherited(name));
        let environment: BTreeMap<_, _> = of_this.chain(variables).collect();
        let mut texts = vec![text(shown_as.to_owned())?];
        for argument in arguments {
            texts.push(text(argument.clone())?);
        }
        for (mut entry, value) in environment {
            entry.push("=");
            entry.push(value);
            texts.push(text(entry)?);
        }
        let pointers: Vec<_> = texts.iter().map(|text| text.as_ptr()).collect();
        let null = std::ptr::null();
        let (argv, envp) = pointers.split_at(1 + arguments.len());
        let (argv, envp) = ([argv, &[null]].concat(), [envp, &[null]].concat());
        Ok(Self { path: text(path.into())?, argv, envp, _texts: texts, closes_all: false })
    }

    /// Closes all descriptors in the new process except for its standard streams and its mark, also those
    /// that a library of this process has left open for programs that it starts. Only on Linux; elsewhere
    /// it has no effect.
    #[must_use]
    pub fn closing_all_descriptors(self, closes_all: bool) -> Self {
        Self { closes_all, ..self }
    }

    /// Replaces this process; returns only if that is refused.
    ///
    /// The standard library would give a file that is no program to a shell.
    #[cfg(any(test, not(all(target_os = "linux", not(feature = "portable")))))]
    fn replace_this_process(&self) -> io::Error {
        // SAFETY: the texts end with a zero, the arrays with a null pointer, and all of them live.
        unsafe { libc::execve(self.path.as_ptr(), self.argv.as_ptr(), self.envp.as_ptr()) };
        io::Error::last_os_error()
    }
}

/// Starts the image as a process that leads a group of its own, with these as standard input, output
/// and error, and with the mark under its number. On Linux the kernel ends it when the calling thread
/// ends. With a control group it is in that from its first moment.
#[cfg(all(target_os = "linux", not(feature = "portable")))]
pub fn spawn(
    image: Image,
    streams: [OwnedFd; 3],
    mark: Option<&Mark>,
    group: Option<&Group>,
) -> io::Result<Pid> {
    sharing_memory::spawn(&image, streams, mark, group)
}

/// Starts the image as a process that leads a group of its own, with these as standard input, output
/// and error. There are no control groups.
#[cfg(not(all(target_os = "linux", not(feature = "portable"))))]
pub fn spawn(
    image: Image,
    streams: [OwnedFd; 3],
    mark: Option<&Mark>,
    _group: Option<&Group>,
) -> io::Result<Pid> {
    by_fork::spawn(image, streams, mark)
}

fn process_id(raw: i32) -> io::Result<Pid> {
    Pid::from_raw(raw).ok_or_else(|| io::Error::other("the process id is no process id"))
}

/// Gives every signal its default effect and blocks none: ignored or blocked signals stay so across
/// exec. A worker could then not wait for its own children (SIGCHLD), and limits of CPU time or its
/// parent's death would not end it.
///
/// # Safety
///
/// To be called in a new process, before anything in it needs a signal.
unsafe fn reset_signals() {
    const ALL: std::ops::RangeInclusive<i32> = 1..=64;
    // SAFETY: all calls are async-signal-safe; those for numbers that have no signal are refused. All
    // zeros are a valid `sigaction`, and `sigemptyset` initializes the set.
    unsafe {
        for signal in ALL {
            let mut action = MaybeUninit::<libc::sigaction>::zeroed().assume_init();
            action.sa_sigaction = libc::SIG_DFL;
            libc::sigaction(signal, &action, std::ptr::null_mut());
        }
        let mut none = MaybeUninit::<libc::sigset_t>::uninit();
        libc::sigemptyset(none.as_mut_ptr());
        libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut());
    }
}

#[cfg(all(target_os = "linux", not(feature = "portable")))]
#[path = "spawn/clone3.rs"]
pub(crate) mod clone3;

#[cfg(all(target_os = "linux", not(feature = "portable")))]
mod sharing_memory {
    use std::ffi::c_void;
    use std::io;
    use std::mem::MaybeUninit;
    use std::os::fd::{AsRawFd, OwnedFd};

    use libc::c_int;
    use rustix::process::Pid;

    use super::{Group, Image, Mark, clone3, process_id, reset_signals};

    /// What the new process needs, and the error if it could not become the program.
    struct Start<'i> {
        image: &'i Image,
        streams: [c_int; 3],
        /// What is inherited beside these.
        mark: Option<c_int>,
        parent: c_int,
        errno: c_int,
    }

    /// For a few calls; the kernel needs none of it.
    const STACK: usize = 64 * 1024;
    const ALIGNMENT: usize = 16;

    pub(super) fn spawn(
        image: &Image,
        streams: [OwnedFd; 3],
        mark: Option<&Mark>,
        group: Option<&Group>,
    ) -> io::Result<Pid> {
        // Copies with numbers above 2: so no stream is overwritten before it was copied to its number.
        let mut high = [-1; 3];
        let mut kept = Vec::with_capacity(streams.len());
        for (number, stream) in high.iter_mut().zip(streams) {
            let fd = rustix::io::fcntl_dupfd_cloexec(&stream, 3)?;
            *number = fd.as_raw_fd();
            kept.push(fd);
        }
        // SAFETY: `getpid` only gives a number.
        let parent = unsafe { libc::getpid() };
        let mark = mark.map(Mark::number);
        let mut start = Start { image, streams: high, mark, parent, errno: 0 };
        let mut stack = vec![0_u8; STACK];
        let pid = with_signals_blocked(|| {
            let top = stack.as_mut_ptr_range().end;
            let top = top.wrapping_sub(top.addr() % ALIGNMENT);
            let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
            let start: *mut Start<'_> = &mut start;
            // SAFETY: the stack grows down from its aligned top. Both it and `start` outlive the use
            // that the new process makes of them, since this thread stands still until that has
            // become the program or has ended (CLONE_VFORK). `become_the_program` does not return.
            let pid = unsafe {
                match group {
                    Some(group) => {
                        let stack = stack.as_mut_ptr()..top;
                        clone3::on_stack(group, flags, stack, become_the_program, start.cast())
                    }
                    None => libc::clone(become_the_program, top.cast(), flags, start.cast()),
                }
            };
            if pid == -1 { Err(io::Error::last_os_error()) } else { Ok(pid) }
        })?;
        if start.errno != 0 {
            let mut status = 0;
            // SAFETY: the pointer leads to a number that outlives the call.
            while unsafe { libc::waitpid(pid, &mut status, 0) } == -1
                && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted
            {}
            return Err(io::Error::from_raw_os_error(start.errno));
        }
        process_id(pid)
    }

    /// A handler that ran in the new process would run in this one's memory.
    fn with_signals_blocked<R>(act: impl FnOnce() -> R) -> R {
        let (mut all, mut before) =
            (MaybeUninit::<libc::sigset_t>::uninit(), MaybeUninit::<libc::sigset_t>::uninit());
        // SAFETY: both sets are initialized by the calls before they are read.
        unsafe {
            libc::sigfillset(all.as_mut_ptr());
            libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
        }
        let result = act();
        // SAFETY: the set was filled above.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), std::ptr::null_mut()) };
        result
    }

    /// Runs in the new process, in the memory of the one that started it: it makes system calls and
    /// takes no lock, allocates nothing and does not panic.
    extern "C" fn become_the_program(start: *mut c_void) -> c_int {
        // SAFETY: this is what `spawn` passed, and the thread that owns it stands still.
        let start = unsafe { &mut *start.cast::<Start<'_>>() };
        start.errno = prepare_and_exec(start);
        // SAFETY: ends this process alone, without running anything that this memory registered.
        unsafe { libc::_exit(127) }
    }

    /// Returns the error number of the call that failed.
    fn prepare_and_exec(start: &Start<'_>) -> c_int {
        // SAFETY: all calls are async-signal-safe, with numbers and with the pointers of an image.
        unsafe {
            reset_signals();
            let [input, output, error] = start.streams;
            if start.image.closes_all {
                // Closed at the exec, not now: the descriptors of the streams are needed until then.
                let flags = libc::CLOSE_RANGE_CLOEXEC;
                libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, flags);
            }
            let is_refused = libc::dup2(input, 0) == -1
                || libc::dup2(output, 1) == -1
                || libc::dup2(error, 2) == -1
                || start.mark.is_some_and(|mark| libc::fcntl(mark, libc::F_SETFD, 0) == -1)
                || libc::setpgid(0, 0) == -1
                || libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong) == -1;
            if !is_refused {
                // The parent may have ended before the signal was asked for, which is then never
                // sent.
                if libc::getppid() != start.parent {
                    return libc::ESRCH;
                }
                libc::execve(
                    start.image.path.as_ptr(),
                    start.image.argv.as_ptr(),
                    start.image.envp.as_ptr(),
                );
            }
            *libc::__errno_location()
        }
    }
}

/// For systems on which a new process cannot share the memory; it cannot be tied to the life of this
/// process there, either.
#[cfg(any(test, not(all(target_os = "linux", not(feature = "portable")))))]
mod by_fork {
    use std::io;
    use std::os::fd::OwnedFd;
    use std::os::unix::process::CommandExt;
    use std::process::{Command, Stdio};

    use rustix::process::Pid;

    use super::{Image, Mark, process_id, reset_signals};

    /// There are no marks there.
    pub(super) fn spawn(
        image: Image,
        streams: [OwnedFd; 3],
        _mark: Option<&Mark>,
    ) -> io::Result<Pid> {
        let [input, output, error] = streams.map(Stdio::from);
        // Program, arguments and environment are those of the image; the command settles the rest.
        let mut command = Command::new(image.path.to_string_lossy().as_ref());
        command.stdin(input).stdout(output).stderr(error).process_group(0);
        // SAFETY: the closure runs in the forked child, where only async-signal-safe functions may be
        // called. It makes system calls and touches no lock and no heap memory.
        unsafe {
            command.pre_exec(move || {
                reset_signals();
                Err(image.replace_this_process())
            });
        }
        let pid = command.spawn()?.id();
        process_id(i32::try_from(pid).map_err(io::Error::other)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    type Spawn = fn(Image, [OwnedFd; 3], Option<&Mark>) -> io::Result<Pid>;

    const WAYS: &[Spawn] =
        &[|image, streams, mark| spawn(image, streams, mark, None), by_fork::spawn];

    /// What a shell writes that was started in this way.
    fn says(spawn: Spawn, script: &str) -> String {
        let tmp = tempfile::tempdir().expect("a directory");
        let program = tmp.path().join("program");
        std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).expect("a file");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&program, mode).expect("a mode");
        let image = || {
            let variables = [("TOLD".into(), "yes".into())];
            Image::new(&program, program.as_os_str(), &[], |_| true, variables).expect("an image")
        };
        let (mut output, its_output) = io::pipe().expect("a pipe");
        let null = || OwnedFd::from(std::fs::File::open("/dev/null").expect("a file"));
        // Another thread of this test may have the file open for writing while it forks.
        let pid = loop {
            let streams = [null(), its_output.try_clone().expect("a descriptor").into(), null()];
            match spawn(image(), streams, None) {
                Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy => {}
                spawned => break spawned.expect("a process"),
            }
        };
        drop(its_output);
        let mut text = String::new();
        output.read_to_string(&mut text).expect("text");
        rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty()).expect("an end");
        text
    }

    #[test]
    fn a_process_gets_its_streams_its_environment_and_a_group_of_its_own() {
        for way in WAYS {
            let told = says(*way, r#"read x; echo "$TOLD $? $(( $(ps -o pgid= -p $$) - $$ ))""#);
            assert_eq!(told, "yes 1 0\n");
        }
    }

    #[test]
    fn a_program_that_is_not_there_is_an_error_and_no_process() {
        for way in WAYS {
            let image = Image::new(Path::new("/nowhere"), OsStr::new("x"), &[], |_| true, [])
                .expect("an image");
            let null = || OwnedFd::from(std::fs::File::open("/dev/null").expect("a file"));
            let error = way(image, [null(), null(), null()], None).expect_err("nothing to start");
            assert_eq!(error.kind(), io::ErrorKind::NotFound);
        }
    }
}
