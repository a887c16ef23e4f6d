//! The call that starts a process in a control group. A process that is moved there after its start takes
//! milliseconds: the kernel waits for all CPUs.

use std::ffi::c_void;
use std::mem;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd};

use libc::{c_int, c_long};

/// The type of the flags in the library `libc` is too small for it.
const CLONE_INTO_CGROUP: u64 = 1 << 33;

/// What the kernel calls `clone_args`. The library `libc` has it for some processors only.
#[repr(C, align(8))]
#[derive(Default)]
struct Clone3Arguments {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// What a new process does. It does not return.
pub(super) type ChildEntry = extern "C" fn(*mut c_void) -> c_int;

/// Whether the kernel has the call and nothing refuses it. Some containers do.
#[cfg_attr(
    not(all(feature = "sandbox", any(target_arch = "x86_64", target_arch = "aarch64"))),
    allow(dead_code, reason = "there are no groups without a sandbox")
)]
pub(crate) fn is_available() -> bool {
    // SAFETY: a structure of no bytes is refused before it is read.
    let result = unsafe { libc::syscall(libc::SYS_clone3, std::ptr::null::<c_void>(), 0) };
    result == -1 && std::io::Error::last_os_error().raw_os_error() == Some(libc::EINVAL)
}

fn arguments(group: &impl AsFd, flags: c_int) -> Clone3Arguments {
    Clone3Arguments {
        // The lowest byte is the signal at the end.
        flags: flags as u64 & !0xff | CLONE_INTO_CGROUP,
        exit_signal: flags as u64 & 0xff,
        cgroup: group.as_fd().as_raw_fd() as u64,
        ..Clone3Arguments::default()
    }
}

/// A copy of this process in the group, as `fork` makes it. The kernel writes its id to `noted` in the memory of this
/// process, and to `tid` in its own. Returns 0 in the copy, and -1 where the system refuses it.
///
/// # Safety
///
/// As of the system call `clone` without a stack.
pub(crate) unsafe fn copy(group: &impl AsFd, flags: c_int, noted: usize, tid: usize) -> c_long {
    let mut arguments = arguments(group, flags);
    arguments.parent_tid = noted as u64;
    arguments.child_tid = tid as u64;
    // SAFETY: the structure has this size; the rest is for the caller.
    unsafe {
        libc::syscall(libc::SYS_clone3, &raw mut arguments, mem::size_of::<Clone3Arguments>())
    }
}

/// Like `clone` of the C library: the new process is in the group and calls `entry` on the stack. Returns its id, or -1
/// and sets `errno`.
///
/// # Safety
///
/// The flags have `CLONE_VM` and `CLONE_VFORK`. The stack ends at an address that 16 divides. `entry` does not return, and
/// all that it uses lives until the call returns.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub(super) unsafe fn on_stack(
    group: &impl AsFd,
    flags: c_int,
    stack: Range<*mut u8>,
    entry: ChildEntry,
    argument: *mut c_void,
) -> c_int {
    let mut arguments = arguments(group, flags);
    arguments.stack = stack.start.expose_provenance() as u64;
    arguments.stack_size = (stack.end.addr() - stack.start.addr()) as u64;
    let size = mem::size_of::<Clone3Arguments>();
    let result: i64;
    // SAFETY: in the new process the call returns 0, on its own stack, and `entry` does not return; so only the
    // process that called goes on behind the instructions, and its registers are as the operands say.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        std::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r12",
            "call r13",
            "ud2",
            "2:",
            inlateout("rax") libc::SYS_clone3 => result,
            in("rdi") &raw mut arguments,
            in("rsi") size,
            in("r12") argument,
            in("r13") entry,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    // SAFETY: as above.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        std::arch::asm!(
            "svc #0",
            "cbnz x0, 2f",
            "mov x29, xzr",
            "mov x0, x20",
            "blr x21",
            "brk #1",
            "2:",
            in("x8") libc::SYS_clone3,
            inlateout("x0") (&raw mut arguments) => result,
            in("x1") size,
            in("x20") argument,
            in("x21") entry,
        );
    }
    if result < 0 {
        // SAFETY: the place of the error number of this thread.
        unsafe { *libc::__errno_location() = -result as c_int };
        return -1;
    }
    result as c_int
}

/// There is no sandbox on other processors, and so no group.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(super) unsafe fn on_stack(
    _: &impl AsFd,
    _: c_int,
    _: Range<*mut u8>,
    _: ChildEntry,
    _: *mut c_void,
) -> c_int {
    // SAFETY: the place of the error number of this thread.
    unsafe { *libc::__errno_location() = libc::ENOSYS };
    -1
}
