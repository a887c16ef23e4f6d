//! System calls by name: those that a confined process needs, those that fail, and those that end it.

#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
macro_rules! named {
    ($($(#[$cfg:meta])* $name:ident),* $(,)?) => {
        &[$($(#[$cfg])* ($name, stringify!($name))),*]
    };
}

#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(super) use self::lists::*;
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(super) use self::uncovered::{ATTRIBUTES, METADATA, OBJECTS, ON_PROCESSES};

/// All lists.
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
const ALL: [List; 12] = [
    NEEDED,
    FAILING,
    FILES,
    METADATA,
    OBJECTS,
    ATTRIBUTES,
    ON_PROCESSES,
    PROCESSES,
    NETWORK,
    ENDING,
    DECIDED_BY_ARGUMENTS,
    OTHERS,
];

#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod uncovered;

/// The name of a system call of this system, by its number. `None` on processors without a list.
pub fn name(number: u32) -> Option<&'static str> {
    #[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
    {
        let mut all = ALL.into_iter().flatten();
        let name = all.find(|(known, _)| u32::try_from(*known) == Ok(number))?.1;
        Some(name.trim_start_matches("SYS_"))
    }
    #[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
    {
        let _ = number;
        None
    }
}

#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod lists {
    use libc::*;

    /// The number is the same on all processors; some C libraries have no name for it.
    #[expect(non_upper_case_globals, reason = "a name as those of the C library")]
    const SYS_open_tree_attr: c_long = 467;

    /// Number and name.
    pub(crate) type List = &'static [(c_long, &'static str)];

    /// Allowed in each confined process, whatever the arguments.
    pub(crate) const NEEDED: List = named![
        SYS_futex,
        SYS_read,
        SYS_write,
        SYS_recvmsg,
        SYS_sendmsg,
        SYS_sched_yield,
        SYS_clock_gettime,
        SYS_munmap,
        SYS_madvise,
        SYS_brk,
        SYS_mremap,
        SYS_close,
        SYS_ppoll,
        SYS_memfd_create,
        SYS_fstat,
        SYS_ftruncate,
        SYS_fallocate,
        SYS_lseek,
        SYS_pread64,
        SYS_pwrite64,
        SYS_readv,
        SYS_writev,
        SYS_preadv,
        SYS_pwritev,
        SYS_preadv2,
        SYS_pwritev2,
        SYS_recvfrom,
        SYS_sendto,
        SYS_shutdown,
        SYS_getsockopt,
        SYS_getsockname,
        SYS_getpeername,
        SYS_newfstatat,
        SYS_statx,
        SYS_fstatfs,
        SYS_fsync,
        SYS_fdatasync,
        SYS_flock,
        SYS_fadvise64,
        SYS_getdents64,
        SYS_copy_file_range,
        SYS_sendfile,
        SYS_dup,
        SYS_dup3,
        SYS_pipe2,
        SYS_close_range,
        SYS_eventfd2,
        SYS_epoll_create1,
        SYS_epoll_ctl,
        SYS_epoll_pwait,
        SYS_epoll_pwait2,
        SYS_pselect6,
        SYS_timerfd_create,
        SYS_timerfd_settime,
        SYS_timerfd_gettime,
        SYS_signalfd4,
        SYS_msync,
        SYS_mlock,
        SYS_munlock,
        SYS_mincore,
        SYS_membarrier,
        SYS_futex_waitv,
        SYS_nanosleep,
        SYS_clock_nanosleep,
        SYS_clock_getres,
        SYS_gettimeofday,
        SYS_times,
        SYS_getrusage,
        SYS_getpid,
        SYS_gettid,
        SYS_getppid,
        SYS_getpgid,
        SYS_getsid,
        SYS_getuid,
        SYS_geteuid,
        SYS_getgid,
        SYS_getegid,
        SYS_getresuid,
        SYS_getresgid,
        SYS_getgroups,
        SYS_getrandom,
        SYS_uname,
        SYS_sysinfo,
        SYS_getcwd,
        SYS_getcpu,
        SYS_sched_getaffinity,
        SYS_sched_getparam,
        SYS_sched_getscheduler,
        SYS_getpriority,
        SYS_sched_get_priority_max,
        SYS_sched_get_priority_min,
        SYS_set_robust_list,
        SYS_rseq,
        SYS_set_tid_address,
        SYS_rt_sigaction,
        SYS_rt_sigprocmask,
        SYS_rt_sigreturn,
        SYS_rt_sigpending,
        SYS_rt_sigtimedwait,
        SYS_rt_sigsuspend,
        SYS_sigaltstack,
        SYS_restart_syscall,
        SYS_exit,
        SYS_exit_group,
        SYS_setitimer,
        SYS_getitimer,
        SYS_timer_create,
        SYS_timer_settime,
        SYS_timer_gettime,
        SYS_timer_delete,
        SYS_wait4,
        SYS_waitid,
        SYS_umask,
        #[cfg(target_arch = "x86_64")]
        SYS_poll,
        #[cfg(target_arch = "x86_64")]
        SYS_select,
        #[cfg(target_arch = "x86_64")]
        SYS_stat,
        #[cfg(target_arch = "x86_64")]
        SYS_lstat,
        #[cfg(target_arch = "x86_64")]
        SYS_pipe,
        #[cfg(target_arch = "x86_64")]
        SYS_dup2,
        #[cfg(target_arch = "x86_64")]
        SYS_eventfd,
        #[cfg(target_arch = "x86_64")]
        SYS_epoll_create,
        #[cfg(target_arch = "x86_64")]
        SYS_epoll_wait,
        #[cfg(target_arch = "x86_64")]
        SYS_time,
        #[cfg(target_arch = "x86_64")]
        SYS_alarm,
        #[cfg(target_arch = "x86_64")]
        SYS_pause,
        #[cfg(target_arch = "x86_64")]
        SYS_getpgrp,
        #[cfg(target_arch = "x86_64")]
        SYS_arch_prctl,
    ];

    /// Refused with EPERM where only needed calls are allowed: libraries try these and go on without.
    pub(crate) const FAILING: List = named![
        SYS_openat2,
        SYS_statfs,
        SYS_setrlimit,
        SYS_tkill,
        SYS_getrlimit,
        SYS_mbind,
        SYS_set_mempolicy,
        SYS_get_mempolicy,
        SYS_chdir,
        SYS_fchdir,
        SYS_inotify_init1,
        SYS_mlockall,
    ];

    /// Calls that take a path: allowed if landlock decides about them, else refused with EPERM.
    pub(crate) const FILES: List = named![
        SYS_openat,
        SYS_faccessat,
        SYS_faccessat2,
        SYS_readlinkat,
        SYS_mkdirat,
        SYS_unlinkat,
        SYS_renameat2,
        SYS_linkat,
        SYS_symlinkat,
        SYS_truncate,
        SYS_fgetxattr,
        SYS_flistxattr,
        #[cfg(target_arch = "x86_64")]
        SYS_open,
        #[cfg(target_arch = "x86_64")]
        SYS_access,
        #[cfg(target_arch = "x86_64")]
        SYS_readlink,
        #[cfg(target_arch = "x86_64")]
        SYS_mkdir,
        #[cfg(target_arch = "x86_64")]
        SYS_rmdir,
        #[cfg(target_arch = "x86_64")]
        SYS_unlink,
        #[cfg(target_arch = "x86_64")]
        SYS_rename,
        #[cfg(target_arch = "x86_64")]
        SYS_link,
        #[cfg(target_arch = "x86_64")]
        SYS_symlink,
        #[cfg(target_arch = "x86_64")]
        SYS_creat,
        #[cfg(target_arch = "x86_64")]
        SYS_getdents,
        #[cfg(target_arch = "x86_64")]
        SYS_renameat,
    ];

    /// Allowed with the exception for processes.
    pub(crate) const PROCESSES: List = named![
        SYS_execve,
        SYS_execveat,
        SYS_setpgid,
        SYS_setsid,
        #[cfg(target_arch = "x86_64")]
        SYS_fork,
        #[cfg(target_arch = "x86_64")]
        SYS_vfork,
    ];

    /// Allowed with the exception for the network, beside `socket` for some kinds.
    pub(crate) const NETWORK: List = named![
        SYS_connect,
        SYS_bind,
        SYS_listen,
        SYS_accept,
        SYS_accept4,
        SYS_setsockopt,
        SYS_sendmmsg,
        SYS_recvmmsg,
    ];

    /// End the process at each level. Where only needed calls are allowed, all others do as well.
    pub(crate) const ENDING: List = named![
        SYS_ptrace,
        SYS_process_vm_readv,
        SYS_process_vm_writev,
        SYS_process_madvise,
        SYS_pidfd_open,
        SYS_pidfd_getfd,
        SYS_pidfd_send_signal,
        SYS_kcmp,
        SYS_bpf,
        SYS_perf_event_open,
        SYS_userfaultfd,
        SYS_io_uring_setup,
        SYS_io_uring_enter,
        SYS_io_uring_register,
        SYS_keyctl,
        SYS_add_key,
        SYS_request_key,
        SYS_mount,
        SYS_umount2,
        SYS_move_mount,
        SYS_open_tree,
        SYS_fsopen,
        SYS_fsmount,
        SYS_fsconfig,
        SYS_fspick,
        SYS_mount_setattr,
        SYS_pivot_root,
        SYS_chroot,
        SYS_unshare,
        SYS_setns,
        SYS_init_module,
        SYS_finit_module,
        SYS_delete_module,
        SYS_kexec_load,
        SYS_reboot,
        SYS_swapon,
        SYS_swapoff,
        SYS_acct,
        SYS_quotactl,
        SYS_open_by_handle_at,
        SYS_name_to_handle_at,
        SYS_personality,
        SYS_syslog,
        SYS_settimeofday,
        SYS_clock_settime,
        SYS_clock_adjtime,
        SYS_adjtimex,
        SYS_sethostname,
        SYS_setdomainname,
        SYS_vhangup,
        SYS_memfd_secret,
        SYS_fanotify_init,
        SYS_open_tree_attr,
        SYS_quotactl_fd,
        SYS_process_mrelease,
        SYS_lookup_dcookie,
        SYS_nfsservctl,
        #[cfg(target_arch = "x86_64")]
        SYS_iopl,
        #[cfg(target_arch = "x86_64")]
        SYS_ioperm,
        #[cfg(target_arch = "x86_64")]
        SYS_modify_ldt,
        #[cfg(target_arch = "x86_64")]
        SYS_uselib,
        #[cfg(target_arch = "x86_64")]
        SYS_kexec_file_load,
    ];

    /// Others that end a process where only needed calls are allowed, for their names.
    pub(crate) const OTHERS: List = named![
        SYS_setuid,
        SYS_setgid,
        SYS_setresuid,
        SYS_setresgid,
        SYS_setgroups,
        SYS_capset,
        SYS_seccomp,
        SYS_mknodat,
        SYS_splice,
        SYS_tee,
        SYS_vmsplice,
        SYS_rt_sigqueueinfo,
        SYS_rt_tgsigqueueinfo,
        SYS_landlock_restrict_self,
        SYS_landlock_create_ruleset,
        SYS_remap_file_pages,
    ];

    /// Names of the calls whose arguments decide; see `seccomp.rs`.
    pub(crate) const DECIDED_BY_ARGUMENTS: List = named![
        SYS_fchmod,
        SYS_utimensat,
        SYS_setpriority,
        SYS_socketpair,
        SYS_mmap,
        SYS_mprotect,
        SYS_pkey_mprotect,
        SYS_clone,
        SYS_clone3,
        SYS_kill,
        SYS_tgkill,
        SYS_prctl,
        SYS_ioctl,
        SYS_fcntl,
        SYS_socket,
    ];
}

#[cfg(test)]
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn each_call_is_in_one_list() {
        let mut seen = HashSet::new();
        for (number, name) in ALL.into_iter().flatten() {
            assert!(seen.insert(number), "{name} is in two lists");
        }
        assert_eq!(name(u32::try_from(libc::SYS_fcntl).expect("a number")), Some("fcntl"));
        assert_eq!(name(u32::MAX), None);
    }
}
