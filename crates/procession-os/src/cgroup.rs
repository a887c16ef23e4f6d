//! Control groups (version 2): processes that the kernel bounds together, and ends together, whatever they have
//! done to leave their parents. Only on Linux, with the feature `sandbox`.
//!
//! A program may make groups in one that was delegated to it. A group counts as delegated if:
//!
//! - systemd has marked it (`Delegate=yes`);
//! - it is the group of a service or scope of systemd, and the program is in a group below it: the manager of a user
//!   sets no marks;
//! - the user of the program owns it, and does not own the group above;
//! - it is the top of a namespace.
//!
//! Bounds need more: the kernel lets a group have bounds only if no process is in the group directly above it. So the
//! program must be in a group below the delegated one (`DelegateSubgroup=`). No process is ever moved.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

/// The group in which this process may make others.
///
/// # Errors
///
/// Why there is none, in words.
pub fn delegated() -> Result<PathBuf, String> {
    imp::delegated()
}

/// Lets the groups below this one have bounds by this controller: `memory` or `pids`.
///
/// # Errors
///
/// Why they cannot, in words.
pub fn enable(dir: &Path, controller: &str) -> Result<(), String> {
    let read = |file| fs::read_to_string(dir.join(file)).unwrap_or_default();
    let has = |file| read(file).split_ascii_whitespace().any(|name| name == controller);
    if !has("cgroup.controllers") {
        return Err(format!("the delegated group has no controller `{controller}`"));
    }
    if has("cgroup.subtree_control") {
        return Ok(());
    }
    // For `pids` the kernel would allow it also if processes are in the group, and then refuse processes in the groups
    // below. The group of the whole system is an exception, and has no file `cgroup.events`.
    if dir.join("cgroup.events").exists() && !read("cgroup.procs").is_empty() {
        return Err("this program is in the delegated group itself, not in one below it".to_owned());
    }
    fs::write(dir.join("cgroup.subtree_control"), format!("+{controller}"))
        .map_err(|error| format!("the system refuses the controller `{controller}`: {error}"))
}

/// Whether processes can be started in the groups below this one, which this process has made, and ended with them.
///
/// # Errors
///
/// Why they cannot, in words.
pub fn check(dir: &Path) -> Result<(), String> {
    // Linux has it since version 5.14, and processes start in groups since version 5.7.
    if !dir.join("cgroup.kill").exists() {
        return Err("this version of Linux cannot end all processes of a group".to_owned());
    }
    let kind = fs::read_to_string(dir.join("cgroup.type"));
    // It has another type if a program has enabled controllers in the group above although processes are there.
    if kind.is_ok_and(|kind| kind.trim_end() == "domain") {
        return Ok(());
    }
    Err("the groups in the delegated one take no processes".to_owned())
}

/// What all processes of a group may have together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GroupBounds {
    /// Memory, in bytes, with that of memory files. Beyond it, all processes of the group are killed.
    pub memory: Option<u64>,
    /// Threads and processes.
    pub threads: Option<u64>,
}

/// A group that this process has made. It is removed when it is dropped and empty.
#[derive(Debug)]
pub struct Group {
    path: PathBuf,
    dir: OwnedFd,
    maker: u32,
    bounds: GroupBounds,
    is_removed: bool,
}

