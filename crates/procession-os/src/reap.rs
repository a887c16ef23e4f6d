//! Takes the status of a child that has ended.

use std::io;
use std::mem::MaybeUninit;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::Pid;

/// How a child ended, and what it and those that it waited for had used.
#[derive(Debug)]
pub struct Reaped {
    /// Its exit code or signal.
    pub status: ExitStatus,
    /// Time on CPUs, its own and the kernel's on its behalf.
    pub cpu: Duration,
    /// The most memory that was resident at a time, in bytes.
    pub peak_memory: u64,
}

/// Takes the status of a child without waiting for it; `None` if there is none to take yet.
pub fn reap(pid: Pid) -> io::Result<Option<Reaped>> {
    let mut status = 0;
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: both pointers lead to memory of the right type that outlives the call.
    let reaped = unsafe {
        libc::wait4(pid.as_raw_nonzero().get(), &mut status, libc::WNOHANG, usage.as_mut_ptr())
    };
    match reaped {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(None),
        _ => {
            // SAFETY: all zeros are a valid `rusage`, and the call may have filled it since.
            let usage = unsafe { usage.assume_init() };
            let cpu = duration(usage.ru_utime) + duration(usage.ru_stime);
            let unit = if cfg!(target_vendor = "apple") { 1 } else { 1024 };
            let peak_memory = u64::try_from(usage.ru_maxrss).unwrap_or_default() * unit;
            Ok(Some(Reaped { status: ExitStatus::from_raw(status), cpu, peak_memory }))
        }
    }
}

fn duration(time: libc::timeval) -> Duration {
    let (seconds, micros) = (u64::try_from(time.tv_sec), u64::try_from(time.tv_usec));
    Duration::from_secs(seconds.unwrap_or_default())
        + Duration::from_micros(micros.unwrap_or_default())
}
