//! Copies this process, as `fork` does, but the copy is a child of this process's parent. The parent waits for it
//! and kills it, and its end sends the copy a signal, as if the parent had started it.
//!
//! `fork` takes locks of the C library and calls what is registered with `pthread_atfork`. Here no other thread
//! can hold a lock, since a process with several threads is not copied; and what is registered is not called.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering;

use rustix::process::Pid;

use crate::shared::SharedMemory;

/// Memory that the process which is copied shares with its parent: the kernel notes the process id of the copy there,
/// before the copy runs. So the parent knows it also if the process that was copied is killed before it can answer.
#[derive(Debug)]
pub struct CopyNote(SharedMemory);

impl CopyNote {
    const LEN: usize = 4;

    /// In the parent: the memory, and the file for the other process.
    ///
    /// # Errors
    ///
    /// What the system says.
    #[cfg(all(target_os = "linux", not(feature = "portable")))]
    pub fn create() -> io::Result<(Self, OwnedFd)> {
        let file = crate::sealed::unsealed(&[0; Self::LEN])?;
        Ok((Self::map(&file)?, file))
    }

    /// There are no copies.
    #[cfg(not(all(target_os = "linux", not(feature = "portable"))))]
    pub fn create() -> io::Result<(Self, OwnedFd)> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// In the process that is copied.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn map(file: impl AsFd) -> io::Result<Self> {
        SharedMemory::map(file, Self::LEN).map(Self)
    }

    /// The copy, if it was made.
    pub fn process(&self) -> Option<Pid> {
        let process = self.0.word32(0).load(Ordering::SeqCst);
        i32::try_from(process).ok().and_then(Pid::from_raw)
    }

    #[cfg_attr(
        not(all(target_os = "linux", target_env = "gnu", not(feature = "portable"))),
        allow(dead_code, reason = "nothing is copied there")
    )]
    fn address(&self) -> usize {
        self.0.word32(0).as_ptr().expose_provenance()
    }
}

/// Which of the two processes returns.
#[derive(Debug)]
pub enum Copied {
    /// The one that was copied. The copy has this process id.
    Original(Pid),
    /// The copy.
    Copy,
}

/// Whether this system can copy a process: Linux with the GNU C library, on a processor for which the order of the
/// arguments of `clone` is known, and a kernel with `CONFIG_CHECKPOINT_RESTORE`.
pub fn is_available() -> bool {
    imp::is_available()
}

/// The number of threads of this process beside the calling one. If there are any, the process cannot be copied.
///
/// # Errors
///
/// What the system says, where `/proc` cannot be read.
pub fn threads_beside_this() -> io::Result<usize> {
    Ok(std::fs::read_dir("/proc/self/task")?.count().saturating_sub(1))
}

/// Copies this process. The copy has these as standard input, output and error; it leads a process group, and
/// is killed when the thread ends that started this process. Its process id is in `note`. If `group` is the
/// directory of a control group, the copy is in that group. To be called by the main thread.
///
/// # Errors
///
/// `InvalidInput` if this process has other threads; `Unsupported` where [`is_available`] is false, and where the
/// C library does not keep the id of the main thread at the address that it has registered; else what the system
/// says. There is no copy then.
pub fn copy(streams: [OwnedFd; 3], note: &CopyNote, group: Option<OwnedFd>) -> io::Result<Copied> {
    imp::copy(streams, note, group)
}

#[cfg(not(all(
    target_os = "linux",
    target_env = "gnu",
    any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64"),
    not(feature = "portable")
)))]
mod imp {
    use std::io;
    use std::os::fd::OwnedFd;

    use super::{Copied, CopyNote};

    pub(super) fn is_available() -> bool {
        false
    }

    pub(super) fn copy(_: [OwnedFd; 3], _: &CopyNote, _: Option<OwnedFd>) -> io::Result<Copied> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

#[cfg(all(
    target_os = "linux",
    target_env = "gnu",
    any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64"),
    not(feature = "portable")
))]
mod imp {
    use std::io::{self, Write};
    use std::os::fd::{AsRawFd, OwnedFd};
    use std::ptr;

    use libc::{c_int, c_long, c_ulong};
    use rustix::process::{Pid, getpid, getppid};

    use super::{Copied, CopyNote, threads_beside_this};
    use crate::spawn::clone3;

    pub(super) fn is_available() -> bool {
        registered_address().is_ok()
    }

