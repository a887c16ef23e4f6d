//! [`TaskJournal`]: what a worker writes into its journal about its tasks. Without the feature `journal`
//! there is none.
//!
//! ```text
//!   runner ── begin, end ──► RunnerLane: the running task, sums of short ones ──► lines of long and failed tasks
//!   flusher thread, every tenth of a second while there is work ──────────► begins of tasks that still run,
//!                                                                           sums, short tasks with labels
//! ```
//!
//! A short task, also one with a label, takes two locks, which no other thread holds for long, and makes no
//! system call. `LineBudget` bounds the number of lines.

#[cfg(feature = "journal")]
mod budget;
#[cfg(feature = "journal")]
mod lane;

#[cfg(feature = "journal")]
pub(super) use lane::RunnerLane;
#[cfg(not(feature = "journal"))]
pub(super) use off::{RunnerLane, TaskJournal};
#[cfg(feature = "journal")]
pub(super) use on::TaskJournal;

#[cfg(feature = "journal")]
mod on {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
    use std::thread::{self, Thread};
    use std::time::Duration;
    use std::{env, path, process};

    use procession_journal::{FORMAT, Journal, Level, LogEvent};

    use super::RunnerLane;
    use super::budget::{LineBudget, TICK};
    use crate::transport::{self, JOURNAL_VARIABLE, Marking, SharedRegion};
    use procession_os::threads::{self, ThreadSpec};

    /// The journal of this process.
    pub(in super::super) struct TaskJournal {
        shared: Arc<Shared>,
        lanes: Arc<Lanes>,
        flusher: Mutex<Option<thread::JoinHandle<()>>>,
    }

    type Lanes = Mutex<Vec<Arc<RunnerLane>>>;

    /// What all lanes use.
    pub(super) struct Shared {
        pub(super) journal: Journal,
        pub(super) budget: LineBudget,
        /// The memory that has the labels of the tasks that run.
        pub(super) region: Arc<SharedRegion>,
        /// Whether the flusher is awake, or will be.
        is_awake: AtomicBool,
        has_ended: AtomicBool,
        flusher: OnceLock<Thread>,
    }

    impl TaskJournal {
        /// Opens the journal if the coordinator keeps one. An error is printed, and the worker goes on
        /// without a journal.
        pub(in super::super) fn open(
            marking: Marking,
            build: &str,
            region: &Arc<SharedRegion>,
            stack: Option<usize>,
        ) -> Option<Self> {
            let value = env::var_os(JOURNAL_VARIABLE)?;
            // A pool inside a task inherits the variable, which is not of that pool.
            let prefix = format!("{}:", marking.coordinator);
            let dir = value.as_bytes().strip_prefix(prefix.as_bytes())?;
            let dir = path::Path::new(OsStr::from_bytes(dir));
            let journal = Journal::worker(dir, marking.worker, process::id());
            let opened = journal.map_err(|error| {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                format!("{error}: {}", cause.unwrap_or_default())
            });
            match opened.and_then(|journal| Self::start(journal, build, region, stack)) {
                Ok(journal) => Some(journal),
                Err(error) => {
                    let text = format!("worker: {error}; this worker keeps no journal\n");
                    let _ = std::io::Write::write_all(&mut std::io::stderr(), text.as_bytes());
                    None
                }
            }
        }

