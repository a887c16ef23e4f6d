//! A namespace of users for this process alone: in it the number of its threads and processes has a limit of its
//! own, which does not count those of other programs of the user.

use std::fs;

use rustix::process::{Resource, getegid, geteuid};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::{is_alone, lower};

/// The most threads and processes. Those of a superuser are not limited.
const MOST_THREADS: u64 = 1_024;

pub(super) fn impose() -> Result<(), String> {
    // The system refuses it to a process with several threads.
    is_alone()?;
    let (user, group) = (geteuid().as_raw(), getegid().as_raw());
    // SAFETY: this process has one thread, and the flag changes neither its memory nor its descriptors.
    unsafe { unshare_unsafe(UnshareFlags::NEWUSER) }
        .map_err(|error| format!("the system refuses a namespace of users: {error}"))?;
    // The same numbers inside; without a map each is that of nobody.
    for (file, text) in [
        ("setgroups", "deny".to_owned()),
        ("uid_map", format!("{user} {user} 1")),
        ("gid_map", format!("{group} {group} 1")),
    ] {
        fs::write(format!("/proc/self/{file}"), text)
            .map_err(|error| format!("the system refuses to write {file}: {error}"))?;
    }
    lower(Resource::Nproc, MOST_THREADS)
}
