//! What the simulated coordinator notes about a process.

use std::time::{Duration, Instant};

use super::super::workers::{Order, SimulatedProcess};

impl SimulatedProcess {
    pub(super) fn order_end(&mut self, seq: u64, allowed: Option<Duration>) {
        self.orders.push(Order::End { seq, allowed });
        self.ending = Some(seq);
        for call in self.view.iter_mut().filter(|call| call.seq == seq) {
            call.stop_by = None;
        }
    }

    /// The scheduler knows that `count` tasks of a call were answered.
    pub(super) fn note_answers(&mut self, seq: u64, count: u32, slots: usize, now: Instant) {
        let Some(index) = self.view.iter().position(|call| call.seq == seq) else { return };
        let is_to_end = self.ending == Some(seq);
        let call = &mut self.view[index];
        call.tasks.drain(..call.tasks.len().min(count as usize));
        call.answered += count;
        if !is_to_end {
            call.could_run_since = Some(now);
        }
        if call.tasks.is_empty() {
            self.note_done(index, slots, now);
        }
    }

    /// The scheduler knows that `begun` tasks of a call have begun, and the others were taken back.
    pub(super) fn note_returned(&mut self, seq: u64, begun: u32, slots: usize, now: Instant) {
        let Some(index) = self.view.iter().position(|call| call.seq == seq) else { return };
        let call = &mut self.view[index];
        let staying = begun.saturating_sub(call.answered) as usize;
        self.given -= call.tasks.len().saturating_sub(staying) as u64;
        call.tasks.truncate(staying);
        if call.tasks.is_empty() {
            self.note_done(index, slots, now);
        }
    }

    pub(super) fn note_done(&mut self, index: usize, slots: usize, now: Instant) {
        let call = self.view.remove(index).expect("just found");
        self.ending.take_if(|ending| *ending == call.seq);
        if let Some(next) = self.view.get_mut(slots - 1) {
            next.could_run_since.get_or_insert(now);
        }
    }
}