impl Group {
    /// Makes a group, for processes that are [started](crate::spawn::spawn) in it.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn create(path: PathBuf, bounds: GroupBounds) -> io::Result<Self> {
        fs::create_dir(&path)?;
        let dir = match fs::File::open(&path) {
            Ok(dir) => dir.into(),
            Err(error) => {
                let _ = fs::remove_dir(&path);
                return Err(error);
            }
        };
        // If an error is returned from here on, the drop of `group` removes it.
        let maker = std::process::id();
        let group = Self { path, dir, maker, bounds, is_removed: false };
        if let Some(threads) = bounds.threads {
            group.set("pids.max", &threads.to_string())?;
        }
        if let Some(memory) = bounds.memory {
            group.set("memory.oom.group", "1")?;
            // Missing where the system counts no memory that was swapped out.
            if group.path.join("memory.swap.max").exists() {
                group.set("memory.swap.max", "0")?;
            }
            group.set("memory.max", &memory.to_string())?;
        }
        Ok(group)
    }

    fn set(&self, file: &str, value: &str) -> io::Result<()> {
        fs::write(self.path.join(file), value)
    }

    /// Kills all processes in the group, waits until they have ended, and removes the group. If a process does not end
    /// within `longest`, the group stays. Returns whether the kernel has killed processes of the group because it had
    /// more memory than its bound.
    pub fn end(mut self, longest: Duration) -> bool {
        let is_bounded = self.bounds.memory.is_some();
        // The usual case: a group that is empty can be removed at once, and the kernel refuses it for any other.
        self.is_removed = !is_bounded && fs::remove_dir(&self.path).is_ok();
        if self.is_removed {
            return false;
        }
        end(&self.path, longest);
        is_bounded && self.was_out_of_memory()
    }

    fn was_out_of_memory(&self) -> bool {
        let events = fs::read_to_string(self.path.join("memory.events")).unwrap_or_default();
        // `oom_kill` also counts what was killed because a group above, or the system, had no memory left.
        let happened = |event| value_of(&events, event).is_some_and(|number| number != "0");
        happened("oom") && happened("oom_kill")
    }
}

impl AsFd for Group {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // A forked copy of the process does not remove it.
        if self.maker == std::process::id() && !self.is_removed {
            let _ = fs::remove_dir(&self.path);
        }
    }
}

/// Ends all processes in a group and in the groups below it, and removes it with these.
///
/// # Errors
///
/// A process does not end, or the system refuses the removal.
pub fn remove_all(dir: &Path) -> io::Result<()> {
    const LONGEST: Duration = Duration::from_millis(500);
    // The usual case. The kernel refuses it for a group with processes or groups.
    if fs::remove_dir(dir).is_ok() {
        return Ok(());
    }
    if !end(dir, LONGEST) {
        return Err(io::ErrorKind::ResourceBusy.into());
    }
    for entry in fs::read_dir(dir)?.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            fs::remove_dir(entry.path())?;
        }
    }
    fs::remove_dir(dir)
}

fn end(dir: &Path, longest: Duration) -> bool {
    const LONGEST_PAUSE: Duration = Duration::from_millis(20);
    let until = Instant::now() + longest;
    let mut pause = Duration::from_micros(250);
    while !is_empty(dir) {
        if Instant::now() >= until || fs::write(dir.join("cgroup.kill"), "1").is_err() {
            return is_empty(dir);
        }
        thread::sleep(pause);
        pause = (2 * pause).min(LONGEST_PAUSE);
    }
    true
}

/// Processes that have ended and were not reaped do not count.
fn is_empty(dir: &Path) -> bool {
    let events = fs::read_to_string(dir.join("cgroup.events"));
    events.is_ok_and(|events| value_of(&events, "populated") == Some("0"))
}

/// The value of this name in lines such as `populated 0`.
fn value_of<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
}

#[cfg(not(all(
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64"),
    feature = "sandbox",
    not(feature = "portable")
)))]
mod imp {
    use std::path::PathBuf;

    pub(super) fn delegated() -> Result<PathBuf, String> {
        Err(crate::sandbox::imp::why_none())
    }

    #[cfg(test)]
    mod tests {
        use crate::sandbox::{self, Rules};

        #[test]
        fn where_there_is_no_sandbox_there_are_no_groups_for_the_same_reason() {
            let missing = sandbox::check(&Rules::default()).expect_err("no sandbox");
            assert_eq!(super::delegated(), Err(missing.why));
        }
    }
}

#[cfg(all(
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64"),
    feature = "sandbox",
    not(feature = "portable")
))]
mod imp {
    use std::fs;
    use std::os::unix::fs::MetadataExt;
    use std::path::{Path, PathBuf};

    use rustix::fs::{Access, access, getxattr};
    use rustix::process::geteuid;

