//! A namespace of users for this process alone: in it the number of its threads and processes has a limit of its
//! own, which does not count those of other programs of the user.

use std::fs;

use rustix::process::{Resource, getegid, geteuid};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::{is_alone, lower};

/// The most threads and processes. Those of a superuser are not limited.
const MOST_THREADS: u64 = 1_024;

const RESTRICTION: &str = "/proc/sys/kernel/apparmor_restrict_unprivileged_userns";

/// Whether AppArmor, as Ubuntu sets it up, lets this process make a namespace and then refuses its maps. This process
/// would stay in there as nobody: so it is not tried. A program with a profile of its own may be allowed to.
fn are_useless(restriction: &str, profile: &str) -> bool {
    restriction.trim() == "1" && profile.trim_end_matches(['\0', '\n']) == "unconfined"
}

pub(super) fn impose() -> Result<(), String> {
    // The system refuses it to a process with several threads.
    is_alone()?;
    let (user, group) = (geteuid().as_raw(), getegid().as_raw());
    let read = |file| fs::read_to_string(file).unwrap_or_default();
    if user != 0 && are_useless(&read(RESTRICTION), &read("/proc/self/attr/current")) {
        return Err("AppArmor lets no unprivileged program use a namespace of users".to_owned());
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_are_useless_for_unconfined_programs_where_apparmor_restricts_them() {
        for (restriction, profile, expected) in [
            ("1\n", "unconfined\n", true),
            ("1\n", "unconfined\0", true),
            ("1\n", "chrome (unconfined)\n", false),
            ("0\n", "unconfined\n", false),
            ("", "", false),
            ("", "unconfined\n", false),
        ] {
            assert_eq!(are_useless(restriction, profile), expected, "{restriction}{profile}");
        }
    }
}
