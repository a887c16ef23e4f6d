//! The ways out of a sandbox: a task that tries one.

#![allow(unsafe_code, reason = "a way out has no safe interface")]

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::Command;
use std::{env, fs, io, net, ptr};

use procession::{Context, Failure, Task};
use serde::{Deserialize, Serialize};

/// A way out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Way {
    ReadFile(PathBuf),
    WriteFile(PathBuf),
    /// A variable of the environment.
    Variable(String),
    /// A descriptor of the coordinator that was open when the worker was started, and the number of its file:
    /// the worker may have another file there.
    Inherited(i32, u64),
    Socket,
    Datagram,
    UnixSocket,
    Exec,
    Fork,
    /// The memory of another process, as a file.
    MemoryFile(u32),
    Ptrace(u32),
    ReadMemory(u32),
    TakeDescriptor(u32),
    Signal(u32),
    /// Signals to the owner of a descriptor.
    OwnerOfFile(u32),
    /// The same by `ioctl`.
    OwnerOfSocket(u32),
    /// Any signal in place of SIGIO.
    SignalOfFile,
    IoUring,
    Bpf,
    UserNamespace,
    Clone3,
    Chroot,
    X32,
    Int80,
    Paste,
    WritableCode,
    CodeLater,
}

/// Tries a way out. The output begins with `escaped` or `refused`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Escape(pub Way);

impl Task for Escape {
    const NAME: &'static str = "escape";
    type Output = String;

    fn run(self, _: &Context) -> Result<String, Failure> {
        Ok(match attempt(self.0) {
            Ok(what) => format!("escaped: {what}"),
            Err(error) => format!("refused: {error}"),
        })
    }
}

fn attempt(way: Way) -> io::Result<String> {
    match way {
        Way::ReadFile(path) => fs::read_to_string(path),
        Way::WriteFile(path) => fs::write(path, "x").map(|()| "written".to_owned()),
        Way::Variable(name) => env::var(name).map_err(io::Error::other),
        Way::Inherited(number, inode) => {
            let mut file = File::from(of_call(libc::SYS_dup, [i64::from(number), 0, 0, 0, 0])?);
            if file.metadata()?.ino() != inode {
                return Err(io::Error::other("another file is there"));
            }
            let mut text = String::new();
            file.read_to_string(&mut text).map(|_| text)
        }
        Way::Socket => net::TcpStream::connect("127.0.0.1:9").map(|_| "connected".to_owned()),
        Way::Datagram => {
            let socket = net::UdpSocket::bind("127.0.0.1:0")?;
            socket.send_to(b"out", "127.0.0.1:9").map(|_| "sent".to_owned())
        }
        Way::UnixSocket => {
            std::os::unix::net::UnixDatagram::unbound().map(|_| "a socket".to_owned())
        }
        Way::Exec => {
            Command::new("/bin/sh").args(["-c", "echo out"]).output().map(|_| "run".into())
        }
        Way::MemoryFile(pid) => {
            File::open(format!("/proc/{pid}/mem")).map(|file| format!("{file:?}"))
        }
        other => attempt_by_call(other),
    }
}

/// The ways for which the standard library has no function.
fn attempt_by_call(way: Way) -> io::Result<String> {
    match way {
        Way::Fork => call(libc::SYS_clone, [i64::from(libc::SIGCHLD), 0, 0, 0, 0]).map(|pid| {
            if pid == 0 {
                // SAFETY: ends the copy at once.
                unsafe { libc::_exit(0) };
            }
            "forked".to_owned()
        }),
        Way::Ptrace(pid) => {
            call(libc::SYS_ptrace, [i64::from(libc::PTRACE_SEIZE), i64::from(pid), 0, 0, 0])
                .map(|_| "traces".to_owned())
        }
        Way::ReadMemory(pid) => read_memory(pid),
        Way::TakeDescriptor(pid) => {
            let process = of_call(libc::SYS_pidfd_open, [i64::from(pid), 0, 0, 0, 0])?;
            let process = i64::from(process.as_raw_fd());
            of_call(libc::SYS_pidfd_getfd, [process, 1, 0, 0, 0]).map(|fd| format!("{fd:?}"))
        }
        Way::Signal(pid) => {
            call(libc::SYS_kill, [i64::from(pid), 0, 0, 0, 0]).map(|_| "reachable".to_owned())
        }
        Way::IoUring => {
            let mut parameters = [0_u8; 256];
            let parameters = parameters.as_mut_ptr() as i64;
            of_call(libc::SYS_io_uring_setup, [4, parameters, 0, 0, 0]).map(|fd| format!("{fd:?}"))
        }
        Way::Bpf => {
            // A map of one element.
            let attributes = [1_u32, 4, 4, 1, 0, 0, 0, 0, 0, 0, 0, 0];
            call(libc::SYS_bpf, [0, attributes.as_ptr() as i64, 48, 0, 0])
                .map(|fd| format!("map {fd}"))
        }
        Way::UserNamespace => call(libc::SYS_unshare, [i64::from(libc::CLONE_NEWUSER), 0, 0, 0, 0])
            .map(|_| "is another user".to_owned()),
        Way::Clone3 => {
            // No flags, SIGCHLD at its end.
            let arguments = [0_u64, 0, 0, 0, 17, 0, 0, 0];
            call(libc::SYS_clone3, [arguments.as_ptr() as i64, 64, 0, 0, 0]).map(|pid| {
                if pid == 0 {
                    // SAFETY: ends the copy at once.
                    unsafe { libc::_exit(0) };
                }
                "forked".to_owned()
            })
        }
        Way::Chroot => {
            call(libc::SYS_chroot, [c"/".as_ptr() as i64, 0, 0, 0, 0]).map(|_| "moved".to_owned())
        }
        Way::X32 => call(0x4000_0000 | libc::SYS_getpid, [0; 5]).map(|pid| format!("{pid}")),
        Way::Int80 => int80(),
        Way::Paste => {
            let request = libc::TIOCSTI as i64;
            call(libc::SYS_ioctl, [0, request, c"x".as_ptr() as i64, 0, 0]).map(|_| "typed".into())
        }
        Way::WritableCode => map(libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC)
            .map(|at| format!("code at {at}")),
        Way::CodeLater => {
            let at = map(libc::PROT_READ | libc::PROT_WRITE)?;
            let access = i64::from(libc::PROT_READ | libc::PROT_EXEC);
            call(libc::SYS_mprotect, [at, 4096, access, 0, 0]).map(|_| format!("code at {at}"))
        }
        other => attempt_by_owner(&other),
    }
}

