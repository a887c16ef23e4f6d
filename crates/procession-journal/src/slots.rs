//! Slots of the tasks in this process: no two tasks have the same slot at the same time, so that each
//! slot is a lane of the timeline.

use std::sync::{Mutex, PoisonError};

/// Whether each slot is taken.
static TAKEN: Mutex<Vec<bool>> = Mutex::new(Vec::new());

/// A slot, until it is dropped.
///
/// ```
/// use procession_journal::TaskSlot;
///
/// let (first, second) = (TaskSlot::take(), TaskSlot::take());
/// assert_ne!(first.number(), second.number());
/// ```
#[derive(Debug)]
pub struct TaskSlot(usize);

impl TaskSlot {
    /// Takes the first free slot.
    pub fn take() -> Self {
        let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
        let free = taken.iter().position(|taken| !taken).unwrap_or(taken.len());
        if free == taken.len() {
            taken.push(false);
        }
        taken[free] = true;
        Self(free)
    }

    /// Number of the slot, from 0.
    pub fn number(&self) -> usize {
        self.0
    }
}

impl Drop for TaskSlot {
    fn drop(&mut self) {
        TAKEN.lock().unwrap_or_else(PoisonError::into_inner)[self.0] = false;
    }
}
