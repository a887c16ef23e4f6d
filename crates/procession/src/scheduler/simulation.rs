//! Drives the `Scheduler` through random schedules in a simulated world, and checks its laws
//! after every step.
//!
//! - `schedules`: what happens, at random: callers submit, cancel and shut down; workers start, fail
//!   to start, answer, crash, stop for a while, lie; time passes.
//! - `world`: the coordinator's threads: they carry out actions late and in any order that the real
//!   world allows, and pass on what they note_run_time.
//! - `workers`: a worker process, and the memory between it and the coordinator, which can be full.
//! - `laws`: what must hold after every step.
//!
//! A schedule follows from its seed alone, so a failure can be replayed: [`run`] it again.

mod laws;
mod schedules;
mod workers;
mod world;

use self::world::World;

/// What one schedule was made of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Events that the scheduler handled.
    pub steps: u64,
    /// Tasks that were submitted.
    pub tasks: u64,
    /// Tasks that were answered.
    pub answered: u64,
    /// Tasks that ended with their worker.
    pub died: u64,
    /// Tasks that were cancelled.
    pub cancelled: u64,
    /// Tasks that were refused, or lost to a pool that could not work.
    pub broken: u64,
    /// Tasks that ran longer than they may.
    pub timed_out: u64,
    /// Calls that were given back, or taken from a worker that ended.
    pub taken_back: u64,
    /// Further attempts.
    pub retried: u64,
    /// Workers that took the seat of another while that was still there.
    pub succeeded: u64,
    /// Calls that found no room in the memory shared with their worker.
    pub blocked: u64,
    /// Claims that did not say what was the case.
    pub lies: u64,
    /// Tasks that were charged with the end of workers that had not claimed them.
    pub blamed: u64,
    /// Workers that were killed because a deadline had passed whatever they claimed.
    pub overdue: u64,
    /// Calls of several tasks that were sent to a worker with several slots.
    pub chunks_ahead: u64,
    /// Workers that run fewer tasks at a time than they were to.
    pub narrowed: u64,
}

impl std::ops::Add for Summary {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            steps: self.steps + other.steps,
            tasks: self.tasks + other.tasks,
            answered: self.answered + other.answered,
            died: self.died + other.died,
            timed_out: self.timed_out + other.timed_out,
            cancelled: self.cancelled + other.cancelled,
            broken: self.broken + other.broken,
            taken_back: self.taken_back + other.taken_back,
            retried: self.retried + other.retried,
            succeeded: self.succeeded + other.succeeded,
            blocked: self.blocked + other.blocked,
            lies: self.lies + other.lies,
            blamed: self.blamed + other.blamed,
            overdue: self.overdue + other.overdue,
            chunks_ahead: self.chunks_ahead + other.chunks_ahead,
            narrowed: self.narrowed + other.narrowed,
        }
    }
}

/// Runs the schedule of this seed; an error tells which law was broken, and when.
pub fn run(seed: u64) -> Result<Summary, String> {
    let mut world = World::new(seed);
    world
        .live()
        .map_err(|broken| format!("schedule {seed}, step {}: {broken}", world.summary.steps))?;
    Ok(world.summary)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_schedules_keep_the_laws() {
        let schedules: u64 = 10_000;
        let first = fastrand::u64(..u64::MAX - schedules);
        println!("schedules {first} to {}", first + schedules - 1);
        let threads =
            std::thread::available_parallelism().map_or(1, |threads| threads.get() as u64);
        let part = |n| {
            let seeds = (first + n..first + schedules).step_by(threads as usize);
            let runs = seeds.map(|seed| run(seed).unwrap_or_else(|broken| panic!("{broken}")));
            runs.fold(Summary::default(), |total, one| total + one)
        };
        let total = std::thread::scope(|scope| {
            let parts: Vec<_> = (0..threads).map(|n| scope.spawn(move || part(n))).collect();
            let parts = parts.into_iter().map(|part| part.join().expect("the laws hold"));
            parts.fold(Summary::default(), |total, one| total + one)
        });
        // A simulation in which nothing happens would prove nothing.
        for (what, count) in [
            ("answered", total.answered),
            ("died", total.died),
            ("cancelled", total.cancelled),
            ("broken", total.broken),
            ("timed out", total.timed_out),
            ("taken back", total.taken_back),
            ("retried", total.retried),
            ("run by a successor", total.succeeded),
            ("found no room", total.blocked),
            ("false claims", total.lies),
            ("sent together to several slots", total.chunks_ahead),
            ("narrowed", total.narrowed),
        ] {
            assert!(count > schedules / 20, "only {count} {what}");
        }
        for (what, count) in [("blamed", total.blamed), ("overdue", total.overdue)] {
            assert!(count > schedules / 200, "only {count} {what}");
        }
    }
}