    pub(super) fn copy(
        streams: [OwnedFd; 3],
        note: &CopyNote,
        group: Option<OwnedFd>,
    ) -> io::Result<Copied> {
        if threads_beside_this()? > 0 {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // Otherwise both processes would write what is buffered now, also by code in C.
        let _ = io::stdout().flush();
        // SAFETY: the null pointer means all streams. No other thread has locked one.
        unsafe { libc::fflush(ptr::null_mut()) };
        let parent = getppid();
        let tid_address = tid_address()?;
        let robust_list = robust_list()?;
        // The signal at the end of the copy is that of this process, whatever the flags say.
        let flags = libc::CLONE_PARENT
            | libc::CLONE_PARENT_SETTID
            | libc::CLONE_CHILD_SETTID
            | libc::CLONE_CHILD_CLEARTID;
        let (none, tid, noted) = (0 as c_long, tid_address as c_long, note.address() as c_long);
        // The last two of stack, id for the parent, id for the copy, and thread area.
        let [third, fourth] = if cfg!(target_arch = "x86_64") { [tid, none] } else { [none, tid] };
        // SAFETY: the copy gets a copy of the memory and goes on here, on its copy of the stack. There is no other
        // thread whose locks or half-changed data it could meet. The C library keeps the id of this thread at the
        // address, which the kernel sets in the copy, as at a `fork`. The note is a word that lives.
        let result = unsafe {
            match &group {
                Some(group) => clone3::copy(group, flags, note.address(), tid_address),
                None => {
                    let flags = c_long::from(flags);
                    libc::syscall(libc::SYS_clone, flags, none, noted, third, fourth)
                }
            }
        };
        match result {
            -1 => Err(io::Error::last_os_error()),
            0 => {
                if become_a_worker(streams, parent, robust_list).is_err() {
                    crate::fork::end_the_copy();
                }
                Ok(Copied::Copy)
            }
            pid => i32::try_from(pid)
                .ok()
                .and_then(Pid::from_raw)
                .map(Copied::Original)
                .ok_or_else(|| io::Error::other("the process id is no process id")),
        }
    }

    /// In the copy: its streams, its process group, its end.
    fn become_a_worker(
        streams: [OwnedFd; 3],
        parent: Option<Pid>,
        (robust_list, robust_list_len): (usize, usize),
    ) -> io::Result<()> {
        // SAFETY: the list is that of this thread, at the same address in the copy of the memory.
        unsafe { libc::syscall(libc::SYS_set_robust_list, robust_list, robust_list_len) };
        // Not through a number that is still to be copied.
        let high = streams.map(|stream| rustix::io::fcntl_dupfd_cloexec(stream, 3));
        for (number, stream) in (0..).zip(high) {
            let stream = stream?;
            // SAFETY: it takes two numbers; that of the standard stream is always open.
            if unsafe { libc::dup2(stream.as_raw_fd(), number) } == -1 {
                return Err(io::Error::last_os_error());
            }
        }
        // The parent does the same: whichever is first.
        let _ = rustix::process::setpgid(None, None);
        // SAFETY: it takes numbers.
        let set = unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as c_ulong) };
        if set == -1 {
            return Err(io::Error::last_os_error());
        }
        // The parent may have ended before the signal was asked for, which is then never sent.
        match getppid() == parent {
            true => Ok(()),
            false => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// Where the C library keeps the id of this thread, the main thread, which the kernel clears at its end.
    fn tid_address() -> io::Result<usize> {
        let address = registered_address()?;
        // SAFETY: the C library has registered this address of an id with the kernel; it lives as long as the
        // thread.
        let kept = (address != 0).then(|| unsafe { ptr::read(address as *const c_int) });
        // Another library may register something else.
        match kept == Some(getpid().as_raw_nonzero().get()) {
            true => Ok(address),
            false => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// What is registered for this thread. Some systems do not say.
    fn registered_address() -> io::Result<usize> {
        const PR_GET_TID_ADDRESS: c_int = 40;
        let mut address: usize = 0;
        // SAFETY: the call writes one pointer to a place of that size.
        let done = unsafe { libc::prctl(PR_GET_TID_ADDRESS, &raw mut address) };
        if done == -1 { Err(io::ErrorKind::Unsupported.into()) } else { Ok(address) }
    }

    /// The list of the locks of this thread that are released at its end, and its length as the kernel has it.
    fn robust_list() -> io::Result<(usize, usize)> {
        let (mut head, mut len): (usize, usize) = (0, 0);
        // SAFETY: the call writes a pointer and a length to places of that size; 0 is this thread.
        let done: c_long = unsafe {
            libc::syscall(libc::SYS_get_robust_list, 0 as c_int, &raw mut head, &raw mut len)
        };
        if done == -1 { Err(io::Error::last_os_error()) } else { Ok((head, len)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_several_threads_is_not_copied() {
        if !is_available() {
            return;
        }
        let streams = || -> io::Result<OwnedFd> { Ok(std::fs::File::open("/dev/null")?.into()) };
        let streams = [streams(), streams(), streams()].map(|stream| stream.expect("a file"));
        // The test harness has at least the thread of this test and the main thread.
        assert!(threads_beside_this().expect("a number") >= 1);
        let (note, _) = CopyNote::create().expect("memory");
        assert_eq!(note.process(), None);
        assert_eq!(
            copy(streams, &note, None).expect_err("a refusal").kind(),
            io::ErrorKind::InvalidInput
        );
    }
}
