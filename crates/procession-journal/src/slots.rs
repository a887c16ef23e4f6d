//! Where in this process a task runs: a number that no two tasks have at the same time, so that
//! each can be drawn in a lane of its own.

use std::sync::{Mutex, PoisonError};

/// The slots that are taken.
static TAKEN: Mutex<Vec<bool>> = Mutex::new(Vec::new());

/// A slot, until it is dropped.
#[derive(Debug)]
pub struct Slot(usize);

impl Slot {
    /// Takes the first one that is free.
    pub fn take() -> Self {
        let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
        let free = taken.iter().position(|taken| !taken).unwrap_or(taken.len());
        if free == taken.len() {
            taken.push(false);
        }
        taken[free] = true;
        Self(free)
    }

    /// Its number, from 0.
    pub fn number(&self) -> usize {
        self.0
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        TAKEN.lock().unwrap_or_else(PoisonError::into_inner)[self.0] = false;
    }
}
