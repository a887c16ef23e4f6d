//! Attempts on parts of the kernel that no task needs, and what only the strict level refuses.

use std::path::Path;

use libc::c_long;

use super::{Arg, Attempt, HERE, IntoArg, Step, Targets, maybe, open, text, words};

// These have the same numbers on all processors.
const OPEN_TREE_ATTR: i64 = 467;
const STATMOUNT: i64 = 457;
const LISTMOUNT: i64 = 458;
const QUOTACTL_FD: i64 = 443;

/// Calls that no task needs. The arguments of most are no addresses, so one that is made has no effect.
const UNNEEDED: &[(&str, c_long)] = &[
    ("bpf", libc::SYS_bpf),
    ("perf_event_open", libc::SYS_perf_event_open),
    ("userfaultfd", libc::SYS_userfaultfd),
    ("io_uring_setup", libc::SYS_io_uring_setup),
    ("io_uring_enter", libc::SYS_io_uring_enter),
    ("io_uring_register", libc::SYS_io_uring_register),
    ("keyctl", libc::SYS_keyctl),
    ("add_key", libc::SYS_add_key),
    ("request_key", libc::SYS_request_key),
    ("mount", libc::SYS_mount),
    ("umount2", libc::SYS_umount2),
    ("open_tree", libc::SYS_open_tree),
    ("open_tree_attr", OPEN_TREE_ATTR),
    ("move_mount", libc::SYS_move_mount),
    ("mount_setattr", libc::SYS_mount_setattr),
    ("fsopen", libc::SYS_fsopen),
    ("fspick", libc::SYS_fspick),
    ("statmount", STATMOUNT),
    ("listmount", LISTMOUNT),
    ("quotactl_fd", QUOTACTL_FD),
    ("pivot_root", libc::SYS_pivot_root),
    ("setns", libc::SYS_setns),
    ("open_by_handle_at", libc::SYS_open_by_handle_at),
    ("personality", libc::SYS_personality),
    ("syslog", libc::SYS_syslog),
    ("acct", libc::SYS_acct),
    ("reboot", libc::SYS_reboot),
    ("init_module", libc::SYS_init_module),
    ("kexec_load", libc::SYS_kexec_load),
    ("settimeofday", libc::SYS_settimeofday),
    ("fanotify_init", libc::SYS_fanotify_init),
    ("memfd_secret", libc::SYS_memfd_secret),
    ("vhangup", libc::SYS_vhangup),
];

pub(super) fn unneeded() -> Vec<Attempt> {
    let attempt = |(name, number): &(&'static str, c_long)| {
        maybe(name, vec![step!(*number, -1, -1, 0, 0, 0)])
    };
    UNNEEDED.iter().map(attempt).collect()
}

pub(super) fn namespaces_and_devices() -> Vec<Attempt> {
    let mut all = Vec::new();
    for flag in [
        libc::CLONE_NEWUSER,
        libc::CLONE_NEWNS,
        libc::CLONE_NEWPID,
        libc::CLONE_NEWNET,
        libc::CLONE_NEWIPC,
        libc::CLONE_NEWCGROUP,
    ] {
        all.push(maybe("unshare", vec![step!(libc::SYS_unshare, flag)]));
        all.push(maybe(
            "clone into namespaces",
            vec![step!(libc::SYS_clone, flag | libc::SIGCHLD, 0, 0, 0, 0)],
        ));
    }
    all.push(maybe("terminal input", vec![step!(libc::SYS_ioctl, 0, libc::TIOCSTI as i64, "x")]));
    all.push(maybe(
        "console input",
        vec![step!(libc::SYS_ioctl, 0, libc::TIOCLINUX as i64, vec![2_u8; 8])],
    ));
    // Any answer but a refusal means that the filter lets the upper half of an argument decide.
    all.push(maybe(
        "a request in the lower half",
        vec![step!(libc::SYS_ioctl, 0, libc::TIOCSTI as i64 | 1 << 40, "x")],
    ));
    for device in [
        "/dev/mem",
        "/dev/kmsg",
        "/dev/ptmx",
        "/dev/fuse",
        "/dev/kvm",
        "/dev/net/tun",
        "/sys/kernel/notes",
        "/proc/kcore",
        "/proc/sysrq-trigger",
        "/proc/self/environ",
        "/proc/self/mountinfo",
        "/proc/self/fd",
    ] {
        if Path::new(device).exists() {
            all.push(maybe(
                "a file of the system",
                vec![step!(libc::SYS_openat, HERE, device, libc::O_CLOEXEC)],
            ));
        }
    }
    all
}

