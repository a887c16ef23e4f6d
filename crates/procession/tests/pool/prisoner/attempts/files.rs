//! Attempts on files.

use std::path::Path;

use super::{Arg, Attempt, HERE, IntoArg, Step, Targets, maybe, open, text, words};

// These have the same numbers on all processors.
const FCHMODAT2: i64 = 452;
const SETXATTRAT: i64 = 463;
const REMOVEXATTRAT: i64 = 466;
const FILE_SETATTR: i64 = 469;
const GETXATTRAT: i64 = 464;
const LISTXATTRAT: i64 = 465;

/// What a file is apart from its content: landlock does not ask about that.
pub(super) fn metadata(targets: &Targets<'_>) -> Vec<Attempt> {
    let path = text(targets.secret);
    let mut all = older_calls(path);
    all.extend([
        open("its mode, by path", vec![step!(libc::SYS_fchmodat, HERE, path, 0o666)]),
        open("its mode, by the newer call", vec![step!(FCHMODAT2, HERE, path, 0o600, 0)]),
        open("its times", vec![step!(libc::SYS_utimensat, HERE, path, 0, 0)]),
        maybe("an attribute", vec![step!(libc::SYS_setxattr, path, "user.x", "x", 1, 0)]),
        maybe(
            "an attribute of a link",
            vec![step!(libc::SYS_lsetxattr, path, "user.x", "x", 1, 0)],
        ),
        maybe("no attribute", vec![step!(libc::SYS_removexattr, path, "user.x")]),
        maybe(
            "an attribute, by the newer call",
            vec![step!(SETXATTRAT, HERE, path, 0, "user.x", words(&[0; 4]), 16)],
        ),
        maybe(
            "no attribute, by the newer call",
            vec![step!(REMOVEXATTRAT, HERE, path, 0, "user.x")],
        ),
        maybe(
            "its flags, by the newer call",
            vec![step!(FILE_SETATTR, HERE, path, words(&[0; 4]), 24, 0)],
        ),
        open("its owner", vec![step!(libc::SYS_fchownat, HERE, path, -1, -1, 0)]),
        maybe("events", vec![step!(libc::SYS_inotify_add_watch, 0, path, libc::IN_ALL_EVENTS)]),
        maybe(
            "its handle",
            vec![step!(
                libc::SYS_name_to_handle_at,
                HERE,
                path,
                words(&[128; 20]),
                words(&[0; 2]),
                0
            )],
        ),
    ]);
    all
}

/// The same by calls that newer processors do not have.
#[cfg(target_arch = "x86_64")]
fn older_calls(path: &str) -> Vec<Attempt> {
    vec![
        maybe("its mode", vec![step!(libc::SYS_chmod, path, 0o666)]),
        maybe("its owner, by the oldest call", vec![step!(libc::SYS_chown, path, -1, -1)]),
        maybe("the owner of a link", vec![step!(libc::SYS_lchown, path, -1, -1)]),
        maybe("its times, by an older call", vec![step!(libc::SYS_utimes, path, 0)]),
        maybe("its times, by the oldest call", vec![step!(libc::SYS_utime, path, 0)]),
        maybe("its times, below a directory", vec![step!(libc::SYS_futimesat, HERE, path, 0)]),
    ]
}

#[cfg(not(target_arch = "x86_64"))]
fn older_calls(_: &str) -> Vec<Attempt> {
    Vec::new()
}

