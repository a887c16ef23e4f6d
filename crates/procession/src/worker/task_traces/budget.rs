//! [`RateBudget`]: how many records of spans and events this process sends in a second. Records above this
//! number are dropped and counted: a task does not wait for the reader of its events.

use std::time::Duration;

/// Records that are sent in one second, and at once after a pause. The coordinator reads more lines in a second,
/// so that it does not stop reading a worker for its events.
const RECORDS: u64 = 20_000;
/// A record of more than this number of bytes counts as several.
const BYTES: usize = 1024;

/// Room for records, which grows with time.
#[derive(Debug)]
pub(super) struct RateBudget {
    /// In nanoseconds of a second: each record takes its share.
    room: u64,
    /// The time of the last look, in nanoseconds.
    looked_at: u64,
}

/// What a full budget is, and how much of it a record takes.
const FULL: u64 = Duration::from_secs(1).as_nanos() as u64;
const RECORD: u64 = FULL / RECORDS;

impl RateBudget {
    pub(super) fn new(now: u64) -> Self {
        Self { room: FULL, looked_at: now }
    }

    /// Takes the room of a record of this number of bytes, if there is any.
    pub(super) fn take(&mut self, now: u64, bytes: usize) -> bool {
        let passed = now.saturating_sub(self.looked_at);
        self.looked_at = self.looked_at.max(now);
        self.room = self.room.saturating_add(passed).min(FULL);
        let cost = RECORD * (1 + (bytes / BYTES) as u64);
        let has_room = self.room >= cost;
        if has_room {
            self.room -= cost;
        }
        has_room
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_records_go_at_once_and_then_at_a_rate() {
        let mut budget = RateBudget::new(7);
        let at_once = (0..100_000).filter(|_| budget.take(7, 10)).count() as u64;
        assert_eq!(at_once, RECORDS);
        let later = (0..10 * RECORDS).filter(|n| budget.take(7 + n * RECORD / 2, 10)).count();
        assert_eq!(later as u64, 5 * RECORDS - 1);
        let mut budget = RateBudget::new(0);
        assert_eq!((0..100_000).filter(|_| budget.take(0, 9 * BYTES)).count() as u64, RECORDS / 10);
    }
}
