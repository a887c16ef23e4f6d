//! A change of this process's environment, for the length of one call.

use std::ffi::OsString;
use std::path::Path;
use std::{env, fs};

const TEMPORARY: &str = "TMPDIR";

/// Calls `f` with this directory as the directory for temporary files, if this process has one thread: the
/// environment must not change while another thread reads it. Otherwise it calls `f` alone. `f` must start no
/// thread.
pub fn with_temporary_directory<R>(dir: &Path, f: impl FnOnce() -> R) -> R {
    let _changed = has_one_thread().then(|| Changed::to(dir));
    f()
}

/// Known on Linux alone.
fn has_one_thread() -> bool {
    cfg!(target_os = "linux")
        && fs::read_dir("/proc/self/task").is_ok_and(|threads| threads.count() == 1)
}

/// Sets the variable back when it is dropped.
struct Changed {
    before: Option<OsString>,
}

impl Changed {
    fn to(dir: &Path) -> Self {
        let before = env::var_os(TEMPORARY);
        // SAFETY: this is the only thread.
        unsafe { env::set_var(TEMPORARY, dir) };
        Self { before }
    }
}

impl Drop for Changed {
    fn drop(&mut self) {
        // SAFETY: as above. The call in between starts no thread.
        unsafe {
            match self.before.take() {
                Some(before) => env::set_var(TEMPORARY, before),
                None => env::remove_var(TEMPORARY),
            }
        }
    }
}
