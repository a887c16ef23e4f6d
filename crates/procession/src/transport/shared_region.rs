//! The memory that a coordinator shares with one worker. It outlives the worker, so its last
//! records and claims can be read after its death.
//!
//! | part | written by | for |
//! |---|---|---|
//! | ring of calls | coordinator | records of calls |
//! | ring of replies | worker | records of replies, outputs, lines |
//! | claims | both | which side has a task: see `claim.rs` |
//! | event count of calls | coordinator | the worker's threads sleep here until there are calls |
//! | event count of space | coordinator | the worker's threads sleep here until the ring of replies has room |
//! | event count of replies | worker | the handler sleeps here until there are replies |
//! | event count of the caller | worker | a caller that waits for one reply itself sleeps here |
//! | `AWAITED`, `IS_CLOSED` | coordinator | the claim of that one reply, plus 1; no further call will come |
//! | `IS_IDLE` | worker | the worker has no calls |
//! | labels | worker | of the tasks that run: see `labels.rs` |
//! | crash record | worker | where it crashed: see `procession_os::crash` |
//! | slots of segments | one side each | who may use a segment: see `segments.rs` |
//!
//! The worker gets the descriptor of the memory through the socket that is its standard input. The
//! memory is sealed against a change of its size, so that no access to it can fault.

use std::fs::File;
use std::io;
use std::sync::atomic::Ordering;
use std::time::Duration;

use procession_os::crash;
use procession_os::shared::SharedMemory;
use rustix::time::{ClockId, clock_gettime};

use super::claim::Claim;
use super::event_count::EventCount;
use super::labels;
use super::ring::Ring;
use super::segments::{self, Direction, SlotWords};

/// The length of each ring, in bytes: several times the calls that are sent ahead.
const RING: usize = 128 * 1024;
/// The size of a cache line. Words that different processes write are in different lines.
const LINE: usize = 64;

// Offsets in the region.
const CALLS_TAIL: usize = 0;
const CALLS_HEAD: usize = LINE;
const REPLIES_TAIL: usize = 2 * LINE;
const REPLIES_HEAD: usize = 3 * LINE;
const CALL_EVENTS: usize = 4 * LINE;
const REPLY_EVENTS: usize = 5 * LINE;
const CALLER_EVENTS: usize = 6 * LINE;
const SPACE_EVENTS: usize = 7 * LINE;
const AWAITED: usize = 8 * LINE;
const IS_CLOSED: usize = 9 * LINE;
const IS_IDLE: usize = 10 * LINE;
const NUMBER_OF_CLAIMS: usize = 11 * LINE;
const CLAIMS: usize = 12 * LINE;

/// The size of the words of all slots.
const SLOTS: usize = 4 * LINE;
const _: () = assert!(segments::MOST * size_of::<u32>() <= LINE);

// Offsets in a claim, and its size.
const STATE: usize = 0;
const BEGUN_AT: usize = 8;
const ENDED: usize = 16;
const STOP: usize = 20;
const CLAIM: usize = 32;

/// The longest sleep of the coordinator. A worker, or a process that it has left behind, can
/// overwrite the words of an event count so that a wake-up is lost.
const LONGEST: Option<Duration> = Some(Duration::from_secs(1));

/// A mapping of the memory, on either side.
pub(crate) struct SharedRegion {
    memory: SharedMemory,
    /// The number of claims.
    claims: usize,
}

impl std::fmt::Debug for SharedRegion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SharedRegion").field("claims", &self.claims).finish_non_exhaustive()
    }
}

impl SharedRegion {
    /// The size of a region for this number of calls at a time, in bytes.
    pub(crate) fn size(claims: usize) -> usize {
        slots_at(claims) + SLOTS
    }

    /// A new region for this number of calls at a time, and the file by which a worker maps it.
    pub(crate) fn create(claims: usize) -> io::Result<(Self, File)> {
        let file = new_file(Self::size(claims))?;
        let region = Self::map(&file, claims)?;
        let number = u32::try_from(claims).map_err(io::Error::other)?;
        region.memory.word32(NUMBER_OF_CLAIMS).store(number, Ordering::Release);
        Ok((region, file))
    }

    /// Maps the file that a coordinator has sent.
    pub(crate) fn open(file: File) -> io::Result<Self> {
        let len = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
        let not_ours = || io::Error::other("the file does not have the size of a shared region");
        let others = CLAIMS + 2 * RING + labels::SIZE + crash::SIZE + SLOTS;
        let claims = len.checked_sub(others).ok_or_else(not_ours)? / CLAIM;
        let region = Self::map(&file, claims)?;
        let number = region.memory.word32(NUMBER_OF_CLAIMS).load(Ordering::Acquire) as usize;
        if number > claims || Self::size(number) != len {
            return Err(not_ours());
        }
        Ok(Self { claims: number, ..region })
    }

