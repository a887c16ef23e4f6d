//! The filter of system calls: a program of the kernel's packet filter.
//!
//! | tier | effect |
//! |---|---|
//! | allowed | the call is made |
//! | failing | EPERM, for calls that libraries try and go on without; ENOSYS for `clone3`; ENOTSUP to read attributes of files by path |
//! | ending | SIGSYS: its handler records the number, and the process dies |
//!
//! Calls of another kind of processor (32 bits, x32) end the process in any case: their numbers have other
//! meanings.

mod program;

use std::collections::BTreeMap;

use libc::c_long;

use super::Rules;
use crate::sandbox::syscalls::{
    ATTRIBUTES, ENDING, FAILING, FILES, METADATA, NEEDED, NETWORK, OBJECTS, ON_PROCESSES, PROCESSES,
};

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const END: u32 = libc::SECCOMP_RET_TRAP;
const FAIL: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
const ABSENT: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;
const UNSUPPORTED: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOTSUP as u32;
const KILL: u32 = libc::SECCOMP_RET_KILL_PROCESS;

/// What the filter does with one call. Arguments are looked at by their lower halves, unless they
/// are pointers.
enum CallRule {
    Always(u32),
    /// Allowed if all of the conditions hold.
    If {
        all: Vec<Condition>,
        otherwise: u32,
    },
    /// Fails if one of the conditions holds.
    Unless(Vec<Condition>),
    /// Allowed if all of these arguments are zero, of which [`CallArgument::Whole`] are pointers; else it fails.
    IfZero(Vec<CallArgument>),
}

/// An argument, with this mask, has one of the values.
struct Condition {
    argument: u32,
    mask: u32,
    values: Vec<u32>,
}

/// An argument by its index.
#[derive(Clone, Copy)]
enum CallArgument {
    LowerHalf(u32),
    Whole(u32),
}

pub(super) fn check() -> Result<(), String> {
    // SAFETY: asks about an action; the kernel reads one number.
    let has_it = unsafe {
        let action = END;
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_GET_ACTION_AVAIL, 0, &raw const action)
    };
    match has_it {
        0 => Ok(()),
        _ => Err(format!("this kernel does not have it: {}", std::io::Error::last_os_error())),
    }
}

pub(super) fn impose(rules: &Rules, has_landlock: bool) -> Result<(), String> {
    check()?;
    let (verdicts, others) = verdicts(rules, has_landlock);
    let filter = program::of(&verdicts, others);
    let len = u16::try_from(filter.len()).map_err(|_| "the filter is too long")?;
    let program = libc::sock_fprog { len, filter: filter.as_ptr().cast_mut() };
    // SAFETY: the kernel copies the program, which lives until the call returns.
    let done = unsafe {
        let flags = libc::SECCOMP_FILTER_FLAG_TSYNC;
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program)
    };
    match done {
        0 => Ok(()),
        _ => Err(format!("the filter is refused: {}", std::io::Error::last_os_error())),
    }
}

/// The verdicts by the number of the call, and that on all others.
fn verdicts(rules: &Rules, has_landlock: bool) -> (BTreeMap<u32, CallRule>, u32) {
    let mut all = BTreeMap::new();
    let mut add = |list: &[(c_long, &str)], verdict: u32| {
        for (number, _) in list {
            all.insert(number_of(*number), CallRule::Always(verdict));
        }
    };
    if rules.is_strict {
        add(FAILING, FAIL);
        add(NEEDED, ALLOW);
        add(FILES, if has_landlock { ALLOW } else { FAIL });
        if rules.processes {
            add(PROCESSES, ALLOW);
        }
        if rules.network {
            add(NETWORK, ALLOW);
        }
    }
    add(METADATA, FAIL);
    add(OBJECTS, FAIL);
    add(ATTRIBUTES, UNSUPPORTED);
    add(ENDING, END);
    if has_landlock || !rules.is_strict {
        for (number, mode) in WITH_MODES {
            all.insert(number_of(*number), no_set_id(*mode));
        }
    }
    for (number, verdict) in decided_by_arguments(rules) {
        all.insert(number_of(number), verdict);
    }
    (all, if rules.is_strict { END } else { ALLOW })
}

/// The new namespaces that `clone` can make.
const NAMESPACES: u32 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWCGROUP) as u32;
/// A child of the coordinator would be one that it has not started, and does not wait for.
const PARENT: u32 = libc::CLONE_PARENT as u32;
const THREAD: u32 = (libc::CLONE_THREAD | libc::CLONE_VM) as u32;

