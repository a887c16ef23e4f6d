//! The labels of the tasks that run in a worker, in the memory that outlives it: so the coordinator knows
//! the label of a task that has ended its worker, though that had no time to write it down.
//!
//! Each lane of the worker has a place for one label: the id of the task (0: none), the number of bytes, and
//! the bytes. The id is written last. The coordinator reads the places after the end of the worker, and
//! trusts none of them: a worker can give its own tasks any text of at most [`MAX_CHARS`].

use std::sync::atomic::Ordering;

use procession_os::shared::SharedMemory;

/// The number of lanes that have a place.
const LANES: usize = 16;
/// The longest label, in characters.
pub(crate) const MAX_CHARS: usize = 200;
/// The same in bytes.
const MAX_BYTES: usize = 4 * MAX_CHARS;

// Offsets in a place, and its size: a multiple of a cache line.
const ID: usize = 0;
const LEN: usize = 8;
const TEXT: usize = 16;
const PLACE: usize = (TEXT + MAX_BYTES).next_multiple_of(64);

/// The size of all places, in bytes.
pub(crate) const SIZE: usize = LANES * PLACE;

/// Sets the label of the task that runs in this lane. Returns false if the lane has no place.
pub(crate) fn set(memory: &SharedMemory, at: usize, lane: usize, task: u64, label: &str) -> bool {
    if lane >= LANES || label.len() > MAX_BYTES {
        return false;
    }
    let place = at + lane * PLACE;
    let (id, len) = (memory.word64(place + ID), memory.word32(place + LEN));
    id.store(0, Ordering::SeqCst);
    memory.bytes(place + TEXT, label.len()).copy_from(label.as_bytes());
    len.store(label.len() as u32, Ordering::Relaxed);
    id.store(task, Ordering::Release);
    true
}

/// The labels that are there, with the ids of their tasks.
pub(crate) fn read(memory: &SharedMemory, at: usize) -> Vec<(u64, String)> {
    let label = |lane| {
        let place = at + lane * PLACE;
        let task = memory.word64(place + ID).load(Ordering::Acquire);
        let len = memory.word32(place + LEN).load(Ordering::Relaxed) as usize;
        if task == 0 || len > MAX_BYTES {
            return None;
        }
        let mut text = vec![0; len];
        memory.bytes(place + TEXT, len).copy_to(&mut text);
        Some((task, String::from_utf8_lossy(&text).chars().take(MAX_CHARS).collect()))
    };
    (0..LANES).filter_map(label).collect()
}

/// Cuts a label after [`MAX_CHARS`].
#[cfg(feature = "journal")]
pub(crate) fn cut(mut label: String) -> String {
    if label.len() > MAX_CHARS
        && let Some((end, _)) = label.char_indices().nth(MAX_CHARS)
    {
        label.truncate(end);
    }
    label
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory() -> SharedMemory {
        let file = tempfile::tempfile().expect("a file");
        file.set_len(SIZE as u64).expect("a length");
        SharedMemory::map(&file, SIZE).expect("a mapping")
    }

    #[test]
    fn each_lane_has_the_last_label_of_its_task() {
        let memory = memory();
        assert_eq!(read(&memory, 0), []);
        let longest = "\u{10ffff}".repeat(MAX_CHARS);
        assert!(set(&memory, 0, 0, 7, "a longer label than the next one"));
        assert!(set(&memory, 0, 0, 7, "ä.png"));
        assert!(set(&memory, 0, LANES - 1, 8, &longest));
        assert!(!set(&memory, 0, LANES, 9, "no place"));
        assert_eq!(read(&memory, 0), [(7, "ä.png".to_owned()), (8, longest)]);
    }

    #[test]
    fn what_a_worker_writes_there_is_not_trusted() {
        let memory = memory();
        set(&memory, 0, 0, 7, "one");
        memory.word32(LEN).store(u32::MAX, Ordering::SeqCst);
        set(&memory, 0, 1, 8, "two");
        memory.bytes(PLACE + TEXT, 2).copy_from(&[0xff, 0]);
        assert_eq!(read(&memory, 0), [(8, "\u{fffd}\0o".to_owned())]);
        memory.bytes(0, SIZE).copy_from(&[b'x'; SIZE]);
        memory.word32(LEN).store(MAX_BYTES as u32, Ordering::SeqCst);
        let labels = read(&memory, 0);
        assert_eq!(labels.len(), 1, "the other lengths are too large");
        assert_eq!(labels[0].1.len(), MAX_CHARS);
    }

    #[cfg(feature = "journal")]
    #[test]
    fn a_label_is_cut_between_two_characters() {
        assert_eq!(cut("short".to_owned()), "short");
        let long = "ä".repeat(MAX_CHARS + 1);
        assert_eq!(cut(long), "ä".repeat(MAX_CHARS));
    }
}
