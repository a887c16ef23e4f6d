//! Memory that processes share and all of them write to: atomic words, and bytes that are copied in
//! and out.
//!
//! Another process may write at any time, so there is no `&[u8]` into this memory: bytes are copied, and
//! what was copied is looked at. Each access is checked against the length of the mapping. The file must
//! keep its length while it is mapped: on Linux the library's files have the seals for that.
//!
//! The accesses are `inline`: each task makes a dozen of them, from another crate.

use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::os::fd::AsFd;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, compiler_fence};

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// A file, mapped for reading and writing; unmapped when dropped.
pub struct SharedMemory {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: all access goes through atomic words and copies of bytes, from any thread.
unsafe impl Send for SharedMemory {}
// SAFETY: as above.
unsafe impl Sync for SharedMemory {}

impl SharedMemory {
    /// Maps the first `len` bytes of the file.
    ///
    /// # Errors
    ///
    /// What the system says; `InvalidInput` if `len` is 0.
    pub fn map(file: impl AsFd, len: usize) -> io::Result<Self> {
        if len == 0 {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let (access, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
        // SAFETY: a new mapping at an address that the kernel chooses; it overlaps nothing.
        let start = unsafe { mmap(ptr::null_mut(), len, access, flags, file, 0)? };
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, len })
    }

    /// The word at this offset, in bytes.
    ///
    /// # Panics
    ///
    /// If it is not within the memory, or not aligned to 4 bytes.
    #[inline]
    pub fn word32(&self, at: usize) -> &AtomicU32 {
        // SAFETY: within the mapping, aligned, and mapped as long as `self` is borrowed. All bits are
        // a valid number, and each process accesses the word atomically.
        unsafe { self.checked(at, 4).cast().as_ref() }
    }

    /// The word at this offset, in bytes.
    ///
    /// # Panics
    ///
    /// If it is not within the memory, or not aligned to 8 bytes.
    #[inline]
    pub fn word64(&self, at: usize) -> &AtomicU64 {
        // SAFETY: as above.
        unsafe { self.checked(at, 8).cast().as_ref() }
    }

    /// `len` bytes from the offset `at` on.
    ///
    /// # Panics
    ///
    /// If they are not within the memory.
    #[inline]
    pub fn bytes(&self, at: usize, len: usize) -> SharedBytes<'_> {
        let end = at.checked_add(len);
        assert!(end.is_some_and(|end| end <= self.len), "{at} and {len} of {} bytes", self.len);
        // SAFETY: within the mapping.
        SharedBytes { start: unsafe { self.start.add(at) }, len, memory: PhantomData }
    }

    /// The address of a word of this size.
    #[inline]
    fn checked(&self, at: usize, size: usize) -> NonNull<u8> {
        assert!(at.is_multiple_of(size), "a word of {size} bytes at {at}");
        self.bytes(at, size).start
    }
}

impl Drop for SharedMemory {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own, and no reference into it outlives `self`.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.len) };
    }
}

impl fmt::Debug for SharedMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SharedMemory({} bytes)", self.len)
    }
}

/// Bytes that others may change at any time.
#[derive(Debug, Clone, Copy)]
pub struct SharedBytes<'m> {
    start: NonNull<u8>,
    len: usize,
    memory: PhantomData<&'m SharedMemory>,
}

// SAFETY: it gives access by copying alone, which any thread may do.
unsafe impl Send for SharedBytes<'_> {}
// SAFETY: as above.
unsafe impl Sync for SharedBytes<'_> {}

impl<'m> SharedBytes<'m> {
    /// Bytes of this process's own, for tests.
    pub fn of(bytes: &'m mut [u8]) -> Self {
        let len = bytes.len();
        let start = NonNull::from(bytes).cast();
        Self { start, len, memory: PhantomData }
    }

    /// How many bytes these are.
    #[inline]
    #[expect(clippy::len_without_is_empty, reason = "a ring is never empty memory")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// `len` of the bytes from `at` on; `None` if they are not all within these.
    #[inline]
    pub fn subslice(&self, at: usize, len: usize) -> Option<Self> {
        let is_within = at.checked_add(len).is_some_and(|end| end <= self.len);
        // SAFETY: within these bytes.
        is_within.then(|| Self { start: unsafe { self.start.add(at) }, len, ..*self })
    }

    /// Overwrites these bytes.
    ///
    /// # Panics
    ///
    /// If `bytes` has another length.
    #[inline]
    pub fn copy_from(&self, bytes: &[u8]) {
        assert_eq!(self.len, bytes.len(), "the bytes fill their place");
        // SAFETY: both have this length. They do not overlap: a `&[u8]` never leads into memory that
        // can be written to at the same time.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), self.start.as_ptr(), self.len) };
        compiler_fence(Ordering::SeqCst);
    }

    /// Copies these bytes out. If another process writes during the copy, the result may be a mixture of old
    /// and new bytes.
    ///
    /// # Panics
    ///
    /// If `bytes` has another length.
    #[inline]
    pub fn copy_to(&self, bytes: &mut [u8]) {
        assert_eq!(self.len, bytes.len(), "the bytes fill their place");
        // SAFETY: as above.
        unsafe { ptr::copy_nonoverlapping(self.start.as_ptr(), bytes.as_mut_ptr(), self.len) };
        // What is looked at from here on is the copy: the compiler must not read again.
        compiler_fence(Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    fn two_mappings() -> (SharedMemory, SharedMemory) {
        let file = tempfile::tempfile().expect("a file");
        file.set_len(100).expect("a length");
        let map = || SharedMemory::map(&file, 100).expect("mapped");
        (map(), map())
    }

    #[test]
    fn both_mappings_show_what_one_of_them_wrote() {
        let (ours, theirs) = two_mappings();
        ours.word32(8).store(7, Ordering::SeqCst);
        ours.word64(16).store(u64::MAX, Ordering::SeqCst);
        assert_eq!(theirs.word32(8).load(Ordering::SeqCst), 7);
        assert_eq!(theirs.word64(16).load(Ordering::SeqCst), u64::MAX);
        ours.bytes(90, 10).subslice(5, 5).expect("within").copy_from(b"hello");
        let mut copy = [0; 10];
        theirs.bytes(90, 10).copy_to(&mut copy);
        assert_eq!(&copy, b"\0\0\0\0\0hello");
    }

    #[test]
    fn what_is_not_within_the_memory_is_refused() {
        let (memory, _) = two_mappings();
        let panics = |access: &dyn Fn(&SharedMemory)| {
            catch_unwind(AssertUnwindSafe(|| access(&memory))).is_err()
        };
        assert!(panics(&|memory| _ = memory.word64(96)), "its last four bytes are outside");
        assert!(panics(&|memory| _ = memory.word32(2)), "not aligned");
        assert!(panics(&|memory| _ = memory.bytes(1, 100)));
        assert!(panics(&|memory| _ = memory.bytes(usize::MAX, 2)));
        assert!(memory.bytes(0, 100).subslice(100, 1).is_none());
        assert!(memory.bytes(0, 100).subslice(1, usize::MAX).is_none());
        assert!(panics(&|memory| memory.bytes(0, 4).copy_from(b"five!")));
        assert!(SharedMemory::map(tempfile::tempfile().expect("a file"), 0).is_err());
    }
}