    fn map(file: &File, claims: usize) -> io::Result<Self> {
        let len = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
        Ok(Self { memory: SharedMemory::map(file, len)?, claims })
    }

    pub(crate) fn calls(&self) -> Ring<'_> {
        self.ring(CALLS_TAIL, CALLS_HEAD, rings_at(self.claims))
    }

    pub(crate) fn replies(&self) -> Ring<'_> {
        self.ring(REPLIES_TAIL, REPLIES_HEAD, rings_at(self.claims) + RING)
    }

    /// Notified when there are calls, or the region is closed.
    pub(crate) fn call_events(&self) -> EventCount<'_> {
        self.event_count(CALL_EVENTS, None)
    }

    /// Notified when there are replies, or the worker has ended.
    pub(crate) fn reply_events(&self) -> EventCount<'_> {
        self.event_count(REPLY_EVENTS, LONGEST)
    }

    /// Notified when the awaited reply has come, or the worker has ended.
    pub(crate) fn caller_events(&self) -> EventCount<'_> {
        self.event_count(CALLER_EVENTS, LONGEST)
    }

    /// Notified when replies were read.
    pub(crate) fn space_events(&self) -> EventCount<'_> {
        self.event_count(SPACE_EVENTS, None)
    }

    /// Tells the worker that no further call will come.
    pub(crate) fn close(&self) {
        self.memory.word32(IS_CLOSED).store(1, Ordering::SeqCst);
        self.call_events().notify();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.memory.word32(IS_CLOSED).load(Ordering::SeqCst) != 0
    }

    /// Sets the call whose reply a caller receives itself, if any.
    pub(crate) fn set_awaited(&self, claim: Option<u32>) {
        let awaited = claim.map_or(0, |claim| claim + 1);
        self.memory.word32(AWAITED).store(awaited, Ordering::SeqCst);
    }

    /// Wakes the thread that waits for the reply to this call; the reply is published. A dozing
    /// handler is woken only if the reply `is_urgent`; else it reads many replies at once later.
    pub(crate) fn announce_reply(&self, claim: u32, is_urgent: bool) {
        if self.memory.word32(AWAITED).load(Ordering::SeqCst) == claim + 1 {
            self.caller_events().notify();
        } else if is_urgent {
            self.reply_events().notify();
        } else {
            self.reply_events().notify_if_asleep();
        }
    }

    /// Sets whether the worker has no calls.
    pub(crate) fn set_idle(&self, is_idle: bool) {
        self.memory.word32(IS_IDLE).store(u32::from(is_idle), Ordering::SeqCst);
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.memory.word32(IS_IDLE).load(Ordering::SeqCst) != 0
    }

    pub(crate) fn claim(&self, claim: u32) -> Option<Claim<'_>> {
        let index = usize::try_from(claim).ok().filter(|index| *index < self.claims)?;
        let at = CLAIMS + index * CLAIM;
        Some(Claim {
            state: self.memory.word64(at + STATE),
            ended: self.memory.word32(at + ENDED),
            begun_at: self.memory.word64(at + BEGUN_AT),
            stop: self.memory.word32(at + STOP),
        })
    }

    /// Sets the label of the task that runs in this lane of the worker. Returns false if there is no room for
    /// that lane.
    #[cfg_attr(not(feature = "journal"), expect(dead_code, reason = "labels are for journals"))]
    pub(crate) fn set_label(&self, lane: usize, task: u64, label: &str) -> bool {
        labels::set(&self.memory, labels_at(self.claims), lane, task, label)
    }

    /// The labels of the tasks that ran last in the lanes of the worker, by their ids. They are not trusted.
    pub(crate) fn labels(&self) -> Vec<(u64, String)> {
        labels::read(&self.memory, labels_at(self.claims))
    }

    /// The words of a slot, which is less than [`segments::MOST`].
    pub(super) fn slot_words(&self, direction: Direction, slot: usize) -> SlotWords<'_> {
        let word = |line: usize| {
            self.memory.word32(slots_at(self.claims) + line * LINE + slot * size_of::<u32>())
        };
        match direction {
            Direction::ToWorker => SlotWords { returned: word(0), dropped: word(1) },
            Direction::ToCoordinator => SlotWords { returned: word(2), dropped: word(3) },
        }
    }

    /// Has this process record a crash of its own, for [`crash`](Self::crash) in the coordinator.
    pub(crate) fn record_crashes(region: &'static Self) {
        crash::record_into(&region.memory, crash_at(region.claims));
    }

    /// What the worker has recorded about a crash. It is not trusted.
    pub(crate) fn crash(&self) -> Option<crash::CrashRecord> {
        crash::read(&self.memory, crash_at(self.claims))
    }

    fn event_count(&self, at: usize, longest: Option<Duration>) -> EventCount<'_> {
        let [count, sleepers, dozers] = [at, at + 4, at + 8].map(|at| self.memory.word32(at));
        EventCount { count, sleepers, dozers, longest }
    }

    fn ring(&self, tail: usize, head: usize, at: usize) -> Ring<'_> {
        let bytes = self.memory.bytes(at, RING);
        Ring { tail: self.memory.word64(tail), head: self.memory.word64(head), bytes }
    }
}