/// `F_SETOWN`, `F_SETSIG`, `F_SETOWN_EX`; `F_SETLEASE`, for which other processes wait; `F_NOTIFY`; `F_SET_RW_HINT` and
/// `F_SET_FILE_RW_HINT`, whatever the file was opened for.
const UNNEEDED_OF_FCNTL: [u32; 7] = [8, 10, 15, 1024, 1026, 1036, 1038];
/// The same by `FIOSETOWN` and `SIOCSPGRP`.
const SET_OWNER_BY_IOCTL: [u32; 2] = [0x8901, 0x8902];
/// Requests to file systems by the letter that is their second byte: they change flags, versions, keys and layouts of the
/// owner's files, make directories and copies, whatever the file was opened for. `f`, `v` and `X` are of several file
/// systems, the others of FAT, OCFS2, btrfs, ceph, bcachefs, CIFS and f2fs.
const OF_FILE_SYSTEMS: [u32; 10] =
    [0x6600, 0x7600, 0x5800, 0x7200, 0x6f00, 0x9400, 0x9700, 0xbc00, 0xcf00, 0xf500];
/// A program that runs with the rights of its owner or group.
const SET_ID: u32 = 0o6000;
/// Calls that make files, and which argument is the mode.
const WITH_MODES: &[(c_long, u32)] = &[
    (libc::SYS_openat, 3),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_open, 2),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_creat, 1),
];

fn is_one_of(argument: u32, values: &[u32]) -> Condition {
    Condition { argument, mask: u32::MAX, values: values.to_vec() }
}

/// A call that fails if an argument is one of these.
fn none_of(argument: u32, values: &[u32]) -> CallRule {
    CallRule::Unless(vec![is_one_of(argument, values)])
}

/// A call that is allowed if the argument, with this mask, is the value.
fn if_masked(argument: u32, mask: u32, value: u32, otherwise: u32) -> CallRule {
    CallRule::If { all: vec![Condition { argument, mask, values: vec![value] }], otherwise }
}

fn decided_by_arguments(rules: &Rules) -> Vec<(c_long, CallRule)> {
    // A filter cannot read the flags of `clone3`, which are in memory. The C library goes on with
    // `clone`.
    let mut verdicts = vec![(libc::SYS_clone3, CallRule::Always(ABSENT))];
    let may_fork = !rules.is_strict || rules.processes;
    let (mask, value) =
        if may_fork { (NAMESPACES | PARENT, 0) } else { (NAMESPACES | THREAD, THREAD) };
    verdicts.push((libc::SYS_clone, if_masked(0, mask, value, END)));
    verdicts.extend(metadata_by_descriptor(rules));
    // Signals by what happens at a descriptor: the kernel sends them to any process of the user.
    verdicts.push((libc::SYS_fcntl, none_of(1, &UNNEEDED_OF_FCNTL)));
    if !rules.is_strict {
        // Landlock refuses TCP; sockets of other kinds are refused here.
        verdicts.push((libc::SYS_socket, socket(rules, FAIL, &[libc::AF_NETLINK])));
        // Input for a terminal, as if it were typed.
        const PASTE: [u32; 2] = [libc::TIOCSTI as u32, libc::TIOCLINUX as u32];
        let refused = is_one_of(1, &[PASTE, SET_OWNER_BY_IOCTL].concat());
        let of_file_systems =
            Condition { argument: 1, mask: 0xff00, values: OF_FILE_SYSTEMS.to_vec() };
        verdicts.push((libc::SYS_ioctl, CallRule::Unless(vec![refused, of_file_systems])));
        let own = |argument| CallRule::IfZero(vec![CallArgument::LowerHalf(0), argument]);
        let on_processes =
            ON_PROCESSES.iter().map(|(call, _)| (*call, own(CallArgument::LowerHalf(0))));
        verdicts.extend(on_processes);
        // Of this process: PRIO_PROCESS, and no number.
        verdicts.push((libc::SYS_setpriority, own(CallArgument::LowerHalf(1))));
        verdicts.push((libc::SYS_socketpair, pair_of_sockets()));
        return verdicts;
    }
    verdicts.extend(decided_where_strict(rules));
    verdicts
}

fn no_set_id(argument: u32) -> CallRule {
    if_masked(argument, SET_ID, 0, FAIL)
}

/// The mode and the times of an open file. Where nothing may be written, no file is the worker's own.
fn metadata_by_descriptor(rules: &Rules) -> [(c_long, CallRule); 2] {
    if rules.write.is_empty() {
        return [libc::SYS_fchmod, libc::SYS_utimensat].map(|call| (call, CallRule::Always(FAIL)));
    }
    let mode = no_set_id(1);
    // With a path, the file need not be open.
    let times = CallRule::IfZero(vec![CallArgument::Whole(1)]);
    [(libc::SYS_fchmod, mode), (libc::SYS_utimensat, times)]
}

