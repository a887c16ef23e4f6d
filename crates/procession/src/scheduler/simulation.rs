//! A simulation: drives the `Scheduler` through random schedules, and checks its laws after each
//! step.
//!
//! | module | simulates |
//! |---|---|
//! | `schedules` | callers that submit, cancel and shut down; workers that start, fail to start, answer, crash, stop for a while or lie; time |
//! | `world` | the coordinator's threads, which carry out actions late and in any order that is possible in a real pool |
//! | `workers` | a worker process, and the memory that it shares with the coordinator, which can be full |
//! | `laws` | nothing: checks the laws |
//!
//! A schedule follows from its seed alone. So a failure is replayed by [`run`] with the same seed.

mod laws;
mod schedules;
mod workers;
mod world;

use self::world::World;

/// What happened in one schedule, or in several.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Events that the scheduler handled.
    pub steps: u64,
    /// Tasks that were submitted.
    pub tasks: u64,
    /// Tasks with a reply.
    pub answered: u64,
    /// Tasks that died with their worker.
    pub died: u64,
    /// Tasks that were cancelled.
    pub cancelled: u64,
    /// Requests to tasks to stop.
    pub asked_to_stop: u64,
    /// Tasks that were refused after a shutdown, or ended by a broken pool.
    pub broken: u64,
    /// Tasks that ran for longer than their timeout.
    pub timed_out: u64,
    /// Chunks that were returned by a worker, or taken back after its end.
    pub taken_back: u64,
    /// Attempts after the first.
    pub retried: u64,
    /// Workers that started beside their predecessor.
    pub succeeded: u64,
    /// Spares that took the place of a worker.
    pub promoted: u64,
    /// Workers that were replaced because of their age.
    pub aged: u64,
    /// Calls for which the shared memory had no room.
    pub blocked: u64,
    /// False claims.
    pub lies: u64,
    /// Tasks that were charged with the end of workers, although their claims said that they had
    /// not begun.
    pub blamed: u64,
    /// Workers that were killed after a deadline against their claims.
    pub overdue: u64,
    /// Calls of several tasks to a worker with several slots.
    pub chunks_ahead: u64,
    /// Workers with fewer slots than configured.
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
            asked_to_stop: self.asked_to_stop + other.asked_to_stop,
            broken: self.broken + other.broken,
            taken_back: self.taken_back + other.taken_back,
            retried: self.retried + other.retried,
            succeeded: self.succeeded + other.succeeded,
            promoted: self.promoted + other.promoted,
            aged: self.aged + other.aged,
            blocked: self.blocked + other.blocked,
            lies: self.lies + other.lies,
            blamed: self.blamed + other.blamed,
            overdue: self.overdue + other.overdue,
            chunks_ahead: self.chunks_ahead + other.chunks_ahead,
            narrowed: self.narrowed + other.narrowed,
        }
    }
}

/// Runs the schedule of this seed. The error names the law that was broken, and the step.
pub fn run(seed: u64) -> Result<Summary, String> {
    let mut world = World::new(seed);
    world
        .run_schedule()
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
        // A simulation without these events would test nothing.
        for (what, count) in [
            ("answered", total.answered),
            ("died", total.died),
            ("cancelled", total.cancelled),
            ("asked to stop", total.asked_to_stop),
            ("broken", total.broken),
            ("timed out", total.timed_out),
            ("taken back", total.taken_back),
            ("retried", total.retried),
            ("run by a successor", total.succeeded),
            ("of a spare that was promoted", total.promoted),
            ("replaced because of their age", total.aged),
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
