//! Callbacks and other code of the user that panic while the coordinator passes results on.

use std::sync::Arc;
use std::task::{Context as Polled, Wake, Waker};
use std::thread;

use libtest_mimic::Trial;
use procession::{
    Context, Engine, Executor, Failure, Future, Registry, Task, TaskError, ThreadPool, as_completed,
};
use serde::{Deserialize, Deserializer, Serialize};

use crate::harness::{Gate, ON_PURPOSE};
use crate::tasks::{Echo, Pass, pool};

pub(crate) fn trials() -> Vec<Trial> {
    trials![
        an_output_whose_decoding_panics_is_an_error,
        an_output_whose_drop_panics_harms_no_other,
        a_waker_that_panics_harms_no_other,
    ]
}

pub(crate) fn add_to(registry: Registry) -> Registry {
    registry.with::<Give>()
}

/// Gives something that panics.
#[derive(Serialize, Deserialize)]
struct Give(When);

#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum When {
    Decoded,
    Dropped,
}

#[derive(Serialize)]
struct Unruly(When);

impl Task for Give {
    const NAME: &'static str = "give";
    type Output = Unruly;

    fn run(self, _: &Context) -> Result<Unruly, Failure> {
        Ok(Unruly(self.0))
    }
}

impl<'de> Deserialize<'de> for Unruly {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let when = When::deserialize(deserializer)?;
        assert!(when != When::Decoded, "{ON_PURPOSE}");
        Ok(Self(when))
    }
}

impl Drop for Unruly {
    fn drop(&mut self) {
        assert!(self.0 != When::Dropped || thread::panicking(), "{ON_PURPOSE}");
    }
}

fn an_output_whose_decoding_panics_is_an_error() {
    let pool = pool(2);
    let each = |result: Result<Unruly, TaskError>| match result {
        Err(TaskError::Undecodable { what, reason, .. }) => (what, reason),
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("it was decoded"),
    };
    let expected = ("output".to_owned(), ON_PURPOSE.to_owned());
    assert_eq!(each(pool.submit(Give(When::Decoded)).result()), expected);
    let many = pool.map((0..1_000).map(|_| Give(When::Decoded)));
    assert_eq!(many.map(each).filter(|reason| *reason == expected).count(), 1_000);
    assert_eq!(pool.stats().respawned, 0);
}

fn an_output_whose_drop_panics_harms_no_other() {
    let (processes, threads) = (pool(1), ThreadPool::new(1));
    for executor in [&processes as &dyn Engine, &threads] {
        let gate = Gate::new();
        // Behind it all gather, and are done while nobody waits for them.
        drop(executor.submit(Pass(gate.path())));
        let wanted = (0..300).map(|n| {
            drop(executor.submit(Give(When::Dropped)));
            executor.submit(Echo(n.to_string()))
        });
        let wanted: Vec<_> = wanted.collect();
        gate.open();
        let outputs = as_completed(wanted).map(Future::result);
        assert_eq!(outputs.filter(Result::is_ok).count(), 300);
    }
    assert_eq!(processes.stats().respawned, 0);
}

/// The waker of a runtime that has lost its mind.
struct Panics;

impl Wake for Panics {
    fn wake(self: Arc<Self>) {
        panic!("{ON_PURPOSE}");
    }
}

fn a_waker_that_panics_harms_no_other() {
    let pool = pool(1);
    let gate = Gate::new();
    let _ahead = pool.submit(Pass(gate.path()));
    let waker = Waker::from(Arc::new(Panics));
    let polled = (0..100).map(|n| {
        let mut future = pool.submit(Echo(n.to_string()));
        let poll = std::pin::Pin::new(&mut future);
        assert!(std::future::Future::poll(poll, &mut Polled::from_waker(&waker)).is_pending());
        future
    });
    let polled: Vec<_> = polled.collect();
    gate.open();
    assert_eq!(as_completed(polled).filter(|future| future.is_done()).count(), 100);
    assert_eq!(pool.stats().respawned, 0);
}