        fn start(
            journal: Journal,
            build: &str,
            region: &Arc<SharedRegion>,
            stack: Option<usize>,
        ) -> Result<Self, String> {
            let args = env::args_os().map(|arg| arg.to_string_lossy().into_owned()).collect();
            let (version, build) = (env!("CARGO_PKG_VERSION").to_owned(), build.to_owned());
            journal.record(Level::Debug, LogEvent::Start { version, build, args, format: FORMAT });
            let shared = Arc::new(Shared {
                journal,
                budget: LineBudget::default(),
                region: Arc::clone(region),
                is_awake: AtomicBool::new(false),
                has_ended: AtomicBool::new(false),
                flusher: OnceLock::new(),
            });
            let lanes = Arc::<Lanes>::default();
            let (shares, flushes) = (Arc::clone(&shared), Arc::clone(&lanes));
            let spec = ThreadSpec::new("journal").with_stack(stack);
            let flusher = spec
                .start(move || shares.flush_until_the_end(&flushes))
                .map_err(|error| threads::refusal(&error))?;
            let _ = shared.flusher.set(flusher.thread().clone());
            Ok(Self { shared, lanes, flusher: Mutex::new(Some(flusher)) })
        }

        /// A lane for one more runner.
        pub(in super::super) fn lane(&self) -> Arc<RunnerLane> {
            let mut lanes = lock(&self.lanes);
            let (shared, slot) = (Arc::clone(&self.shared), lanes.len());
            let lane = Arc::new(RunnerLane::new(shared, slot));
            lanes.push(Arc::clone(&lane));
            lane
        }

        /// Writes what is left. No task runs any more.
        pub(in super::super) fn end(&self) {
            self.shared.has_ended.store(true, Ordering::SeqCst);
            if let Some(flusher) = lock(&self.flusher).take() {
                flusher.thread().unpark();
                let _ = flusher.join();
            }
            self.shared.flush(&self.lanes, u64::MAX);
        }
    }

    impl Shared {
        fn flush_until_the_end(&self, lanes: &Lanes) {
            while !self.has_ended.load(Ordering::SeqCst) {
                if !self.is_awake.load(Ordering::SeqCst) {
                    thread::park();
                    continue;
                }
                thread::park_timeout(Duration::from_nanos(TICK));
                // Cleared before the lanes are read: a task that begins during the reading sets it again.
                self.is_awake.store(false, Ordering::SeqCst);
                if self.flush(lanes, transport::now()) {
                    self.is_awake.store(true, Ordering::SeqCst);
                }
            }
        }

        /// Writes what is due in all lanes. Returns whether there is more to come.
        fn flush(&self, lanes: &Lanes, now: u64) -> bool {
            let lanes = lock(lanes).clone();
            // Every lane: `any` would stop at the first.
            lanes.iter().filter(|lane| lane.flush(now)).count() > 0
        }

        pub(super) fn wake_up(&self) {
            if !self.is_awake.load(Ordering::Relaxed)
                && !self.is_awake.swap(true, Ordering::SeqCst)
                && let Some(flusher) = self.flusher.get()
            {
                flusher.unpark();
            }
        }
    }

    pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
        mutex.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(not(feature = "journal"))]
mod off {
    use std::fmt;
    use std::sync::Arc;
    use std::time::Duration;

    use crate::task::{SetLabel, TaskId};
    use crate::transport::{Marking, ReplyBuffer, SharedRegion, Status};

    /// There is none.
    pub(in super::super) enum TaskJournal {}

    #[derive(Debug)]
    pub(in super::super) enum RunnerLane {}

    impl TaskJournal {
        pub(in super::super) fn open(
            _: Marking,
            _: &str,
            _: &Arc<SharedRegion>,
            _: Option<usize>,
        ) -> Option<Self> {
            None
        }

        pub(in super::super) fn lane(&self) -> Arc<RunnerLane> {
            match *self {}
        }

        pub(in super::super) fn end(&self) {
            match *self {}
        }
    }

    impl RunnerLane {
        pub(in super::super) fn begin(&self, _: TaskId, _: &str, _: u32, _: u64) {
            match *self {}
        }

        pub(in super::super) fn end(&self, _: Status, _: Duration, _: &ReplyBuffer) -> bool {
            match *self {}
        }
    }

    impl SetLabel for RunnerLane {
        fn set_label(&self, _: TaskId, _: &dyn fmt::Display) {
            match *self {}
        }
    }
}
