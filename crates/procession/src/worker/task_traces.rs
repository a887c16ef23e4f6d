//! [`TaskTraces`]: sends the spans and events of the tasks of this process to the coordinator, if its pool asks
//! for them ([`Builder::tracing`](crate::Builder::tracing)). Without the feature `tracing` there is none.

#[cfg(feature = "tracing")]
mod budget;
#[cfg(feature = "tracing")]
mod forwarder;
#[cfg(feature = "log")]
mod log_lines;
#[cfg(feature = "tracing")]
mod values;

#[cfg(not(feature = "tracing"))]
pub(super) use off::TaskTraces;
#[cfg(feature = "tracing")]
pub(super) use on::TaskTraces;

use crate::task::TaskId;

/// Sends a record about a task.
pub(super) type SendTrace = Box<dyn Fn(u64, &[u8]) + Send + Sync>;

impl TaskTraces {
    /// Runs a task, or the initializer, whose id is 0.
    pub(super) fn during<R>(traces: Option<&Self>, task: TaskId, run: impl FnOnce() -> R) -> R {
        match traces {
            None => run(),
            Some(traces) if task == TaskId(0) => traces.during_initializer(run),
            Some(traces) => traces.during_task(task, run),
        }
    }
}

#[cfg(feature = "tracing")]
mod on {
    use std::sync::{Arc, Once};

    use tracing::dispatcher::{self, Dispatch};
    use tracing::level_filters::LevelFilter;

    use super::SendTrace;
    use super::forwarder::Forwarder;
    use crate::task::TaskId;
    use crate::transport::{Marking, TRACES_VARIABLE};

    /// The subscriber of a worker.
    pub(in super::super) struct TaskTraces {
        forwarder: Arc<Forwarder>,
        /// The same.
        dispatch: Dispatch,
        installed: Once,
    }

    impl TaskTraces {
        /// `None` if the pool does not ask for spans and events.
        pub(in super::super) fn open(marking: Marking, send: SendTrace) -> Option<Self> {
            let value = std::env::var(TRACES_VARIABLE).ok()?;
            // A pool inside a task inherits the variable, which is not of that pool.
            let (coordinator, level) = value.split_once(':')?;
            if coordinator.parse() != Ok(marking.coordinator) {
                return None;
            }
            let level: LevelFilter = level.parse().ok()?;
            let forwarder = Arc::new(Forwarder::new(level, send));
            let dispatch = Dispatch::from(Arc::clone(&forwarder) as Arc<_>);
            Some(Self { forwarder, dispatch, installed: Once::new() })
        }

        /// Runs the initializer: it may install a subscriber of its own for the tasks.
        pub(super) fn during_initializer<R>(&self, run: impl FnOnce() -> R) -> R {
            let run = || self.forwarder.during(TaskId(0), run);
            dispatcher::with_default(&self.dispatch, run)
        }

        /// Runs a task.
        pub(super) fn during_task<R>(&self, task: TaskId, run: impl FnOnce() -> R) -> R {
            self.installed.call_once(|| {
                // An error: the program has a subscriber of its own.
                let _ = dispatcher::set_global_default(self.dispatch.clone());
                #[cfg(feature = "log")]
                super::log_lines::install(Arc::clone(&self.forwarder));
            });
            self.forwarder.during(task, run)
        }

        /// Tells what was dropped last. No task runs any more.
        pub(in super::super) fn end(&self) {
            self.forwarder.end();
        }
    }
}

#[cfg(not(feature = "tracing"))]
mod off {
    use super::SendTrace;
    use crate::task::TaskId;
    use crate::transport::Marking;

    /// There is none.
    pub(in super::super) enum TaskTraces {}

    impl TaskTraces {
        pub(in super::super) fn open(_: Marking, _: SendTrace) -> Option<Self> {
            None
        }

        pub(super) fn during_initializer<R>(&self, _: impl FnOnce() -> R) -> R {
            match *self {}
        }

        pub(super) fn during_task<R>(&self, _: TaskId, _: impl FnOnce() -> R) -> R {
            match *self {}
        }

        pub(in super::super) fn end(&self) {
            match *self {}
        }
    }
}
