//! Memory files that one process writes to again and again, and another one reads.
//!
//! The writer maps a new file before it is sealed: then no process can write to it by other means, map it
//! for writing, change its length or punch holes into it. Its pages are allocated before. So an access to a
//! mapping never faults, and the bytes change only by what the writer does with its mapping. Both sides agree by other means on when
//! the writer may do so.

#[cfg(all(target_os = "linux", not(feature = "portable")))]
pub use self::linux::{Lent, SegmentView, create};
#[cfg(not(all(target_os = "linux", not(feature = "portable"))))]
pub use self::none::{Lent, SegmentView, create};

#[cfg(all(target_os = "linux", not(feature = "portable")))]
mod linux {
    use std::fmt;
    use std::io;
    use std::ops::Deref;
    use std::os::fd::{AsFd, OwnedFd};
    use std::ptr::{self, NonNull};
    use std::slice;
    use std::sync::Arc;
    use std::sync::atomic::{Ordering, compiler_fence};

    use rustix::fs::{
        FallocateFlags, SealFlags, fallocate, fcntl_add_seals, fcntl_get_seals, fstat, fstatfs,
    };
    use rustix::io::Errno;
    use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
    use rustix::process::{Resource, getrlimit};

    use crate::memory;
    use crate::sealed;
    use crate::shared::SharedMemory;

    const SEALS: SealFlags = SealFlags::SHRINK
        .union(SealFlags::GROW)
        .union(SealFlags::FUTURE_WRITE)
        .union(SealFlags::SEAL);
    /// The unit in which the system counts how much of a file is allocated, in bytes.
    const BLOCK: u64 = 512;
    /// The kind of file system of ordinary memory files. Others have huge pages, which may run out.
    const TMPFS: u64 = 0x0102_1994;

    /// A new segment of `capacity` bytes that begins with these bytes, and the file by which another
    /// process reads it.
    ///
    /// # Errors
    ///
    /// What the system says; `InvalidInput` on kernels before 5.1, which lack the seal.
    pub fn create(capacity: usize, bytes: &[u8]) -> io::Result<(SharedMemory, OwnedFd)> {
        // To make a file longer than this limit would end the process by a signal.
        if getrlimit(Resource::Fsize).current.is_some_and(|most| most < capacity as u64) {
            return Err(Errno::FBIG.into());
        }
        // Written before it is mapped: that takes half the time of as many faults.
        let file = sealed::unsealed(bytes)?;
        // All of its pages are allocated: an access to a page that the system cannot allocate would end the
        // process.
        fallocate(&file, FallocateFlags::empty(), 0, capacity as u64)?;
        let memory = SharedMemory::map(&file, capacity)?;
        fcntl_add_seals(&file, SEALS)?;
        Ok((memory, file))
    }

    /// A segment, mapped for reading.
    pub struct SegmentView {
        at: NonNull<u8>,
        len: usize,
    }

    // SAFETY: this process only reads the memory, from any thread; and any thread may unmap it.
    unsafe impl Send for SegmentView {}
    // SAFETY: as above.
    unsafe impl Sync for SegmentView {}

