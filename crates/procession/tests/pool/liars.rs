//! Workers whose claims are false, in the memory that they share with the coordinator: a deadline
//! counts by the coordinator's clock, and a task that ends its workers is charged for it.

use std::io::Write;
use std::time::{Duration, Instant};
use std::{fs, process, thread};

use libtest_mimic::Trial;
use procession::{
    Context, Executor, Failure, ProcessPool, Registry, Shutdown, Task, TaskError, TaskOptions,
};
use serde::{Deserialize, Serialize};

use crate::tasks::{Echo, await_workers, quiet, succeeds_with};
use crate::vandals;

pub(crate) fn trials() -> Vec<Trial> {
    trials![
        who_claims_not_to_have_begun_is_ended_and_charged_the_second_time,
        who_claims_to_have_begun_only_now_is_ended_at_its_deadline,
        who_claims_to_have_ended_is_ended_at_its_deadline,
        who_claims_to_have_ended_and_floods_the_replies_is_ended_at_its_deadline,
        who_undoes_its_claim_and_dies_fails_alone,
    ]
}

pub(crate) fn add_to(registry: Registry) -> Registry {
    registry.with::<Lie>()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Claim {
    NotBegun,
    BegunNow,
    Ended,
    EndedAndSays,
    NotBegunAndDies,
}

/// Notes a line in a file for each run, makes its claim false, and never ends by itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Lie {
    claim: Claim,
    runs: String,
}

impl Task for Lie {
    const NAME: &'static str = "lie";
    type Output = ();

    fn run(self, context: &Context) -> Result<(), Failure> {
        let mut runs = fs::OpenOptions::new().create(true).append(true).open(&self.runs)?;
        runs.write_all(b"run\n")?;
        loop {
            vandals::change_claims(|[state, begun_at, ended]| match self.claim {
                Claim::NotBegun | Claim::NotBegunAndDies => *state &= !0_u64 << 32,
                Claim::BegunNow => *begun_at = u64::MAX,
                Claim::Ended | Claim::EndedAndSays => *ended = 1,
            });
            match self.claim {
                Claim::NotBegunAndDies => process::abort(),
                Claim::EndedAndSays => (0..100).for_each(|_| context.say("not yet")),
                _ => thread::sleep(Duration::from_millis(5)),
            }
        }
    }
}

fn pool() -> ProcessPool {
    let pool = quiet().workers(1).on_say(|_| {});
    let pool = pool.build().expect("a pool");
    await_workers(&pool);
    pool
}

/// Runs the task with a deadline, and then others; gives what became of it and how often it ran.
fn lie(claim: Claim, timeout: Option<Duration>) -> (TaskError, usize) {
    let dir = tempfile::tempdir().expect("a directory");
    let runs = dir.path().join("runs").display().to_string();
    let pool = pool();
    let began = Instant::now();
    let task = Lie { claim, runs: runs.clone() };
    let future = match timeout {
        Some(timeout) => pool.submit_with(TaskOptions::new().timeout(timeout), task),
        None => pool.submit(task),
    };
    let others: Vec<_> = (0..20).map(|_| pool.submit(Echo("7".to_owned()))).collect();
    let error = future.result().expect_err("it never ends by itself");
    println!("{claim:?}: {error} after {:?}", began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    for other in others {
        assert!(other.result().is_ok());
    }
    succeeds_with(&pool, 20);
    pool.shutdown(Shutdown::Wait);
    (error, fs::read_to_string(runs).expect("it ran").lines().count())
}

const SOON: Option<Duration> = Some(Duration::from_millis(300));

fn who_claims_not_to_have_begun_is_ended_and_charged_the_second_time() {
    let (error, runs) = lie(Claim::NotBegun, SOON);
    assert!(matches!(error, TaskError::TimedOut { .. }), "{error:?}");
    assert_eq!(runs, 2);
}

fn who_claims_to_have_begun_only_now_is_ended_at_its_deadline() {
    let (error, runs) = lie(Claim::BegunNow, SOON);
    assert!(matches!(error, TaskError::TimedOut { .. }), "{error:?}");
    assert_eq!(runs, 1);
}

fn who_claims_to_have_ended_is_ended_at_its_deadline() {
    let (error, runs) = lie(Claim::Ended, SOON);
    assert!(matches!(error, TaskError::TimedOut { .. }), "{error:?}");
    assert_eq!(runs, 1);
}

fn who_claims_to_have_ended_and_floods_the_replies_is_ended_at_its_deadline() {
    let (error, runs) = lie(Claim::EndedAndSays, SOON);
    assert!(matches!(error, TaskError::TimedOut { .. }), "{error:?}");
    assert_eq!(runs, 1);
}

fn who_undoes_its_claim_and_dies_fails_alone() {
    let (error, runs) = lie(Claim::NotBegunAndDies, None);
    assert!(matches!(error, TaskError::WorkerDied(_)), "{error:?}");
    assert_eq!(runs, 2);
}
