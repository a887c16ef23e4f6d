//! [`Measures`]: the counters and histograms of a pool in the facade `metrics`. Without the feature `metrics` they
//! are nothing. `docs/cookbook.md` lists them; [`dashboard`](super::dashboard) has the same names in `/metrics`.

#[cfg(not(feature = "metrics"))]
pub(super) use off::Measures;
#[cfg(feature = "metrics")]
pub(super) use on::Measures;

/// How tasks ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EndKind {
    Done,
    Failed,
    Cancelled,
}

#[cfg(feature = "metrics")]
mod on {
    use std::time::Duration;

    use metrics::{Counter, Histogram, Unit, counter, histogram};

    use super::EndKind;
    use crate::panics;
    use crate::process_pool::PoolEvent;

    /// The handles of the recorder that the program had when the pool was built.
    pub(in super::super) struct Measures {
        tasks: [Counter; 3],
        retries: Counter,
        replacements: Counter,
        promotions: Counter,
        deaths: Counter,
        wait: Histogram,
        run: Histogram,
    }

    impl Measures {
        pub(in super::super) fn new() -> Self {
            // A recorder that panics here gets nothing.
            panics::catch(Self::register).unwrap_or_else(|_| Self::none())
        }

        fn register() -> Self {
            describe();
            let tasks = |outcome| counter!("procession_tasks_total", "outcome" => outcome);
            Self {
                tasks: [tasks("done"), tasks("failed"), tasks("cancelled")],
                retries: counter!("procession_task_retries_total"),
                replacements: counter!("procession_worker_replacements_total"),
                promotions: counter!("procession_spare_promotions_total"),
                deaths: counter!("procession_worker_deaths_total"),
                wait: histogram!("procession_task_wait_seconds"),
                run: histogram!("procession_task_run_seconds"),
            }
        }

        fn none() -> Self {
            let (none, never) = (Counter::noop, Histogram::noop);
            Self {
                tasks: [none(), none(), none()],
                retries: none(),
                replacements: none(),
                promotions: none(),
                deaths: none(),
                wait: never(),
                run: never(),
            }
        }

        /// Tasks have ended.
        pub(in super::super) fn ended(&self, outcome: EndKind, number: u64) {
            if number > 0 {
                let _ = panics::catch(|| self.tasks[outcome as usize].increment(number));
            }
        }

        /// This number of tasks has waited and run for these times, on average.
        pub(in super::super) fn ran(&self, waited: Duration, ran_for: Duration, number: u64) {
            let _ = panics::catch(|| {
                self.wait.record_many(waited.as_secs_f64(), number as usize);
                self.run.record_many(ran_for.as_secs_f64(), number as usize);
            });
        }

        /// Workers are started in place of others.
        pub(in super::super) fn replaced(&self, number: u64) {
            if number > 0 {
                let _ = panics::catch(|| self.replacements.increment(number));
            }
        }

        pub(in super::super) fn event(&self, event: &PoolEvent) {
            let counter = match event {
                PoolEvent::TaskRetried { .. } => &self.retries,
                PoolEvent::SparePromoted { .. } => &self.promotions,
                PoolEvent::WorkerExited { is_regular: false, .. } => &self.deaths,
                _ => return,
            };
            let _ = panics::catch(|| counter.increment(1));
        }

        /// Whether it needs the events.
        #[expect(clippy::unused_self, reason = "without the feature it is false")]
        pub(in super::super) fn follow_events(&self) -> bool {
            true
        }
    }

    fn describe() {
        use metrics::{describe_counter, describe_histogram};
        describe_counter!("procession_tasks_total", "Tasks that ended.");
        describe_counter!("procession_task_retries_total", "Attempts beyond the first.");
        describe_counter!(
            "procession_worker_replacements_total",
            "Workers that replaced one that died, was killed or was recycled."
        );
        describe_counter!(
            "procession_spare_promotions_total",
            "Spares that took the place of a worker."
        );
        describe_counter!(
            "procession_worker_deaths_total",
            "Workers that ended with a signal or an exit code other than 0, unless the pool needed them no more."
        );
        let seconds = Unit::Seconds;
        describe_histogram!("procession_task_wait_seconds", seconds, "From submission to start.");
        describe_histogram!("procession_task_run_seconds", seconds, "Durations of tasks.");
    }
}

#[cfg(not(feature = "metrics"))]
mod off {
    use std::time::Duration;

    use super::EndKind;
    use crate::process_pool::PoolEvent;

    pub(in super::super) struct Measures;

    impl Measures {
        pub(in super::super) fn new() -> Self {
            Self
        }

        pub(in super::super) fn ended(&self, _: EndKind, _: u64) {}

        pub(in super::super) fn ran(&self, _: Duration, _: Duration, _: u64) {}

        pub(in super::super) fn replaced(&self, _: u64) {}

        pub(in super::super) fn event(&self, _: &PoolEvent) {}

        pub(in super::super) fn follow_events(&self) -> bool {
            false
        }
    }
}