    impl SegmentView {
        /// Maps a segment that another process has sent.
        ///
        /// # Errors
        ///
        /// `InvalidData` if it is not a sealed segment, or is longer than `longest`; else what the system
        /// says.
        pub fn open(file: impl AsFd, longest: usize) -> io::Result<Self> {
            let refused = |why: &str| Err(io::Error::new(io::ErrorKind::InvalidData, why));
            // Only memory files have these.
            if !fcntl_get_seals(&file).is_ok_and(|seals| seals.contains(SEALS)) {
                return refused("a segment that is not sealed");
            }
            #[allow(clippy::unnecessary_cast, reason = "other architectures have other types")]
            if fstatfs(&file)?.f_type as u64 != TMPFS {
                return refused("a segment of huge pages");
            }
            let stat = fstat(&file)?;
            let len = usize::try_from(stat.st_size).unwrap_or(0);
            if len == 0 || len > longest {
                return refused("a segment of an impossible length");
            }
            if u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(BLOCK) < len as u64 {
                return refused("a segment with holes");
            }
            let (access, flags) = (ProtFlags::READ, MapFlags::SHARED);
            // SAFETY: a new mapping at an address that the kernel chooses; it overlaps nothing.
            let at = unsafe { mmap(ptr::null_mut(), len, access, flags, &file, 0)? };
            let at = NonNull::new(at.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
            Ok(Self { at, len })
        }

        /// The length of the segment, in bytes.
        #[expect(clippy::len_without_is_empty, reason = "a segment is never empty")]
        pub fn len(&self) -> usize {
            self.len
        }

        /// Copies the first `len` bytes, in place of what is in this buffer. If the writer writes during the copy, the
        /// result may be a mixture of old and new bytes.
        ///
        /// # Errors
        ///
        /// `OutOfMemory` if there is no memory for the copy.
        ///
        /// # Panics
        ///
        /// If the segment is shorter.
        pub fn copy(&self, len: usize, mut bytes: Vec<u8>) -> io::Result<Vec<u8>> {
            assert!(len <= self.len, "{len} of {} bytes", self.len);
            bytes.clear();
            if bytes.capacity() < len {
                bytes.try_reserve_exact(len).map_err(|_| io::ErrorKind::OutOfMemory)?;
                memory::prefer_huge_pages(bytes.spare_capacity_mut());
            }
            // SAFETY: the mapping has `len` bytes, which cannot vanish, and the vector has room for them. They do
            // not overlap.
            unsafe { ptr::copy_nonoverlapping(self.at.as_ptr(), bytes.as_mut_ptr(), len) };
            // What is looked at from here on is the copy: the compiler must not read again.
            compiler_fence(Ordering::SeqCst);
            // SAFETY: these bytes were just written.
            unsafe { bytes.set_len(len) };
            Ok(bytes)
        }

        /// Lends the first `len` bytes. The writer must not write before `give_back` was called.
        ///
        /// # Panics
        ///
        /// If the segment is shorter.
        pub fn lend(
            self: &Arc<Self>,
            len: usize,
            give_back: impl FnOnce() + Send + Sync + 'static,
        ) -> Lent {
            assert!(len <= self.len, "{len} of {} bytes", self.len);
            Lent { view: Arc::clone(self), len, give_back: Some(Box::new(give_back)) }
        }
    }

    impl Drop for SegmentView {
        fn drop(&mut self) {
            // SAFETY: the mapping is this value's own, and no reference into it outlives `self`.
            let _ = unsafe { munmap(self.at.as_ptr().cast(), self.len) };
        }
    }