/// Pairs of local sockets, but not for datagrams, which could send to any socket that has a path. For other families the
/// kernel would load code.
fn pair_of_sockets() -> CallRule {
    let family = is_one_of(0, &[number_of(libc::AF_UNIX.into())]);
    let kind = of_kinds(&[libc::SOCK_STREAM, libc::SOCK_SEQPACKET]);
    CallRule::If { all: vec![family, kind], otherwise: FAIL }
}

/// The kind of a new socket, without its flags.
fn of_kinds(kinds: &[i32]) -> Condition {
    let values = kinds.iter().map(|kind| number_of((*kind).into())).collect();
    Condition { argument: 1, mask: 0xf, values }
}

/// If the network is allowed, new sockets may be of the internet and of these families, and of protocols that all programs
/// use: for other protocols the kernel would load code.
fn socket(rules: &Rules, otherwise: u32, more: &[i32]) -> CallRule {
    const PROTOCOLS: [i32; 5] =
        [0, libc::IPPROTO_TCP, libc::IPPROTO_UDP, libc::IPPROTO_ICMP, libc::IPPROTO_ICMPV6];
    if !rules.network {
        return CallRule::Always(otherwise);
    }
    let families = [libc::AF_INET, libc::AF_INET6].into_iter().chain(more.iter().copied());
    let families: Vec<_> = families.map(|family| number_of(family.into())).collect();
    // Netlink has only the last two. For those of the internet, the last one needs a right that a worker has not.
    let kinds = of_kinds(&[libc::SOCK_STREAM, libc::SOCK_DGRAM, libc::SOCK_RAW]);
    let protocols = is_one_of(2, &PROTOCOLS.map(|protocol| number_of(protocol.into())));
    CallRule::If { all: vec![is_one_of(0, &families), kinds, protocols], otherwise: FAIL }
}

fn decided_where_strict(rules: &Rules) -> Vec<(c_long, CallRule)> {
    let one_of = |argument, values: &[c_long], otherwise| {
        let values: Vec<_> = values.iter().copied().map(number_of).collect();
        CallRule::If { all: vec![is_one_of(argument, &values)], otherwise }
    };
    let mut verdicts = Vec::new();
    for call in [libc::SYS_mmap, libc::SYS_mprotect, libc::SYS_pkey_mprotect] {
        let mask = if rules.new_code { 0 } else { libc::PROT_EXEC as u32 };
        verdicts.push((call, if_masked(2, mask, 0, FAIL)));
    }
    let own = c_long::from(std::process::id().cast_signed());
    let requests = [
        libc::FIONREAD,
        libc::FIOCLEX,
        libc::FIONCLEX,
        libc::FIONBIO,
        libc::TCGETS,
        libc::TIOCGWINSZ,
    ];
    let requests: Vec<_> = requests.iter().map(|request| *request as c_long).collect();
    let options = [
        libc::PR_SET_NAME,
        libc::PR_GET_NAME,
        libc::PR_GET_PDEATHSIG,
        libc::PR_GET_DUMPABLE,
        libc::PR_CAPBSET_READ,
        libc::PR_GET_NO_NEW_PRIVS,
        libc::PR_GET_SECCOMP,
        libc::PR_SET_VMA,
    ];
    let mut options = options.to_vec();
    // Else it is SIGKILL, for good: see `linux.rs`.
    options.extend(rules.processes.then_some(libc::PR_SET_PDEATHSIG));
    let options: Vec<_> = options.iter().map(|option| c_long::from(*option)).collect();
    verdicts.extend([
        (
            libc::SYS_kill,
            one_of(0, &if rules.processes { vec![own, -own, 0] } else { vec![own, -own] }, FAIL),
        ),
        (libc::SYS_tgkill, one_of(0, &[own], FAIL)),
        (libc::SYS_ioctl, one_of(1, &requests, FAIL)),
        (libc::SYS_prctl, one_of(0, &options, FAIL)),
        (
            libc::SYS_prlimit64,
            CallRule::IfZero(vec![CallArgument::LowerHalf(0), CallArgument::Whole(2)]),
        ),
        (libc::SYS_socket, socket(rules, END, &[])),
        (libc::SYS_setpriority, CallRule::Always(FAIL)),
        (
            libc::SYS_socketpair,
            if rules.network { pair_of_sockets() } else { CallRule::Always(END) },
        ),
    ]);
    let others = ON_PROCESSES.iter().filter(|(call, _)| *call != libc::SYS_prlimit64);
    verdicts.extend(others.map(|(call, _)| (*call, CallRule::Always(FAIL))));
    verdicts
}

/// The lower 32 bits, which is what the kernel uses of an `int` as well.
fn number_of(number: c_long) -> u32 {
    number as u32
}