/// The offset of the crash record, behind the labels.
fn crash_at(claims: usize) -> usize {
    labels_at(claims) + labels::SIZE
}

/// The offset of the labels, behind the rings.
fn labels_at(claims: usize) -> usize {
    rings_at(claims) + 2 * RING
}

/// The offset of the words of the slots, behind the crash record: a line for each kind of word.
fn slots_at(claims: usize) -> usize {
    (crash_at(claims) + crash::SIZE).next_multiple_of(LINE)
}

/// The offset of the rings, behind the claims.
fn rings_at(claims: usize) -> usize {
    (CLAIMS + claims * CLAIM).next_multiple_of(LINE)
}

/// The time in nanoseconds, of a clock that all processes of the machine share.
pub(crate) fn now() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
    seconds * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or_default()
}

#[cfg(all(target_os = "linux", not(feature = "portable")))]
fn new_file(len: usize) -> io::Result<File> {
    use rustix::fs::{
        FallocateFlags, MemfdFlags, SealFlags, fallocate, fcntl_add_seals, memfd_create,
    };
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = memfd_create("procession", flags)?;
    // Allocates all pages. If memory is short, this is an error here instead of a SIGBUS later.
    fallocate(&file, FallocateFlags::empty(), 0, len as u64)?;
    fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    Ok(file.into())
}

#[cfg(not(all(target_os = "linux", not(feature = "portable"))))]
fn new_file(len: usize) -> io::Result<File> {
    let file = crate::temporary_files::unnamed_file()?;
    file.set_len(len as u64)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::super::claim::Progress;
    use super::*;

    #[test]
    fn a_task_begins_or_is_taken_back_and_never_both() {
        let (region, _file) = SharedRegion::create(3).expect("memory");
        assert!(region.claim(3).is_none());
        let claim = region.claim(2).expect("the last one");
        claim.publish(7);
        assert!(!claim.begin(6, now()), "an earlier call that used the same words");
        assert_eq!(claim.progress(now()), Progress { begun: 0, runs_for: None });
        assert!(claim.begin(7, now()));
        assert!(claim.progress(now()).runs_for.is_some());
        claim.end();
        assert!(claim.begin(7, now()));
        assert_eq!(claim.revoke(), 2);
        assert!(!claim.begin(7, now()), "it was taken back");
        assert_eq!(claim.progress(now()).begun, 2);
        claim.publish(8);
        assert_eq!(claim.revoke(), 0);
        assert!(!claim.begin(8, now()));
    }

    #[test]
    fn the_run_time_is_that_of_the_task_that_runs_and_not_of_those_before_it_in_the_call() {
        let (region, _file) = SharedRegion::create(1).expect("memory");
        let claim = region.claim(0).expect("the only one");
        let runs_for = |begun, nanoseconds| Progress {
            begun,
            runs_for: Some(Duration::from_nanos(nanoseconds)),
        };
        claim.publish(7);
        assert!(claim.begin(7, 1_000));
        assert_eq!(claim.progress(1_400), runs_for(1, 400));
        claim.end();
        assert_eq!(claim.progress(1_450), Progress { begun: 1, runs_for: None });
        assert!(claim.begin(7, 1_500));
        assert_eq!(claim.progress(1_600), runs_for(2, 100));
        // The claim of a call that was taken back is used for another one.
        claim.publish(8);
        assert!(claim.begin(8, 2_000));
        assert_eq!(claim.progress(2_050), runs_for(1, 50));
    }

    #[test]
    fn both_sides_see_the_same_memory() {
        let (ours, file) = SharedRegion::create(5).expect("memory");
        let theirs = SharedRegion::map(&file, 5).expect("the same memory");
        assert!(!theirs.is_closed());
        ours.close();
        assert!(theirs.is_closed());
        ours.claim(4).expect("the last one").publish(1);
        assert!(theirs.claim(4).expect("the last one").begin(1, now()));
        assert_eq!(ours.claim(4).expect("the last one").revoke(), 1);
    }
}
