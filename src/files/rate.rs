//! A limit of requests per second over all processes of a run.
//!
//! ```text
//!  a file of 8 bytes: the time of the next free turn
//!
//!  lock ─► turn = max(file, now) ─► file = turn + interval ─► unlock ─► sleep until the turn
//! ```
//!
//! The times are those of the monotonic clock, which all processes share. The lock is a `flock`, which
//! the system releases when its process ends in any way.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use procession_os::{file_lock, regular_file};
use rustix::fs::{FlockOperation, flock};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// The limit, as each task carries it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RateLimit {
    /// The file that the processes share. It exists.
    pub file: PathBuf,
    /// Requests per second, above 0.
    pub per_second: f64,
}

/// The limit in one process.
#[derive(Debug)]
pub struct RateGate {
    /// The threads of a process have the lock of the file in common. Without the file there is no limit.
    file: Mutex<Option<File>>,
    interval: Duration,
}

impl RateGate {
    /// Opens the file of the limit. Where that fails, this process keeps to the limit by itself.
    pub fn open(limit: &RateLimit) -> Self {
        let open =
            || regular_file::without_link(File::options().read(true).write(true), &limit.file);
        let file = open().or_else(|_| tempfile::tempfile()).ok();
        let interval = Duration::try_from_secs_f64(1.0 / limit.per_second).unwrap_or(Duration::MAX);
        Self { file: Mutex::new(file), interval }
    }

    /// Sleeps until the next turn, and returns how long that took.
    pub fn wait(&self) -> Duration {
        let now = monotonic();
        let turn = self.take(now).unwrap_or(now);
        let pause = turn.saturating_sub(now);
        thread::sleep(pause);
        pause
    }

    /// Takes the next turn, and leaves the one after it in the file.
    fn take(&self, now: Duration) -> Option<Duration> {
        let file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let file = file.as_ref()?;
        match file_lock::lock_within(file, LOCK_TRIES) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Some(now.saturating_add(self.interval));
            }
            // The file system has no locks.
            Err(_) => return None,
        }
        let turn = next_turn(file, now, self.interval).ok();
        let _ = flock(file, FlockOperation::Unlock);
        turn
    }
}

/// No process waits for more than this number of turns. The file may name a later turn only if a worker that was taken
/// over has written it.
const MOST_TURNS: u32 = 4096;

/// Number of attempts to lock the file, a millisecond apart. Other processes hold the lock for some microseconds.
const LOCK_TRIES: u32 = 100;

fn next_turn(file: &File, now: Duration, interval: Duration) -> io::Result<Duration> {
    let mut bytes = [0; 8];
    // A new file is empty: the first turn is now.
    let read = file.read_at(&mut bytes, 0)?;
    let next = if read == bytes.len() { u64::from_le_bytes(bytes) } else { 0 };
    let latest = now.saturating_add(interval.saturating_mul(MOST_TURNS));
    let turn = Duration::from_nanos(next).clamp(now, latest);
    let after = u64::try_from(turn.saturating_add(interval).as_nanos()).unwrap_or(u64::MAX);
    file.write_all_at(&after.to_le_bytes(), 0)?;
    Ok(turn)
}

fn monotonic() -> Duration {
    let now = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
    Duration::new(seconds, u32::try_from(now.tv_nsec).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_of_two_processes_are_an_interval_apart() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let limit = RateLimit { file: file.path().to_owned(), per_second: 4.0 };
        let (one, other) = (RateGate::open(&limit), RateGate::open(&limit));
        let at = Duration::from_secs;
        let turns = [&one, &other, &one].map(|gate| gate.take(at(100)).unwrap());
        assert_eq!(turns, [100_000, 100_250, 100_500].map(Duration::from_millis));
        // Turns that were not taken are not saved up.
        assert_eq!(other.take(at(200)).unwrap(), at(200));
        assert_eq!(one.take(at(200)).unwrap(), Duration::from_millis(200_250));
    }

    #[test]
    fn what_is_no_file_is_not_opened_and_the_limit_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let made = std::process::Command::new("mkfifo").arg(path("pipe")).status().unwrap();
        assert!(made.success());
        std::fs::write(path("file"), "").unwrap();
        std::os::unix::fs::symlink(path("file"), path("link")).unwrap();
        for name in ["pipe", "link", "none"] {
            let gate = RateGate::open(&RateLimit { file: path(name), per_second: 4.0 });
            let at = Duration::from_secs(100);
            let turns = [gate.take(at), gate.take(at)].map(Option::unwrap);
            assert_eq!(turns, [at, at + gate.interval], "{name}");
        }
        assert_eq!(std::fs::read(path("file")).unwrap(), b"");
    }

    #[test]
    fn what_another_process_does_to_the_file_keeps_nobody_for_ever() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let gate = RateGate::open(&RateLimit { file: file.path().to_owned(), per_second: 4.0 });
        std::fs::write(file.path(), u64::MAX.to_le_bytes()).unwrap();
        let now = Duration::from_secs(100);
        assert_eq!(gate.take(now).unwrap(), now + gate.interval * MOST_TURNS);
        flock(&file, FlockOperation::LockShared).unwrap();
        assert_eq!(gate.take(now).unwrap(), now + gate.interval);
    }
}
