//! Where a process crashed: a signal handler writes the return addresses of the crashing thread, and the
//! files that its code is mapped from, into memory that another process reads after the crash.
//!
//! The handler does only what is allowed in a signal handler: it writes to that memory, walks the stack,
//! and reads `/proc/self/maps` by system calls. It allocates nothing and takes no lock. The walk is that
//! of libgcc, which the standard library links anyway; it may take a lock of the dynamic linker, so an
//! alarm bounds it. Then the signal goes on to the action that was set before, and so ends the process as
//! it would have without this handler. If the walk crashes or takes too long, that signal ends the process
//! at once, and the record has the frames that were found.
//!
//! | offset | size | value |
//! |---|---|---|
//! | 0 | 4 | 0: nothing; 1: a record was begun |
//! | 4 | 4 | the signal |
//! | 8 | 4 | the process id |
//! | 12 | 4 | number of addresses |
//! | 16 | 4 | length of the mappings |
//! | 20 | 4 | the system call that a filter refused, plus 1 |
//! | 64 | 8 each | addresses, the innermost first |
//! | 1024 | | the lines of `/proc/self/maps` that are of code |
//!
//! The reader trusts nothing of that: it may come from a process that was taken over.

use crate::shared::SharedMemory;

/// The size of the memory for one record.
pub const SIZE: usize = 64 * 1024;

/// The most addresses of a record.
const MOST_FRAMES: usize = 100;

const STATE: usize = 0;
const SIGNAL: usize = 4;
const PID: usize = 8;
const FRAMES: usize = 12;
const MAPS_LEN: usize = 16;
const CALL: usize = 20;
const FRAMES_AT: usize = 64;
const MAPS_AT: usize = 1024;

/// What a crashed process has written. Its content is not checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CrashRecord {
    /// The signal.
    pub signal: i32,
    /// The process that wrote it.
    pub pid: u32,
    /// Addresses of instructions, the innermost first. Those of calls are inside the calling instruction.
    pub addresses: Vec<u64>,
    /// Lines in the format of `/proc/PID/maps`.
    pub maps: Vec<u8>,
    /// The number of the system call that a filter refused, if that was the cause.
    pub refused_call: Option<u32>,
}

/// The record at this offset of the memory, if there is one. It may be incomplete.
///
/// # Panics
///
/// If the memory ends before `at +` [`SIZE`].
pub fn read(memory: &SharedMemory, at: usize) -> Option<CrashRecord> {
    use std::sync::atomic::Ordering::Acquire;
    let number = |offset: usize| memory.word32(at + offset).load(Acquire);
    if number(STATE) == 0 {
        return None;
    }
    let frames = (number(FRAMES) as usize).min(MOST_FRAMES);
    let address = |n: usize| memory.word64(at + FRAMES_AT + 8 * n).load(Acquire);
    let mut maps = vec![0; (number(MAPS_LEN) as usize).min(SIZE - MAPS_AT)];
    memory.bytes(at + MAPS_AT, maps.len()).copy_to(&mut maps);
    Some(CrashRecord {
        signal: number(SIGNAL).cast_signed(),
        pid: number(PID),
        addresses: (0..frames).map(address).collect(),
        maps,
        refused_call: number(CALL).checked_sub(1),
    })
}

pub use imp::{record_into, use_own_signal_stack};

#[cfg(all(
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64"),
    not(feature = "portable")
))]
#[path = "crash/recorder.rs"]
mod imp;

#[cfg(not(all(
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64"),
    not(feature = "portable")
)))]
mod imp {
    use super::SharedMemory;

    /// Only on Linux, x86-64 and ARM64: elsewhere a process cannot read its mappings in a signal handler, or
    /// the unwinder has another interface.
    pub fn record_into(_: &'static SharedMemory, _: usize) {}

    /// The same.
    pub fn use_own_signal_stack() {}
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;

    #[test]
    fn a_record_that_promises_too_much_is_read_within_its_bounds() {
        let file = tempfile::tempfile().expect("a file");
        file.set_len(SIZE as u64 + 64).expect("a length");
        let memory = SharedMemory::map(&file, SIZE + 64).expect("mapped");
        assert_eq!(read(&memory, 64), None);
        for offset in [STATE, SIGNAL, PID, FRAMES, MAPS_LEN] {
            memory.word32(64 + offset).store(u32::MAX, Ordering::Release);
        }
        let record = read(&memory, 64).expect("a record");
        assert_eq!((record.signal, record.pid), (-1, u32::MAX));
        assert_eq!((record.addresses.len(), record.maps.len()), (MOST_FRAMES, SIZE - MAPS_AT));
    }
}