    impl fmt::Debug for SegmentView {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "SegmentView({} bytes)", self.len)
        }
    }

    /// Bytes of a segment, until they are dropped.
    pub struct Lent {
        view: Arc<SegmentView>,
        len: usize,
        give_back: Option<Box<dyn FnOnce() + Send + Sync>>,
    }

    impl Deref for Lent {
        type Target = [u8];

        fn deref(&self) -> &[u8] {
            // SAFETY: mapped until `self` is dropped; the length cannot change. The seals leave one process
            // that can write to the bytes: the coordinator, whose program this one is, and which does not
            // before `give_back` is called.
            unsafe { slice::from_raw_parts(self.view.at.as_ptr(), self.len) }
        }
    }

    impl Drop for Lent {
        fn drop(&mut self) {
            if let Some(give_back) = self.give_back.take() {
                give_back();
            }
        }
    }

    impl fmt::Debug for Lent {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "Lent({} bytes)", self.len)
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;
        use std::fs::File;
        use std::os::unix::fs::FileExt;
        use std::sync::atomic::AtomicBool;

        const MIB: usize = 1 << 20;

        #[test]
        fn only_its_writer_changes_a_segment() {
            let (writer, file) = create(MIB, b"first").expect("a segment");
            let view = Arc::new(SegmentView::open(&file, MIB).expect("a view"));
            assert_eq!(view.copy(5, Vec::new()).expect("a copy"), b"first");
            let other = File::from(file.try_clone().expect("a descriptor"));
            assert!(other.write_at(b"x", 0).is_err() && other.set_len(0).is_err());
            assert!(SharedMemory::map(&file, MIB).is_err(), "a mapping that can be written to");
            use rustix::fs::{FallocateFlags, fallocate};
            let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            assert!(fallocate(&file, punch, 0, 4096).is_err(), "a hole");
            let is_back = Arc::new(AtomicBool::new(false));
            let noted = Arc::clone(&is_back);
            let lent = view.lend(5, move || noted.store(true, Ordering::SeqCst));
            assert_eq!(&*lent, b"first");
            assert!(!is_back.load(Ordering::SeqCst));
            drop(lent);
            assert!(is_back.load(Ordering::SeqCst));
            writer.bytes(0, 6).copy_from(b"second");
            assert_eq!(view.copy(6, vec![7; 9]).expect("a copy"), b"second");
        }

        #[test]
        fn long_copies_are_exact() {
            let bytes: Vec<u8> = (0..9 * MIB).map(|n| (n % 251) as u8).collect();
            let (_, file) = create(16 * MIB, &bytes).expect("a segment");
            let view = SegmentView::open(&file, 16 * MIB).expect("a view");
            assert!(view.copy(bytes.len(), Vec::new()).expect("a copy") == bytes);
        }

        #[test]
        fn what_is_not_a_segment_or_too_long_is_refused() {
            let why =
                |file: OwnedFd| SegmentView::open(&file, MIB).expect_err("refused").to_string();
            assert_eq!(
                why(create(2 * MIB, b"x").expect("one").1),
                "a segment of an impossible length"
            );
            let sealed = sealed::create(b"x").expect("a file");
            assert_eq!(why(sealed), "a segment that is not sealed");
            assert_eq!(
                why(sealed::unsealed(b"x").expect("a file")),
                "a segment that is not sealed"
            );
            let disk = tempfile::tempfile().expect("a file");
            assert_eq!(why(disk.into()), "a segment that is not sealed");
        }
    }
}

/// Other systems have no such files.
#[cfg(not(all(target_os = "linux", not(feature = "portable"))))]
mod none {
    use std::io;
    use std::ops::Deref;
    use std::os::fd::{AsFd, OwnedFd};
    use std::sync::Arc;

    use crate::shared::SharedMemory;

    /// Refused: [`is_available`](crate::sealed::is_available) says so.
    pub fn create(_: usize, _: &[u8]) -> io::Result<(SharedMemory, OwnedFd)> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// None can be made.
    #[derive(Debug)]
    pub enum SegmentView {}

    impl SegmentView {
        /// Refused.
        pub fn open(_: impl AsFd, _: usize) -> io::Result<Self> {
            Err(io::ErrorKind::Unsupported.into())
        }

        /// There is none.
        #[expect(clippy::len_without_is_empty, reason = "as on Linux")]
        pub fn len(&self) -> usize {
            match *self {}
        }

        /// There is none.
        pub fn copy(&self, _: usize, _: Vec<u8>) -> io::Result<Vec<u8>> {
            match *self {}
        }

        /// There is none.
        pub fn lend(self: &Arc<Self>, _: usize, _: impl FnOnce() + Send + Sync + 'static) -> Lent {
            match **self {}
        }
    }

    /// None can be made.
    #[derive(Debug)]
    pub struct Lent(SegmentView);

    impl Deref for Lent {
        type Target = [u8];

        fn deref(&self) -> &[u8] {
            match self.0 {}
        }
    }
}
