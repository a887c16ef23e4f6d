//! Which standard descriptors were closed when this process was started. The standard library opens
//! `/dev/null` in their places before `main`, so this checks them earlier, when the program is loaded.

use std::sync::atomic::{AtomicU8, Ordering};

/// A bit for each that was closed.
static CLOSED: AtomicU8 = AtomicU8::new(0);

/// Whether standard output was closed: what is written there is lost.
pub fn had_no_stdout() -> bool {
    CLOSED.load(Ordering::Relaxed) & 1 << libc::STDOUT_FILENO != 0
}

/// Run by the loader of programs.
#[used]
#[cfg_attr(
    any(target_os = "linux", target_os = "freebsd", target_os = "netbsd", target_os = "openbsd"),
    // SAFETY: the section holds pointers to functions that take nothing and may be called before
    // `main`; this one makes system calls and changes one number.
    unsafe(link_section = ".init_array")
)]
#[cfg_attr(
    target_vendor = "apple",
    // SAFETY: as above.
    unsafe(link_section = "__DATA,__mod_init_func")
)]
static LOOK: extern "C" fn() = look;

extern "C" fn look() {
    for fd in 0..3 {
        // SAFETY: the call only asks for flags of a descriptor, which need not be open.
        if unsafe { libc::fcntl(fd, libc::F_GETFD) } == -1 {
            CLOSED.fetch_or(1 << fd, Ordering::Relaxed);
        }
    }
}
