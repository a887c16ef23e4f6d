//! The filter of system calls: a program of the kernel's packet filter.
//!
//! | tier | effect |
//! |---|---|
//! | allowed | the call is made |
//! | failing | EPERM, for calls that libraries try and go on without; ENOSYS for `clone3` |
//! | ending | SIGSYS: its handler records the number, and the process dies |
//!
//! Calls of another kind of processor (32 bits, x32) end the process in any case: their numbers have other
//! meanings.

use std::collections::BTreeMap;

use libc::{c_long, sock_filter};

use super::Rules;
use crate::sandbox::syscalls::{
    ENDING, FAILING, FILES, METADATA, NEEDED, NETWORK, OBJECTS, ON_PROCESSES, PROCESSES,
};

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;

// Offsets in the data of a call.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARGUMENTS: u32 = 16;

/// Numbers from here on are those of x32.
const X32: u32 = 0x4000_0000;

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const END: u32 = libc::SECCOMP_RET_TRAP;
const FAIL: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
const ABSENT: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;
const KILL: u32 = libc::SECCOMP_RET_KILL_PROCESS;

/// What the filter does with one call. Arguments are looked at by their lower halves, unless they
/// are pointers.
enum CallRule {
    Always(u32),
    /// Allowed if the argument, with this mask, has one of the values.
    If {
        argument: u32,
        mask: u32,
        values: Vec<u32>,
        otherwise: u32,
    },
    /// Allowed if all of these arguments are zero, of which [`CallArgument::Whole`] are pointers; else it fails.
    IfZero(Vec<CallArgument>),
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
    let filter = program(rules, has_landlock);
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

/// `F_SETOWN`, `F_SETSIG`, `F_SETOWN_EX`; `F_SETLEASE`, for which other processes wait; `F_NOTIFY`.
const UNNEEDED_OF_FCNTL: [u32; 5] = [8, 10, 15, 1024, 1026];
/// The same by `FIOSETOWN` and `SIOCSPGRP`.
const SET_OWNER_BY_IOCTL: [u32; 2] = [0x8901, 0x8902];
/// `FS_IOC_SETFLAGS`, the same of 32 bits, `FS_IOC_FSSETXATTR`: of the owner, whatever the file was opened for.
const SET_FLAGS_OF_FILES: [u32; 3] = [0x4008_6602, 0x4004_6602, 0x401c_5820];
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

/// A call that fails if an argument is one of these.
fn none_of(argument: u32, values: &[u32]) -> CallRule {
    CallRule::If { argument, mask: u32::MAX, values: values.to_vec(), otherwise: ALLOW }
}

fn decided_by_arguments(rules: &Rules) -> Vec<(c_long, CallRule)> {
    // A filter cannot read the flags of `clone3`, which are in memory. The C library goes on with
    // `clone`.
    let mut verdicts = vec![(libc::SYS_clone3, CallRule::Always(ABSENT))];
    let may_fork = !rules.is_strict || rules.processes;
    let (mask, value) =
        if may_fork { (NAMESPACES | PARENT, 0) } else { (NAMESPACES | THREAD, THREAD) };
    let clone = CallRule::If { argument: 0, mask, values: vec![value], otherwise: END };
    verdicts.push((libc::SYS_clone, clone));
    verdicts.extend(metadata_by_descriptor(rules));
    // Signals by what happens at a descriptor: the kernel sends them to any process of the user.
    verdicts.push((libc::SYS_fcntl, none_of(1, &UNNEEDED_OF_FCNTL)));
    if !rules.is_strict {
        // Landlock refuses TCP; sockets of other kinds are refused here.
        verdicts.push((libc::SYS_socket, socket(rules, FAIL, &[libc::AF_NETLINK])));
        // Input for a terminal, as if it were typed.
        const PASTE: [u32; 2] = [libc::TIOCSTI as u32, libc::TIOCLINUX as u32];
        let refused = [&PASTE[..], &SET_OWNER_BY_IOCTL, &SET_FLAGS_OF_FILES].concat();
        verdicts.push((libc::SYS_ioctl, none_of(1, &refused)));
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
    CallRule::If { argument, mask: SET_ID, values: vec![0], otherwise: FAIL }
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

/// One for datagrams could send to any socket that has a path.
fn pair_of_sockets() -> CallRule {
    let values = [libc::SOCK_STREAM, libc::SOCK_SEQPACKET].map(|kind| number_of(kind.into()));
    CallRule::If { argument: 1, mask: 0xf, values: values.to_vec(), otherwise: FAIL }
}

/// New sockets are of the internet, or of these families as well, if the network is allowed.
fn socket(rules: &Rules, otherwise: u32, more: &[i32]) -> CallRule {
    if !rules.network {
        return CallRule::Always(otherwise);
    }
    let families = [libc::AF_INET, libc::AF_INET6].into_iter().chain(more.iter().copied());
    let values = families.map(|family| number_of(family.into())).collect();
    CallRule::If { argument: 0, mask: u32::MAX, values, otherwise: FAIL }
}

fn decided_where_strict(rules: &Rules) -> Vec<(c_long, CallRule)> {
    let one_of = |argument, values: &[c_long], otherwise| CallRule::If {
        argument,
        mask: u32::MAX,
        values: values.iter().copied().map(number_of).collect(),
        otherwise,
    };
    let mut verdicts = Vec::new();
    for call in [libc::SYS_mmap, libc::SYS_mprotect, libc::SYS_pkey_mprotect] {
        let mask = if rules.new_code { 0 } else { libc::PROT_EXEC as u32 };
        let verdict = CallRule::If { argument: 2, mask, values: vec![0], otherwise: FAIL };
        verdicts.push((call, verdict));
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

const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const AND: u16 = (libc::BPF_ALU | libc::BPF_AND | libc::BPF_K) as u16;
const IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const IF_AT_LEAST: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

fn step(code: u16, k: u32) -> sock_filter {
    sock_filter { code, jt: 0, jf: 0, k }
}

/// Goes on with the next step if the condition holds, else `otherwise` steps further.
fn jump(code: u16, k: u32, otherwise: u8) -> sock_filter {
    sock_filter { code, jt: 0, jf: otherwise, k }
}

fn program(rules: &Rules, has_landlock: bool) -> Vec<sock_filter> {
    let (verdicts, others) = verdicts(rules, has_landlock);
    let mut program = vec![
        step(LOAD, ARCH),
        sock_filter { code: IF_EQUAL, jt: 1, jf: 0, k: ARCHITECTURE },
        step(RETURN, KILL),
        step(LOAD, NUMBER),
        jump(IF_AT_LEAST, X32, 1),
        step(RETURN, KILL),
    ];
    for (number, verdict) in &verdicts {
        let block = block(verdict);
        let len = u8::try_from(block.len()).expect("a block has few steps");
        program.push(jump(IF_EQUAL, *number, len));
        program.extend(block);
    }
    program.push(step(RETURN, others));
    program
}

fn block(verdict: &CallRule) -> Vec<sock_filter> {
    match verdict {
        CallRule::Always(verdict) => vec![step(RETURN, *verdict)],
        CallRule::If { argument, mask, values, otherwise } => {
            // With a deny-list the values are those that fail.
            let (then, otherwise) =
                if *otherwise == ALLOW { (FAIL, ALLOW) } else { (ALLOW, *otherwise) };
            let mut block = vec![step(LOAD, lower_half(*argument)), step(AND, *mask)];
            for value in values {
                block.extend([jump(IF_EQUAL, *value, 1), step(RETURN, then)]);
            }
            block.push(step(RETURN, otherwise));
            block
        }
        CallRule::IfZero(arguments) => {
            let halves: Vec<u32> = arguments.iter().flat_map(halves).collect();
            let mut block = Vec::new();
            for (done, half) in halves.iter().enumerate() {
                // To the last step, which refuses.
                let rest = 2 * (halves.len() - done) - 1;
                let rest = u8::try_from(rest).expect("a block has few steps");
                block.extend([step(LOAD, *half), jump(IF_EQUAL, 0, rest)]);
            }
            block.extend([step(RETURN, ALLOW), step(RETURN, FAIL)]);
            block
        }
    }
}

fn halves(argument: &CallArgument) -> Vec<u32> {
    match *argument {
        CallArgument::LowerHalf(argument) => vec![lower_half(argument)],
        CallArgument::Whole(argument) => vec![lower_half(argument), lower_half(argument) + 4],
    }
}

/// The processors of the list have the lower half first.
fn lower_half(argument: u32) -> u32 {
    ARGUMENTS + 8 * argument
}
