//! Memory files that cannot change any more: written once, sealed, and mapped for reading.
//!
//! A mapping is a `&[u8]`, so its bytes must never change and never vanish. The seals ensure this: the kernel
//! refuses each further write, by any process, and each change of the length. A file without these seals is
//! refused. So is a file with holes, because reading it would allocate memory.

/// Whether memory files can be sealed here. Tests switch it off, to run what other systems do.
pub fn is_available() -> bool {
    use std::sync::OnceLock;
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    let is_on = || std::env::var_os("PROCESSION_TEST_NO_MEMFD").is_none();
    *AVAILABLE.get_or_init(|| cfg!(all(target_os = "linux", not(feature = "portable"))) && is_on())
}

#[cfg(all(target_os = "linux", not(feature = "portable")))]
pub(crate) use self::linux::unsealed;
#[cfg(all(target_os = "linux", not(feature = "portable")))]
pub use self::linux::{Sealed, create, is_in_memory};
#[cfg(not(all(target_os = "linux", not(feature = "portable"))))]
pub use self::none::{Sealed, create, is_in_memory};

#[cfg(all(target_os = "linux", not(feature = "portable")))]
mod linux {
    use std::fmt;
    use std::io;
    use std::ops::Deref;
    use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
    use std::ptr::{self, NonNull};
    use std::slice;

    use rustix::fs::{
        MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, fstat, memfd_create,
    };
    use rustix::io::{Errno, write};
    use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
    use rustix::process::{Resource, getrlimit};

    const SEALS: SealFlags =
        SealFlags::WRITE.union(SealFlags::SHRINK).union(SealFlags::GROW).union(SealFlags::SEAL);
    /// The longest file that is mapped, in bytes: far more than the memory of any machine.
    const LONGEST: usize = 1 << 42;
    /// The unit in which the system counts how much of a file is allocated.
    const BLOCK: u64 = 512;

    /// A new memory file with these bytes, sealed.
    pub fn create(bytes: &[u8]) -> io::Result<OwnedFd> {
        let file = unsealed(bytes)?;
        fcntl_add_seals(&file, SEALS)?;
        Ok(file)
    }

    /// Whether it is a file in memory, sealed or not.
    pub fn is_in_memory(file: impl AsFd) -> bool {
        // Other files have no seals.
        fcntl_get_seals(file).is_ok()
    }

