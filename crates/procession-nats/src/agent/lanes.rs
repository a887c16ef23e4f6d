//! [`LaneRequests`]: which lane of the queue is asked for how many messages, a pure state machine.
//!
//! The lanes are asked one after the other, the most urgent first, for as many messages as there are free slots; the
//! server answers at once. In a lane that is found empty, a request for one message is left with the server. As
//! long as it is there, the lane is known to be empty, and is not asked.

use std::time::Duration;

use tokio::time::Instant;

use crate::names::QueueLane;

/// How long the server keeps a request for a message in an empty lane.
pub(super) const EXPIRES: Duration = Duration::from_secs(10);
/// How long an answer may be late.
const LATE: Duration = Duration::from_secs(1);

/// A request for messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LaneRequest {
    pub(super) lane: QueueLane,
    /// Statuses say for which request they come.
    pub(super) number: u64,
    pub(super) batch: usize,
    /// It is left with the server.
    pub(super) waits: bool,
}

#[derive(Debug, Clone, Copy)]
enum AskedLane {
    /// It is to be asked.
    Unknown,
    /// The number of messages that were requested from it and may still come.
    Asked { number: u64, left: usize, until: Instant },
    /// It was empty. The request for the next message is with the server.
    Empty { number: u64, until: Instant },
}

#[derive(Debug)]
pub(super) struct LaneRequests {
    lanes: [AskedLane; QueueLane::ALL.len()],
    number: u64,
}

impl LaneRequests {
    pub(super) fn new() -> Self {
        Self { lanes: [AskedLane::Unknown; QueueLane::ALL.len()], number: 0 }
    }

    /// The next request, if there are free slots and no answer is awaited.
    pub(super) fn next(&mut self, free: usize, now: Instant) -> Option<LaneRequest> {
        self.give_up_late(now);
        let is_asking = self.lanes.iter().any(|lane| matches!(lane, AskedLane::Asked { .. }));
        if free == 0 || is_asking {
            return None;
        }
        let unknown = self.lanes.iter().position(|lane| matches!(lane, AskedLane::Unknown))?;
        self.number += 1;
        let (number, until) = (self.number, now + LATE);
        self.lanes[unknown] = AskedLane::Asked { number, left: free, until };
        Some(LaneRequest { lane: QueueLane::ALL[unknown], number, batch: free, waits: false })
    }

    /// A message came from a lane.
    pub(super) fn message(&mut self, lane: QueueLane) {
        let state = &mut self.lanes[lane as usize];
        match state {
            AskedLane::Asked { left, .. } if *left > 1 => *left -= 1,
            _ => *state = AskedLane::Unknown,
        }
    }

    /// A request has ended, since there are no messages. Another one is left with the server.
    pub(super) fn empty(&mut self, number: u64, now: Instant) -> Option<LaneRequest> {
        let is_it = |state: &AskedLane| match state {
            AskedLane::Unknown => false,
            AskedLane::Asked { number: own, .. } | AskedLane::Empty { number: own, .. } => {
                *own == number
            }
        };
        let lane = self.lanes.iter().position(is_it)?;
        self.number += 1;
        let (number, until) = (self.number, now + EXPIRES + LATE);
        self.lanes[lane] = AskedLane::Empty { number, until };
        Some(LaneRequest { lane: QueueLane::ALL[lane], number, batch: 1, waits: true })
    }

    /// When the next answer is late.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let deadlines = self.lanes.iter().filter_map(|lane| match lane {
            AskedLane::Unknown => None,
            AskedLane::Asked { until, .. } | AskedLane::Empty { until, .. } => Some(*until),
        });
        deadlines.min()
    }

    /// The server has forgotten requests that it does not answer in time.
    fn give_up_late(&mut self, now: Instant) {
        for lane in &mut self.lanes {
            if let AskedLane::Asked { until, .. } | AskedLane::Empty { until, .. } = lane
                && now >= *until
            {
                *lane = AskedLane::Unknown;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_urgent_lane_that_may_have_messages_is_asked_first_and_never_for_too_many() {
        let (mut lanes, now) = (LaneRequests::new(), Instant::now());
        assert_eq!(lanes.next(0, now), None);
        let asks = |lane, number, batch| Some(LaneRequest { lane, number, batch, waits: false });
        let waits = |lane, number| Some(LaneRequest { lane, number, batch: 1, waits: true });
        assert_eq!(lanes.next(4, now), asks(QueueLane::High, 1, 4));
        assert_eq!(lanes.next(4, now), None, "one at a time");
        assert_eq!(lanes.empty(1, now), waits(QueueLane::High, 2));
        assert_eq!(lanes.empty(1, now), None, "it was answered");
        assert_eq!(lanes.next(4, now), asks(QueueLane::Normal, 3, 4));
        (0..3).for_each(|_| lanes.message(QueueLane::Normal));
        assert_eq!(lanes.next(1, now), None, "one message is still to come");
        lanes.message(QueueLane::Normal);
        assert_eq!(lanes.next(0, now), None);
        // A message of the urgent lane has come in between.
        lanes.message(QueueLane::High);
        assert_eq!(lanes.next(2, now), asks(QueueLane::High, 4, 2));
        lanes.message(QueueLane::High);
        assert_eq!(lanes.empty(4, now), waits(QueueLane::High, 5));
        assert_eq!(lanes.next(1, now), asks(QueueLane::Normal, 6, 1));
        assert_eq!(lanes.empty(6, now), waits(QueueLane::Normal, 7));
        assert_eq!(lanes.next(1, now), asks(QueueLane::Low, 8, 1));
        // No answer.
        assert_eq!(lanes.deadline(), Some(now + LATE));
        assert_eq!(lanes.next(1, now + LATE), asks(QueueLane::Low, 9, 1));
        assert_eq!(lanes.empty(9, now), waits(QueueLane::Low, 10));
        assert_eq!(lanes.next(1, now), None, "all are empty");
        assert_eq!(lanes.empty(7, now), waits(QueueLane::Normal, 11), "it has expired");
        let late = now + EXPIRES + LATE;
        assert_eq!(lanes.next(3, late), asks(QueueLane::High, 12, 3));
    }
}