    pub(super) fn delegated() -> Result<PathBuf, String> {
        let read = |file| fs::read_to_string(file).map_err(|error| format!("{file}: {error}"));
        let place = CgroupMount::of(&read("/proc/self/cgroup")?, &read("/proc/self/mountinfo")?);
        let place = place.ok_or("this system has no control groups of version 2")?;
        if !crate::spawn::clone3::is_available() {
            return Err("the system refuses the call that starts a process in a group".to_owned());
        }
        let is_usable = |dir: &PathBuf| {
            // Who starts a process in a group must be allowed to move it there.
            access(dir.join("cgroup.procs"), Access::WRITE_OK).is_ok()
        };
        place.delegated().filter(is_usable).ok_or_else(|| {
            "no control group was delegated to this program (systemd: Delegate=yes)".to_owned()
        })
    }

    /// Where the groups are mounted, and the one of this process there.
    #[derive(Debug, PartialEq, Eq)]
    struct CgroupMount {
        top: PathBuf,
        own: PathBuf,
    }

    impl CgroupMount {
        /// From the files of `/proc/self` with these names.
        fn of(cgroup: &str, mountinfo: &str) -> Option<Self> {
            let own = cgroup.lines().find_map(|line| line.strip_prefix("0::"))?;
            mountinfo.lines().find_map(|line| {
                let (mount, file_system) = line.split_once(" - ")?;
                let mut fields = mount.split(' ').skip(3);
                let (root, top) = (fields.next()?, Path::new(fields.next()?));
                // A group outside of the namespace begins with `/..`.
                let below = Path::new(own).strip_prefix(root).ok()?;
                let is_below = !below.iter().any(|part| part == "..");
                let place = || Self { top: top.to_owned(), own: top.join(below) };
                (file_system.starts_with("cgroup2 ") && is_below).then(place)
            })
        }

        /// The group above, if it is delegated, since groups in it can have bounds; else the own group, if that is.
        fn delegated(&self) -> Option<PathBuf> {
            let above = self.own.parent().filter(|_| self.own != self.top);
            // The top has this file if it is that of a namespace; else it belongs to the whole system.
            let is_given = |dir: &Path| dir == self.top && dir.join("cgroup.events").exists();
            let above = above
                .filter(|dir| is_given(dir) || is_marked(dir) || is_unit(dir) || is_owned(dir));
            let own = || {
                Some(&*self.own).filter(|dir| *dir == self.top || is_marked(dir) || is_owned(dir))
            };
            above.or_else(own).map(Path::to_owned)
        }
    }

    /// Whether systemd, or another manager, has marked it as delegated.
    fn is_marked(dir: &Path) -> bool {
        let says_yes = |name| {
            let mut value = [0; 1];
            getxattr(dir, name, &mut value[..]) == Ok(1) && value == *b"1"
        };
        says_yes("user.delegate") || says_yes("trusted.delegate")
    }

    /// Whether it is the group of a service or scope. If that is not delegated, systemd puts no process into groups
    /// below it.
    fn is_unit(dir: &Path) -> bool {
        dir.extension().is_some_and(|kind| kind == "service" || kind == "scope")
    }

