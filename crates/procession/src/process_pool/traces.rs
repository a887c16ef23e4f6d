//! [`Traces`]: passes the spans and events of tasks on to the subscriber of the program. Without the feature
//! `tracing` there is none.
//!
//! ```text
//!   span of the submitter ─► "task" (task, name, worker, pid) ─► spans of the worker ─► events
//! ```
//!
//! A span of a worker is a span of the program's subscriber: its parent is that of the worker, or the span of
//! its task, which is made with the first record of the task and closed before the future is done. Whatever a
//! worker sends, its spans and events are below the spans of tasks that it has, or below its own span `worker`.

#[cfg(all(feature = "tracing", any(test, feature = "fuzzing")))]
mod fuzz;
#[cfg(feature = "tracing")]
mod replay;
#[cfg(feature = "tracing")]
mod sites;

#[cfg(all(feature = "tracing", any(test, feature = "fuzzing")))]
pub(crate) use fuzz::traced_from;
#[cfg(not(feature = "tracing"))]
pub(crate) use off::{SubmitterSpan, Traces, WorkerTraces};
#[cfg(feature = "tracing")]
pub(crate) use on::{SubmitterSpan, Traces};
#[cfg(feature = "tracing")]
pub(crate) use replay::WorkerTraces;

#[cfg(feature = "tracing")]
mod on {
    use std::ffi::OsString;

    use tracing::Span;
    use tracing::dispatcher::{self, Dispatch};
    use tracing::level_filters::LevelFilter;
    use tracing::subscriber::NoSubscriber;

    use crate::transport::TRACES_VARIABLE;

    /// That a pool passes on what its tasks trace.
    pub(crate) struct Traces {
        /// For tasks that were submitted outside of any span.
        pub(super) dispatch: Dispatch,
    }

    impl Traces {
        /// Tells the workers to send spans and events up to this level, if this thread has a subscriber.
        pub(in super::super) fn begin(
            level: Option<LevelFilter>,
            worker_env: &mut Vec<(OsString, OsString)>,
        ) -> Option<Self> {
            let level = level?.min(LevelFilter::current());
            let dispatch = dispatcher::get_default(Clone::clone);
            if level == LevelFilter::OFF || dispatch.is::<NoSubscriber>() {
                return None;
            }
            let value = format!("{}:{level}", std::process::id());
            worker_env.push((TRACES_VARIABLE.into(), value.into()));
            Some(Self { dispatch })
        }
    }

    /// The span in which a task was submitted.
    #[derive(Default)]
    pub(crate) struct SubmitterSpan(pub(super) Option<Span>);

    impl SubmitterSpan {
        /// The current span of this thread, if it is of interest.
        pub(in super::super) fn here(traces: Option<&Traces>) -> Self {
            Self(traces.map(|_| Span::current()).filter(|span| span.id().is_some()))
        }
    }
}

#[cfg(not(feature = "tracing"))]
mod off {
    use std::convert::Infallible;
    use std::ffi::OsString;

    use super::super::worker_handle::WorkerHandle;
    use crate::transport::Garbled;

    /// There is none.
    pub(crate) enum Traces {}

    impl Traces {
        pub(in super::super) fn begin(
            _: Option<Infallible>,
            _: &mut Vec<(OsString, OsString)>,
        ) -> Option<Self> {
            None
        }
    }

    #[derive(Default)]
    pub(crate) struct SubmitterSpan;

    impl SubmitterSpan {
        pub(in super::super) fn here(_: Option<&Traces>) -> Self {
            Self
        }
    }

    #[derive(Default)]
    pub(crate) struct WorkerTraces;

    impl WorkerTraces {
        pub(in super::super) fn pass(
            &mut self,
            traces: &Traces,
            _: &WorkerHandle,
            _: u64,
            _: &[u8],
        ) -> Result<(), Garbled> {
            match *traces {}
        }

        pub(in super::super) fn close_answered(&mut self, _: &WorkerHandle) {}

        pub(in super::super) fn end(&mut self, traces: &Traces, _: &WorkerHandle) {
            match *traces {}
        }
    }
}