/// What is in files, and how they are called.
pub(super) fn contents_and_names(targets: &Targets<'_>) -> Vec<Attempt> {
    let (path, beside) = (text(targets.secret), targets.secret.with_extension("beside"));
    let beside = text(&beside);
    vec![
        open("its content", vec![step!(libc::SYS_truncate, path, 0)]),
        open("a link to it", vec![step!(libc::SYS_linkat, HERE, path, HERE, beside, 0)]),
        open("another name", vec![step!(libc::SYS_renameat2, HERE, path, HERE, beside, 0)]),
        open("removed", vec![step!(libc::SYS_unlinkat, HERE, path, 0)]),
        open("a directory", vec![step!(libc::SYS_mkdirat, HERE, beside, 0o700)]),
        open("a link", vec![step!(libc::SYS_symlinkat, "x", HERE, beside)]),
        open(
            "a file without a name",
            vec![step!(
                libc::SYS_openat,
                HERE,
                "/tmp",
                libc::O_TMPFILE | libc::O_RDWR | libc::O_CLOEXEC,
                0o600
            )],
        ),
        open(
            "by the root of this process",
            vec![step!(libc::SYS_openat, HERE, "/proc/self/root/etc/passwd", libc::O_CLOEXEC)],
        ),
        open(
            "by the first process",
            vec![step!(libc::SYS_openat, HERE, "/proc/1/cmdline", libc::O_CLOEXEC)],
        ),
        open(
            "the own memory",
            vec![step!(libc::SYS_openat, HERE, "/proc/self/mem", libc::O_RDWR | libc::O_CLOEXEC)],
        ),
    ]
}

/// What a descriptor for reading is good for.
pub(super) fn by_a_descriptor(targets: &Targets<'_>) -> Vec<Attempt> {
    const FS_IOC_SETFLAGS: i64 = 0x4008_6602;
    const FS_IOC_FSSETXATTR: i64 = 0x401c_5820;
    let path = text(targets.readable);
    let open_it = || step!(libc::SYS_openat, HERE, path, libc::O_RDONLY | libc::O_CLOEXEC);
    let and = |step| vec![open_it(), step];
    let it = || Arg::Returned(0);
    vec![
        open("the mode of a readable file", and(step!(libc::SYS_fchmod, it(), 0o644))),
        open("a program with the rights of its owner", and(step!(libc::SYS_fchmod, it(), 0o4755))),
        open("the times of a readable file", and(step!(libc::SYS_utimensat, it(), 0, 0, 0))),
        open("the owner of a readable file", and(step!(libc::SYS_fchown, it(), -1, -1))),
        maybe(
            "an attribute of a readable file",
            and(step!(libc::SYS_fsetxattr, it(), "user.x", "x", 1, 0)),
        ),
        maybe(
            "no attribute of a readable file",
            and(step!(libc::SYS_fremovexattr, it(), "user.x")),
        ),
        maybe("its flags", and(step!(libc::SYS_ioctl, it(), FS_IOC_SETFLAGS, words(&[0])))),
        maybe("its project", and(step!(libc::SYS_ioctl, it(), FS_IOC_FSSETXATTR, words(&[0; 4])))),
        maybe(
            "a lease, for which others wait",
            and(step!(libc::SYS_fcntl, it(), libc::F_SETLEASE, libc::F_RDLCK)),
        ),
        maybe(
            "notes of what happens in a directory",
            and(step!(libc::SYS_fcntl, it(), libc::F_NOTIFY, 1)),
        ),
        open(
            "opened for writing",
            vec![step!(libc::SYS_openat, HERE, path, libc::O_RDWR | libc::O_CLOEXEC)],
        ),
    ]
}

/// The same by requests to its file system, of which each has its own. Most file systems do not know the request, or the
/// file is not of the right kind; but they have looked at it.
pub(super) fn by_requests(targets: &Targets<'_>) -> Vec<Attempt> {
    const REQUESTS: [(&str, i64); 9] = [
        ("fixed for ever (verity)", 0x4080_6685),
        ("encrypted", 0x800c_6613),
        ("its version", 0x4008_7602),
        ("its attributes (FAT)", 0x4004_7211),
        ("a new directory (btrfs)", 0x5000_940e),
        ("a copy of a directory (btrfs)", 0x5000_9417),
        ("pinned (f2fs)", 0x4004_f50d),
        ("any request to the server (CIFS)", 0xc018_cf07),
        ("its layout (ceph)", 0x4040_9702),
    ];
    let path = text(targets.readable);
    let open_it = || step!(libc::SYS_openat, HERE, path, libc::O_RDONLY | libc::O_CLOEXEC);
    let it = || Arg::Returned(0);
    let request = |(name, request): (&'static str, i64)| {
        maybe(name, vec![open_it(), step!(libc::SYS_ioctl, it(), request, words(&[0; 32]))])
    };
    let mut all: Vec<_> = REQUESTS.into_iter().map(request).collect();
    // F_SET_RW_HINT
    let hint = step!(libc::SYS_fcntl, it(), 1036, words(&[2]));
    all.push(maybe("for how long its content will stay", vec![open_it(), hint]));
    all
}