    /// Whether the user of this process owns it, and does not own the group above.
    fn is_owned(dir: &Path) -> bool {
        let user = geteuid();
        let owner = |dir: &Path| fs::metadata(dir).ok().map(|dir| dir.uid());
        !user.is_root()
            && owner(dir) == Some(user.as_raw())
            && dir.parent().and_then(owner) != Some(user.as_raw())
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        const MOUNTS: &str = "\
24 30 0:22 / /proc rw,nosuid - proc proc rw
35 25 0:30 / /sys/fs/cgroup ro,nosuid shared:9 - tmpfs tmpfs ro
36 35 0:31 / /sys/fs/cgroup/unified rw,nosuid shared:10 - cgroup2 cgroup2 rw,nsdelegate
37 35 0:32 / /sys/fs/cgroup/pids rw shared:11 - cgroup cgroup rw,pids
";

        #[test]
        fn the_group_of_a_process_is_found_where_groups_of_version_2_are_mounted() {
            let place = |cgroup, mounts| CgroupMount::of(cgroup, mounts).map(|place| place.own);
            let own = "8:pids:/other\n0::/user.slice/a.service\n";
            let there = "/sys/fs/cgroup/unified/user.slice/a.service";
            assert_eq!(place(own, MOUNTS), Some(there.into()));
            assert_eq!(place("0::/\n", MOUNTS), Some("/sys/fs/cgroup/unified".into()));
            assert_eq!(place("8:pids:/other\n", MOUNTS), None);
            assert_eq!(place("0::/../outside\n", MOUNTS), None);
            assert_eq!(place(own, "24 30 0:22 / /proc rw - proc proc rw\n"), None);
            let part = "36 35 0:31 /user.slice /groups rw - cgroup2 cgroup2 rw\n";
            assert_eq!(place(own, part), Some("/groups/a.service".into()));
            assert_eq!(place("0::/system.slice\n", part), None);
        }

        #[test]
        fn a_group_is_delegated_by_a_mark_or_at_the_top() {
            let base = tempfile::tempdir().expect("a directory");
            let top = base.path().to_owned();
            let own = top.join("service").join("main");
            fs::create_dir_all(&own).expect("directories");
            let place = CgroupMount { top: top.clone(), own: own.clone() };
            // A user who owns the directories owns the one for temporary files as well, or is root.
            assert!(place.delegated().is_none_or(|dir| !geteuid().is_root() && dir != own));
            let flags = rustix::fs::XattrFlags::empty();
            if rustix::fs::setxattr(top.join("service"), "user.delegate", b"1", flags).is_ok() {
                assert_eq!(place.delegated(), Some(top.join("service")));
            }
            let at_the_top = CgroupMount { top: own.clone(), own: own.clone() };
            assert_eq!(at_the_top.delegated(), Some(own.clone()));
            let unit = top.join("a.service");
            let in_a_unit = CgroupMount { top: top.clone(), own: unit.join("main") };
            assert_eq!(in_a_unit.delegated(), Some(unit));
            // Below the top of a namespace.
            fs::write(top.join("service").join("cgroup.events"), "").expect("a file");
            let below = CgroupMount { top: top.join("service"), own };
            assert_eq!(below.delegated(), Some(top.join("service")));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_was_out_of_memory_only_by_its_own_bound() {
        let base = tempfile::tempdir().expect("a directory");
        let path = base.path().join("group");
        let group = Group::create(path.clone(), GroupBounds::default()).expect("a directory");
        let says = |events: &str| {
            fs::write(path.join("memory.events"), events).expect("a file");
            group.was_out_of_memory()
        };
        assert!(!group.was_out_of_memory(), "no such file");
        assert!(!says("low 0\nmax 7\noom 0\noom_kill 0\noom_group_kill 0\n"));
        assert!(says("low 0\nmax 7\noom 1\noom_kill 3\noom_group_kill 1\n"));
        assert!(!says("low 0\nmax 0\noom 0\noom_kill 3\noom_group_kill 1\n"), "the system's");
    }

    #[test]
    fn a_group_that_is_empty_is_removed_at_once_and_another_after_its_processes() {
        let base = tempfile::tempdir().expect("a directory");
        let path = base.path().join("group");
        let memory = |memory| GroupBounds { memory, threads: None };
        let made = |bounds| Group::create(path.clone(), bounds).expect("a directory");
        assert!(!made(memory(None)).end(Duration::ZERO) && !path.exists());
        // What is known of its memory goes with it. The files stand for those of the kernel, which go with a group.
        let mut group = made(memory(None));
        group.bounds = memory(Some(1));
        let events = "oom 1\noom_kill 3\n";
        for (file, text) in [("memory.events", events), ("cgroup.events", "populated 0\n")] {
            fs::write(path.join(file), text).expect("a file");
        }
        assert!(group.end(Duration::ZERO) && path.exists());
        // As if a process were in it, that does not end.
        fs::write(path.join("cgroup.events"), "populated 1\n").expect("a file");
        assert!(remove_all(&path).is_err() && path.exists());
    }

    #[test]
    fn groups_whose_processes_cannot_be_ended_together_are_of_no_use() {
        let base = tempfile::tempdir().expect("a directory");
        let file = |name| base.path().join(name);
        fs::write(file("cgroup.type"), "domain\n").expect("a file");
        assert!(check(base.path()).expect_err("a reason").contains("cannot end"));
        fs::write(file("cgroup.kill"), "").expect("a file");
        assert_eq!(check(base.path()), Ok(()));
        fs::write(file("cgroup.type"), "domain invalid\n").expect("a file");
        assert!(check(base.path()).expect_err("a reason").contains("take no processes"));
    }
}