    /// A new memory file with these bytes, which can be sealed.
    pub(crate) fn unsealed(bytes: &[u8]) -> io::Result<OwnedFd> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        // To write beyond this limit would end the process by a signal.
        if getrlimit(Resource::Fsize).current.is_some_and(|most| most < bytes.len() as u64) {
            return Err(Errno::FBIG.into());
        }
        let file = memfd_create("procession-bytes", flags)?;
        let mut rest = bytes;
        while !rest.is_empty() {
            match write(&file, rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => rest = &rest[written..],
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(file)
    }

    /// A sealed memory file, mapped for reading.
    pub struct Sealed {
        file: OwnedFd,
        at: NonNull<u8>,
        len: usize,
    }

    // SAFETY: the memory is only read, and no process can write to it, so it may be read by any thread;
    // and it may be unmapped by any thread.
    unsafe impl Send for Sealed {}
    // SAFETY: as above.
    unsafe impl Sync for Sealed {}

    impl Sealed {
        /// Maps a file of this length that another process has sent.
        pub fn open(file: OwnedFd, len: usize) -> io::Result<Self> {
            let refused = |why: &str| Err(io::Error::new(io::ErrorKind::InvalidData, why));
            if len == 0 || len > LONGEST {
                return refused("a memory file of an impossible length");
            }
            // Only memory files have these.
            if !fcntl_get_seals(&file).is_ok_and(|seals| seals.contains(SEALS)) {
                return refused("a file that is not sealed");
            }
            let stat = fstat(&file)?;
            let (size, blocks) = (stat.st_size.try_into(), stat.st_blocks.try_into());
            let (size, blocks): (u64, u64) = (size.unwrap_or(0), blocks.unwrap_or(0));
            if size != len as u64 {
                return refused("a memory file of another length than announced");
            }
            if blocks.saturating_mul(BLOCK) < size {
                return refused("a memory file with holes");
            }
            // Private: older kernels refuse to share what is sealed. No page is ever copied, for
            // none can be written to.
            let (access, flags) = (ProtFlags::READ, MapFlags::PRIVATE);
            // SAFETY: a new mapping at an address that the kernel chooses; it overlaps nothing.
            let at = unsafe { mmap(ptr::null_mut(), len, access, flags, &file, 0)? };
            let at = NonNull::new(at.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
            Ok(Self { file, at, len })
        }
    }

    impl Deref for Sealed {
        type Target = [u8];

        fn deref(&self) -> &[u8] {
            // SAFETY: mapped until `self` is dropped. The length cannot change and the bytes cannot
            // be written to, since the file has the seals for that, which cannot be taken off.
            unsafe { slice::from_raw_parts(self.at.as_ptr(), self.len) }
        }
    }

    impl AsFd for Sealed {
        fn as_fd(&self) -> BorrowedFd<'_> {
            self.file.as_fd()
        }
    }

    impl Drop for Sealed {
        fn drop(&mut self) {
            // SAFETY: the mapping is this value's own, and no reference into it outlives `self`.
            let _ = unsafe { munmap(self.at.as_ptr().cast(), self.len) };
        }
    }

    impl fmt::Debug for Sealed {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "Sealed({} bytes)", self.len)
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;
        use std::fs::File;
        use std::os::unix::fs::FileExt;

        fn empty(len: u64) -> File {
            let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
            let file = File::from(memfd_create("test", flags).expect("a file"));
            file.set_len(len).expect("a length");
            file
        }

        #[test]
        fn what_is_sealed_is_read_and_never_written_or_cut() {
            let file = create(&[7; 100_000]).expect("a file");
            let writer = File::from(file.try_clone().expect("a descriptor"));
            let sealed = Sealed::open(file, 100_000).expect("sealed memory");
            assert_eq!(*sealed, [7; 100_000]);
            assert!(writer.write_at(b"x", 0).is_err() && writer.set_len(0).is_err());
            let (access, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
            // SAFETY: a new mapping, which is refused.
            let mapped = unsafe { mmap(ptr::null_mut(), 4096, access, flags, &writer, 0) };
            assert!(mapped.is_err(), "a mapping that can be written to");
            assert_eq!(*sealed, [7; 100_000]);
        }

        #[test]
        fn what_is_not_sealed_or_not_as_announced_is_refused() {
            let whole = || create(&[7; 5_000]).expect("a file");
            for len in [0, 4_999, 5_001, usize::MAX] {
                assert!(Sealed::open(whole(), len).is_err(), "{len} bytes");
            }
            let why =
                |file: File| Sealed::open(file.into(), 5_000).expect_err("refused").to_string();
            assert_eq!(why(empty(5_000)), "a file that is not sealed");
            assert_eq!(why(tempfile::tempfile().expect("a file")), "a file that is not sealed");
            let with_holes = empty(5_000);
            fcntl_add_seals(&with_holes, SEALS).expect("seals");
            assert_eq!(why(with_holes), "a memory file with holes");
        }
    }
}

/// Other systems have no such files.
#[cfg(not(all(target_os = "linux", not(feature = "portable"))))]
mod none {
    use std::io;
    use std::ops::Deref;
    use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

    /// Refused: [`is_available`](super::is_available) says so.
    pub fn create(_: &[u8]) -> io::Result<OwnedFd> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Always false here: it is not known whether a file is in memory.
    pub fn is_in_memory(_: impl AsFd) -> bool {
        false
    }

    /// None can be made.
    #[derive(Debug)]
    pub enum Sealed {}

    impl Sealed {
        /// Refused.
        pub fn open(_: OwnedFd, _: usize) -> io::Result<Self> {
            Err(io::ErrorKind::Unsupported.into())
        }
    }

    impl Deref for Sealed {
        type Target = [u8];

        fn deref(&self) -> &[u8] {
            match *self {}
        }
    }

    impl AsFd for Sealed {
        fn as_fd(&self) -> BorrowedFd<'_> {
            match *self {}
        }
    }
}
