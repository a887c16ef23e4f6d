//! Attempts on other processes, and on what processes share.

use super::{Arg, Attempt, HERE, IntoArg, Step, Targets, maybe, open, text, words};

/// What the user may ask the system to do to another process.
pub(super) fn attempts(targets: &Targets<'_>) -> Vec<Attempt> {
    let it = targets.victim;
    // No core file; the batch policy; one priority less.
    let new_limit = || words(&[0, 0]);
    let attributes = || words(&[48 | 3 << 32, 0, 0, 0, 0, 0]);
    let child = libc::CLONE_PARENT | libc::SIGCHLD;
    vec![
        open("its limits", vec![step!(libc::SYS_prlimit64, it, libc::RLIMIT_CORE, new_limit(), 0)]),
        open("its CPUs", vec![step!(libc::SYS_sched_setaffinity, it, 128, vec![0xff; 128])]),
        open(
            "its policy",
            vec![step!(libc::SYS_sched_setscheduler, it, libc::SCHED_BATCH, words(&[0]))],
        ),
        open("its parameters", vec![step!(libc::SYS_sched_setparam, it, words(&[0]))]),
        open("its attributes", vec![step!(libc::SYS_sched_setattr, it, attributes(), 0)]),
        open("its priority", vec![step!(libc::SYS_setpriority, libc::PRIO_PROCESS, it, 19)]),
        maybe(
            "the priority of its group",
            vec![step!(libc::SYS_setpriority, libc::PRIO_PGRP, it, 19)],
        ),
        open("its priority at disks", vec![step!(libc::SYS_ioprio_set, 1, it, 2 << 13 | 7)]),
        open("its signals", vec![step!(libc::SYS_kill, it, 0)]),
        open(
            "its signals, with a value",
            vec![step!(
                libc::SYS_rt_sigqueueinfo,
                it,
                libc::SIGCONT,
                words(&[0, 0xffff_ffff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
            )],
        ),
        open("signals of a thread of it", vec![step!(libc::SYS_tgkill, it, it, 0)]),
        open("signals of any thread", vec![step!(libc::SYS_tkill, it, 0)]),
        open("a descriptor of it", vec![step!(libc::SYS_pidfd_open, it, 0)]),
        maybe("its memory given back", vec![step!(libc::SYS_process_mrelease, 0, 0)]),
        maybe(
            "advice on its memory",
            vec![step!(libc::SYS_process_madvise, 0, 0, 0, libc::MADV_COLD, 0)],
        ),
        open("its traces", vec![step!(libc::SYS_ptrace, libc::PTRACE_SEIZE, it, 0, 0)]),
        maybe(
            "its pages moved",
            vec![step!(libc::SYS_migrate_pages, it, 64, words(&[1]), words(&[1]))],
        ),
        maybe("a comparison", vec![step!(libc::SYS_kcmp, it, it, 0, 0, 0)]),
        open("a child of the coordinator", vec![step!(libc::SYS_clone, child, 0, 0, 0, 0)]),
    ]
}

/// Objects of the user that are no files.
pub(super) fn by_shared_memory(targets: &Targets<'_>) -> Vec<Attempt> {
    const PRIVATE_AND_NEW: i32 = libc::IPC_CREAT | 0o600;
    let name = "/procession-prisoner";
    let queue = libc::O_CREAT | libc::O_RDWR;
    vec![
        maybe("memory", vec![step!(libc::SYS_shmget, 0x7072_6f63, 4096, PRIVATE_AND_NEW)]),
        maybe("memory that is there", vec![step!(libc::SYS_shmat, 0x7fff_fff0, 0, 0)]),
        maybe("memory removed", vec![step!(libc::SYS_shmctl, 0x7fff_fff0, libc::IPC_RMID, 0)]),
        maybe("semaphores", vec![step!(libc::SYS_semget, 0x7072_6f63, 1, PRIVATE_AND_NEW)]),
        maybe(
            "semaphores removed",
            vec![step!(libc::SYS_semctl, 0x7fff_fff0, 0, libc::IPC_RMID, 0)],
        ),
        maybe("a queue", vec![step!(libc::SYS_msgget, 0x7072_6f63, PRIVATE_AND_NEW)]),
        maybe("a queue removed", vec![step!(libc::SYS_msgctl, 0x7fff_fff0, libc::IPC_RMID, 0)]),
        maybe("a named queue", vec![step!(libc::SYS_mq_open, &name[1..], queue, 0o600, 0)]),
        maybe("a named queue removed", vec![step!(libc::SYS_mq_unlink, &name[1..])]),
        open(
            "named memory",
            vec![step!(
                libc::SYS_openat,
                HERE,
                text(targets.memory),
                queue | libc::O_CLOEXEC,
                0o600
            )],
        ),
    ]
}

pub(super) fn by_sockets(targets: &Targets<'_>) -> Vec<Attempt> {
    let mut address =
        libc::sa_family_t::try_from(libc::AF_UNIX).unwrap_or_default().to_le_bytes().to_vec();
    address.extend(text(targets.socket).as_bytes());
    address.push(0);
    let len = i64::try_from(address.len()).expect("a short path");
    let to = |kind| {
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        let (kind, socket) = (kind | libc::SOCK_CLOEXEC, Arg::Filled(0, 3));
        vec![
            step!(libc::SYS_socketpair, libc::AF_UNIX, kind, 0, vec![0; 8]),
            step!(libc::SYS_sendto, socket, "out", 3, flags, address.clone(), len),
        ]
    };
    let mut all = vec![
        open("a datagram from one of a pair", to(libc::SOCK_DGRAM)),
        open("the same by another name", to(libc::SOCK_RAW)),
    ];
    for family in [libc::AF_UNIX, libc::AF_NETLINK, libc::AF_PACKET, libc::AF_ALG, libc::AF_VSOCK] {
        let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC;
        all.push(maybe("a socket", vec![step!(libc::SYS_socket, family, kind, 0)]));
    }
    all
}

/// Sockets of which the kernel may load the code only when one is made.
pub(super) fn of_other_kinds() -> Vec<Attempt> {
    const AF_TIPC: i32 = 30;
    const SCTP: i32 = 132;
    let of_a_pair =
        |family| vec![step!(libc::SYS_socketpair, family, libc::SOCK_SEQPACKET, 0, vec![0; 8])];
    let socket = |family, kind, protocol| vec![step!(libc::SYS_socket, family, kind, protocol)];
    vec![
        maybe("a pair of the internet", of_a_pair(libc::AF_INET)),
        maybe("a pair of a cluster", of_a_pair(AF_TIPC)),
        maybe("a socket for streams", socket(libc::AF_INET, libc::SOCK_STREAM, SCTP)),
        maybe("a socket for packets", socket(libc::AF_INET, libc::SOCK_SEQPACKET, 0)),
        maybe("a light one", socket(libc::AF_INET6, libc::SOCK_DGRAM, libc::IPPROTO_UDPLITE)),
    ]
}