/// What only the strict level refuses.
pub(in super::super) fn of_strict(targets: &Targets<'_>) -> Vec<Attempt> {
    let mut all = new_code(targets);
    all.extend(of_this_process(targets));
    all
}

fn new_code(targets: &Targets<'_>) -> Vec<Attempt> {
    let code = libc::PROT_READ | libc::PROT_EXEC;
    let memory = || step!(libc::SYS_memfd_create, "code", libc::MFD_CLOEXEC);
    let exec = |flags| step!(libc::SYS_execveat, Arg::Returned(0), "", 0, 0, flags);
    let shared = libc::MAP_SHARED;
    vec![
        maybe("a program in memory", vec![memory(), exec(libc::AT_EMPTY_PATH)]),
        maybe("a program", vec![step!(libc::SYS_execve, "/bin/true", 0, 0)]),
        open(
            "code in a memory file",
            vec![
                memory(),
                step!(libc::SYS_ftruncate, Arg::Returned(0), 4096),
                step!(libc::SYS_mmap, 0, 4096, code, shared, Arg::Returned(0), 0),
            ],
        ),
        open(
            "code from a readable file",
            vec![
                step!(libc::SYS_openat, HERE, text(targets.readable), libc::O_CLOEXEC),
                step!(libc::SYS_mmap, 0, 1, code, libc::MAP_PRIVATE, Arg::Returned(0), 0),
            ],
        ),
        maybe("code in shared memory", vec![step!(libc::SYS_shmat, 0, 0, libc::SHM_EXEC)]),
    ]
}

fn of_this_process(targets: &Targets<'_>) -> Vec<Attempt> {
    let hidden = text(targets.secret);
    vec![
        maybe("a copy of this process", vec![step!(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0)]),
        maybe(
            "a copy in this memory",
            vec![step!(libc::SYS_clone, libc::CLONE_VM | libc::SIGCHLD, -1, 0, 0, 0)],
        ),
        open("a group of its own", vec![step!(libc::SYS_setpgid, 0, 0)]),
        maybe("a session", vec![step!(libc::SYS_setsid)]),
        open("traceable", vec![step!(libc::SYS_prctl, libc::PR_SET_DUMPABLE, 1, 0, 0, 0)]),
        open(
            "another coordinator",
            vec![step!(libc::SYS_prctl, libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)],
        ),
        open(
            "no end with the coordinator",
            vec![step!(libc::SYS_prctl, libc::PR_SET_PDEATHSIG, 0, 0, 0, 0)],
        ),
        open(
            "another end with the coordinator",
            vec![step!(libc::SYS_prctl, libc::PR_SET_PDEATHSIG, libc::SIGURG, 0, 0, 0)],
        ),
        open(
            "a pair of sockets",
            vec![step!(
                libc::SYS_socketpair,
                libc::AF_UNIX,
                libc::SOCK_STREAM | libc::SOCK_CLOEXEC,
                0,
                vec![0; 8]
            )],
        ),
        open(
            "pages out of a pipe",
            vec![
                step!(libc::SYS_pipe2, vec![0; 8], libc::O_CLOEXEC),
                step!(libc::SYS_vmsplice, Arg::Filled(0, 0), 0, 0, 0),
            ],
        ),
        open("notes of files", vec![step!(libc::SYS_inotify_init1, libc::IN_CLOEXEC)]),
        open(
            "another filter",
            vec![step!(
                libc::SYS_seccomp,
                libc::SECCOMP_GET_ACTION_AVAIL,
                0,
                words(&[libc::SECCOMP_RET_ALLOW.into()])
            )],
        ),
        open(
            "the own limits",
            vec![step!(libc::SYS_prlimit64, 0, libc::RLIMIT_CORE, words(&[0, 0]), 0)],
        ),
        open("another directory", vec![step!(libc::SYS_chdir, "/")]),
        maybe("how full a disk is", vec![step!(libc::SYS_statfs, hidden, words(&[0; 20]))]),
    ]
}
