//! System calls that reach what landlock does not cover: what a file is apart from its content, and objects of
//! the user that are no files. They fail with EPERM at each level, those that read attributes with ENOTSUP.
//!
//! The calls from `fchmodat2` on have the same numbers on all processors; some C libraries have no names for them.

#![expect(non_upper_case_globals, reason = "names as those of the C library")]

use libc::*;

use super::lists::List;

const SYS_fchmodat2: c_long = 452;
const SYS_statmount: c_long = 457;
const SYS_listmount: c_long = 458;
const SYS_setxattrat: c_long = 463;
const SYS_getxattrat: c_long = 464;
const SYS_listxattrat: c_long = 465;
const SYS_removexattrat: c_long = 466;
const SYS_file_setattr: c_long = 469;

/// What a file is apart from its content. `fchmod` and `utimensat` are decided by arguments.
pub(crate) const METADATA: List = named![
    SYS_fchmodat,
    SYS_fchmodat2,
    SYS_fchown,
    SYS_fchownat,
    SYS_setxattr,
    SYS_lsetxattr,
    SYS_fsetxattr,
    SYS_setxattrat,
    SYS_removexattr,
    SYS_lremovexattr,
    SYS_fremovexattr,
    SYS_removexattrat,
    SYS_file_setattr,
    #[cfg(target_arch = "x86_64")]
    SYS_chmod,
    #[cfg(target_arch = "x86_64")]
    SYS_chown,
    #[cfg(target_arch = "x86_64")]
    SYS_lchown,
    #[cfg(target_arch = "x86_64")]
    SYS_utime,
    #[cfg(target_arch = "x86_64")]
    SYS_utimes,
    #[cfg(target_arch = "x86_64")]
    SYS_futimesat,
];

/// Reading attributes of a file by its path. Programs that copy files can deal with file systems that have no attributes.
pub(crate) const ATTRIBUTES: List = named![
    SYS_getxattr,
    SYS_lgetxattr,
    SYS_getxattrat,
    SYS_listxattr,
    SYS_llistxattr,
    SYS_listxattrat,
];

/// Shared memory, semaphores and queues of the user; what happens to files; mounts; the priority at disks.
pub(crate) const OBJECTS: List = named![
    SYS_shmget,
    SYS_shmat,
    SYS_shmctl,
    SYS_semget,
    SYS_semop,
    SYS_semtimedop,
    SYS_semctl,
    SYS_msgget,
    SYS_msgsnd,
    SYS_msgrcv,
    SYS_msgctl,
    SYS_mq_open,
    SYS_mq_unlink,
    SYS_inotify_add_watch,
    SYS_ioprio_set,
    SYS_statmount,
    SYS_listmount,
];

/// Calls that change a process, which is the first argument: only the one that calls may be.
pub(crate) const ON_PROCESSES: List = named![
    SYS_sched_setaffinity,
    SYS_sched_setscheduler,
    SYS_sched_setparam,
    SYS_sched_setattr,
    SYS_prlimit64,
    SYS_migrate_pages,
    SYS_move_pages,
];