/// What attributes of a file say that must not be read, by its path.
pub(super) fn attributes(targets: &Targets<'_>) -> Vec<Attempt> {
    let path = text(targets.secret);
    let (name, value) = ("user.secret", vec![0; 64]);
    let all = [
        maybe("an attribute", vec![step!(libc::SYS_getxattr, path, name, value.clone(), 64)]),
        maybe("one of a link", vec![step!(libc::SYS_lgetxattr, path, name, value.clone(), 64)]),
        open("their names", vec![step!(libc::SYS_listxattr, path, value.clone(), 64)]),
        open("those of a link", vec![step!(libc::SYS_llistxattr, path, value, 64)]),
        maybe(
            "an attribute, by the newer call",
            vec![step!(GETXATTRAT, HERE, path, 0, name, words(&[0; 4]), 16)],
        ),
        maybe(
            "their names, by the newer call",
            vec![step!(LISTXATTRAT, HERE, path, 0, words(&[0; 8]), 64)],
        ),
    ];
    all.map(|attempt| Attempt { is_absent: true, ..attempt }).into()
}

/// In a directory where a worker may write: what is allowed, and what is not.
pub(in super::super) fn where_it_may_write(dir: &Path) -> Vec<(Attempt, bool)> {
    let path = |name: &str| text(&dir.join(name)).to_owned();
    let (file, other) = (path("file"), path("other"));
    let make = |mode: i32| {
        let flags = libc::O_CREAT | libc::O_RDWR | libc::O_CLOEXEC;
        step!(libc::SYS_openat, HERE, &file[..], flags, mode)
    };
    let it = || Arg::Returned(0);
    vec![
        (maybe("a new program of its owner", vec![make(0o4755)]), false),
        (open("a file", vec![make(0o644)]), true),
        (open("its mode", vec![make(0), step!(libc::SYS_fchmod, it(), 0o755)]), true),
        (
            maybe("a program of its owner", vec![make(0), step!(libc::SYS_fchmod, it(), 0o4755)]),
            false,
        ),
        (
            maybe("a program of its group", vec![make(0), step!(libc::SYS_fchmod, it(), 0o2755)]),
            false,
        ),
        (open("its times", vec![make(0), step!(libc::SYS_utimensat, it(), 0, 0, 0)]), true),
        (maybe("its mode by path", vec![step!(libc::SYS_fchmodat, HERE, &file[..], 0o755)]), false),
        (
            maybe("its times by path", vec![step!(libc::SYS_utimensat, HERE, &file[..], 0, 0)]),
            false,
        ),
        (
            open(
                "a second name",
                vec![step!(libc::SYS_linkat, HERE, &file[..], HERE, &other[..], 0)],
            ),
            true,
        ),
        (open("a directory", vec![step!(libc::SYS_mkdirat, HERE, &path("dir")[..], 0o755)]), true),
        (
            maybe(
                "a link",
                vec![step!(libc::SYS_symlinkat, "/etc/passwd", HERE, &path("link")[..])],
            ),
            false,
        ),
        (
            maybe("a pipe", vec![step!(libc::SYS_mknodat, HERE, &path("pipe")[..], 0o010_600, 0)]),
            false,
        ),
        (
            maybe(
                "a device",
                vec![step!(libc::SYS_mknodat, HERE, &path("null")[..], 0o020_600, 0x103)],
            ),
            false,
        ),
    ]
}
