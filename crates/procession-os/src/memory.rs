//! The limits of this process's memory (`ulimit -v`, `ulimit -d`): what is left under them, and how
//! much of it the allocator takes in advance. Also long copies, which prefer huge pages.

use std::mem::MaybeUninit;

use rustix::process::{Resource, getrlimit};

/// The limits that a mapping counts against.
const LIMITS: [Resource; 2] = [Resource::As, Resource::Data];

/// Whether this process has a limit of memory (`ulimit -v` or `-d`).
pub fn is_limited() -> bool {
    LIMITS.iter().any(|limit| getrlimit(*limit).current.is_some())
}

/// How many bytes this process may still map, and the limit under which that is so; `None` without a
/// limit.
pub fn left() -> Option<Left> {
    let [total, data] = mapped();
    let limits = LIMITS.into_iter().zip([total, data]);
    let left = limits.filter_map(|(resource, mapped)| {
        let limit = getrlimit(resource).current?;
        let option = if resource == Resource::As { "-v" } else { "-d" };
        Some(Left { bytes: limit.saturating_sub(mapped), limit, option })
    });
    left.min_by_key(|left| left.bytes)
}

/// What is left under a limit of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Left {
    /// How many bytes may still be mapped.
    pub bytes: u64,
    /// The limit itself, in bytes.
    pub limit: u64,
    /// The option of `ulimit` that sets it.
    pub option: &'static str,
}

/// How much address space this process uses, in bytes, where that can be known.
pub fn used() -> Option<u64> {
    known().map(|[total, _]| total)
}

/// What this process has mapped, in bytes: all of it, and what counts as data.
fn mapped() -> [u64; 2] {
    /// Where that cannot be known.
    const USUAL: [u64; 2] = [64 << 20, 16 << 20];
    known().unwrap_or(USUAL)
}

fn known() -> Option<[u64; 2]> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: Vec<u64> = statm.split_whitespace().filter_map(|pages| pages.parse().ok()).collect();
    let page = rustix::param::page_size() as u64;
    match pages[..] {
        [total, _, _, _, _, data, ..] => Some([total * page, data * page]),
        _ => None,
    }
}

/// Copies into a new vector. A long one prefers huge pages: fresh memory of many small ones costs more than
/// it takes to copy.
pub fn copied<T: Copy>(values: &[T]) -> Vec<T> {
    let mut copy = Vec::with_capacity(values.len());
    prefer_huge_pages(copy.spare_capacity_mut());
    copy.extend_from_slice(values);
    copy
}

/// Makes room for more bytes, if there is memory. Much room prefers huge pages.
pub fn reserve(bytes: &mut Vec<u8>, additional: usize) {
    if bytes.try_reserve(additional).is_ok() {
        prefer_huge_pages(bytes.spare_capacity_mut());
    }
}

/// Asks for huge pages, if this is long. Elsewhere than on Linux it does nothing.
pub(crate) fn prefer_huge_pages<T>(memory: &mut [MaybeUninit<T>]) {
    #[cfg(all(target_os = "linux", not(miri)))]
    {
        use rustix::mm::{Advice, madvise};
        /// Less than this has few of them.
        const LONG: usize = 4 << 20;
        let len = size_of_val(memory);
        if len < LONG {
            return;
        }
        let page = rustix::param::page_size();
        let start = memory.as_mut_ptr().cast::<u8>();
        let skipped = start.align_offset(page);
        let pages = len.saturating_sub(skipped) / page * page;
        // SAFETY: whole pages within this memory, which this function borrows alone. The advice changes none of their
        // bytes.
        let _ =
            unsafe { madvise(start.wrapping_add(skipped).cast(), pages, Advice::LinuxHugepage) };
    }
    #[cfg(not(all(target_os = "linux", not(miri))))]
    let _ = memory;
}

/// Whether this number of bytes could be mapped now.
pub fn has_room(bytes: usize) -> bool {
    if !is_limited() {
        return true;
    }
    let (null, protection) = (std::ptr::null_mut(), libc::PROT_READ | libc::PROT_WRITE);
    let flags = libc::MAP_PRIVATE | libc::MAP_ANON;
    // Only the limits are to be tried, not how much memory the machine has.
    #[cfg(all(target_os = "linux", not(feature = "portable")))]
    let flags = flags | libc::MAP_NORESERVE;
    // SAFETY: a new mapping at a free address of the kernel's choice is made
    // and removed.
    unsafe {
        let mapping = libc::mmap(null, bytes, protection, flags, -1, 0);
        mapping != libc::MAP_FAILED && libc::munmap(mapping, bytes) == 0
    }
}

/// Keeps the allocator from reserving more than a part of what a limit leaves. The GNU allocator
/// reserves 64 MiB of addresses for each of the first threads, 128 MiB for a moment, and with some
/// hundred MiB in all no room is left for stacks.
pub fn reserve_little() {
    #[cfg(all(target_os = "linux", not(feature = "portable"), target_env = "gnu"))]
    if let Some(limit) = LIMITS.iter().filter_map(|limit| getrlimit(*limit).current).min() {
        /// Without a limit there are as many on four CPUs.
        const MANY: u64 = 32;
        let arenas = arenas(limit);
        if arenas < MANY {
            // SAFETY: this sets a number of the allocator's, which it reads when a thread allocates
            // for the first time.
            unsafe { libc::mallopt(libc::M_ARENA_MAX, arenas as libc::c_int) };
        }
    }
}

/// How many parts the heap may have. The first one reserves nothing.
fn arenas(limit: u64) -> u64 {
    const EACH: u64 = 512 << 20;
    (limit / EACH).max(1)
}

/// How many bytes of a limit the allocator reserves at most.
pub fn reserved(limit: u64) -> u64 {
    const EACH: u64 = 128 << 20;
    (arenas(limit) - 1).saturating_mul(EACH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(all(target_os = "linux", not(feature = "portable")))]
    fn what_is_mapped_counts_as_such() {
        let [total, data] = mapped();
        assert!(total > data && data > 100_000, "{total} {data}");
    }

    #[test]
    fn without_a_limit_there_is_room_and_with_one_only_so_much() {
        if !is_limited() {
            assert!(has_room(usize::MAX));
            assert_eq!(left(), None);
        }
    }
}