/// Signals by what happens at a descriptor.
fn attempt_by_owner(way: &Way) -> io::Result<String> {
    match *way {
        Way::OwnerOfFile(pid) => {
            let set_owner = i64::from(libc::F_SETOWN);
            call(libc::SYS_fcntl, [0, set_owner, i64::from(pid), 0, 0]).map(|_| "owner".into())
        }
        Way::OwnerOfSocket(pid) => {
            const FIOSETOWN: i64 = 0x8901;
            let owner = pid.cast_signed();
            call(libc::SYS_ioctl, [0, FIOSETOWN, ptr::from_ref(&owner) as i64, 0, 0])
                .map(|_| "owner".into())
        }
        Way::SignalOfFile => {
            const F_SETSIG: i64 = 10;
            call(libc::SYS_fcntl, [0, F_SETSIG, i64::from(libc::SIGKILL), 0, 0])
                .map(|_| "any signal".into())
        }
        _ => Err(io::Error::other(format!("{way:?} is no call"))),
    }
}

fn call(number: libc::c_long, arguments: [i64; 5]) -> io::Result<i64> {
    let [a, b, c, d, e] = arguments;
    // SAFETY: the pointers among the arguments lead to values that outlive the call.
    match unsafe { libc::syscall(number, a, b, c, d, e) } {
        -1 => Err(io::Error::last_os_error()),
        result => Ok(result),
    }
}

/// A call that returns a descriptor.
fn of_call(number: libc::c_long, arguments: [i64; 5]) -> io::Result<OwnedFd> {
    let fd = i32::try_from(call(number, arguments)?).map_err(io::Error::other)?;
    // SAFETY: the call has just made it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn map(access: i32) -> io::Result<i64> {
    let flags = i64::from(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a new mapping, which nothing else in this process uses.
    match unsafe { libc::syscall(libc::SYS_mmap, 0, 4096, i64::from(access), flags, -1, 0) } {
        -1 => Err(io::Error::last_os_error()),
        at => Ok(at),
    }
}

fn read_memory(pid: u32) -> io::Result<String> {
    let mut bytes = [0_u8; 8];
    let here = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: 8 };
    let there = libc::iovec { iov_base: ptr::from_ref(&bytes).cast_mut().cast(), iov_len: 8 };
    // SAFETY: both lead to 8 bytes of this process; a fork of its coordinator may have none there.
    let read = unsafe {
        libc::process_vm_readv(pid.cast_signed(), &raw const here, 1, &raw const there, 1, 0)
    };
    if read >= 0 { Ok(format!("{read} bytes")) } else { Err(io::Error::last_os_error()) }
}

/// The number of the process, by the calls of 32 bits.
#[cfg(target_arch = "x86_64")]
fn int80() -> io::Result<String> {
    let result: i64;
    // SAFETY: `getpid` of 32 bits: it takes no arguments and changes no other register of the list.
    unsafe {
        std::arch::asm!("int 0x80", inlateout("rax") 20_i64 => result,
            lateout("r8") _, lateout("r9") _, lateout("r10") _, lateout("r11") _);
    }
    if result > 0 {
        Ok(format!("{result}"))
    } else {
        Err(io::Error::other("there is no such call"))
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn int80() -> io::Result<String> {
    Err(io::Error::other("there is no such call"))
}
