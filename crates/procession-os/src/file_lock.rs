//! Locks of files that other processes hold only for moments. A process that was taken over may hold a lock for ever,
//! so each wait for a lock is bounded.

use std::io;
use std::os::fd::AsFd;
use std::thread;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

/// Locks a file for this process alone. Tries it `tries` times, a millisecond apart.
///
/// # Errors
///
/// `WouldBlock` if another process holds the lock for all that time; else what the system says, for example where a
/// file system has no locks.
pub fn lock_within(file: impl AsFd, tries: u32) -> io::Result<()> {
    const PAUSE: Duration = Duration::from_millis(1);
    for _ in 1..tries {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => thread::sleep(PAUSE),
            locked => return Ok(locked?),
        }
    }
    Ok(flock(&file, FlockOperation::NonBlockingLockExclusive)?)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_lock_that_is_held_for_ever_is_not_waited_for_and_one_that_is_released_is_got() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("file");
        let (ours, theirs) =
            (File::create(&path).expect("a file"), File::open(&path).expect("a file"));
        flock(&theirs, FlockOperation::LockShared).expect("a lock");
        let began = Instant::now();
        let refused = lock_within(&ours, 20).expect_err("it is held");
        assert_eq!(refused.kind(), io::ErrorKind::WouldBlock);
        assert!(began.elapsed() >= Duration::from_millis(19));
        let waiting = thread::spawn(move || lock_within(&ours, 60_000));
        thread::sleep(Duration::from_millis(20));
        drop(theirs);
        waiting.join().expect("no panic").expect("a lock");
    }
}
