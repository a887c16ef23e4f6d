//! Which claim in the shared memory stands for which of a worker's calls: the coordinator's own
//! book, which no worker can write in.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::wire::{Exchange, Garbled, Progress};

/// A worker's claims, by number: the turn of the call that each stands for.
#[derive(Debug, Default)]
pub(crate) struct Claims {
    turns: Vec<Option<u64>>,
    free: Vec<u32>,
}

impl Claims {
    /// A claim that is free, if there is one.
    pub(crate) fn next(&mut self, exchange: &Exchange) -> Option<u32> {
        if let Some(claim) = self.free.last() {
            return Some(*claim);
        }
        let claim = u32::try_from(self.turns.len()).ok()?;
        exchange.claim(claim)?;
        self.turns.push(None);
        self.free.push(claim);
        Some(claim)
    }

    /// Gives out the claim that was the next.
    pub(crate) fn lay_out(&mut self, exchange: &Exchange, claim: u32, turn: u64, short_turn: u32) {
        let next = self.free.pop();
        debug_assert_eq!(next, Some(claim), "the claim that was the next");
        self.turns[claim as usize] = Some(turn);
        if let Some(claim) = exchange.claim(claim) {
            claim.lay_out(short_turn);
        }
    }

    /// The call was answered, or taken back.
    pub(crate) fn release(&mut self, claim: u32) -> Result<(), Garbled> {
        let turn = self.turns.get_mut(claim as usize).ok_or(Garbled)?;
        turn.take().ok_or(Garbled)?;
        self.free.push(claim);
        Ok(())
    }

    /// The claim of this turn's call.
    pub(crate) fn of(&self, turn: u64) -> Option<u32> {
        self.given_out().find(|(_, given)| *given == turn).map(|(claim, _)| claim)
    }

    /// Takes back the calls of these turns that were not begun, and says which.
    pub(crate) fn strike(&mut self, exchange: &Exchange, turns: &RangeInclusive<u64>) -> Vec<u64> {
        let meant = self.given_out().filter(|(_, turn)| turns.contains(turn));
        let struck = meant
            .filter(|(claim, _)| exchange.claim(*claim).is_some_and(|claim| claim.strike() == 0));
        let struck: Vec<_> = struck.collect();
        for (claim, _) in &struck {
            let _ = self.release(*claim);
        }
        struck.into_iter().map(|(_, turn)| turn).collect()
    }

    /// How far the call of this turn has got.
    pub(crate) fn progress(&self, exchange: &Exchange, turn: u64) -> Option<Progress> {
        Some(exchange.claim(self.of(turn)?)?.progress())
    }

    /// The turns of the calls that were begun, and how long ago.
    pub(crate) fn begun(&self, exchange: &Exchange) -> Vec<(u64, Duration)> {
        let progress = |claim| exchange.claim(claim).map(|claim| claim.progress());
        let begun = |(claim, turn)| {
            let progress = progress(claim).filter(|progress| progress.begun > 0)?;
            Some((turn, progress.runs_for.unwrap_or_default()))
        };
        self.given_out().filter_map(begun).collect()
    }

    fn given_out(&self) -> impl Iterator<Item = (u32, u64)> {
        (0..).zip(&self.turns).filter_map(|(claim, turn)| Some((claim, (*turn)?)))
    }
}
